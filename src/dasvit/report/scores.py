"""What a confusion matrix says of a network: the metrics of docs/tasks.md, each held against scikit-learn by the tests.

Shapes: C classes; a confusion matrix `[C][C]` counts images of class i that were taken for class j. Shares are in
percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dasvit.report.words import MOST_IMAGES, interval

Array = NDArray[np.float64]
FEW = 5
"""Classes up to which top-5 says nothing, and is left out."""


def metrics(confusion: ArrayLike) -> dict[str, float]:
    """Return top1, majority, balanced_accuracy and macro_f1 of a confusion matrix, in percent.

    majority is what a constant reaches that names the largest class for every image. Balanced accuracy is the mean
    recall of the classes that have images; macro-F1 the mean F1 of those that have images or were named for one.
    """
    counts, rows = np.asarray(confusion, dtype=np.float64), by_class(confusion)
    has_images, is_known = counts.sum(1) > 0, counts.sum(1) + counts.sum(0) > 0
    total = max(1.0, counts.sum())
    return {
        "top1": float(100 * np.trace(counts) / total),
        "majority": float(100 * counts.sum(1).max(initial=0.0) / total),
        "balanced_accuracy": mean_of(rows["recall"][has_images]),
        "macro_f1": mean_of(rows["f1"][is_known]),
    }


def by_class(confusion: ArrayLike) -> dict[str, Array]:
    """Return images [C], and precision, recall and f1 in percent, [C] each; what divides by 0 is 0."""
    counts = np.asarray(confusion, dtype=np.float64)
    hits, images, named = np.diag(counts), counts.sum(1), counts.sum(0)
    return {
        "images": images,
        "precision": 100 * hits / np.maximum(named, 1),
        "recall": 100 * hits / np.maximum(images, 1),
        "f1": 200 * hits / np.maximum(images + named, 1),
    }


def class_rows(confusion: ArrayLike, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return `by_class` as a dictionary a class, under the class's name."""
    found = by_class(confusion)
    return [
        {"class": name, "images": int(found["images"][i])}
        | {key: float(found[key][i]) for key in ("precision", "recall", "f1")}
        for i, name in enumerate(names)
    ]


def calibration_error(confidence: Array, hits: NDArray[np.bool_], bins: int = 15) -> float:
    """Return the expected calibration error in percent (Guo et al. 2017, arXiv:1706.04599, eq. 3).

    Args:
        confidence: Probability of the class that was named, [N].
        hits: Whether that was right, [N].
        bins: Bins of equal width over (0, 1]; the gap between accuracy and confidence in each counts by its images.
    """
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=confidence - hits, minlength=bins)
    return float(100 * np.abs(gaps).sum() / max(1, len(confidence)))


def remark(confusion: ArrayLike, names: Sequence[str]) -> str:
    """Return a sentence where a network is no better than a constant, empty where it is better."""
    counts = np.asarray(confusion, dtype=np.int64)
    images = int(counts.sum())
    if not images:
        return ""
    found, named = metrics(counts), np.flatnonzero(counts.sum(0))
    largest = names[int(counts.sum(1).argmax())]
    if len(named) == 1:
        only = names[int(named[0])]
        return f"The network calls every image {only}: it tells no class from another."
    return no_better(found["top1"], found["majority"], images, largest)


def no_better(top1: float, majority: float, images: float, largest: str = "the largest class") -> str:
    """Return a sentence where an accuracy is no better than a constant's, empty where it is better.

    Args:
        top1: The accuracy, in percent.
        majority: What naming the largest class for every image reaches, in percent.
        images: Number of images.
        largest: Name of that class.
    """
    constant = f"a constant that calls every image {largest} ({majority:.2f} %)"
    if top1 <= majority:
        return f"The network is no better than {constant}."
    if 1 <= images <= MOST_IMAGES and interval(top1, images)[0] <= majority:
        return f"On {images:,.0f} images the network cannot be told from {constant}."
    return ""


def mean_of(values: Array) -> float:
    """Return the mean of figures, 0 of none."""
    return float(values.mean()) if len(values) else 0.0
