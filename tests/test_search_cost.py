"""The expected cost: exact at one-hot weights, gradients against finite differences, and its effect on a search."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dasvit.cell.cost import network_cost
from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.models.cost import cost_of
from dasvit.runtime.progress import Reporter
from dasvit.search.cost import CostPenalty, expected_cost, make_budget
from dasvit.search.pipeline import run_search
from helpers import TINY_SEARCH, merge

Cells = list[tuple[Genotype, float]]


def make(**changes: Any) -> Config:
    return recipes.from_dict(merge(TINY_SEARCH, changes))


@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
def test_one_hot_weights_cost_what_the_network_costs(nodes: int) -> None:
    config = make(space={"nodes": nodes})
    space = Space.from_config(config.space)
    budget = make_budget(config, 10)
    chance = random.Random(nodes)
    for _ in range(20):
        cell = Genotype.from_ops(nodes, chance.choices(space.operations, [4, 1, 1, 1, 1, 1], k=len(space.edges)))
        cost = cost_of(cell, config.model, 10)
        found = expected_cost(torch.tensor(space.one_hot(cell)), space, budget)
        assert found.tolist() == [cost.params, cost.macs]


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_it_is_the_expectation_over_all_cells(nodes: int) -> None:
    config = make(space={"nodes": nodes, "heads": [2], "ratios": []})
    space = Space.from_config(config.space)
    torch.manual_seed(0)
    weights = torch.rand(len(space.edges), 3, dtype=torch.float64)
    shares = weights / weights.sum(dim=1, keepdim=True)
    total = torch.zeros(2, dtype=torch.float64)
    for places in itertools.product(range(3), repeat=len(space.edges)):
        cost = network_cost(Genotype.from_ops(nodes, [space.operations[o] for o in places]), config.model, 10)
        chance = torch.stack([shares[e, o] for e, o in enumerate(places)]).prod()
        total += chance * torch.tensor([cost.params, cost.macs], dtype=torch.float64)
    torch.testing.assert_close(expected_cost(weights, space, make_budget(config, 10)), total, rtol=1e-12, atol=0)


def test_gradient_against_finite_differences() -> None:
    config = make(search={"target_params": 3_000, "target_macs": 50_000, "cost_weight": 0.7}, space={"nodes": 3})
    space = Space.from_config(config.space)
    penalty = CostPenalty(config, space, 10)
    torch.manual_seed(0)
    alpha = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)

    def of(alpha: Tensor) -> Tensor:
        return penalty(alpha.softmax(dim=1))

    assert of(alpha).detach() > 0
    assert torch.autograd.gradcheck(of, alpha, eps=1e-6, atol=1e-8, rtol=1e-6)


def test_within_its_target_nothing_is_paid() -> None:
    space = Space.from_config(make().space)
    weights = torch.full((5, 6), 1 / 6, requires_grad=True)
    assert CostPenalty(make(search={"target_macs": 10**12}), space, 10)(weights).detach() == 0
    assert CostPenalty(make(), space, 10)(weights).detach() == 0
    expected = CostPenalty(make(), space, 10).expected(weights).detach()
    half = make(search={"target_params": int(expected[0] / 2), "cost_weight": 3.0})
    assert float(CostPenalty(half, space, 10)(weights).detach()) == pytest.approx(3 * 0.6931, rel=1e-3)


@pytest.mark.parametrize("target", ["target_macs", "target_params"])
def test_a_tight_target_makes_the_search_end_cheaper(tmp_path: Path, target: str) -> None:
    def expected(value: int) -> int:
        config = make(search={target: value})
        run_search(config, str(tmp_path / str(value)), Reporter(quiet=True))
        row = json.loads((tmp_path / str(value) / "architecture.jsonl").read_text().splitlines()[1])
        return int(row[target.replace("target", "expected")])

    assert expected(1000) < 0.95 * expected(0)
