"""Weights that a training begins with: those of a trained model's folder, or those that timm publishes."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from torch import nn

from dasvit.cell.subnet import Found
from dasvit.config import Config
from dasvit.data import MEAN, STD, Data
from dasvit.errors import UserError
from dasvit.io.run_folder import find_model
from dasvit.models.finetune import load_start, sizes_of, subject_of
from dasvit.models.folder import WEIGHTS, read_model_config
from dasvit.models.pretrained import find_weights, make_pretrained, published_input, weights_name
from dasvit.session import Session
from dasvit.training.classifier import read_input

Normalisation: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, on a scale of 0 to 1."""


def normalisation_of(model: nn.Module) -> Normalisation:
    """Return what a network's images are normalised with: what its first weights were trained with, or our own."""
    known: Normalisation = vars(model).get("normalisation", (MEAN, STD))
    return known


class FirstWeights(ABC):
    """Weights that a training begins with, in the place of fresh ones.

    Attributes:
        digest: SHA-256 of their file: a run that goes on must have begun with the same.
    """

    digest: str

    @abstractmethod
    def load(self, config: Config, data: Data) -> nn.Module:
        """Return the network with them, and with a fresh head where the data have other classes."""

    @abstractmethod
    def subject(self, model: nn.Module) -> Found | str:
        """Return what the loaded network is a network of."""

    @abstractmethod
    def say(self, session: Session) -> None:
        """Note where they come from, and say it."""


@dataclass(frozen=True)
class Start(FirstWeights):
    """A trained model whose weights a training begins with.

    Attributes:
        folder: The model's folder.
        classes: Names of the classes that its head knows.
        multilabel: Whether it was trained on images of several labels.
        digest: SHA-256 of its weights: a run that goes on must have begun with the same.
        normalisation: Of the images that it was trained on; it is kept.
    """

    folder: Path
    classes: tuple[str, ...]
    multilabel: bool
    digest: str
    normalisation: Normalisation = (MEAN, STD)

    @classmethod
    def read(cls, path: str, config: Config) -> Start:
        """Find the model of a run or model folder, and see that the recipe asks for its sizes.

        Raises:
            UserError: There is no model, or it cannot be what this recipe trains.
        """
        folder = find_model(path)
        for field, size in sizes_of(folder).items():
            asked = getattr(config.model, field)
            if field != "image_size" and asked != size:
                raise UserError(
                    f"the model in {folder} has model.{field} {size}, not {asked}: leave out --model.{field}, or train "
                    "from scratch, without --init."
                )
        known = read_input(folder)
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"{folder} holds no {WEIGHTS}: was its training cut off?")
        norms = read_model_config(folder)["pretrained_cfg"]
        normalisation = (tuple(norms["mean"]), tuple(norms["std"]))
        return cls(folder, known.classes, known.multilabel, digest_of(folder / WEIGHTS), normalisation)

    def keeps_head(self, data: Data) -> bool:
        """Tell whether the data have the classes that the model's head knows, one or several an image as it does."""
        return self.classes == tuple(data.classes) and self.multilabel == data.multilabel

    def load(self, config: Config, data: Data) -> nn.Module:
        """Return the model, with a fresh head where the data have other classes."""
        side, rate = config.model.image_size, config.train.drop_path
        model = load_start(self.folder, side, len(data.classes), keep_head=self.keeps_head(data), drop_path=rate)
        model.normalisation = self.normalisation  # type: ignore[assignment]
        return model

    def subject(self, model: nn.Module) -> Found | str:
        """Return what the model is a network of."""
        return subject_of(model, self.folder)

    def say(self, session: Session) -> None:
        """Note where the weights come from, and say it."""
        session.run.note(init_model=str(self.folder))
        same = self.keeps_head(session.data)
        head = "its head as well, for the classes are the same" if same else "with a fresh head"
        session.reporter.say(f"begins with the weights of {self.folder}, {head}")


@dataclass(frozen=True)
class Pretrained(FirstWeights):
    """A model of timm's with the weights that timm publishes for it.

    Attributes:
        name: timm's name.
        weights: The file of its weights.
        digest: SHA-256 of it.
    """

    name: str
    weights: Path
    digest: str

    @classmethod
    def find(cls, name: str, download: bool = False) -> Pretrained:
        """Find the weights of a name on this machine, or fetch them where that is allowed.

        Raises:
            UserError: There are none, or they are not here.
        """
        weights = find_weights(name, download)
        return cls(name, weights, digest_of(weights))

    def load(self, config: Config, data: Data) -> nn.Module:
        """Return the model with a fresh head."""
        side, rate = config.model.image_size, config.train.drop_path
        model = make_pretrained(self.name, self.weights, side, len(data.classes), rate)
        model.normalisation = published_input(self.name)[1:]  # type: ignore[assignment]
        return model

    def subject(self, model: nn.Module) -> str:
        """Return the name."""
        return self.name

    def say(self, session: Session) -> None:
        """Note where the weights come from, and say it; and where the images are far smaller than those were."""
        full = weights_name(self.name)
        session.run.note(init_model=full)
        session.reporter.say(f"begins with timm's weights {full}, with a fresh head")
        side, known = session.config.model.image_size, published_input(self.name)[0]
        if 2 * side <= known:
            session.reporter.say(
                f"these weights were trained on images of {known} pixels; here they see {side}: where the files are "
                f"larger, --model.image_size {known} usually gives more"
            )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
