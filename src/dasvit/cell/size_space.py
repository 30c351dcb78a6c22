"""The sizes that a search can find beside the cell: every combination that `space` lists."""

from __future__ import annotations

import itertools
from dataclasses import replace

from dasvit.cell.genotype import Genotype
from dasvit.cell.sizes import Sizes
from dasvit.config import Config
from dasvit.config.validation import has_sizes
from dasvit.errors import UserError


def sizes_of_space(config: Config) -> list[Sizes]:
    """Return every size of a network that a search can find; none where the recipe's section model says them all.

    Left out is what no network has: a width that none of the head counts divides, and a convolutional stem for patches
    whose side is no power of two.

    Raises:
        UserError: Nothing is left.
    """
    space, model = config.space, config.model
    if not has_sizes(space):
        return []
    lists = (
        space.widths or [model.width],
        space.depths or [model.layers],
        space.patches or [model.patch_size],
        space.stems or [model.stem],
        space.pools or [model.pool],
    )
    found = []
    for combination in itertools.product(*lists):
        try:
            sizes = Sizes(*combination, image_size=model.image_size)
        except UserError:
            continue
        if any(sizes.width % heads == 0 for heads in space.heads):
            found.append(sizes)
    if not found:
        raise UserError(
            f"no sizes of the space go with its cells: no width of {lists[0]} is divisible by a head count of "
            f"{space.heads}, or the stem makes no tokens of patches of {lists[2]} pixels. Change space.widths, "
            "space.heads or space.patches."
        )
    return found


def at(config: Config, sizes: Sizes | None) -> Config:
    """Return the recipe of networks of these sizes: its section model, and the head counts that divide the width.

    Args:
        config: The recipe.
        sizes: The sizes. None: the recipe as it is.
    """
    if sizes is None:
        return config
    heads = [count for count in config.space.heads if sizes.width % count == 0]
    return replace(config, model=sizes.within(config.model), space=replace(config.space, heads=heads))


def at_cell(config: Config, cell: Genotype) -> Config:
    """Return the recipe of a cell's network (see `at`)."""
    return at(config, cell.sizes)
