"""How rankings of a study's cells agree with the cells' accuracy alone: a supernet's, its weights', and two that count.

What counting already knows is the baseline: dearer cells are better in most spaces, and so are those with wider MLPs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from dasvit.cell.genotype import Genotype, parse_operation
from dasvit.cell.graph import live_edges
from dasvit.study.statistics import Numbers, precision_at, rank_correlation

TOP = 5
"""How many of the best precision asks about."""
BAND = 0.1
"""Share of the median multiply-adds by which a cell of about the same cost may have more or less."""
CLAIMS = ("supernet", "weights")
"""What a search learned; the other rankings are baselines."""


def rankings(study: Mapping[str, Any]) -> list[Numbers]:
    """Return for every search how rankings of cells agree with their accuracy alone: over all, and at about one cost.

    `supernet`: each cell by itself on the shared weights. `weights`: the product of its operations' weights.
    `macs`: multiply-adds, the most first. `ratios`: the sum of its MLPs', shifts' and convolutions' ratios.
    """
    return [_agreement(study, search) for search in study["searches"] if search["ranking"]]


def _agreement(study: Mapping[str, Any], search: Mapping[str, Any]) -> Numbers:
    ranking, cells = search["ranking"], study["cells"]
    keys = [key for key in ranking["supernet_top1"] if (cells.get(key) or {}).get("top1") is not None]
    scores = {
        "supernet": [ranking["supernet_top1"][key] for key in keys],
        "weights": [ranking["log_weight"][key] for key in keys],
        "macs": [cells[key]["macs"] for key in keys],
        "ratios": [sum_of_ratios(Genotype.from_dict(cells[key]["genotype"])) for key in keys],
    }
    alone = [cells[key]["top1"] for key in keys]
    near = same_cost(scores["macs"])
    row: Numbers = {"run": search["run"], "variant": search["variant"], "seed": search["seed"]}
    row |= {"stage": ranking["stage"], "layers": ranking["layers"], "cells": len(keys)}
    row |= {name: agreement(values, alone) for name, values in scores.items()}
    within = [alone[i] for i in near]
    row["within"] = {name: agreement([values[i] for i in near], within) for name, values in scores.items()}
    row["within"] |= {"cells": len(near), "macs_at": statistics.median(scores["macs"]) if keys else None}
    for part, count in ((row, len(keys)), (row["within"], len(near))):
        part["chance"] = TOP / count if count > TOP else None
    return row


def agreement(scores: Sequence[float], alone: Sequence[float]) -> Numbers:
    """Return tau of a ranking, and the share of its best that are the best alone."""
    return {**rank_correlation(scores, alone), "precision": precision_at(scores, alone, TOP)}


def same_cost(macs: Sequence[float]) -> list[int]:
    """Return the places of the cells whose multiply-adds are the median's, more or less."""
    if not macs:
        return []
    middle = statistics.median(macs)
    return [place for place, value in enumerate(macs) if abs(value - middle) <= BAND * middle]


def sum_of_ratios(cell: Genotype) -> float:
    """Return the sum over D of the hidden widths of a cell's MLPs, shifts and convolutions that are built."""
    operations = [parse_operation(cell.edges[index].op) for index in live_edges(cell)]
    return sum(operation.number for operation in operations if operation.kind in ("mlp", "shift", "conv"))


def looked_at(rows: Sequence[Numbers]) -> int:
    """Return how many taus of what searches learned there are: with many, some are high by luck."""
    return sum(part[name]["tau"] is not None for row in rows for part in (row, row["within"]) for name in CLAIMS)
