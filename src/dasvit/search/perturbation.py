"""Strength by perturbation: an operation is worth the accuracy that the trained supernet loses without it.

DARTS-PT (Wang, Cheng, Chen, Tang, Hsieh; 2021; Rethinking Architecture Selection in Differentiable NAS;
arXiv:2108.04392). Sees edge weights and a measure, never modules. Shapes: E edges, O operations.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dasvit.cell.space import OperationMask, Space


def perturbation_scores(
    weights: Tensor, alive: OperationMask, space: Space, measure: Callable[[Tensor], float], seed: int
) -> list[dict[str, float]]:
    """Return for every edge what each of its operations but `zero` is worth, in percent of accuracy.

    In an order drawn by the seed each edge is left with the one operation whose removal hurts most. Then each edge's
    own removal is measured. An operation's score is the harm of removing its edge, less what removing the operation
    falls short of removing the edge's best one: so the rule darts takes each edge's best operation and each node's best
    edges (`dasvit.search.derive.derive`), and a budget moves what hurts least.

    Args:
        weights: The supernet's edge weights [E, O], or [E, O + 1] with a bypass.
        alive: The candidates.
        space: The search space.
        measure: The supernet's validation accuracy under edge weights, in percent.
        seed: Fixes the order of the edges.
    """
    table = weights.detach().clone()
    order = list(range(len(space.edges)))
    random.Random(seed).shuffle(order)
    harms: list[dict[int, float]] = [{} for _ in order]
    for edge in order:
        candidates = [o for o, name in enumerate(space.operations) if alive[edge][o] and name != "zero"]
        harms[edge] = operation_harms(table, edge, candidates, measure)
        if candidates:  # the one whose removal hurts most takes the weights of all, 1 at most
            decided = table[edge, : len(space.operations)]
            total = decided.sum().clamp(max=1)
            decided.zero_()[max(candidates, key=harms[edge].__getitem__)] = total
    whole = measure(table)
    scores = []
    for edge, harm in enumerate(harms):
        lost = whole - measure(_without(table, edge)) if harm else 0.0
        scores.append({space.operations[o]: lost + value - max(harm.values()) for o, value in harm.items()})
    return scores


def operation_harms(
    table: Tensor, edge: int, candidates: Sequence[int], measure: Callable[[Tensor], float]
) -> dict[int, float]:
    """Return how much accuracy the supernet loses without each of an edge's candidates; nothing is measured for one."""
    if len(candidates) < 2:
        return dict.fromkeys(candidates, 0.0)
    whole = measure(table)
    return {o: whole - measure(_without(table, edge, o)) for o in candidates}


def _without(table: Tensor, edge: int, operation: int | None = None) -> Tensor:
    """Return edge weights without an operation, or without the whole edge."""
    perturbed = torch.clone(table)
    perturbed[edge, slice(None) if operation is None else operation] = 0
    return perturbed
