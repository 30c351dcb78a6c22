"""What a model of the candidates is given, and the cell of the least loss that it expects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dasvit.cell.size_space import at, sizes_of_space
from dasvit.cell.space import Space
from dasvit.config import Config, DeriveConfig
from dasvit.search.cost import make_budget
from dasvit.search.derivation import derive_by_weights, ruled
from dasvit.search.derive import Derivation
from dasvit.search.prior import make_prior, prior_of, read_sources
from dasvit.search.stages import Stages, StageWeights, with_pruned
from dasvit.search.surrogate import Features


def make_features(config: Config, classes: int, stages: Stages | None) -> Features:
    """Return how cells of a search become rows of its model.

    Args:
        config: The search's recipe.
        classes: Classes of the data.
        stages: As for `Proposer`.
    """
    operations = make_budget(config, classes).operations
    macs = {op: float(cost[1]) for op, cost in operations.items()}
    supernet = None if stages is None else np.log(np.maximum(with_pruned(stages), 1e-6))
    sizes = {one: mean_macs(at(config, one), classes) for one in sizes_of_space(config)}
    features = Features(Space.from_config(config.space), macs, supernet, sizes)
    return replace(features, prior=make_prior(features, read_sources(prior_of(config))))


def mean_macs(config: Config, classes: int) -> float:
    """Return the multiply-adds of the network of a cell whose every edge that the rule keeps has the mean operation."""
    budget, space = make_budget(config, classes), Space.from_config(config.space)
    choice = ruled(config, config.search.derive)
    mean = sum(cost[1] for cost in budget.operations.values()) / len(budget.operations)
    kept = len(space.edges) if choice.rule == "strongest" else choice.edges_per_node * space.nodes
    return budget.base[1] + min(kept, len(space.edges)) * mean


def gains_of(table: NDArray[np.float64], space: Space) -> NDArray[np.float64]:
    """Return what operations take off a cell's loss against `zero`, which gains 0 as an edge left out does, [E, O].

    Args:
        table: What every operation on every edge adds to the loss, [E, O].
        space: The search space.
    """
    gains: NDArray[np.float64] = table[:, [space.operations.index("zero")]] - table
    return gains


def best_cell(table: NDArray[np.float64], config: Config, classes: int, choice: DeriveConfig) -> Derivation:
    """Return the cell of the least loss within rule and budget, exactly.

    Args:
        table: What every operation on every edge adds to a cell's loss, [E, O].
        config: The search's recipe.
        classes: Classes of the data.
        choice: Rule and limits.

    Raises:
        UserError: No cell of the space fits.
    """
    space = Space.from_config(config.space)
    weights = np.exp(gains_of(table, space)).tolist()
    return derive_by_weights([StageWeights(weights, space.everything())], config, classes, choice)
