"""From what a search ends with to one cell: by what its cells reached, or by the weights of its edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dasvit.cell.space import Space
from dasvit.config import Config, DeriveConfig
from dasvit.config.units import parse_time
from dasvit.errors import UserError
from dasvit.search.cost import make_budget, microseconds
from dasvit.search.derive import Derivation, derive, skips
from dasvit.search.sampling import Cells
from dasvit.search.stages import Stages, with_pruned


def derive_found(stages: Stages, config: Config, classes: int, choice: DeriveConfig) -> Derivation:
    """Derive the best viable cell of a search under a choice's rule and budget.

    Where cells were evaluated, it is the best of them that fits. Else the edge weights decide: the survivors of the
    last stage compete, and only where none of their cells fits do pruned operations come back.

    Args:
        stages: Edge weights, operations alive and cells evaluated at the end of every stage.
        config: The search's configuration.
        classes: Classes of the data.
        choice: Rule and budget.

    Raises:
        UserError: No cell of the space fits.
    """
    cells = stages[-1].cells
    if not cells:
        return derive_by_weights(stages, config, classes, choice)
    allowed, most = cells_within(config, classes, choice), choice.max_skips
    fitting = [entry for entry in cells if allowed.allow(entry.cell) and not 0 <= most < skips(entry.cell)]
    best = cells[0]
    if not fitting:
        found = derive_by_weights(stages, config, classes, choice)
        reason = f"None of {len(cells)} candidates fits: this cell's operations did best in those that were evaluated."
        return Derivation(found.genotype, best.cell, reason)
    if fitting[0] is best:
        return Derivation(best.cell, best.cell, "")
    reason = (
        f"Of {len(cells)} candidates {len(fitting)} fit; the best of these reached {fitting[0].reached}, the best of "
        f"all {best.reached}."
    )
    return Derivation(fitting[0].cell, best.cell, reason)


def cells_within(config: Config, classes: int, choice: DeriveConfig) -> Cells:
    """Return the viable cells that a choice's rule and budget allow, however many skips they have."""
    budget, choice = make_budget(config, classes, choice), ruled(config, choice)
    return Cells(Space.from_config(config.space), 0 if choice.rule == "strongest" else choice.edges_per_node, budget)


def ruled(config: Config, choice: DeriveConfig) -> DeriveConfig:
    """Return a choice with the rule that a space's cells keep to: a plain ViT's layer is one edge."""
    return replace(choice, rule="darts", edges_per_node=1) if config.space.cell else choice


def derive_by_weights(stages: Stages, config: Config, classes: int, choice: DeriveConfig) -> Derivation:
    """Derive the best viable cell of a search's edge weights; raises a UserError as `derive_found` does."""
    space, choice = Space.from_config(config.space), ruled(config, choice)
    how: dict[str, Any] = {
        "rule": "strongest" if choice.rule == "strongest" else "darts",
        "edges_per_node": choice.edges_per_node,
        "budget": make_budget(config, classes, choice),
        "max_skips": choice.max_skips,
        "seed": config.runtime.seed,
    }
    try:
        return derive(stages[-1].weights, stages[-1].alive, space, **how)
    except UserError:
        if len(stages) == 1:
            raise
    found = derive(with_pruned(stages), stages[0].alive, space, **how)
    return replace(found, reason=f"{found.reason} Operations pruned in earlier stages were taken back.")


def file_name(choice: DeriveConfig) -> str:
    """Return the name of a cell's file, without its ending, that says how the cell was derived."""
    parts: list[str] = [choice.rule]
    if choice.rule != "strongest":
        parts.append(f"{choice.edges_per_node}-edges")
    most = microseconds(parse_time(choice.max_latency, "--max-latency"))
    for name, limit in {"params": choice.max_params, "macs": choice.max_macs, "us": most}.items():
        if limit:
            parts.append(f"{name}-{limit}")
    if choice.max_skips >= 0:
        parts.append(f"skips-{choice.max_skips}")
    return "_".join(parts)
