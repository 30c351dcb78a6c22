"""What sets a training loss apart from a test loss, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dasvit.config.fields import AugmentConfig, SearchConfig, TrainConfig


def loss_marks(section: TrainConfig | SearchConfig | Mapping[str, Any]) -> str:
    """Return what is done to the images and labels of a training loss, as "augmented, smoothed"; empty: nothing.

    Args:
        section: A recipe's section train or search, or what a file holds of it.
    """
    fields = section if isinstance(section, Mapping) else vars(section)
    augment = fields.get("augment", {})
    chosen = augment if isinstance(augment, Mapping) else getattr(augment, "__dict__", {})
    is_augmented = any(chosen.get(name, usual) != usual for name, usual in vars(AugmentConfig()).items())
    marks = {"augmented": is_augmented, "smoothed": bool(fields.get("smoothing"))}
    marks["distilled"] = bool(fields.get("teacher"))
    return ", ".join(mark for mark, holds in marks.items() if holds)


def training_loss(section: TrainConfig | SearchConfig | Mapping[str, Any]) -> str:
    """Return what a training loss is called, as "training loss (augmented, smoothed)"."""
    marks = loss_marks(section)
    return f"training loss ({marks})" if marks else "training loss"
