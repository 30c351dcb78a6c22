"""How a network is evaluated: every image's logits, and one record of figures that everything shows (docs/tasks.md).

Shapes: N images of a test set, B of a batch, C classes. Shares are in percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.report import label_scores, scores
from dasvit.runtime.distributed import Runtime
from dasvit.training.multilabel import label_loss

LARGEST_LOG = math.log(20.0)
"""The largest logarithm of a temperature, and minus the smallest."""


@dataclass(frozen=True)
class Evaluation:
    """What a network does on a test set.

    Attributes:
        top1: Share of images whose most probable class is right.
        top5: Share of images whose class is among the five most probable.
        loss: Mean cross-entropy.
        images: Number of images.
        majority: Share of the largest class: the top-1 of a constant.
        balanced_accuracy: Mean recall of the classes.
        macro_f1: Mean F1 of the classes.
        ece: Expected calibration error, over 15 bins.
        confusion: Images of class i that were taken for class j, `[C][C]`.
        logits: Float32 [N, C], in the order of the images, on the CPU.
        labels: Int64 [N].
        temperature: What the network's own logits were divided by. None: they are the network's own.
        ece_uncalibrated: The calibration error that they had before.
    """

    top1: float
    top5: float
    loss: float
    images: int
    majority: float
    balanced_accuracy: float
    macro_f1: float
    ece: float
    confusion: list[list[int]]
    logits: Tensor = field(compare=False, repr=False)
    labels: Tensor = field(compare=False, repr=False)
    temperature: float | None = None
    ece_uncalibrated: float | None = None

    head: ClassVar[str] = "top1"
    """The figure that stands for the others."""

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> Evaluation:
        """Return the figures of logits [N, C] and labels [N]; of labels [N, C] a `LabelEvaluation`."""
        if labels.ndim == 2:
            return LabelEvaluation.of_labels(logits, labels)
        count, classes = len(labels), logits.shape[1]
        best = logits.topk(min(5, classes), dim=1).indices
        hits = best == labels[:, None]
        losses = F.cross_entropy(logits.double(), labels, reduction="none")
        confusion = torch.bincount(labels * classes + best[:, 0], minlength=classes**2).reshape(classes, classes)
        confidence = logits.double().softmax(1).amax(1).nan_to_num(0.0)
        return cls(
            **scores.metrics(confusion.numpy()),
            top5=float(100 * hits.sum() / max(1, count)),
            loss=float(losses.sum() / max(1, count)),
            ece=scores.calibration_error(confidence.numpy(), hits[:, 0].numpy()),
            images=count,
            confusion=confusion.tolist(),
            logits=logits,
            labels=labels,
        )

    def calibrated(self, temperature: float) -> Evaluation:
        """Return the figures with logits divided by a temperature: none but loss and calibration error change."""
        found = Evaluation.of(self.logits / temperature, self.labels)
        return replace(found, temperature=temperature, ece_uncalibrated=self.ece)

    @property
    def score(self) -> float:
        """The figure that stands for the others, in percent."""
        value: float = getattr(self, self.head)
        return value

    @property
    def shares(self) -> NDArray[np.float32]:
        """The probability of every class, [N, C]."""
        probabilities: NDArray[np.float32] = self.logits.softmax(dim=1).numpy()
        return probabilities

    def summary(self) -> dict[str, Any]:
        """Return the figures, without those of single classes; top5 only where there are more than five classes."""
        names = ("top1", "top5", "loss", "images", "majority", "balanced_accuracy", "macro_f1", "ece")
        shown = [name for name in names if name != "top5" or len(self.confusion) > scores.FEW]
        if self.temperature is not None:
            shown += ["temperature", "ece_uncalibrated"]
        return {name: getattr(self, name) for name in shown}

    def record(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return all figures: the summary, those of every class, the confusion matrix, and a remark where one is due.

        Args:
            classes: Names of the classes.
        """
        rows = scores.class_rows(self.confusion, classes)
        return {**self.summary(), "remark": self.remark(classes), "by_class": rows, "confusion": self.confusion}

    def remark(self, classes: Sequence[str]) -> str:
        """Return a sentence where the network is no better than a constant, empty where it is."""
        return scores.remark(self.confusion, classes)

    def describe(self) -> str:
        """Return the figures in a line for the terminal."""
        top5 = f", top-5 {self.top5:.2f} %" if len(self.confusion) > scores.FEW else ""
        before = "" if self.ece_uncalibrated is None else f" ({self.ece_uncalibrated:.2f} % without temperature)"
        return (
            f"{self.images} images: top-1 {self.top1:.2f} % (majority {self.majority:.2f} %){top5}, "
            f"balanced accuracy {self.balanced_accuracy:.2f} %, macro-F1 {self.macro_f1:.2f} %, "
            f"ECE {self.ece:.2f} %{before}, loss {self.loss:.4f}"
        )


@dataclass(frozen=True, kw_only=True)
class LabelEvaluation(Evaluation):
    """What a network does on a test set whose images can have several labels (docs/tasks.md).

    What is of one label an image alone (top1, top5, majority, balanced_accuracy, the confusion matrix) is no number, or
    empty. The calibration error is that of the probabilities of all classes; the loss is the binary cross-entropy.

    Attributes:
        map: Mean average precision of the classes that have images.
        prevalence: Mean share of images that have a class: the map of a constant.
        micro_f1: F1 of all pairs of an image and a class.
        exact_match: Share of images whose predicted labels are all theirs and no others.
        labels: Int64 [N, C].
    """

    top1: float = math.nan
    top5: float = math.nan
    majority: float = math.nan
    balanced_accuracy: float = math.nan
    confusion: list[list[int]] = field(default_factory=list)
    map: float
    prevalence: float
    micro_f1: float
    exact_match: float

    head: ClassVar[str] = "map"

    @classmethod
    def of_labels(cls, logits: Tensor, labels: Tensor) -> Self:
        """Return the figures of logits [N, C] and labels [N, C]."""
        shares = logits.sigmoid().nan_to_num(0.0).numpy()
        truth = labels.numpy() > 0
        figures: dict[str, Any] = label_scores.label_metrics(truth, shares)
        return cls(
            **figures,
            loss=float(label_loss(logits.double(), labels)) if labels.numel() else 0.0,
            ece=scores.calibration_error(shares.ravel().astype(np.float64), truth.ravel()),
            images=len(labels),
            logits=logits,
            labels=labels,
        )

    @property
    def shares(self) -> NDArray[np.float32]:
        """The probability of every class, [N, C]; they do not add up to 1."""
        probabilities: NDArray[np.float32] = self.logits.sigmoid().numpy()
        return probabilities

    def summary(self) -> dict[str, Any]:
        """Return the figures, without those of single classes."""
        names = ["map", "prevalence", "micro_f1", "macro_f1", "exact_match", "loss", "images", "ece"]
        if self.temperature is not None:
            names += ["temperature", "ece_uncalibrated"]
        return {name: getattr(self, name) for name in names}

    def record(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return all figures: the summary, those of every class, and a remark where one is due."""
        rows = label_scores.label_rows(self.labels.numpy(), self.shares, classes)
        return {**self.summary(), "remark": self.remark(classes), "by_class": rows}

    def remark(self, classes: Sequence[str]) -> str:
        """Return a sentence where the network is no better than a constant, empty where it is."""
        if not self.images:
            return ""
        return label_scores.label_remark(self.summary(), int((self.shares > label_scores.THRESHOLD).sum()))

    def describe(self) -> str:
        """Return the figures in a line for the terminal."""
        before = "" if self.ece_uncalibrated is None else f" ({self.ece_uncalibrated:.2f} % without temperature)"
        return (
            f"{self.images} images: mAP {self.map:.2f} % (a constant's {self.prevalence:.2f} %), "
            f"micro-F1 {self.micro_f1:.2f} %, macro-F1 {self.macro_f1:.2f} %, all labels right "
            f"{self.exact_match:.2f} %, ECE {self.ece:.2f} %{before}, loss {self.loss:.4f}"
        )


@torch.no_grad()
def evaluate(
    model: nn.Module, preprocess: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], runtime: Runtime, classes: int
) -> Evaluation:
    """Evaluate a network on every image of a test set.

    Args:
        model: Maps images [B, 3, S, S] to logits [B, C or more].
        preprocess: Maps uint8 images [B, 3, h, w] to what the model takes.
        batches: uint8 images and labels, [B] or [B, C]; of several processes each has every world-th row of a batch, by
            its rank.
        runtime: Device and precision.
        classes: C.
    """
    was_training = model.training
    model.eval()
    preprocess.eval()
    parts: list[tuple[Tensor, Tensor]] = []
    for images, labels in batches:
        if len(images) or runtime.shards:  # without an image, the others need this one's share of the weights
            shown = images if len(images) else images.new_zeros(1, *images.shape[1:])
            with runtime.autocast():
                logits = model(preprocess(shown.to(runtime.device))).float()[: len(images), :classes]
        else:  # a batch smaller than the number of processes
            logits = torch.empty(0, classes)
        parts.append((logits, labels))
    model.train(was_training)
    found = [(logits.cpu(), labels.cpu()) for logits, labels in parts]
    return Evaluation.of(*joined(runtime.from_all(found), classes))


def fit_temperature(seen: Evaluation) -> float:
    """Return the temperature of the least loss on images held out (Guo et al. 2017, arXiv:1706.04599).

    Args:
        seen: What the network says of images that it was not trained on.
    """

    def loss(log: float) -> float:
        return float(label_loss(seen.logits.double() / math.exp(log), seen.labels))

    found = optimize.minimize_scalar(loss, bounds=(-LARGEST_LOG, LARGEST_LOG), method="bounded")
    return math.exp(float(found.x))


def joined(parts: Sequence[Sequence[tuple[Tensor, Tensor]]], classes: int) -> tuple[Tensor, Tensor]:
    """Return logits [N, C] and labels, [N] or [N, C], in the order of the images, from every process's rows."""
    several = any(rows.ndim == 2 for part in parts for _, rows in part)
    logits = [torch.empty(0, classes)]
    labels = [torch.empty((0, classes) if several else 0, dtype=torch.int64)]
    for batch in zip(*parts, strict=True):
        size, world = sum(len(rows) for _, rows in batch), len(batch)
        whole, names = torch.empty(size, classes), labels[0].new_empty(size, *labels[0].shape[1:])
        for rank, (some, their) in enumerate(batch):
            whole[rank::world], names[rank::world] = some, their
        logits.append(whole)
        labels.append(names)
    return torch.cat(logits), torch.cat(labels)
