"""What a study's numbers say, and how sure that is: scipy's tests on plain lists (definitions: docs/study.md)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 9999
"""The most permutations that are tried."""
FEWEST = 8
"""Cells below which Kendall's tau has no interval."""
TINY = 1e-12
"""What rounding makes of a width of 0."""
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


def relative_improvement(found: Sequence[float], others: Sequence[float]) -> Numbers:
    """Return RI = 100 (mean found - mean others) / mean others, with Welch's interval.

    The ratio's variance is the first order's: each mean's, over its number of cells, times the square of RI's slope in
    it. No RI where all others are 0.
    """
    if not any(others):
        return {"ri": None, "low": None, "high": None}
    ours, theirs = statistics.fmean(found), statistics.fmean(others)
    ri = 100 * (ours - theirs) / theirs
    welch = _welch(ri, [found, others], slopes=(100 / theirs, 100 * ours / theirs**2))
    return {"ri": ri, "low": welch["low"], "high": welch["high"]}


def mean_difference(found: Sequence[float], others: Sequence[float]) -> Numbers:
    """Compare two groups of cells by Welch's t-test: the difference of the means, its interval and p."""
    mean = statistics.fmean(found) - statistics.fmean(others)
    return {"mean": mean, **_welch(mean, [found, others])}


def _welch(value: float, groups: Sequence[Sequence[float]], slopes: Sequence[float] = (1.0, 1.0)) -> Numbers:
    """Return Student's interval (low, high) and two-sided p of a value to whose variance two groups' means add up.

    The degrees of freedom are Welch's and Satterthwaite's. All None where a group has fewer than two values, which
    leaves out a source of chance, or nothing varies.

    Args:
        value: The value.
        groups: The groups.
        slopes: How fast the value changes with each group's mean.
    """
    if min(map(len, groups)) > 1:
        parts = [slope**2 * statistics.variance(row) / len(row) for slope, row in zip(slopes, groups, strict=True)]
        variance = sum(parts)
        if variance > 0:
            freedom = variance**2 / sum(part**2 / (len(row) - 1) for part, row in zip(parts, groups, strict=True))
            error = math.sqrt(variance)
            width = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
            p = 2 * float(stats.t.sf(abs(value) / error, freedom))
            return {"low": value - width, "high": value + width, "p": p}
    return {"low": None, "high": None, "p": None}


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being asked together (Holm, 1979): any below a level may be called so.

    The chance that one or more of all true null hypotheses is called false stays below the level, however the
    questions hang together.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, highest = [0.0] * len(values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, (len(values) - place) * values[index])
        adjusted[index] = min(1.0, highest)
    return adjusted


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

    Searches and seeds both count as drawn: the variance is that of the searches' means over their number plus that of
    the seeds' means over theirs.

    Args:
        ours: For every search, the accuracy of its cell with each training seed.
        theirs: The network's, with the same seeds.

    Returns:
        mean of the differences, its interval (low, high) and p (see `_welch`); wins of how many pairs.
    """
    pairs = [[a - b for a, b in zip(row, theirs, strict=True)] for row in ours]
    rows = [statistics.fmean(row) for row in pairs]
    columns = [statistics.fmean(column) for column in zip(*pairs, strict=True)]
    mean = statistics.fmean(rows)
    flat = [value for row in pairs for value in row]
    return {"mean": mean, **_welch(mean, [rows, columns]), "wins": sum(value > 0 for value in flat), "pairs": len(flat)}


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> Numbers:
    """Return Kendall's tau-b with an interval by the jackknife over cells.

    tau is None where it has no meaning: fewer than three cells, or all equal. There is no interval from fewer than
    eight cells, for which none of those tried covered what it should, nor where leaving out a cell changes nothing.
    """
    x, y = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    n = len(x)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"tau": None, "low": None, "high": None, "n": n}
    tau, width = float(stats.kendalltau(x, y).statistic), 0.0
    if n >= FEWEST:
        less = _without_each(x, y)
        variance = (n - 1) / n * float(np.square(less - less.mean()).sum())
        width = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * math.sqrt(variance)
    if not width > TINY:
        return {"tau": tau, "low": None, "high": None, "n": n}
    return {"tau": tau, "low": max(-1.0, tau - width), "high": min(1.0, tau + width), "n": n}


def _without_each(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return tau-b of all cells but one, for each of them, [n]; 0 where the others are equal."""
    one, other = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
    both, own, theirs = (m.sum() - 2 * m.sum(axis=1) for m in (one * other, np.abs(one), np.abs(other)))
    scale = np.sqrt(own * theirs)
    found: NDArray[np.float64] = np.divide(both, scale, out=np.zeros_like(both), where=scale > 0)
    return found


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
