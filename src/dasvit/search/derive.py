"""Derivation (section 9): edge weights become one cell, exactly, under a budget.

Sees weights and cost tables, never modules. A rule says which cells compete and how they rank:

- `strongest`: every edge chooses one operation, `zero` included; a cell's rank is the product of all its weights.
- `darts`: `zero` is never chosen, each node keeps its k strongest edges; the rank is the product over kept edges.

The best cell that is viable (an attention lies on a path from input to output) and fits the budget is found by dynamic
programming over the edges. What the rest of a cell can still become depends only on, for every node so far, whether it
sees the input and whether through an attention; on the edges kept into the current node; and on the cost so far. Cells
that agree in these compete, and the heaviest survives; none does that costs more than a heavier one. Costs repeat (they
are sums of a few operations' costs), so the table stays small where listing cells would not: four nodes have 8^14.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from dasvit.cell.genotype import INPUTS, SKIPS, Genotype, attends, is_viable
from dasvit.cell.graph import live_edges
from dasvit.cell.space import OperationMask, Space
from dasvit.config.units import time_text
from dasvit.errors import UserError, unknown

RULES = ("darts", "strongest")
TIE = 1e-9
"""By how much lots move the logarithm of a weight: less than single precision tells two weights apart by."""


@dataclass(frozen=True)
class Budget:
    """What a network may cost, and what its parts cost.

    A cost is (parameters, multiply-adds), with the microseconds of an inference behind them where latency is limited:
    whole numbers all, so that sums that are equal are the same.

    Attributes:
        operations: The cost of every operation by name, summed over the layers.
        base: The cost of all the rest of the network.
        max_params: Most parameters of the network. 0: no limit.
        max_macs: Most multiply-adds of the network. 0: no limit.
        max_latency: Most microseconds of an inference. 0: no limit.
    """

    operations: Mapping[str, tuple[int, ...]]
    base: tuple[int, ...] = (0, 0)
    max_params: int = 0
    max_macs: int = 0
    max_latency: int = 0

    @property
    def limits(self) -> tuple[int, int, int]:
        """The limits in the order of a cost; 0: none."""
        return self.max_params, self.max_macs, self.max_latency

    def cost(self, genotype: Genotype) -> tuple[int, ...]:
        """Return the cost of the network of a cell."""
        costs = [self.operations[genotype.ops[i]] for i in live_edges(genotype)]
        return tuple(map(sum, zip(self.base, *costs, strict=True)))

    def where_limited(self) -> Budget:
        """Return the budget with no costs where it sets no limit: fewer sums, so fewer cells to tell apart."""

        def seen(cost: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(value if limit else 0 for value, limit in zip(cost, self.limits, strict=False))

        operations = {op: seen(cost) for op, cost in self.operations.items()}
        return replace(self, operations=operations, base=seen(self.base))

    def fits(self, cost: tuple[int, ...]) -> bool:
        """Tell whether a network of this cost is within all limits."""
        return all(not limit or value <= limit for value, limit in zip(cost, self.limits, strict=False))


@dataclass(frozen=True)
class Derivation:
    """A derived cell and why it is this one.

    Attributes:
        genotype: The chosen cell.
        unconstrained: What the rule alone would have chosen.
        reason: Why the two differ, as a sentence, or empty where they do not.
    """

    genotype: Genotype
    unconstrained: Genotype
    reason: str


def derive(
    weights: Sequence[Sequence[float]],
    alive: OperationMask,
    space: Space,
    *,
    rule: str = "darts",
    edges_per_node: int = 2,
    budget: Budget | None = None,
    max_skips: int = -1,
    seed: int = 0,
) -> Derivation:
    """Return the viable cell of the heaviest weights within the budget; of equal ones one drawn by the seed.

    Args:
        weights: Edge weights `[E][O]`, not negative.
        alive: Which operations are candidates.
        space: The search space.
        rule: darts or strongest.
        edges_per_node: Edges kept into each node by the rule darts (all, where a node has fewer).
        budget: Limits and cost tables. None: no limits.
        max_skips: Most edges that may be `identity`. -1: no limit.
        seed: Decides between weights that are equal.

    Raises:
        UserError: No cell of the rule is viable, or none that is viable fits; then the message says what the
            cheapest costs.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    scores = _scores(weights, alive, space, seed)
    limits = _Limits(edges_per_node if rule == "darts" else 0, budget, max_skips)
    free = strongest_edges(scores, space, limits.keep)
    reasons = [] if is_viable(free) else ["it holds no attention on a path from input to output"]
    if budget and not budget.fits(budget.cost(free)):
        reasons.append("it exceeds the budget")
    if 0 <= max_skips < skips(free):
        reasons.append(f"it holds more than {max_skips} skips")
    if not reasons:
        return Derivation(free, free, "")
    best = _best(scores, space, replace(limits, budget=budget and budget.where_limited()))
    if best is None:
        raise UserError(_why_none(scores, space, limits))
    return Derivation(best, free, f"The strongest cell was not taken: {' and '.join(reasons)}.")


def skips(cell: Genotype) -> int:
    """Return how many edges of a cell are skips."""
    return sum(op in SKIPS for op in cell.ops)


def strongest_edges(scores: Sequence[Mapping[str, float]], space: Space, keep: int) -> Genotype:
    """Return DARTS's choice: the strongest non-zero operation of the strongest edges into each node.

    Args:
        scores: For every edge, its candidates and their weights (or logarithms of these).
        space: The search space.
        keep: Edges kept into each node. 0: all, each with its strongest operation, `zero` included.
    """
    if not keep:
        return Genotype.from_ops(space.nodes, [max(row, key=row.__getitem__) for row in scores])
    ops = []
    for target in dict.fromkeys(target for _, target in space.edges):
        best = []
        for row, edge in zip(scores, space.edges, strict=True):
            if edge[1] == target:
                some = {op: score for op, score in row.items() if op != "zero"}
                best.append(max(some.items(), key=lambda pair: pair[1]) if some else ("zero", -math.inf))
        kept = sorted(range(len(best)), key=lambda i: -best[i][1])[:keep]
        ops += [op if i in kept else "zero" for i, (op, _) in enumerate(best)]
    return Genotype.from_ops(space.nodes, ops)


SMALLEST: tuple[Callable[[int, int], str], ...] = (
    lambda least, limit: f"the smallest has {least:,} parameters (limit {limit:,})",
    lambda least, limit: f"the smallest has {least:,} multiply-adds (limit {limit:,})",
    lambda least, limit: f"the fastest takes {time_text(least / 1e6)} (limit {time_text(limit / 1e6)})",
)
"""What is said of the cheapest cell where none fits, in the order of a cost."""


def draw_lots(weights: Sequence[Sequence[float]], seed: int) -> list[list[float]]:
    """Return a number in [0, 1) for every edge and operation `[E][O]`: of equal weights the larger one's wins.

    They depend on the seed alone, so that pruning and derivation decide alike, and a run that goes on as before.
    """
    chance = random.Random(seed)
    return [[chance.random() for _ in row] for row in weights]


def _scores(
    weights: Sequence[Sequence[float]], alive: OperationMask, space: Space, seed: int
) -> list[dict[str, float]]:
    """Return for every edge its candidates and the logarithms of their weights, equal ones told apart by lots."""
    return [
        {
            name: math.log(max(weight, 1e-300)) + TIE * lot
            for name, weight, is_alive, lot in zip(space.operations, *rows, strict=True)
            if is_alive
        }
        for rows in zip(weights, alive, draw_lots(weights, seed), strict=True)
    ]


class _State(NamedTuple):
    """All of a cell so far that what comes depends on."""

    sight: tuple[int, ...]  # of inputs and nodes so far: 0 sees no image, 1 sees it, 2 through an attention
    here: int  # the current node's sight so far
    kept: int  # edges kept into the current node; 0 where the rule does not count them
    skipped: int  # skips so far; 0 where there is no limit
    cost: tuple[int, ...]


class _Edge(NamedTuple):
    """An edge's place in a cell."""

    source: int  # where its source stands in `_State.sight`
    left: int  # edges that follow into its node
    wanted: int  # edges that its node keeps


class _Choice(NamedTuple):
    """What an edge can be, what that scores, and what it costs."""

    op: str
    score: float
    cost: tuple[int, ...]


@dataclass(frozen=True)
class _Limits:
    """What a cell must keep to: edges kept into a node (0: any number), a budget, and the most skips (-1: any)."""

    keep: int
    budget: Budget | None
    max_skips: int


_Table = dict[_State, tuple[float, tuple[str, ...]]]
"""The best score of every state, and the operations that reach it."""


def _best(scores: Sequence[Mapping[str, float]], space: Space, limits: _Limits) -> Genotype | None:
    """Return the viable cell of the highest score within the limits, or None where there is none."""
    table: _Table = {_State((1, 1), 0, 0, 0, limits.budget.base if limits.budget else ()): (0.0, ())}
    for edge, candidates in zip(_places(space, limits.keep), scores, strict=True):
        table = _undominated(_grown(table, edge, _choices(candidates, limits), limits))
    ends = [value for state, value in table.items() if 2 in state.sight[2:]]
    return Genotype.from_ops(space.nodes, max(ends, key=lambda end: end[0])[1]) if ends else None


def _places(space: Space, keep: int) -> list[_Edge]:
    """Return the edges in order."""
    targets = [target for _, target in space.edges]
    order = [*INPUTS, *dict.fromkeys(targets)]
    return [
        _Edge(order.index(source), targets[index + 1 :].count(target), min(keep, targets.count(target)))
        for index, (source, target) in enumerate(space.edges)
    ]


def _grown(table: _Table, edge: _Edge, choices: list[_Choice], limits: _Limits) -> _Table:
    """Return the table after one more edge: of the cells that agree in their state the one of the highest score."""
    grown: _Table = {}
    for state, (score, ops) in table.items():
        for choice in choices:
            after = _after(state, edge, choice, limits)
            if after is not None and (after not in grown or score + choice.score > grown[after][0]):
                grown[after] = (score + choice.score, (*ops, choice.op))
    return grown


def _undominated(table: _Table) -> _Table:
    """Return the table without cells that cost no less than another of a higher score and are alike in all else."""
    alike: dict[tuple[Any, ...], list[tuple[_State, float]]] = {}
    for state, (score, _) in sorted(table.items(), key=lambda item: (item[0].cost, -item[1][0])):
        front = alike.setdefault(state[:-1], [])
        if not any(other > score and all(map(operator.le, before.cost, state.cost)) for before, other in front):
            front.append((state, score))
    kept = {state for front in alike.values() for state, _ in front}
    return {state: value for state, value in table.items() if state in kept}


def _after(state: _State, edge: _Edge, choice: _Choice, limits: _Limits) -> _State | None:
    """Return the state after a choice, or None where it breaks a limit."""
    sight, here, kept, skipped, cost = state
    at_source, op = sight[edge.source], choice.op
    if limits.keep:
        kept += op != "zero"
        if not edge.wanted - edge.left <= kept <= edge.wanted:
            return None
    if at_source:  # what reads a node that sees nothing is not built, and costs nothing
        cost = tuple(map(operator.add, cost, choice.cost))
        if limits.budget and not limits.budget.fits(cost):
            return None
        if op != "zero":
            here = max(here, 2 if attends(op) else at_source)
    if limits.max_skips >= 0:
        skipped += op in SKIPS
        if skipped > limits.max_skips:
            return None
    if edge.left:
        return _State(sight, here, kept, skipped, cost)
    return _State((*sight, here), 0, 0, skipped, cost)


def _choices(candidates: Mapping[str, float], limits: _Limits) -> list[_Choice]:
    """Return every choice an edge has.

    Under the rule darts an edge may be left out at no score, and `zero` is no operation to be kept.
    """
    budget = limits.budget
    rows = {op: score for op, score in candidates.items() if op != "zero"} if limits.keep else candidates
    choices = [_Choice(op, score, budget.operations[op] if budget else ()) for op, score in rows.items()]
    return [*choices, _Choice("zero", 0.0, (0,) * len(budget.base) if budget else ())] if limits.keep else choices


def cheapest_cell(space: Space, budget: Budget, axis: int, keep: int) -> Genotype | None:
    """Return the viable cell of the least cost, whatever the limits; None where no cell of the rule is viable.

    Args:
        space: The search space.
        budget: Tables of costs.
        axis: Which cost counts: 0 parameters, 1 multiply-adds, 2 time.
        keep: Edges kept into each node. 0: any number.
    """
    return _cheapest([dict.fromkeys(space.operations, 0.0)] * len(space.edges), space, budget, axis, keep)


def _cheapest(
    scores: Sequence[Mapping[str, float]], space: Space, budget: Budget, axis: int, keep: int
) -> Genotype | None:
    costs = [{op: -float(budget.operations[op][axis]) for op in row} for row in scores]
    return _best(costs, space, _Limits(keep, None, -1))


def _why_none(scores: Sequence[Mapping[str, float]], space: Space, limits: _Limits) -> str:
    budget, free = limits.budget, _Limits(limits.keep, None, -1)
    if budget is None or _best(scores, space, free) is None:
        return (
            "no cell left after pruning holds an attention on a path from input to output: keep more operations "
            "(search.stages.keep) or another number of edges (--edges-per-node)."
        )
    if limits.max_skips >= 0 and _best(scores, space, replace(limits, max_skips=-1)) is not None:
        return f"no viable cell holds at most {limits.max_skips} skips: raise search.derive.max_skips (--max-skips)."
    texts = []
    for axis, limit in enumerate(budget.limits):
        if limit:
            cell = _cheapest(scores, space, budget, axis, limits.keep)
            assert cell is not None, "a viable cell exists"
            texts.append(SMALLEST[axis](budget.cost(cell)[axis], limit))
    return f"no viable cell fits the budget: {', '.join(texts)}."
