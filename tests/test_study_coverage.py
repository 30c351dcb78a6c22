"""What intervals and verdicts of a study are worth, by simulation: how often they hold what they say they do."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dasvit.study import statistics as ours
from dasvit.study.verdicts import summarise

TIMES = 2500
"""Simulated studies: a coverage of 0.95 comes out with a standard error of 0.0044."""
CELLS, SELECTION, TRAINING = 2.3, 1.0, 0.7
"""Standard deviations in points: of evenly drawn cells, of what finals see of a cell, and of trainings of one cell."""


def coverage(truth: float, draw: Callable[[], dict[str, Any]]) -> float:
    """Return how often an interval holds the truth; nearly always there is one."""
    found = [row for row in (draw() for _ in range(TIMES)) if row["low"] is not None]
    assert len(found) >= 0.98 * TIMES
    return float(np.mean([row["low"] <= truth <= row["high"] for row in found]))


@pytest.mark.parametrize(("found", "others", "sd"), [(4, 12, 1.0), (4, 12, 2.3), (3, 8, 1.0), (4, 4, 1.0)])
def test_relative_improvement(found: int, others: int, sd: float) -> None:
    rng = np.random.default_rng(0)
    draw = lambda: ours.relative_improvement(rng.normal(53, sd, found).tolist(), rng.normal(48, CELLS, others).tolist())  # noqa: E731
    assert 0.93 <= coverage(100 * 5 / 48, draw) <= 0.98


@pytest.mark.parametrize(("found", "others", "sd"), [(4, 4, 0.5), (4, 4, 1.0), (8, 4, 2.3), (3, 4, 1.0)])
def test_difference_to_the_control(found: int, others: int, sd: float) -> None:
    rng = np.random.default_rng(1)
    draw = lambda: ours.mean_difference(rng.normal(53, sd, found).tolist(), rng.normal(52, 1.0, others).tolist())  # noqa: E731
    assert 0.93 <= coverage(1.0, draw) <= 0.98


@pytest.mark.parametrize(("searches", "seeds"), [(4, 3), (4, 2), (8, 3), (4, 5)])
@pytest.mark.parametrize("sd", [0.0, 0.5, 1.0, 2.3])
def test_difference_to_a_reference(searches: int, seeds: int, sd: float) -> None:
    """Cells differ by sd, every training by TRAINING, and the reference's trainings are the same for all."""
    rng = np.random.default_rng(2)

    def draw() -> dict[str, Any]:
        ours_ = 52 + rng.normal(0, sd, (searches, 1)) + rng.normal(0, TRAINING, (searches, seeds))
        return ours.difference(ours_.tolist(), (50 + rng.normal(0, TRAINING, seeds)).tolist())

    assert 0.93 <= coverage(2.0, draw) <= 0.98


@pytest.mark.parametrize("cells", [8, 12, 22])
@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.7])
def test_kendalls_tau(cells: int, correlation: float) -> None:
    rng = np.random.default_rng(3)
    truth = 2 / math.pi * math.asin(correlation)

    def draw() -> dict[str, Any]:
        one, noise = rng.normal(size=(2, cells))
        other = correlation * one + math.sqrt(1 - correlation**2) * noise
        return ours.rank_correlation(one.tolist(), other.tolist())

    assert 0.93 <= coverage(truth, draw) <= 0.98


@pytest.mark.parametrize("searches", [3, 4, 8, 20])
def test_rates(searches: int) -> None:
    """Exactly, over all counts, and the mean over all shares: for one share counts are too coarse to be covered."""
    shares = np.linspace(0.0005, 0.9995, 1000)
    held = np.zeros_like(shares)
    for count in range(searches + 1):
        found = ours.rate(count, searches)
        within = (found["low"] <= shares) & (shares <= found["high"])
        held += within * stats.binom.pmf(count, searches, shares)
    assert 0.93 <= held.mean() <= 0.98


def pure_luck(rng: np.random.Generator, methods: int) -> dict[str, Any]:
    """Return a study of methods that, like the control, choose the best of twelve cells drawn evenly."""
    cells: dict[str, Any] = {}

    def train(key: str, quality: float) -> str:
        top1 = (quality + rng.normal(0, TRAINING, 3)).tolist()
        trainings = [{"run": "", "seed": 1000 + i, "top1": value, "top5": 99.0} for i, value in enumerate(top1)]
        cells[key] = {"genotype": None, "params": 1, "macs": 1, "trainings": trainings, "top1": float(np.mean(top1))}
        return key

    variants = [{"key": f"m{i}", "label": f"m{i}", "group": "methods", "value": None} for i in range(methods)]
    variants.append({"key": "control", "label": "best of 12", "group": "control", "value": None})
    searches = []
    for variant in variants:
        for seed in range(4):
            quality = rng.normal(48, CELLS, 12)
            best = quality[np.argmax(quality + rng.normal(0, SELECTION, 12))]
            cell = train(f"{variant['key']}{seed}", best)
            more: dict[str, Any] = {"epochs": [], "ranking": None, "seconds": 1.0, "peak_memory_mib": None}
            searches.append({"run": "", "variant": variant["key"], "seed": seed, "cell": cell, **more})
    luck = [train(f"random{i}", rng.normal(48, CELLS)) for i in range(8)]
    random = {"cells": luck, "macs": 1, "tolerance": 0.05}
    return {"variants": variants, "searches": searches, "cells": cells, "random": random, "published": None}


@pytest.mark.parametrize("methods", [1, 2])
def test_pure_luck_is_not_called_better_than_luck(methods: int) -> None:
    """Against unselected cells it would be, in most studies: no verdict hangs on that."""
    rng, right, fooled = np.random.default_rng(4), 0, 0
    for _ in range(500):
        summary = summarise(pure_luck(rng, methods))
        right += all("Not told apart from luck (best of 12)" in text for text in summary["verdicts"])
        fooled += summary["variants"][0]["test"]["p"] < 0.05
    assert right >= 0.93 * 500, right
    assert fooled >= 0.8 * 500, fooled


def test_a_method_that_is_better_is_called_so() -> None:
    """Five points above what the best of twelve reaches, in most studies."""
    rng, told = np.random.default_rng(5), 0
    for _ in range(100):
        study = pure_luck(rng, 1)
        for key in ("m00", "m01", "m02", "m03"):
            study["cells"][key]["top1"] += 5
        told += "Better than luck" in summarise(study)["verdicts"][0]
    assert told >= 80, told
