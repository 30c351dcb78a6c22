"""Training on images of several labels: the loss, its weights, mixed targets, and what a recipe cannot ask for then.

Shapes: B images, C classes. Targets of several labels are [B, C]; of one label an image they are its number, [B].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn import functional as F

from dasvit.config import SearchConfig, TrainConfig
from dasvit.data.multilabel import has_several
from dasvit.errors import UserError, printable

LARGEST_WEIGHT = 20.0
"""The most that an image of a rare class counts for one without it, and its inverse the least."""


def label_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean loss of logits [B, C]: cross-entropy of labels [B], binary cross-entropy of labels [B, C]."""
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return F.binary_cross_entropy_with_logits(logits, smoothed(labels.to(logits), smoothing))


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """Return smoothed targets [B, C] as timm's BinaryCrossEntropy has them: 1 - s + s / C for 1, s / C for 0."""
    return targets * (1 - smoothing) + smoothing / targets.shape[1] if smoothing else targets


def label_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of images that are all right: the most probable class, or every label at 0.5; a scalar."""
    if labels.ndim == 1:
        return (logits.argmax(1) == labels).double().mean()
    return ((logits > 0) == (labels > 0)).all(dim=1).double().mean()


def hits_name(labels: Tensor) -> str:
    """Return what `label_hits` is called: top1, or exact_match of several labels an image."""
    return "top1" if labels.ndim == 1 else "exact_match"


class LabelMixup(Mixup):
    """timm's mixup and cutmix of a whole batch, for several labels an image: targets [B, C] are mixed as images are."""

    def __call__(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mix images [B, 3, S, S] in place with those of the batch in reverse; return them and targets [B, C]."""
        share = float(self._mix_batch(x))  # type: ignore[no-untyped-call] # timm's
        targets = target.to(x.dtype)
        return x, targets * share + targets.flip(0) * (1 - share)


def make_label_loss(options: TrainConfig, weights: Tensor | None = None) -> tuple[Mixup | None, Any]:
    """Return mixup and cutmix, where the recipe asks for them, and the mean binary cross-entropy over the classes.

    Args:
        options: The recipe's section.
        weights: Of images that have a class against those that do not, [C] (`positive_weights`). None: 1.
    """
    augment = options.augment

    def criterion(logits: Tensor, targets: Tensor) -> Tensor:
        weight = None if weights is None else weights.to(logits)
        target = smoothed(targets.to(logits), options.smoothing)
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)

    if augment.mixup or augment.cutmix:
        mixup = LabelMixup(mixup_alpha=augment.mixup, cutmix_alpha=augment.cutmix)  # type: ignore[no-untyped-call]
        return mixup, criterion
    return None, criterion


def positive_weights(labels: NDArray[np.int64]) -> Tensor:
    """Return what images that have a class count against those that do not, float32 [C].

    n_without / n_with, within LARGEST_WEIGHT and its inverse; 1 of a class that all images have, or none.

    Args:
        labels: Labels, int64 [N, C].
    """
    has = labels.sum(axis=0)
    lacks = len(labels) - has
    weights = np.clip(lacks / np.maximum(has, 1), 1 / LARGEST_WEIGHT, LARGEST_WEIGHT)
    return torch.from_numpy(np.where((has > 0) & (lacks > 0), weights, 1.0).astype(np.float32))


def weights_line(labels: NDArray[np.int64], names: Sequence[str], is_weighed: bool, rare: float) -> str:
    """Return what rare classes' images count for, in a sentence; or that they could count for more, where they do not.

    Args:
        labels: Labels of the training images, int64 [N, C].
        names: Names of the classes.
        is_weighed: Whether the recipe weighs them.
        rare: How many times as many images lack a class as have it where that is said of one that is not weighed.
    """
    weights = positive_weights(labels)
    place = int(weights.argmax())
    name, most = printable(names[place]), float(weights[place])
    if is_weighed:
        bounded = int((weights == LARGEST_WEIGHT).sum())
        more = f"; {bounded:,} classes would count for more" if bounded else ""
        return (
            "weights: an image with a class counts n_without / n_with times as much for it as an image without, "
            f"at most {most:.3g} times ({name}{more})"
        )
    if most < rare:
        return ""
    return (
        f"{name} is lacked by {most:.3g} times as many training images as have it, or more: look at the average "
        "precision of each class, and try --train.balance weights (docs/tasks.md)"
    )


def check_training(options: TrainConfig, labels: NDArray[np.int64]) -> None:
    """Refuse what a training cannot do with such labels.

    Args:
        options: The recipe's section train.
        labels: Of the training images, int64 [N], or [N, C] of several labels an image.

    Raises:
        UserError: It balances, monitors or distils what is not there.
    """
    _check_metric("train.monitor", options.monitor, has_several(labels))
    if has_several(labels) and options.teacher:
        raise UserError(
            "--train.teacher is for one label an image: its losses are of one class, and these images can have several "
            "labels. Leave it out (docs/distillation.md)."
        )
    if has_several(labels) and options.balance == "sampler":
        raise UserError(
            "--train.balance sampler draws images by their class, and these can have several labels: take weights, "
            "which weighs each class's images against the others (docs/tasks.md)."
        )


def check_ranking(options: SearchConfig, labels: NDArray[np.int64]) -> None:
    """Refuse a metric that such labels do not have.

    Args:
        options: The recipe's section search.
        labels: As for `check_training`.

    Raises:
        UserError: They do not have it.
    """
    _check_metric("search.metric", options.metric, has_several(labels))


def _check_metric(option: str, metric: str, several: bool) -> None:
    if several and metric in ("top1", "balanced_accuracy"):
        raise UserError(
            f"{option} {metric} is for one label an image, and these can have several: take map, macro_f1 or loss."
        )
    if not several and metric == "map":
        raise UserError(
            f"{option} map is for images of several labels, and these have one each: take macro_f1 or top1."
        )
