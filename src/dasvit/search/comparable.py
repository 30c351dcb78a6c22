"""Cells as costly as a reference, to be drawn at random: what a search must beat."""

from __future__ import annotations

import dataclasses

from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.config import Config
from dasvit.errors import UserError
from dasvit.search.derivation import cells_within
from dasvit.search.sampling import Cells


def comparable_cells(config: Config, classes: int, reference: Genotype | None = None) -> Cells:
    """Return the cells that a search under this recipe could have found, as costly as a reference.

    Args:
        config: The recipe: rule and limits of the derivation, reference and tolerance of the draw.
        classes: Classes of the data.
        reference: Whose multiply-adds count. None: `search.random.reference`, or no cell's.

    Raises:
        UserError: There is no such reference, or it is of another space.
    """
    derive, options = config.search.derive, config.search.random
    cells = cells_within(config, classes, derive)
    if reference is None and options.reference:
        reference = load_genotype(options.reference)
    if reference is None:
        return cells
    strange = sorted(set(reference.ops) - set(cells.space.operations))
    if strange:
        raise UserError(f"search.random.reference holds {', '.join(strange)}, which space does not: change either.")
    macs = cells.budget.cost(reference)[1]
    most = round(macs * (1 + options.tolerance))
    limit = min(most, derive.max_macs) if derive.max_macs else most
    budget = dataclasses.replace(cells.budget, max_macs=limit)
    return dataclasses.replace(cells, budget=budget, min_macs=round(macs * (1 - options.tolerance)))
