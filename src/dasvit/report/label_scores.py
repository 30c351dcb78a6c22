"""What several labels an image say of a network: the metrics of docs/tasks.md, held against scikit-learn by the tests.

Shapes: N images, C classes; labels [N, C] of 0 and 1, and what the network says of each, shares [N, C] in [0, 1]. A
class is predicted where its share is above THRESHOLD. Figures are in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dasvit.report.scores import mean_of

Array = NDArray[np.float64]
THRESHOLD = 0.5


def label_metrics(labels: ArrayLike, shares: ArrayLike) -> dict[str, float]:
    """Return map, prevalence, micro_f1, macro_f1 and exact_match, in percent.

    map is the mean average precision of the classes that have images, prevalence the mean share of images that have
    these classes: the map of a constant. Macro-F1 is the mean F1 of the classes that have images or were predicted, as
    of one label an image; exact_match the share of images whose predicted labels are all theirs and no others.
    """
    found, truth = by_label(labels, shares), np.asarray(labels) > 0
    named = np.asarray(shares) > THRESHOLD
    has_images, is_known = found["images"] > 0, (found["images"] > 0) | named.any(axis=0)
    hits, both = (truth & named).sum(), truth.sum() + named.sum()
    return {
        "map": mean_of(found["ap"][has_images]),
        "prevalence": mean_of(found["prevalence"][has_images]),
        "micro_f1": float(200 * hits / max(1, both)),
        "macro_f1": mean_of(found["f1"][is_known]),
        "exact_match": float(100 * (truth == named).all(axis=1).mean()) if len(truth) else 0.0,
    }


def by_label(labels: ArrayLike, shares: ArrayLike) -> dict[str, Array]:
    """Return images, prevalence, ap, precision, recall and f1 of every class, [C] each; what divides by 0 is 0."""
    truth, said = np.asarray(labels) > 0, np.asarray(shares)
    named = said > THRESHOLD
    hits, images, claimed = ((truth & named).sum(axis=0), truth.sum(axis=0), named.sum(axis=0))
    return {
        "images": images.astype(np.float64),
        "prevalence": 100 * images / max(1, len(truth)),
        "ap": np.array([100 * average_precision(truth[:, i], said[:, i]) for i in range(truth.shape[1])]),
        "precision": 100 * hits / np.maximum(claimed, 1),
        "recall": 100 * hits / np.maximum(images, 1),
        "f1": 200 * hits / np.maximum(images + claimed, 1),
    }


def average_precision(truth: NDArray[np.bool_], shares: NDArray[Any]) -> float:
    """Return Σ (R_k − R_{k−1}) P_k over the thresholds k, the shares [N], falling; 0 of a class without images.

    P_k and R_k are precision and recall of the images whose share is at least the threshold (scikit-learn's
    `average_precision_score`, without interpolation).
    """
    if not truth.any():
        return 0.0
    order = np.argsort(-shares, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(shares[order])), len(shares) - 1)  # of equal shares the last
    hits = np.cumsum(truth[order])[ends]
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def label_rows(labels: ArrayLike, shares: ArrayLike, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return `by_label` as a dictionary a class, under the class's name."""
    found = by_label(labels, shares)
    keys = ("prevalence", "ap", "precision", "recall", "f1")
    return [
        {"class": name, "images": int(found["images"][i])} | {key: float(found[key][i]) for key in keys}
        for i, name in enumerate(names)
    ]


def label_remark(found: dict[str, float], named: int) -> str:
    """Return a sentence where a network is no better than a constant, empty where it is better.

    Args:
        found: What `label_metrics` returns.
        named: Labels that were predicted, of all images.
    """
    if sentence := no_better_map(found["map"], found["prevalence"]):
        return sentence
    return "" if named else "The network gives no class a probability above 0.5 on any image: it predicts no labels."


def no_better_map(mean: float, prevalence: float) -> str:
    """Return a sentence where an mAP is no better than a constant's, empty where it is better.

    Args:
        mean: The mAP, in percent.
        prevalence: Mean share of images that have a class, in percent.
    """
    if mean > prevalence:
        return ""
    return f"The network is no better than a constant, whose mAP is the mean prevalence ({prevalence:.2f} %)."
