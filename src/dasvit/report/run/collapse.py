"""When a search counts as collapsed (docs/study.md), epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dasvit.cell.genotype import is_viable
from dasvit.report.drawing.cells import leading_cell, strongest
from dasvit.report.run.reading import Weights, finite


def collapse_of(weights: Weights) -> list[str]:
    """Return why edge weights count as collapsed, none where they do not.

    Args:
        weights: Edge → operation → weight. `zero` competes like any other operation.

    Returns:
        Of "no attention" (the strongest operations make a cell without attention on any path from input to output) and
        "skips" (`identity` or `zero` is the strongest operation of at least half of the edges).
    """
    chosen = list(strongest(weights).values())
    cell = leading_cell(weights)
    found = ["no attention"] if cell is not None and not is_viable(cell) else []
    if chosen and 2 * sum(op in ("identity", "zero") for op in chosen) >= len(chosen):
        found.append("skips")
    return found


def describe_epochs(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the collapse monitor shows of each line of `architecture.jsonl`.

    Returns:
        Per epoch of the whole search: `epoch`, `stage`, `identity` and `zero` (mean weights), `entropy` (of an edge's
        weights over that of equal weights, averaged over the edges where two operations or more are left; 0 where
        there are none), `collapsed` (see `collapse_of`), and `mixture_top1`, `derived_top1` and `gap` where judged.
    """
    rows = []
    for number, line in enumerate(lines, start=1):
        seen = line.get("monitor", {})
        mixture, derived = finite(seen.get("mixture_top1")), finite(seen.get("derived_top1"))
        rows.append(
            {
                "epoch": number,
                "stage": line["stage"],
                "identity": line["mean_weights"].get("identity", 0.0),
                "zero": line["mean_weights"].get("zero", 0.0),
                "entropy": relative_entropy(line["weights"]),
                "collapsed": collapse_of(line["weights"]),
                "mixture_top1": mixture,
                "derived_top1": derived,
                "gap": mixture - derived if mixture is not None and derived is not None else None,
            }
        )
    return rows


def relative_entropy(weights: Weights) -> float:
    """Return the entropy of an edge's shares over its largest, averaged over edges: 1 undecided, 0 decided."""
    found = []
    for operations in weights.values():
        total = sum(operations.values())
        shares = [w / total for w in operations.values() if w > 0] if total else []
        if len(operations) > 1:
            found.append(-sum(p * math.log(p) for p in shares) / math.log(len(operations)))
    return sum(found) / len(found) if found else 0.0
