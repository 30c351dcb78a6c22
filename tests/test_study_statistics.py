"""A study's statistics, against scipy one value at a time, counting by hand and closed forms."""

import itertools
import math
import random
import statistics

import numpy as np
import pytest
from scipy import stats

from dasvit.report.run.collapse import collapse_of, describe_epochs, relative_entropy
from dasvit.study import statistics as ours

EDGES = ("prev2→x1", "prev1→x1", "prev2→x2", "prev1→x2", "x1→x2")


def test_mean_and_standard_deviation() -> None:
    assert ours.spread([1.0, 2.0, 6.0]) == {"mean": 3.0, "sd": pytest.approx(math.sqrt(7)), "n": 3}
    assert ours.spread([4.0]) == {"mean": 4.0, "sd": None, "n": 1}
    assert ours.spread([]) == {"mean": None, "sd": None, "n": 0}


def test_percentile_counts_ties_half() -> None:
    assert ours.percentile(3.0, [1.0, 2.0, 3.0, 4.0]) == pytest.approx(100 * 2.5 / 4)
    assert ours.percentile(9.0, [1.0, 2.0]) == 100 and ours.percentile(0.0, [1.0, 2.0]) == 0


def test_relative_improvement() -> None:
    found = ours.relative_improvement([88.0, 88.0], [80.0, 80.0])
    assert found == {"ri": pytest.approx(10.0), "low": None, "high": None}
    one, two = [80.0, 84.0, 88.0], [70.0, 80.0, 90.0, 76.0]
    spread = ours.relative_improvement(one, two)
    assert spread["ri"] == pytest.approx(100 * 5 / 79)
    # RI + 100 is linear in found: with found times 79/84, its slopes are equal, and it is Welch's test of these.
    welch = stats.ttest_ind(one, [value * 84 / 79 for value in two], equal_var=False).confidence_interval(0.95)
    assert spread["high"] - spread["low"] == pytest.approx(100 * (welch.high - welch.low) / 79)
    assert ours.relative_improvement([81.0], [80.0, 82.0])["low"] is None
    assert ours.relative_improvement([10.0, 20.0], [0.0, 5.0])["ri"] == pytest.approx(500)
    assert ours.relative_improvement([10.0, 20.0], [0.0, 0.0])["ri"] is None


def test_permutations_are_counted() -> None:
    """All C(7, 3) relabellings, one by one."""
    found, others = [5.0, 6.0, 9.0], [1.0, 5.5, 7.0, 2.0]
    pool, hits = found + others, 0
    for chosen in itertools.combinations(range(7), 3):
        one = [pool[i] for i in chosen]
        two = [pool[i] for i in range(7) if i not in chosen]
        hits += (
            statistics.fmean(one) - statistics.fmean(two) >= statistics.fmean(found) - statistics.fmean(others) - 1e-9
        )
    result = ours.permutation(found, others)
    assert result == {"p": pytest.approx(hits / 35), "least": pytest.approx(1 / 35)}
    assert ours.permutation([9.0, 8.0], [1.0, 2.0, 3.0])["p"] == pytest.approx(1 / 10)
    assert ours.permutation([1.0, 2.0], [9.0, 8.0, 7.0])["p"] == 1


def test_permutations_of_one() -> None:
    assert ours.permutation([5.0], [4.0, 5.0, 6.0, 1.0]) == {"p": 3 / 5, "least": 1 / 5}
    assert ours.permutation([4.0, 5.0, 6.0], [3.0]) == {"p": 1 / 4, "least": 1 / 4}
    assert ours.permutation([4.0, 2.0, 6.0], [3.0])["p"] == 2 / 4


def test_many_relabellings_are_drawn() -> None:
    rng = random.Random(0)
    found, others = [rng.gauss(1, 1) for _ in range(20)], [rng.gauss(0, 1) for _ in range(20)]
    result = ours.permutation(found, others)
    reference = stats.ttest_ind(found, others, alternative="greater").pvalue
    assert result["p"] == pytest.approx(reference, rel=0.3) and result["least"] == pytest.approx(1e-4)


def test_differences_are_paired_by_seed() -> None:
    theirs = [10.0, 20.0, 30.0]
    found = ours.difference([[11.0, 22.0, 33.0], [12.0, 23.0, 28.0]], theirs)
    pairs = np.array([[1.0, 2.0, 3.0], [2.0, 3.0, -2.0]])
    rows, columns = pairs.mean(axis=1).var(ddof=1) / 2, pairs.mean(axis=0).var(ddof=1) / 3
    freedom = (rows + columns) ** 2 / (rows**2 / 1 + columns**2 / 2)
    width = stats.t.ppf(0.975, freedom) * math.sqrt(rows + columns)
    assert found["mean"] == pytest.approx(1.5) and (found["wins"], found["pairs"]) == (5, 6)
    assert (found["low"], found["high"]) == (pytest.approx(1.5 - width), pytest.approx(1.5 + width))


def test_differences_without_a_spread_have_no_interval() -> None:
    equal = ours.difference([[11.0, 21.0], [11.0, 21.0]], [10.0, 20.0])
    single_search = ours.difference([[11.0, 25.0]], [10.0, 20.0])
    single_seed = ours.difference([[11.0], [12.0], [16.0]], [10.0])
    assert [found["mean"] for found in (equal, single_search, single_seed)] == [1.0, 3.0, 3.0]
    for found in (equal, single_search, single_seed):
        assert found["low"] is found["high"] is found["p"] is None


def test_p_of_a_difference_is_that_of_its_interval() -> None:
    theirs = [10.0, 20.0, 30.0]
    ours_ = [[11.0, 22.0, 33.0], [12.0, 23.0, 28.0]]
    edge = ours.difference(ours_, theirs)
    shifted = ours.difference([[value - edge["low"] for value in row] for row in ours_], theirs)
    assert shifted["p"] == pytest.approx(0.05)


def test_two_groups_are_compared_by_welchs_test() -> None:
    one, two = [80.0, 84.0, 88.0], [70.0, 80.0, 90.0, 76.0]
    found = ours.mean_difference(one, two)
    reference = stats.ttest_ind(one, two, equal_var=False)
    interval = reference.confidence_interval(0.95)
    assert found == pytest.approx({"mean": 5.0, "low": interval.low, "high": interval.high, "p": reference.pvalue})
    assert ours.mean_difference([80.0], two)["p"] is None and ours.mean_difference([1.0, 1.0], [0.0, 0.0])["p"] is None


def test_holm() -> None:
    """Holm's steps, one by one: the smallest of n against level / n, the next against level / (n - 1), …"""
    assert ours.holm([]) == [] and ours.holm([0.03]) == [0.03]
    assert ours.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    rng = random.Random(0)
    for _ in range(200):
        values = [rng.random() ** 3 for _ in range(5)]
        level, called, ordered = rng.random() / 5, set(), sorted(values)
        for place, value in enumerate(ordered):
            if value > level / (5 - place):
                break
            called.add(value)
        assert {v for v, p in zip(values, ours.holm(values), strict=True) if p <= level} == called


def test_kendalls_tau_and_its_interval() -> None:
    rng = random.Random(1)
    one = [float(rng.randrange(8)) for _ in range(14)]  # ties as well
    other = [value + rng.randrange(6) for value in one]
    found = ours.rank_correlation(one, other)
    assert found["tau"] == pytest.approx(stats.kendalltau(one, other).statistic) and found["n"] == 14
    # The jackknife with scipy's tau of all others.
    less = [stats.kendalltau(np.delete(one, i), np.delete(other, i)).statistic for i in range(14)]
    width = stats.t.ppf(0.975, 13) * math.sqrt(13 * np.var(less))
    assert (found["low"], found["high"]) == pytest.approx((found["tau"] - width, found["tau"] + width))
    assert ours.rank_correlation(one[:8], other[:8])["low"] is not None
    assert ours.rank_correlation(one[:7], other[:7])["low"] is None


def test_tau_where_there_is_none() -> None:
    assert ours.rank_correlation([1.0, 2.0], [1.0, 2.0])["tau"] is None
    assert ours.rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])["tau"] is None
    assert ours.rank_correlation([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0])["tau"] == pytest.approx(-1)
    up = [float(i) for i in range(9)]
    assert ours.rank_correlation(up, up) == {"tau": pytest.approx(1), "low": None, "high": None, "n": 9}
    alone = [0.0] * 8 + [1.0]  # all that is left without the last is equal
    assert -1 <= ours.rank_correlation(alone, up)["low"] < ours.rank_correlation(alone, up)["high"] <= 1


def test_precision_at_the_top() -> None:
    up = [float(i) for i in range(8)]
    assert ours.precision_at(up, up) == 1 and ours.precision_at(up, up[::-1]) == pytest.approx(2 / 5)
    assert ours.precision_at(up[:5], up[:5]) is None


def test_precision_with_ties_is_the_mean_over_lots() -> None:
    one, other = [3.0, 2.0, 2.0, 2.0, 1.0], [1.0, 1.0, 5.0, 4.0, 1.0]
    rng, hits = random.Random(0), 0.0
    for _ in range(4000):
        best = [sorted(range(5), key=lambda i: (-v[i], rng.random()))[:2] for v in (one, other)]
        hits += len(set(best[0]) & set(best[1])) / 2
    assert ours.precision_at(one, other, 2) == pytest.approx(hits / 4000, abs=0.02)


def test_rates() -> None:
    found = ours.rate(3, 4)
    z, p, n = 1.959964, 0.75, 4
    middle, width = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert found["share"] == 0.75
    assert found["low"] == pytest.approx((middle - width) / (1 + z**2 / n), abs=1e-5)
    assert found["high"] == pytest.approx((middle + width) / (1 + z**2 / n), abs=1e-5)
    assert ours.rate(0, 0)["share"] is None


def leading(*ops: str) -> dict[str, dict[str, float]]:
    """Return weights under which these operations are the strongest."""
    names = ("zero", "identity", "msa_2", "mlp_1")
    return {edge: {name: 0.7 if name == op else 0.1 for name in names} for edge, op in zip(EDGES, ops, strict=True)}


@pytest.mark.parametrize(
    ("ops", "why"),
    [
        (("msa_2", "mlp_1", "mlp_1", "mlp_1", "mlp_1"), []),
        (("mlp_1", "mlp_1", "mlp_1", "mlp_1", "mlp_1"), ["no attention"]),
        (("zero", "zero", "mlp_1", "mlp_1", "msa_2"), ["no attention"]),  # that attention reads nothing
        (("identity", "msa_2", "mlp_1", "zero", "mlp_1"), []),  # two of five
        (("identity", "msa_2", "mlp_1", "zero", "zero"), ["skips"]),
        (("identity", "identity", "identity", "identity", "mlp_1"), ["no attention", "skips"]),
    ],
)
def test_what_counts_as_a_collapse(ops: tuple[str, ...], why: list[str]) -> None:
    assert collapse_of(leading(*ops)) == why


def test_entropy_of_the_largest() -> None:
    even = {edge: {"identity": 0.5, "msa_2": 0.5} for edge in EDGES}
    assert relative_entropy(even) == pytest.approx(1)
    assert relative_entropy({"a": {"identity": 1.0, "zero": 0.0}}) == 0
    assert relative_entropy({"a": {"identity": 0.3}}) == 0  # nothing left to decide
    quarter = {"a": {"identity": 0.25, "msa_2": 0.75}, "b": {"mlp_1": 1.0}}
    assert relative_entropy(quarter) == pytest.approx(float(stats.entropy([0.25, 0.75], base=2)))


def test_epochs_of_the_monitor() -> None:
    line = {"stage": 2, "weights": leading(*["identity"] * 5), "mean_weights": {"identity": 0.7, "zero": 0.1}}
    judged = {**line, "monitor": {"mixture_top1": 61.5, "derived_top1": 40.0}}
    first, second = describe_epochs([line, judged])
    assert (first["epoch"], first["gap"], first["collapsed"]) == (1, None, ["no attention", "skips"])
    assert (second["epoch"], second["stage"], second["identity"], second["gap"]) == (2, 2, 0.7, 21.5)
