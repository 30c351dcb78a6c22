"""Derivation (section 9): edge weights become one cell, exactly, under a budget.

Sees weights and cost tables, never modules. A rule says which cells compete and how they rank:

- `strongest`: every edge chooses one operation, `zero` included; a cell's rank is the product of all its weights.
- `darts`: `zero` is never chosen, each node keeps its k strongest edges; the rank is the product over kept edges.

The best cell that is viable (an attention lies on a path from input to output) and fits the budget is found by dynamic
programming over the edges. What the rest of a cell can still become depends only on, for every node so far, whether it
sees the input and whether through an attention; on the edges kept into the current node; and on the cost so far. Cells
that agree in these compete, and the heaviest survives. Costs repeat (they are sums of a few operations' costs), so
the table stays small where listing cells would not: four nodes have 8^14.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dasvit.cell.genotype import INPUTS, SKIPS, Genotype, attends, is_viable
from dasvit.cell.graph import live_edges
from dasvit.cell.space import OperationMask, Space
from dasvit.errors import UserError, unknown

TIE = 1e-9
"""By how much lots move the logarithm of a weight: less than single precision tells two weights apart by."""


@dataclass(frozen=True)
class Budget:
    """What a network may cost, and what its parts cost.

    Attributes:
        operations: (parameters, multiply-adds) of every operation by name, summed over the layers.
        base: (parameters, multiply-adds) of all the rest of the network.
        max_params: Most parameters of the network. 0: no limit.
        max_macs: Most multiply-adds of the network. 0: no limit.
    """

    operations: Mapping[str, tuple[int, int]]
    base: tuple[int, int] = (0, 0)
    max_params: int = 0
    max_macs: int = 0

    def cost(self, genotype: Genotype) -> tuple[int, int]:
        """Return (parameters, multiply-adds) of the network of a cell."""
        costs = [self.operations[genotype.ops[i]] for i in live_edges(genotype)]
        return self.base[0] + sum(c[0] for c in costs), self.base[1] + sum(c[1] for c in costs)

    def where_limited(self) -> Budget:
        """Return the budget with no costs where it sets no limit: fewer sums, so fewer cells to tell apart."""

        def seen(cost: tuple[int, int]) -> tuple[int, int]:
            return cost[0] if self.max_params else 0, cost[1] if self.max_macs else 0

        operations = {op: seen(cost) for op, cost in self.operations.items()}
        return dataclasses.replace(self, operations=operations, base=seen(self.base))

    def fits(self, cost: tuple[int, int]) -> bool:
        """Tell whether a network of this cost is within both limits."""
        return (not self.max_params or cost[0] <= self.max_params) and (not self.max_macs or cost[1] <= self.max_macs)


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
    """Return the best viable cell within the budget; of equal ones one drawn by the seed.

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
    scores = _scores(weights, alive, space, random.Random(seed))
    keep = edges_per_node if rule == "darts" else 0
    free = RULES[rule](scores, space, keep)
    reasons = [] if is_viable(free) else ["it holds no attention on a path from input to output"]
    if budget and not budget.fits(budget.cost(free)):
        reasons.append("it exceeds the budget")
    if 0 <= max_skips < skips(free):
        reasons.append(f"it holds more than {max_skips} skips")
    if not reasons:
        return Derivation(free, free, "")
    best = _best(scores, space, keep, budget and budget.where_limited(), max_skips)
    if best is None:
        raise UserError(_why_none(scores, space, keep, budget, max_skips))
    return Derivation(best, free, f"The strongest cell was not taken: {' and '.join(reasons)}.")


def skips(cell: Genotype) -> int:
    """Return how many edges of a cell are skips."""
    return sum(op in SKIPS for op in cell.ops)


def discretise(scores: Sequence[Mapping[str, float]], space: Space, keep: int = 0) -> Genotype:
    """Return the strongest operation of every edge, `zero` included; keep is not used.

    Args:
        scores: For every edge, its candidates and their weights (or logarithms of these).
        space: The search space.
        keep: Not used.
    """
    return Genotype.from_ops(space.nodes, [max(row, key=row.__getitem__) for row in scores])


def strongest_edges(scores: Sequence[Mapping[str, float]], space: Space, keep: int) -> Genotype:
    """Return DARTS's choice: the strongest non-zero operation of the strongest edges into each node.

    Args:
        scores: For every edge, its candidates and their weights (or logarithms of these).
        space: The search space.
        keep: Edges kept into each node.
    """
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


RULES = {"darts": strongest_edges, "strongest": discretise}
"""What each rule chooses when nothing stands in its way."""


def _scores(
    weights: Sequence[Sequence[float]], alive: OperationMask, space: Space, chance: random.Random
) -> list[dict[str, float]]:
    """Return for every edge its candidates and the logarithms of their weights, equal ones told apart by chance."""
    lots = [[TIE * chance.random() for _ in row] for row in weights]
    return [
        {
            name: math.log(max(weight, 1e-300)) + lot
            for name, weight, is_alive, lot in zip(space.operations, row, mask, drawn, strict=True)
            if is_alive
        }
        for row, mask, drawn in zip(weights, alive, lots, strict=True)
    ]


# nodes' sight, current node's sight, edges kept, skips, params, macs
_State = tuple[tuple[int, ...], int, int, int, int, int]


def _best(
    scores: list[dict[str, float]], space: Space, keep: int, budget: Budget | None, max_skips: int = -1
) -> Genotype | None:
    """Return the viable cell of the highest score within the budget, or None where there is none."""
    edges = space.edges
    places = {name: place for place, name in enumerate([*INPUTS, *dict.fromkeys(target for _, target in edges)])}
    table: dict[_State, tuple[float, tuple[str, ...]]] = {
        ((1, 1), 0, 0, 0, *(budget.base if budget else (0, 0))): (0.0, ())
    }
    for index, (source, target) in enumerate(edges):
        incoming = sum(t == target for _, t in edges)
        left = sum(t == target for _, t in edges[index + 1 :])
        wanted = min(keep, incoming) if keep else 0
        choices = _choices(scores[index], keep, budget)
        grown: dict[_State, tuple[float, tuple[str, ...]]] = {}
        for (sight, here, kept, skipped, params, macs), (score, ops) in table.items():
            at_source = sight[places[source]]
            for op, gain, more_params, more_macs in choices:
                count = kept + (op != "zero")
                # What reads a node that sees nothing is not built, and costs nothing.
                cost = (params + more_params, macs + more_macs) if at_source else (params, macs)
                skip_count = skipped + (op in SKIPS) if max_skips >= 0 else 0
                if skip_count > max_skips >= 0:
                    continue
                if (keep and not wanted - left <= count <= wanted) or (budget and not budget.fits(cost)):
                    continue
                through = 0 if op == "zero" or not at_source else 2 if attends(op) else at_source
                now = max(here, through)
                state: _State = (sight, now, count if keep else 0, skip_count, *cost)
                if left == 0:
                    state = ((*sight, now), 0, 0, skip_count, *cost)
                if state not in grown or score + gain > grown[state][0]:
                    grown[state] = (score + gain, (*ops, op))
        table = grown
    ends = [value for (sight, *_), value in table.items() if 2 in sight[2:]]
    return Genotype.from_ops(space.nodes, max(ends, key=lambda end: end[0])[1]) if ends else None


def _choices(candidates: dict[str, float], keep: int, budget: Budget | None) -> list[tuple[str, float, int, int]]:
    """Return (operation, score, parameters, multiply-adds) of every choice an edge has.

    Under the rule darts an edge may be left out at no score, and `zero` is no operation to be kept.
    """
    rows = {op: score for op, score in candidates.items() if op != "zero"} if keep else candidates
    choices = [(op, score, *(budget.operations[op] if budget else (0, 0))) for op, score in rows.items()]
    return [*choices, ("zero", 0.0, 0, 0)] if keep else choices


def _why_none(
    scores: list[dict[str, float]], space: Space, keep: int, budget: Budget | None, max_skips: int = -1
) -> str:
    if budget is None or _best(scores, space, keep, None) is None:
        return (
            "no cell left after pruning holds an attention on a path from input to output: keep more operations "
            "(search.stages.keep) or another number of edges (--edges-per-node)."
        )
    if max_skips >= 0 and _best(scores, space, keep, budget) is not None:
        return f"no viable cell holds at most {max_skips} skips: raise search.derive.max_skips (--max-skips)."
    texts = []
    for axis, (name, limit) in enumerate({"parameters": budget.max_params, "multiply-adds": budget.max_macs}.items()):
        if limit:
            cheapest = [{op: -float(budget.operations[op][axis]) for op in row} for row in scores]
            cell = _best(cheapest, space, keep, None)
            assert cell is not None, "a viable cell exists"
            texts.append(f"the smallest has {budget.cost(cell)[axis]:,} {name} (limit {limit:,})")
    return f"no viable cell fits the budget: {', '.join(texts)}."
