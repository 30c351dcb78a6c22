"""How a network is evaluated: exact sums over a test set.

Shapes: B images, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.runtime.distributed import Runtime


@dataclass(frozen=True)
class Evaluation:
    """Accuracy on a test set.

    Attributes:
        top1: Share of images whose most probable class is right, in percent.
        top5: Share of images whose class is among the five most probable, in percent.
        loss: Mean cross-entropy.
        images: Number of images.
        confusion: Images of class i that were taken for class j, `[C][C]`.
    """

    top1: float
    top5: float
    loss: float
    images: int
    confusion: list[list[int]]

    def summary(self) -> dict[str, Any]:
        """Return the numbers without the confusion matrix."""
        return {"top1": self.top1, "top5": self.top5, "loss": self.loss, "images": self.images}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    preprocess: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    runtime: Runtime,
    classes: int,
) -> Evaluation:
    """Evaluate a network on every image of a test set.

    Args:
        model: Maps images [B, 3, S, S] to logits [B, C or more].
        preprocess: Maps uint8 images [B, 3, h, w] to what the model takes.
        batches: uint8 images and labels [B]; the shards of several processes must not overlap.
        runtime: Device and precision.
        classes: C.
    """
    was_training = model.training
    model.eval()
    preprocess.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=runtime.device)
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=runtime.device)
    for images, labels in batches:
        if not len(images):  # a batch smaller than the number of processes
            if runtime.shards:  # the others need this one's share of the weights
                with runtime.autocast():
                    model(preprocess(images.new_zeros(1, *images.shape[1:]).to(runtime.device)))
            continue
        labels = labels.to(runtime.device)
        with runtime.autocast():
            logits = model(preprocess(images.to(runtime.device))).float()[:, :classes]
        hits = logits.topk(min(5, classes), dim=1).indices == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([hits[:, 0].sum(), hits.sum(), loss]).to(sums)
        confusion += torch.bincount(labels * classes + logits.argmax(1), minlength=classes * classes)
    model.train(was_training)
    top1, top5, loss = runtime.sum(sums).tolist()
    confusion = runtime.sum(confusion)
    count = max(1, int(confusion.sum()))
    matrix = confusion.reshape(classes, classes).tolist()
    return Evaluation(100 * top1 / count, 100 * top5 / count, loss / count, count, matrix)
