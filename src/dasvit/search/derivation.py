"""From what a search ends with to one cell: by the weights of its edges, or by what its candidates reached."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dasvit.cell.space import Space
from dasvit.config import Config, DeriveConfig
from dasvit.errors import UserError
from dasvit.search.cost import make_budget
from dasvit.search.derive import Derivation, derive
from dasvit.search.stages import Stages, StageWeights, with_pruned


def derive_found(stages: Stages, config: Config, classes: int, choice: DeriveConfig) -> Derivation:
    """Derive the best viable cell of a search's edge weights under a choice's rule and budget.

    The survivors of the last stage compete; only where none of their cells fits do pruned operations come back.

    Args:
        stages: Edge weights and operations alive at the end of every stage.
        config: The search's configuration.
        classes: Classes of the data.
        choice: Rule and budget.

    Raises:
        UserError: No cell of the space fits.
    """
    space = Space.from_config(config.space)
    how: dict[str, Any] = {
        "rule": "strongest" if choice.rule == "strongest" else "darts",
        "edges_per_node": choice.edges_per_node,
        "budget": make_budget(config, classes, choice),
        "max_skips": choice.max_skips,
        "seed": config.runtime.seed,
    }
    weights, alive = stages[-1]
    try:
        return derive(weights, alive, space, **how)
    except UserError:
        if len(stages) == 1:
            raise
    found = derive(with_pruned(stages), stages[0].alive, space, **how)
    return replace(found, reason=f"{found.reason} Operations pruned in earlier stages were taken back.")


def even_stages(space: Space) -> list[StageWeights]:
    """Return the stages of a search that trained no supernet: every operation weighs as much as any other."""
    return [StageWeights([[1.0] * len(space.operations) for _ in space.edges], space.everything())]
