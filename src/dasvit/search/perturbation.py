"""Strength by perturbation: an operation is worth the accuracy that the trained supernet loses without it.

DARTS-PT (Wang, Cheng, Chen, Tang, Hsieh; 2021; Rethinking Architecture Selection in Differentiable NAS;
arXiv:2108.04392). Sees edge weights and a measure, never modules. Shapes: E edges, O operations.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from dasvit.cell.space import OperationMask, Space


def perturbation_weights(
    weights: Tensor, alive: OperationMask, space: Space, measure: Callable[[Tensor], float], seed: int
) -> list[list[float]]:
    """Return edge weights `[E][O]` under which DARTS's rule chooses what perturbation would.

    In an order drawn by the seed each edge is left with the one operation whose removal hurts most; `zero` is never
    chosen where there is another. Then each edge's own removal is measured. The logarithm of an operation's weight is
    the harm of removing its edge, less what removing the operation falls short of removing the edge's best one: the
    rule then takes each edge's best operation and each node's best edges, and a budget moves what hurts least.

    Args:
        weights: The supernet's edge weights [E, O], or [E, O + 1] with a bypass.
        alive: The candidates.
        space: The search space.
        measure: The supernet's validation accuracy under edge weights, in percent.
        seed: Fixes the order of the edges.
    """
    table = weights.detach().clone()
    count, zero = len(space.operations), [op == "zero" for op in space.operations]
    order = list(range(len(space.edges)))
    random.Random(seed).shuffle(order)
    harms: list[dict[int, float]] = [{} for _ in order]
    for edge in order:
        candidates = [o for o in range(count) if alive[edge][o] and not zero[o]]
        if len(candidates) > 1:
            whole = measure(table)
            harms[edge] = {o: whole - measure(_without(table, edge, o)) for o in candidates}
        else:
            harms[edge] = dict.fromkeys(candidates, 0.0)
        if candidates:
            best = max(candidates, key=harms[edge].__getitem__)
            total = table[edge, :count].sum().clamp(max=1)
            table[edge, :count] = 0
            table[edge, best] = total
    whole = measure(table)
    found = [[0.0] * count for _ in order]
    for edge, harm in enumerate(harms):
        lost = whole - measure(_without(table, edge)) if harm else 0.0
        for o, value in harm.items():
            found[edge][o] = math.exp(lost + value - max(harm.values()))
    return found


def _without(table: Tensor, edge: int, operation: int | None = None) -> Tensor:
    """Return edge weights without an operation, or without the whole edge."""
    perturbed = torch.clone(table)
    perturbed[edge, slice(None) if operation is None else operation] = 0
    return perturbed
