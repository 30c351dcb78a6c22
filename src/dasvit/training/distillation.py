"""Distillation: beside the labels, a network learns what a trained teacher says (Touvron et al. 2021, DeiT).

DeiT is arXiv:2012.12877; soft distillation is of Hinton, Vinyals and Dean (2015, arXiv:1503.02531).

Shapes: B images of a step (or of a micro-batch), S side of the student's image, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.config import TrainConfig
from dasvit.data import MEAN, STD, Preprocess
from dasvit.errors import UserError, listed
from dasvit.io.run_folder import find_model
from dasvit.io.shipped import find_shipped, shipped_names
from dasvit.models.cost import count_cost
from dasvit.models.finetune import sizes_of
from dasvit.models.folder import WEIGHTS, create, load_model, read_model_config
from dasvit.models.pretrained import find_weights, has_weights, published_input
from dasvit.session import Session
from dasvit.training.classifier import check_finite, read_input
from dasvit.training.evaluation import evaluate
from dasvit.training.start import Normalisation, digest_of, normalisation_of
from dasvit.training.steps import at_least_float32

Mode = Literal["hard", "soft"]


@dataclass(frozen=True)
class Source:
    """Where a teacher comes from, found without loading it.

    Attributes:
        name: The model's folder, or its name in timm.
        architecture: What timm calls the network.
        weights: The safetensors that hold its weights.
        classes: Names of the classes that it knows, in the order of its logits.
        preprocess: Side and normalisation of its images.
        load: Loads it.
    """

    name: str
    architecture: str
    weights: Path
    classes: tuple[str, ...]
    preprocess: Preprocess
    load: Callable[[], nn.Module]


class Teacher(nn.Module):
    """A trained network that is shown a student's images; it learns nothing, and stays in evaluation mode.

    Args:
        network: Maps images [B, 3, S', S'] to logits [B, C].
        own: Side S' and normalisation of its images.
        shown: Those of the student's.
    """

    def __init__(self, network: nn.Module, own: Preprocess, shown: Preprocess) -> None:
        super().__init__()
        self.network, self.side = network.eval().requires_grad_(False), own.image_size
        # Both are a product and a sum of the same pixels: pixels = (shown - shift) / scale.
        factor = own.scale / shown.scale
        self.factor: Tensor
        self.offset: Tensor
        self.register_buffer("factor", factor, persistent=False)
        self.register_buffer("offset", own.shift - factor * shown.shift, persistent=False)
        self.is_alike = bool((own.scale == shown.scale).all() and (own.shift == shown.shift).all())

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return what the teacher says of the student's images, [B, 3, S, S] -> logits [B, C]."""
        if not self.is_alike:
            images = images * self.factor + self.offset
        if images.shape[-1] != self.side:
            size = (self.side, self.side)
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        logits: Tensor = self.network(images)
        return logits


@dataclass(frozen=True)
class Distillation:
    """A training's loss where there is a teacher: (1 - w) · labels' loss + w · distillation loss.

    Attributes:
        teacher: Maps the student's images to logits.
        mode: hard or soft (see `distillation_loss`).
        weight: w.
        temperature: T, for soft.
    """

    teacher: nn.Module
    mode: Mode
    weight: float
    temperature: float

    def __call__(self, outputs: Any, images: Tensor, targets: Tensor, criterion: Any) -> Tensor:
        """Return the mean loss of some images.

        Args:
            outputs: The student's logits [B, C], from which both is learnt; or those of the class token's head and of
                the distillation token's, of which each learns its own.
            images: What the student has seen, augmented and mixed, [B, 3, S, S].
            targets: Labels [B], or mixed ones [B, C].
            criterion: The labels' loss.
        """
        pair = outputs if isinstance(outputs, tuple) else (outputs, outputs)
        logits, student = map(at_least_float32, pair)
        taught = distillation_loss(student, at_least_float32(self.teacher(images)), self.mode, self.temperature)
        loss: Tensor = (1 - self.weight) * criterion(logits, targets) + self.weight * taught
        return loss


def distillation_loss(student: Tensor, teacher: Tensor, mode: Mode, temperature: float = 1.0) -> Tensor:
    """Return the mean distillation loss of logits, [B, C] each.

    hard: the cross-entropy with the class that the teacher names, -log softmax(s)[argmax t] (DeiT, eq. 3).
    soft: T² KL(softmax(t/T) ‖ softmax(s/T)) (DeiT, eq. 2), the mean over images; DeiT's code divides by C as well.

    Args:
        student: Its logits s.
        teacher: The teacher's, t.
        mode: hard or soft.
        temperature: T.
    """
    if mode == "hard":
        return F.cross_entropy(student, teacher.argmax(dim=1))
    cold, taught = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(cold, taught, reduction="batchmean", log_target=True) * temperature**2


def find_teacher(name: str) -> Source:
    """Find a teacher; nothing is fetched.

    Args:
        name: A run folder (a training's, or a search's with a training in it), a model folder, the name of a model
            that comes with dasvit, or one of timm's whose weights are in the hub's cache on this disk.

    Raises:
        UserError: There is none, or it does not say what its images are.
    """
    path = Path(name).expanduser()
    if path.exists() or find_shipped(name):
        folder = find_model(path)
        described, architecture = read_input(folder), str(read_model_config(folder)["architecture"])
        if described.multilabel:
            raise UserError(
                f"the teacher {folder} was trained on images of several labels, and distillation is for one label an "
                "image: train one on these images first (dasvit train --model NAME --run runs/teacher)."
            )
        sizes_of(folder)  # refuses what takes no square images of three colours
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"the teacher {folder} holds no {WEIGHTS}: was its training cut off?")
        return Source(
            str(folder),
            architecture,
            folder / WEIGHTS,
            described.classes,
            described.preprocess,
            lambda: load_model(folder),
        )
    if len(Path(name).parts) > 1 or not timm.is_model(name.split(".")[0]):
        raise UserError(
            f"there is no teacher {name}: give train.teacher a run folder of `dasvit train`, a model folder, the name "
            f"of a model that comes with dasvit ({', '.join(shipped_names())}), or one of timm's whose weights are on "
            "this disk."
        )
    return _of_timm(name)


def _of_timm(name: str) -> Source:
    """Find a model of timm's whose published weights are on this disk; its classes are ImageNet's, or have no names."""
    first = "train it on these images first (dasvit train --model"
    if not has_weights(name):
        raise UserError(
            f"there are no published weights for the teacher {name}: {first} {name} --run runs/teacher) and give that "
            "run as train.teacher."
        )
    try:
        weights = find_weights(name)
    except UserError:
        raise UserError(
            f"the weights of the teacher {name} are not on this disk, and nothing is fetched for it: {first} {name} "
            "--pretrained --download true --run runs/teacher) and give that run as train.teacher."
        ) from None
    classes = int(timm.get_pretrained_cfg_value(name, "num_classes") or 0)
    names = ImageNetInfo("imagenet-1k").label_names() if classes == 1000 else map(str, range(classes))
    overlay = {"pretrained_cfg_overlay": {"file": str(weights)}}
    preprocess = Preprocess(*published_input(name))
    return Source(name, name, weights, tuple(names), preprocess, lambda: create(name, overlay))


def check_teacher(options: TrainConfig, classes: Sequence[str]) -> None:
    """Check that a recipe's teacher, where it has one, is there and knows the data's classes.

    Args:
        options: The recipe's section.
        classes: Names of the data's classes.

    Raises:
        UserError: It is not, or knows others.
    """
    if not options.teacher:
        return
    source = find_teacher(options.teacher)
    if source.classes != tuple(map(str, classes)):
        order = " in another order" if sorted(source.classes) == sorted(map(str, classes)) else ""
        raise UserError(
            f"the teacher {source.name} knows the {len(source.classes):,} classes {listed(source.classes)}{order}, but "
            f"the data have the {len(classes):,} classes {listed(list(classes))}: train it on these images first "
            "(dasvit train --model NAME --pretrained, or --init FOLDER) and give that run as train.teacher."
        )


def load_distillation(session: Session, student: nn.Module) -> Distillation | None:
    """Return what a training's teacher adds to its loss, and have the student's two heads learn apart.

    Args:
        session: The training's.
        student: The network that is trained; where it has a distillation token, its training mode changes.

    Returns:
        None: the recipe has no teacher.

    Raises:
        UserError: The teacher is not there, or cannot be loaded.
    """
    options = session.config.train
    if not options.teacher:
        return None
    tell: Any = getattr(student, "set_distilled_training", None)
    if tell and options.teacher_token:
        tell(True)
    teacher = load_teacher(find_teacher(options.teacher), session, normalisation_of(student))
    return Distillation(teacher, options.teacher_mode, options.teacher_weight, options.teacher_temperature)


def load_teacher(source: Source, session: Session, shown: Normalisation = (MEAN, STD)) -> Teacher:
    """Load a teacher onto this process's device, whole: of several processes each has its own.

    Args:
        source: The teacher.
        session: Of the training.
        shown: What the images that it is shown are normalised with.

    Raises:
        UserError: It cannot be loaded, or has not a logit for each class.
    """
    network = source.load()
    if vars(network).get("num_classes") != len(source.classes):
        raise UserError(f"the teacher {source.name} has not a logit for each of its classes.")
    students = Preprocess(session.config.model.image_size, *shown)
    return Teacher(network, source.preprocess, students).to(session.runtime.device)


def claim_teacher(session: Session, test: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Note who teaches a training, and what it reaches itself; return its multiply-adds for an image, 0 without one.

    Args:
        session: The training's, its precision settled and its folder its own.
        test: Batches of the test images.

    Raises:
        UserError: The run began with a teacher of other weights; or it gives no numbers.
    """
    options, runtime, run = session.config.train, session.runtime, session.run
    if not options.teacher:
        return 0
    source = find_teacher(options.teacher)
    digest, before = digest_of(source.weights), runtime.from_main(lambda: run.notes().get("teacher"))
    if before and before.get("weights") != digest:
        raise UserError(
            f"the teacher {source.name} has other weights now than when the run {run.path} began: put it back as it "
            "was, or give --run another folder."
        )
    if not before:
        teacher = load_teacher(source, session)
        cost = count_cost(teacher.network, teacher.side)
        shown = Preprocess(session.config.model.image_size).to(runtime.device)
        seen = evaluate(teacher, shown, test, runtime, session.classes)
        check_finite(Path(source.name), seen.loss)
        reached = {name: getattr(seen, name) for name in ("top1", "majority", "macro_f1", "images")}
        before = {"model": source.name, "architecture": source.architecture, "weights": digest, **cost.to_dict()}
        before |= reached
        if runtime.is_main:
            run.note(teacher=before)
    session.reporter.say(describe_teacher(before, options))
    return int(before["macs"])


def describe_teacher(noted: dict[str, Any], options: TrainConfig) -> str:
    """Return a line on a teacher, from what a run noted of it."""
    return (
        f"teacher: {noted['model']} ({noted['architecture']}, {noted['params']:,} parameters), which reaches a top-1 "
        f"of {noted['top1']:.2f} % (majority {noted['majority']:.2f} %) on the {noted['images']:,} test images; "
        f"{options.teacher_mode}, weight {options.teacher_weight:g}"
    )
