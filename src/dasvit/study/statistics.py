"""What a study's numbers say, and how sure that is: scipy's tests on plain lists (definitions: docs/study.md)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 9999
"""Of bootstraps, and the most permutations that are tried."""
CONFIDENCE = 0.95
Numbers = dict[str, Any]
"""Figures by name; None where there are too few values for one."""


def spread(values: Sequence[float]) -> Numbers:
    """Return the mean, standard deviation (n - 1) and number of values."""
    mean = statistics.fmean(values) if values else None
    return {"mean": mean, "sd": statistics.stdev(values) if len(values) > 1 else None, "n": len(values)}


def percentile(value: float, others: Sequence[float]) -> float:
    """Return the percentage of others that a value beats; ties count half."""
    return float(stats.percentileofscore(others, value, kind="mean"))


def relative_improvement(found: Sequence[float], others: Sequence[float], seed: int = 0) -> Numbers:
    """Return RI = 100 (mean found - mean others) / mean others, with a bootstrap interval over cells (percentiles).

    Accuracies of 0 leave nothing to divide by: there is no RI where all others' are, and no interval where one is.
    """
    if not any(others):
        return {"ri": None, "low": None, "high": None}
    ri = _improvement(np.asarray(found), np.asarray(others))
    low = high = None
    if len(found) > 1 and len(others) > 1 and min(others) > 0:
        rng = np.random.default_rng(seed)
        how: dict[str, Any] = {"vectorized": True, "method": "percentile", "n_resamples": RESAMPLES}
        result = stats.bootstrap((found, others), _improvement, confidence_level=CONFIDENCE, rng=rng, **how)
        low, high = map(float, result.confidence_interval)
    return {"ri": float(ri), "low": low, "high": high}


def _improvement(found: Any, others: Any, axis: int = -1) -> Any:
    reference = np.mean(others, axis=axis)
    return 100 * (np.mean(found, axis=axis) - reference) / reference


def permutation(found: Sequence[float], others: Sequence[float], seed: int = 0) -> Numbers:
    """Test whether found cells are better than others by more than relabelling them would give (one-sided).

    Returns:
        p, and `least`: the smallest p that so few values can give. All relabellings are tried where there are at most
        RESAMPLES of them, else as many random ones.
    """
    possible = math.comb(len(found) + len(others), len(found))
    if min(len(found), len(others)) == 1:  # which scipy takes for a mistake
        alone, pool = (found[0], others) if len(found) == 1 else (-others[0], [-value for value in found])
        return {"p": (1 + sum(value >= alone for value in pool)) / possible, "least": 1 / possible}
    result = stats.permutation_test(
        (found, others),
        lambda one, two, axis: np.mean(one, axis=axis) - np.mean(two, axis=axis),
        vectorized=True,
        n_resamples=RESAMPLES,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return {"p": float(result.pvalue), "least": 1 / min(possible, RESAMPLES + 1)}


def difference(ours: Sequence[Sequence[float]], theirs: Sequence[float]) -> Numbers:
    """Compare searches with one network over paired training seeds.

    Args:
        ours: For every search, the accuracy of its cell with each training seed.
        theirs: The network's, with the same seeds.

    Returns:
        mean of the differences; low and high: its 95 % interval, None for a single search and where all differences
        are equal; wins of how many pairs.
        Searches and seeds both count as drawn: the variance is that of the searches' means over their number plus that
        of the seeds' means over theirs, with the degrees of freedom of Welch and Satterthwaite.
    """
    pairs = [[a - b for a, b in zip(row, theirs, strict=True)] for row in ours]
    rows = [statistics.fmean(row) for row in pairs]
    columns = [statistics.fmean(column) for column in zip(*pairs, strict=True)]
    found: Numbers = {"mean": statistics.fmean(rows), "low": None, "high": None}
    parts = [(statistics.variance(means) / len(means), len(means) - 1) for means in (rows, columns) if len(means) > 1]
    variance = sum(part for part, _ in parts)
    if len(rows) > 1 and variance:
        freedom = variance**2 / sum(part**2 / own for part, own in parts)
        width = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
        found |= {"low": found["mean"] - width, "high": found["mean"] + width}
    flat = [value for row in pairs for value in row]
    return found | {"wins": sum(value > 0 for value in flat), "pairs": len(flat)}


def rank_correlation(one: Sequence[float], other: Sequence[float], seed: int = 0) -> Numbers:
    """Return Kendall's tau-b with a bootstrap interval over cells (percentiles).

    tau is None where it has no meaning: fewer than three cells, or all equal. A resample that is all equal counts 0.
    """
    x, y = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"tau": None, "low": None, "high": None, "n": len(x)}
    tau = float(stats.kendalltau(x, y).statistic)
    signs = [np.sign(v[:, None] - v[None, :]) for v in (x, y)]
    agreement, ties = signs[0] * signs[1], [np.abs(sign) for sign in signs]

    def resampled(places: Any, axis: int = -1) -> Any:
        """Tau-b of resamples [..., n]: sums over pairs, each cell as often as it was drawn."""
        counts = (places[..., None] == np.arange(len(x))).sum(axis=-2).astype(float)
        both, own, others = (np.einsum("...i,ij,...j->...", counts, m, counts) for m in (agreement, *ties))
        return np.divide(both, np.sqrt(own * others), out=np.zeros_like(both), where=own * others > 0)

    rng = np.random.default_rng(seed)
    how: dict[str, Any] = {"vectorized": True, "method": "percentile", "n_resamples": RESAMPLES, "batch": 500}
    result = stats.bootstrap((np.arange(len(x)),), resampled, confidence_level=CONFIDENCE, rng=rng, **how)
    low, high = map(float, result.confidence_interval)
    return {"tau": tau, "low": low, "high": high, "n": len(x)}


def precision_at(one: Sequence[float], other: Sequence[float], top: int = 5) -> float | None:
    """Return the share of one ranking's best that are the other's best too; None where there are not more cells.

    Where cells tie for the last places, what is returned is the mean over drawing lots.
    """
    if len(one) <= top:
        return None
    return sum(a * b for a, b in zip(_membership(one, top), _membership(other, top), strict=True)) / top


def _membership(values: Sequence[float], top: int) -> list[float]:
    """Return each value's chance to be among the best."""
    border = sorted(values, reverse=True)[top - 1]
    above, level = sum(v > border for v in values), sum(v == border for v in values)
    return [1.0 if v > border else (top - above) / level if v == border else 0.0 for v in values]


def rate(count: int, total: int) -> Numbers:
    """Return a share with Wilson's 95 % interval."""
    if not total:
        return {"count": 0, "n": 0, "share": None, "low": None, "high": None}
    low, high = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return {"count": count, "n": total, "share": count / total, "low": float(low), "high": float(high)}
