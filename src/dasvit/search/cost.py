"""What derived networks cost: tables for exact budgets, and the expected cost that gradients can lower.

Shapes: E edges, O operations; a cost is (parameters, multiply-adds), [2].
"""

from __future__ import annotations

import torch
from torch import Tensor

from dasvit.cell.cost import operation_cost, skeleton_cost, token_count
from dasvit.cell.genotype import INPUTS
from dasvit.cell.space import Space
from dasvit.config import Config, DeriveConfig
from dasvit.config.units import parse_time
from dasvit.latency.table import find_table
from dasvit.search.derive import Budget


def make_budget(config: Config, classes: int, limits: DeriveConfig | None = None) -> Budget:
    """Return the cost tables of derived networks and the limits to hold them to.

    Args:
        config: The recipe; the derived network's width and depth count, and where it is to run if latency is limited.
        classes: Classes of the data.
        limits: Most parameters, multiply-adds and time. None: no limits.

    Raises:
        UserError: The latency table that the recipe names is of other operations or sizes.
    """
    limits = limits or DeriveConfig()
    model = config.model
    operations = Space.from_config(config.space).operations
    costs = {op: operation_cost(op, model.width, token_count(model)) * model.layers for op in operations}
    base = skeleton_cost(model, classes)
    tables: dict[str, tuple[int, ...]] = {op: (cost.params, cost.macs) for op, cost in costs.items()}
    rest: tuple[int, ...] = (base.params, base.macs)
    most = microseconds(parse_time(limits.max_latency, "max_latency"))
    if most:
        latency = find_table(config, classes)
        tables = {op: (*cost, microseconds(latency.operations[op] * model.layers)) for op, cost in tables.items()}
        rest = (*rest, microseconds(latency.skeleton + latency.layer * model.layers))
    return Budget(tables, rest, limits.max_params, limits.max_macs, most)


def microseconds(seconds: float) -> int:
    """Return a time in whole microseconds, which add up exactly."""
    return round(1e6 * seconds)


def expected_cost(weights: Tensor, space: Space, budget: Budget) -> Tensor:
    """Return the expected cost of the network whose every edge draws its operation by its share of the edge's weights.

    What leaves a node that nothing feeds is not built and costs nothing, so each node counts with the probability that
    it is fed: exactly, over all the sets of nodes that can be fed. Differentiable in the weights.

    Args:
        weights: Edge weights [E, O], not negative.
        space: The search space.
        budget: Tables of costs.

    Returns:
        [2], in float64 where the device has it.
    """
    dtype = torch.float32 if weights.device.type == "mps" else torch.float64
    shares = weights.to(dtype)
    shares = shares / shares.sum(dim=1, keepdim=True)
    tables = shares.new_tensor([budget.operations[op] for op in space.operations])
    is_zero = torch.tensor([op == "zero" for op in space.operations], device=shares.device)
    nothing, costs = shares @ is_zero.to(dtype), shares @ tables  # [E], [E, 2]
    total = shares.new_tensor(budget.base)
    sets = shares.new_ones(1)  # the probability of every set of fed nodes; bit i of the place: node i + 1
    nodes = {f"x{i + 1}": i for i in range(space.nodes)}
    for target in nodes:
        places = torch.arange(len(sets), device=sets.device)
        unfed = torch.ones_like(sets)
        for index, (source, end) in enumerate(space.edges):
            if end != target:
                continue
            is_fed = torch.ones_like(places) if source in INPUTS else places >> nodes[source] & 1
            total = total + (sets * is_fed).sum() * costs[index]
            unfed = unfed * torch.where(is_fed > 0, nothing[index], 1.0)
        sets = torch.cat([sets * unfed, sets * (1 - unfed)])
    return total


class CostPenalty:
    """Holds the expected cost to a target: weight · Σ max(0, log(expected / target)).

    Args:
        config: The recipe (`search.target_params`, `search.target_macs`, `search.cost_weight`).
        space: The search space.
        classes: Classes of the data.
    """

    def __init__(self, config: Config, space: Space, classes: int) -> None:
        self.space, self.weight = space, config.search.cost_weight
        self.budget = make_budget(config, classes)
        self.targets = (config.search.target_params, config.search.target_macs)

    def expected(self, weights: Tensor) -> Tensor:
        """Return the expected (parameters, multiply-adds) under edge weights [E, O], [2]."""
        return expected_cost(weights, self.space, self.budget)

    def __call__(self, weights: Tensor) -> Tensor:
        """Return the penalty for edge weights [E, O], a scalar; without a target it is 0 and costs nothing."""
        penalty = weights.new_zeros(())
        if not any(self.targets):
            return penalty
        for value, target in zip(self.expected(weights), self.targets, strict=True):
            if target:
                penalty = penalty + (value / target).log().clamp(min=0).to(weights.dtype)
        return self.weight * penalty
