"""Cells drawn, changed and crossed at random, within a rule and a budget; sees cost tables, never modules."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from dasvit.cell.genotype import Genotype, is_viable
from dasvit.cell.space import Space
from dasvit.errors import UserError
from dasvit.search.derive import Budget, derive

TRIES = 20_000
"""Draws after which the cells within a budget count as too few to be drawn."""


@dataclasses.dataclass(frozen=True)
class Cells:
    """The viable cells that a rule of derivation can give and that cost as much as they may.

    Attributes:
        space: The search space.
        edges_per_node: Edges kept into each node, as under the rule darts. 0: any, as under the rule strongest.
        budget: The most that a cell may cost, and the tables of costs.
        min_macs: The least multiply-adds that a cell may cost.
    """

    space: Space
    edges_per_node: int
    budget: Budget
    min_macs: int = 0

    def allow(self, cell: Genotype) -> bool:
        """Tell whether a cell is one of these."""
        if not is_viable(cell) or not self.has_edges(cell):
            return False
        if not all(self.space.allows(edge.source, edge.op) for edge in cell.edges):
            return False
        cost = self.budget.cost(cell)
        return self.budget.fits(cost) and cost[1] >= self.min_macs

    def has_edges(self, cell: Genotype) -> bool:
        """Tell whether as many edges lead into each node as the rule keeps."""
        if not self.edges_per_node:
            return True
        for target in dict.fromkeys(target for _, target in self.space.edges):
            incoming = [edge.op != "zero" for edge in cell.edges if edge.target == target]
            if sum(incoming) != min(self.edges_per_node, len(incoming)):
                return False
        return True

    def draw(self, chance: random.Random) -> Genotype:
        """Draw a cell, each with the same probability.

        Raises:
            UserError: There is none, or they are too rare to be found by drawing.
        """
        return self._until_allowed(lambda: self._any(chance))

    def mutate(self, cell: Genotype, rate: float, chance: random.Random) -> Genotype:
        """Return a cell like this one but for each edge's operation, which is drawn anew at a rate in (0, 1]."""

        def once() -> Genotype:
            other = self._any(chance).ops
            return self._cell([new if chance.random() < rate else op for op, new in zip(cell.ops, other, strict=True)])

        return self._until_allowed(once)

    def cross(self, one: Genotype, other: Genotype, chance: random.Random) -> Genotype:
        """Return a cell that has each edge's operation from one of two."""
        return self._until_allowed(
            lambda: self._cell([chance.choice(pair) for pair in zip(one.ops, other.ops, strict=True)])
        )

    def _any(self, chance: random.Random) -> Genotype:
        """Draw a cell with the rule's number of edges, whatever it costs."""
        if not self.edges_per_node:
            return self._cell(chance.choices(self.space.operations, k=len(self.space.edges)))
        names = [op for op in self.space.operations if op != "zero"]
        ops: list[str] = []
        for target in dict.fromkeys(target for _, target in self.space.edges):
            count = sum(end == target for _, end in self.space.edges)
            kept = chance.sample(range(count), min(self.edges_per_node, count))
            ops += [chance.choice(names) if place in kept else "zero" for place in range(count)]
        return self._cell(ops)

    def _cell(self, ops: list[str]) -> Genotype:
        return Genotype.from_ops(self.space.nodes, ops)

    def _until_allowed(self, make: Callable[[], Genotype]) -> Genotype:
        for _ in range(TRIES):
            cell = make()
            if self.allow(cell):
                return cell
        self.check()
        raise UserError(
            f"of {TRIES:,} cells drawn none fits the budget: widen it (search.derive.max_params, "
            "search.derive.max_macs, search.derive.max_latency, search.random.tolerance)."
        )

    def check(self) -> None:
        """Raise a UserError that says what the smallest cell costs, where none fits."""
        alike = [[1.0] * len(self.space.operations) for _ in self.space.edges]
        keep = self.edges_per_node
        rule = "darts" if keep else "strongest"
        derive(alike, self.space.everything(), self.space, rule=rule, edges_per_node=keep or 1, budget=self.budget)
