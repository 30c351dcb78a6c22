"""Strength by perturbation, against a network whose accuracy is known in closed form."""

import itertools
import json
import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dasvit.cell.genotype import Genotype, is_viable
from dasvit.cell.space import Space
from dasvit.search.derive import derive, strongest_edges
from dasvit.search.perturbation import perturbation_scores
from dasvit.search.stages import StageWeights
from helpers import SMALL, call_cli

SPACE = Space(2, ("zero", "identity", "msa_2", "mlp_1"))


def additive(gains: list[list[float]]) -> Tensor:
    """Return what each operation adds to a made-up supernet's accuracy while it is there, [E, O]."""
    return torch.tensor(gains, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(6))
def test_it_finds_the_operations_and_edges_that_matter_most(seed: int) -> None:
    draw = random.Random(seed)
    gains = additive([[9.0, *(draw.random() for _ in range(3))] for _ in SPACE.edges])

    def measure(weights: Tensor) -> float:
        return float(((weights[:, :4] > 0) * gains)[:, 1:].sum())

    # what the weights say is the opposite, and a bypass column is there, too
    weights = torch.cat([1 - gains / 10, torch.ones(5, 1)], dim=1)
    before = weights.clone()
    found = perturbation_scores(weights, SPACE.everything(), SPACE, measure, seed)
    assert torch.equal(weights, before)
    best = gains[:, 1:].max(dim=1)
    into_x2 = sorted(range(2, 5), key=lambda e: -float(best.values[e]))[:2]
    ops = [
        SPACE.operations[1 + int(best.indices[e])] if e < 2 or e in into_x2 else "zero" for e in range(len(SPACE.edges))
    ]
    stage = StageWeights.of_scores(found, SPACE.everything(), SPACE)
    derived = derive(stage.weights, stage.alive, SPACE, rule="darts")
    assert derived.unconstrained == Genotype.from_ops(2, ops)


def test_later_edges_are_judged_with_the_earlier_ones_decided() -> None:
    seen = []

    def measure(weights: Tensor) -> float:
        seen.append((weights > 0).sum(dim=1).tolist())
        return float(weights[:, 2].sum())

    found = perturbation_scores(torch.full((5, 4), 0.25), SPACE.everything(), SPACE, measure, 0)
    assert [max(row, key=row.__getitem__) for row in found] == ["msa_2"] * 5
    assert all(row.keys() == {"identity", "msa_2", "mlp_1"} for row in found)
    order = list(range(5))
    random.Random(0).shuffle(order)
    for place, edge in enumerate(order):
        whole = seen[4 * place]
        assert [whole[e] for e in order[:place]] == [1] * place and whole[edge] == 4
    assert seen[20] == [1] * 5  # and then edges are removed
    assert all(counts[edge] == 0 for edge, counts in enumerate(seen[21:]))


def test_pruned_operations_are_not_measured() -> None:
    alive = tuple((True, True, e == 4, False) for e in range(5))
    found = perturbation_scores(torch.tensor(alive) / 3, alive, SPACE, lambda weights: float(weights.sum()), 0)
    left = [{op for op, is_alive in zip(SPACE.operations, mask, strict=True) if is_alive} for mask in alive]
    assert [row.keys() for row in found] == [ops - {"zero"} for ops in left]


def test_weights_that_stand_for_scores_choose_the_same() -> None:
    draw = random.Random(3)
    scores = [{op: draw.uniform(-100, 100) for op in SPACE.operations[1:]} for _ in SPACE.edges]
    stage = StageWeights.of_scores(scores, SPACE.everything(), SPACE)
    for row, found in zip(scores, stage.weights, strict=True):
        assert found == pytest.approx([0.0, *map(math.exp, row.values())])
    free = derive(stage.weights, stage.alive, SPACE).unconstrained
    assert free == strongest_edges(scores, SPACE, 2)


@pytest.mark.parametrize("rule", ["darts", "strongest"])
def test_skips_are_restricted_exactly(rule: str) -> None:
    def count(ops: tuple[str, ...]) -> int:
        return ops.count("identity")

    for seed, limit in itertools.product(range(5), range(3)):
        draw = random.Random(seed)
        weights = [[draw.random() * (3 if op == "identity" else 1) for op in SPACE.operations] for _ in SPACE.edges]
        found = derive(weights, SPACE.everything(), SPACE, rule=rule, max_skips=limit)
        best = max(
            (
                ops
                for ops in itertools.product(SPACE.operations, repeat=5)
                if count(ops) <= limit
                and is_viable(Genotype.from_ops(2, ops))
                and (rule == "strongest" or (sum(op != "zero" for op in ops[2:]) == 2 and "zero" not in ops[:2]))
            ),
            key=lambda ops: (
                torch.tensor(
                    [
                        weights[e][SPACE.operations.index(op)]
                        for e, op in enumerate(ops)
                        if rule == "strongest" or op != "zero"
                    ],
                    dtype=torch.float64,
                )
                .log()
                .sum()
                .item()
            ),
        )
        assert found.genotype.ops == best
        assert ("skips" in found.reason) == (count(found.unconstrained.ops) > limit)


def test_from_the_command_line(tmp_path: Path) -> None:
    run = tmp_path / "r"
    assert call_cli("search", *SMALL, "--run", run)[0] == 0
    status, out, err = call_cli("derive", run, "--rule", "perturbation", "--max-skips", 1, "--json")
    assert status == 0, err
    result = json.loads(out)
    assert is_viable(Genotype.from_dict(result["genotype"]))
    assert Path(result["cell"]).name == "perturbation_2-edges_skips-1.json"
    # the same measured at the search's end
    status, out, err = call_cli(
        "search",
        *SMALL,
        "--search.derive.rule=perturbation",
        "--search.derive.max_skips=1",
        "--run",
        tmp_path / "p",
        "--json",
    )
    assert status == 0, err
    assert json.loads(out)["genotype"] == result["genotype"]
    for path in (run / "checkpoints").glob("*.pt"):
        path.unlink()
    status, _, err = call_cli("derive", run, "--rule", "perturbation")
    assert status == 2 and "holds no checkpoint" in err


def test_mistakes(tmp_path: Path) -> None:
    for arguments, words in {
        ("search", *SMALL, "--method", "dart+"): "Did you mean 'darts+'",
        ("search", *SMALL, "--method", "random", "--search.target-macs", "1M"): "takes no target",
        ("search", *SMALL, "--method", "evolution", "--search.derive.rule=perturbation"): "no mixture",
        ("search", *SMALL, "--search.target-macs", "manyM"): "--search.target_macs takes a number such as 6M",
        ("search", *SMALL, "--search.target-mcas", "1M"): "Did you mean --search.target_macs",
        ("search", *SMALL, "--search.p_darts.dropout=[1.5]"): "rates in [0, 1)",
        ("search", *SMALL, "--search.evolution.mutation=0"): "search.evolution.mutation must lie in (0, 1]",
        ("search", *SMALL, "--method", "random", "--search.random.reference", "nowhere/x"): "there is no file",
    }.items():
        status, _, err = call_cli(*arguments, "--run", tmp_path / "r")
        assert status == 2 and words in err and "Traceback" not in err, err


def test_counts_take_units_and_fields_hyphens() -> None:
    for arguments in (
        ("--search.target-macs", "1.5M"),
        ("--search.target_macs=1500k",),
        ("--search.target_macs=1500000",),
    ):
        status, out, err = call_cli("search", *SMALL, *arguments, "--print_config")
        assert status == 0 and "target_macs: 1500000" in out, err
