"""Cells as costly as a reference, to be drawn at random: what a search must beat."""

from __future__ import annotations

import dataclasses

from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.errors import UserError
from dasvit.search.cost import make_budget
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
    space = Space.from_config(config.space)
    budget = make_budget(config, classes, derive)
    keep = 0 if derive.rule == "strongest" else derive.edges_per_node
    if reference is None and options.reference:
        reference = load_genotype(options.reference)
    if reference is None:
        return Cells(space, keep, budget)
    strange = sorted(set(reference.ops) - set(space.operations))
    if strange:
        raise UserError(f"search.random.reference holds {', '.join(strange)}, which space does not: change either.")
    macs = budget.cost(reference)[1]
    most = round(macs * (1 + options.tolerance))
    limit = min(most, derive.max_macs) if derive.max_macs else most
    return Cells(space, keep, dataclasses.replace(budget, max_macs=limit), round(macs * (1 - options.tolerance)))
