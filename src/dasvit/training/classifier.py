"""A trained model that is shown images: what `dasvit predict`, `evaluate`, `export` and `demo` ask."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dasvit.config.limits import MAX_CLASSES, MAX_IMAGE_SIDE
from dasvit.data import Preprocess, View, open_image, predict_transform
from dasvit.data.decode import Window, decode
from dasvit.data.given import pixels_of
from dasvit.data.view import PLAIN, fit_of
from dasvit.errors import UserError
from dasvit.models.folder import load_model, read_model_config

MIN_CROP_PCT = 0.1
"""The smallest share of an image that a model may ask to look at; the image is enlarged by its inverse."""


@dataclass(frozen=True)
class ModelInput:
    """What a model folder says about the images that its model takes.

    Attributes:
        side: Side of the image in pixels.
        crop_pct: Share of an image's side that is looked at.
        classes: Names of the classes.
        preprocess: The normalisation that the model was trained with.
        view: How pictures became squares of 8-bit pixels in its training.
        enlarge: How smaller images are enlarged, bilinear or bicubic, where all of an image is looked at.
        temperature: What its logits are divided by before they become probabilities. None: nothing was fitted.
        multilabel: Whether an image can have several labels: probabilities are then sigmoids, one a class.
    """

    side: int
    crop_pct: float
    classes: tuple[str, ...]
    preprocess: Preprocess
    view: View = PLAIN
    enlarge: str = "bilinear"
    temperature: float | None = None
    multilabel: bool = False

    def shown(self, picture: Any) -> Tensor:
        """Return what the model is shown of a picture, uint8 [3, S, S].

        Args:
            picture: The path of a file, an image of PIL's, or a uint8 array [h, w] or [h, w, 3].

        Raises:
            UserError: It cannot be read.
        """
        window = self.view.window
        if isinstance(picture, (str, os.PathLike)):
            image = open_image(picture, window)
        else:
            image = decode(pixels_of(picture), "given", window=window)
        return predict_transform(self.side, self.crop_pct, self.view, self.enlarge)(image)


def read_input(folder: Path) -> ModelInput:
    """Read what a model folder says about its images.

    Raises:
        UserError: It does not say enough.
    """
    description = read_model_config(folder)
    cfg = description["pretrained_cfg"]
    try:
        side, crop_pct = int(cfg["input_size"][-1]), float(cfg.get("crop_pct", 1.0))
        mean, std = ([float(value) for value in cfg[key]] for key in ("mean", "std"))
        names = cfg.get("label_names") or description.get("label_names") or range(_class_count(cfg["num_classes"]))
        known = (description.get("dasvit") or {}).get("temperature")
        temperature = None if known is None else float(known)
        view = View(fit_of(cfg.get("crop_mode")), _window(description.get("dasvit")))
        # Models of older versions do not say how they enlarge, which they do bilinearly.
        enlarge = "bilinear" if view.fit == "crop" else str(cfg.get("interpolation"))
        classes = tuple(map(str, names))
        several = (description.get("dasvit") or {}).get("multilabel") is True
        found = ModelInput(side, crop_pct, classes, Preprocess(side, mean, std), view, enlarge, temperature, several)
        fits = 1 <= side <= MAX_IMAGE_SIDE and MIN_CROP_PCT <= crop_pct <= 1 and len(mean) == len(std) == 3
        if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"a temperature of {temperature}")
        if not fits or not all(map(math.isfinite, mean + std)) or min(std) <= 0 or isinstance(names, (str, dict)):
            raise ValueError("its numbers cannot be meant")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
        raise UserError(f"{folder}/config.json does not say what images the model takes ({error!r}).") from None
    return found


def _window(noted: Any) -> Window:
    """Return the window that a model's description notes; full: it notes none."""
    window = noted.get("window") if isinstance(noted, dict) else None
    if window is None:
        return "full"
    low, high = map(float, window)
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"the window {window!r}")
    return low, high


def _class_count(value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= MAX_CLASSES:
        raise ValueError(f"{value!r} classes")
    return value


class Classifier:
    """A trained model that is shown images.

    Args:
        folder: The model's folder.
        device: Where it computes.

    Attributes:
        described: What the folder says about its images.
        model: The network, in evaluation mode.

    Raises:
        UserError: The folder holds no model, or not all that is needed to use it.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.described = read_input(folder)
        self.model = load_classifier(folder, self.described, device)
        self._preprocess = self.described.preprocess.eval().to(device)

    def inputs(self, images: Tensor) -> Tensor:
        """Return what the network takes, uint8 [B, 3, S, S] -> float32 [B, 3, S, S] on the device."""
        prepared: Tensor = self._preprocess(images.to(self.device))
        return prepared

    @torch.inference_mode()
    def shares(self, images: Tensor) -> Tensor:
        """Return the probability of every class, uint8 [B, 3, S, S] -> float32 [B, C] on the CPU.

        Raises:
            UserError: The weights give no numbers.
        """
        return self.shares_of(self.model(self.inputs(images)))

    def shares_of(self, logits: Tensor) -> Tensor:
        """Return the probabilities that logits [B, C] stand for, as `shares` does."""
        logits = logits.float() / (self.described.temperature or 1.0)
        shares: Tensor = (logits.sigmoid() if self.described.multilabel else logits.softmax(dim=1)).cpu()
        check_finite(self.folder, float(shares.sum()))
        return shares


def load_classifier(folder: Path, described: ModelInput, device: torch.device) -> nn.Module:
    """Load a folder's model onto a device.

    Raises:
        UserError: It cannot be loaded, or has not a name for each of its classes.
    """
    model = load_model(folder)
    classes = vars(model).get("num_classes")
    if classes != len(described.classes):
        raise UserError(f"{folder}/config.json names {len(described.classes)} classes of a model that has {classes}.")
    return model.eval().to(device)


def check_finite(folder: Path, value: float) -> None:
    """Raise a UserError where a model's weights give no numbers."""
    if not math.isfinite(value):
        raise UserError(f"{folder} gives no finite numbers: the weights are damaged, or their training diverged.")
