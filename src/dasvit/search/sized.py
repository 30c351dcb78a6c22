"""Cells and sizes together: which networks fit a budget, which of them a model prefers, and what a search derives.

At given sizes everything is as for a cell alone: costs add up over the edges, and derivation is exact. So the best of
all networks is the best over the sizes of the best cell at each; combinations of sizes are few (docs/sizes.md).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dasvit.cell.genotype import Genotype
from dasvit.cell.size_space import at, at_cell, sizes_of_space
from dasvit.cell.sizes import Sizes
from dasvit.cell.space import Space
from dasvit.config import Config, DeriveConfig
from dasvit.config.validation import has_sizes
from dasvit.errors import UserError
from dasvit.latency.table import Timed, find_table
from dasvit.runtime.progress import Reporter
from dasvit.search.comparable import comparable_cells
from dasvit.search.cost import make_budget
from dasvit.search.derivation import cells_within, derive_by_weights, ruled
from dasvit.search.derive import SMALLEST, Budget, Derivation, cheapest_cell, skips
from dasvit.search.expected import best_cell, make_features
from dasvit.search.halving import Candidate, converged
from dasvit.search.sampling import Cells
from dasvit.search.stages import Stages
from dasvit.search.surrogate import LinearModel, common_losses

Pools = Mapping[Sizes | None, Cells]
"""The cells that fit, by the sizes of their networks; under None alone where sizes are fixed."""


def with_choice(config: Config, choice: DeriveConfig) -> Config:
    """Return a recipe with another rule and other limits."""
    return replace(config, search=replace(config.search, derive=choice))


def pools_within(config: Config, classes: int) -> Pools:
    """Return the cells that keep to a recipe's rule and limits, by sizes.

    A latency table is measured of the sizes alone that keep to the other limits.

    Raises:
        UserError: No network fits; the text says what the cheapest costs, and at which sizes.
    """
    if not has_sizes(config.space):
        return {None: comparable_cells(config, classes)}
    pools: dict[Sizes | None, Cells] = {}
    untimed = with_choice(config, replace(config.search.derive, max_latency=""))
    for sizes in sizes_of_space(config):
        try:
            comparable_cells(at(untimed, sizes), classes).check()
        except UserError:
            continue
        cells = comparable_cells(at(config, sizes), classes)
        try:
            cells.check()
        except UserError:
            continue
        pools[sizes] = cells
    if not pools:
        raise UserError(_why_none(config, classes))
    return pools


def measure_tables(config: Config, classes: int, reporter: Reporter) -> None:
    """Measure the latency tables of all sizes that keep to a recipe's other limits, each once."""
    timed: Timed = {}
    for sizes in pools_within(with_choice(config, replace(config.search.derive, max_latency="")), classes):
        find_table(at(config, sizes), classes, reporter, timed)


def _why_none(config: Config, classes: int) -> str:
    """Say what the cheapest network of the space costs where none fits."""
    choice, texts = ruled(config, config.search.derive), list[str]()
    keep = 0 if choice.rule == "strongest" else choice.edges_per_node
    limits = make_budget(at(config, sizes_of_space(config)[0]), classes, choice).limits
    for axis, limit in enumerate(limits):
        if not limit:
            continue
        least: list[tuple[int, Sizes]] = []
        for sizes in sizes_of_space(config):
            own = at(config, sizes)
            budget = make_budget(own, classes, choice)
            cell = cheapest_cell(Space.from_config(own.space), budget, axis, keep)
            if cell is not None:
                least.append((budget.cost(cell)[axis], sizes))
        if least:
            cost, sizes = min(least)
            texts.append(f"{SMALLEST[axis](cost, limit)}, of {sizes}")
    if not texts:
        return "no cell of the space holds an attention on a path from input to output: change space."
    said = "; ".join(texts)
    return f"no network of the space fits the budget: {said}. Raise the limit, or give space smaller sizes."


def draw_network(pools: Pools, chance: random.Random) -> Genotype:
    """Draw sizes, each with the same probability, then a cell at these, likewise."""
    sizes = None if None in pools else chance.choice(list(pools))
    return pools[sizes].draw(chance).sized(sizes)


def cost_counter(
    config: Config, classes: int, limits: DeriveConfig | None = None
) -> Callable[[Genotype], tuple[int, ...]]:
    """Return what counts a network's parameters and multiply-adds, and its time where that is limited.

    Args:
        config: The recipe, whose sizes count for a cell that has none of its own.
        classes: Classes of the data.
        limits: As of `make_budget`.
    """

    @functools.cache
    def budget(sizes: Sizes | None) -> Budget:
        return make_budget(at(config, sizes), classes, limits)

    return lambda cell: budget(cell.sizes).cost(cell)


def share_of_budget(cost: Sequence[int], budget: Budget) -> float:
    """Return the share of the tightest limit that a network uses; without limits, its multiply-adds."""
    used = [value / limit for value, limit in zip(cost, budget.limits, strict=False) if limit]
    return max(used) if used else float(cost[1])


def largest(cell: Genotype, pools: Pools) -> Genotype | None:
    """Return a cell at the sizes at which its network uses the most of the budget; None where it fits at none."""
    found = [
        (share_of_budget(cells.budget.cost(cell), cells.budget), place, sizes)
        for place, (sizes, cells) in enumerate(pools.items())
        if cell.nodes == cells.space.nodes and set(cell.ops) <= set(cells.space.operations) and cells.allow(cell)
    ]
    return cell.sized(max(found)[2]) if found else None


def best_network(
    coefficients: NDArray[np.float64], model: LinearModel, sizes: Sequence[Sizes], config: Config, classes: int
) -> Genotype | None:
    """Return the network of the least loss within rule and budget, exactly, under coefficients of the model.

    Args:
        coefficients: Of its features, the offset last, [F + 1].
        model: The model.
        sizes: Those that are asked about.
        config: The recipe: space, rule and limits.
        classes: Classes of the data.
    """
    table, names = model.table(coefficients), model.features.space.operations
    found = []
    for one in sizes:
        own = at(config, one)
        columns = [names.index(op) for op in Space.from_config(own.space).operations]
        try:
            cell = best_cell(table[:, columns], own, classes, config.search.derive).genotype
        except UserError:  # none with so few skips
            continue
        found.append(cell.sized(one))
    if not found:
        return None
    values = model.features.rows(found) @ coefficients[:-1]
    return found[int(np.argmin(values))]


def fits(cell: Genotype, config: Config, classes: int) -> bool:
    """Tell whether a cell's network keeps to a recipe's rule and limits."""
    choice, own = config.search.derive, at_cell(config, cell)
    if cell.sizes is not None and not set(cell.ops) <= set(Space.from_config(own.space).operations):
        return False
    return cells_within(own, classes, choice).allow(cell) and not 0 <= choice.max_skips < skips(cell)


def derive_sized(
    candidates: Sequence[Candidate],
    stages: Stages | None,
    config: Config,
    classes: int,
    choice: DeriveConfig,
    *,
    by_weights: bool = False,
) -> Derivation:
    """Derive the best network of a search over cells and sizes under a choice's rule and budget.

    The best trained candidate that fits; where none does, the network that a model of the candidates expects the least
    loss of; without candidates, the cell of the heaviest weights at the largest sizes that fit.

    Args:
        candidates: Best first.
        stages: A supernet's. None: there was none.
        config: The search's recipe.
        classes: Classes of the data.
        choice: Rule and budget.
        by_weights: Whether the supernet's weights decide, though there are candidates.

    Raises:
        UserError: No network of the space fits.
    """
    config = with_choice(config, choice)
    if stages and (by_weights or not candidates):
        return _by_weights(stages, config, classes)
    if not candidates:
        raise UserError(
            f"a search by {config.search.method} has no edge weights, and no trained candidates yet: derive from a "
            "search that has ended, or of another method."
        )
    known = converged(candidates)
    fitting, best = [one for one in known if fits(one.cell, config, classes)], known[0]
    if fitting and fitting[0] is best:
        return Derivation(best.cell, best.cell, "")
    if fitting:
        reached = f"{fitting[0].last} after {fitting[0].last.epochs:g} epochs"
        reason = f"Of {len(known)} candidates {len(fitting)} fit; the best of these reached {reached}."
        return Derivation(fitting[0].cell, best.cell, reason)
    sizes = [one for one in pools_within(config, classes) if one is not None]
    model = LinearModel(make_features(config, classes, stages), [one.cell for one in known], common_losses(known))
    found = best_network(model.posterior[0], model, sizes, config, classes)
    if found is None:
        raise UserError(f"no network holds at most {choice.max_skips} skips: raise --max-skips.")
    mean, sd = model.predict([found])
    reason = (
        f"None of {len(known)} candidates fits. This network was not trained: of all cells at {len(sizes)} sizes that "
        f"fit, a model of the candidates expects the least of it: {mean[0]:.4f} ± {sd[0]:.4f} at the first rung."
    )
    return Derivation(found, best.cell, reason)


def _by_weights(stages: Stages, config: Config, classes: int) -> Derivation:
    """Derive the cell of the heaviest weights at the sizes of the largest network that fits."""
    found: list[tuple[float, Derivation]] = []
    for sizes, cells in pools_within(config, classes).items():
        own = at(config, sizes)
        try:
            one = derive_by_weights(narrowed(stages, config, own), own, classes, config.search.derive)
        except UserError:
            continue
        sized = replace(one, genotype=one.genotype.sized(sizes), unconstrained=one.unconstrained.sized(sizes))
        found.append((share_of_budget(cells.budget.cost(one.genotype), cells.budget), sized))
    if not found:
        raise UserError("no cell that the weights leave fits at any sizes: raise search.derive.max_skips.")
    return max(found, key=lambda pair: pair[0])[1]


def narrowed(stages: Stages, config: Config, own: Config) -> Stages:
    """Return stages without the operations that a recipe's networks of some sizes do not have."""
    names, kept = Space.from_config(config.space).operations, Space.from_config(own.space).operations
    columns = [names.index(op) for op in kept]
    return [
        stage._replace(
            weights=[[row[column] for column in columns] for row in stage.weights],
            alive=tuple(tuple(row[column] for column in columns) for row in stage.alive),
            cells=(),
        )
        for stage in stages
    ]
