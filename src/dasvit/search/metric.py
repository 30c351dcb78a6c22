"""What candidates are ranked by (`search.metric`), and which of them the validation images cannot tell apart."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dasvit.io.files import write_whole
from dasvit.training.evaluation import Evaluation

Ranking = Literal["loss", "top1", "balanced_accuracy", "macro_f1", "map"]
Metric = Literal["auto", "loss", "top1", "balanced_accuracy", "macro_f1", "map"]
UNBALANCED = 2
"""How many times the smallest class's validation images the largest has where classes count as unbalanced."""
RESAMPLES = 200
"""Bootstrap samples of the validation images."""
BOOTSTRAP = 6
"""What random numbers of the bootstrap are for, beside the others of a search."""
FILE = "validation.npz"
"""What a candidate said of the validation images at its last rung, in its folder."""


def ranking_of(metric: Metric, evaluation: Evaluation, default: Ranking) -> Ranking:
    """Return what decides: a metric, or under auto the default; the loss where classes are unbalanced, or several.

    There many networks are constants at first, which no share tells apart, and the loss does (docs/lab-notes.md).

    Args:
        metric: `search.metric`.
        evaluation: On the validation images.
        default: loss or top1.
    """
    if metric != "auto":
        return metric
    if evaluation.labels.ndim == 2:
        return "loss"
    counts = torch.bincount(evaluation.labels)
    counts = counts[counts > 0]
    is_unbalanced = len(counts) > 0 and int(counts.max()) >= UNBALANCED * int(counts.min())
    return "loss" if is_unbalanced else default


def value_of(evaluation: Evaluation, ranking: Ranking) -> float:
    """Return what a candidate is ranked by, of which less is better: a loss, or what a share is short of 100 %."""
    value: float = getattr(evaluation, ranking)
    return value if ranking == "loss" else 100 - value


def score_of(evaluation: Evaluation, metric: Metric) -> float:
    """Return what a supernet's cell or network is ranked by, in percent, of which more is better.

    A loss becomes the geometric mean of the right classes' probabilities (of several labels an image: of every class's
    right answer).
    """
    ranking = ranking_of(metric, evaluation, "top1")
    value = value_of(evaluation, ranking)
    return 100 * math.exp(-value) if ranking == "loss" else 100 - value


def judged_by_of(metric: Metric, several: bool) -> str:
    """Return what `score_of` is called on the terminal: top-1, but of several labels an image the metric's name."""
    if not several:
        return "top-1"
    return {"map": "mAP", "macro_f1": "macro-F1"}.get(metric, "score (100 exp(-loss))")


def keep(folder: Path, evaluation: Evaluation) -> None:
    """Keep what a candidate said of the validation images."""
    content = io.BytesIO()
    np.savez(content, logits=evaluation.logits.numpy(), labels=evaluation.labels.numpy())
    write_whole(folder / FILE, content.getvalue())


def kept(folder: Path) -> Evaluation | None:
    """Return what a candidate said of the validation images; None where it is not there any more."""
    try:
        with np.load(folder / FILE, allow_pickle=False) as content:
            return Evaluation.of(torch.from_numpy(content["logits"]), torch.from_numpy(content["labels"]))
    except Exception:  # numpy's readers raise whatever a damaged file makes them
        return None


def ties(found: Mapping[int, Evaluation], best: int, metric: Metric, seed: int) -> list[int]:
    """Return who is no worse than the best by more than one standard error of the difference, the best among them.

    The standard error is a paired bootstrap's over the validation images (Efron 1979); the rule is that of one standard
    error (Breiman, Friedman, Olshen, Stone 1984, section 3.4.3).

    Args:
        found: What candidates said of the same images, by their numbers.
        best: Number of the best.
        metric: `search.metric`.
        seed: Fixes the bootstrap.
    """
    ranking = ranking_of(metric, found[best], "loss")
    values = {number: value_of(one, ranking) for number, one in found.items()}
    samples = {number: resampled(one, ranking, seed) for number, one in found.items()}
    return [
        number
        for number in found
        if number == best or values[number] - values[best] <= (samples[number] - samples[best]).std()
    ]


def resampled(evaluation: Evaluation, ranking: Ranking, seed: int) -> NDArray[np.float64]:
    """Return what a candidate is ranked by on draws with replacement of as many images, [RESAMPLES]."""
    chance, count = np.random.default_rng([seed, BOOTSTRAP]), len(evaluation.labels)
    draws = (torch.from_numpy(chance.integers(count, size=count)) for _ in range(RESAMPLES))
    again = (Evaluation.of(evaluation.logits[rows], evaluation.labels[rows]) for rows in draws)
    return np.array([value_of(one, ranking) for one in again])


def cheapest(numbers: Sequence[int], costs: Mapping[int, float]) -> int:
    """Return who costs least; of equal ones, the first."""
    return min(numbers, key=costs.__getitem__)
