"""Which cell is the next candidate: those that are given, then cells drawn evenly, then by what candidates reached."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.cell.space import Space
from dasvit.config import Config, DeriveConfig
from dasvit.search.comparable import comparable_cells
from dasvit.search.cost import make_budget
from dasvit.search.derivation import derive_by_weights
from dasvit.search.derive import Derivation, skips
from dasvit.search.halving import Candidate, Expectation, converged
from dasvit.search.stages import Stages, StageWeights, with_pruned
from dasvit.search.surrogate import Features, LinearModel, common_losses

SHIPPED = "dasvit_shift"
"""The cell that the package ships (docs/results.md)."""
DRAWS = 5
"""What random numbers of the candidates are for, beside those of the search loop and of the strategies."""
ENOUGH = 200
"""Draws without a new cell, after which there are no more candidates."""
TEACHERS = 4
"""Results below which candidates are drawn evenly: a model of fewer knows nothing."""


class Proposer:
    """Gives one candidate after the other.

    Args:
        config: The search's recipe.
        classes: Classes of the data.
        stages: Edge weights and operations alive at the end of every stage. None: there was no supernet.
        first: The candidates that enter first.

    Attributes:
        shipped: The shipped cell, if it is a candidate.
    """

    def __init__(self, config: Config, classes: int, stages: Stages | None, first: Sequence[Genotype]) -> None:
        self.config, self.classes = config, classes
        self.cells, self.features = comparable_cells(config, classes), make_features(config, classes, stages)
        self.shipped = self._shipped()
        self.given = list(dict.fromkeys([*first, *([self.shipped] if self.shipped else [])]))

    def __call__(self, entered: Sequence[Candidate]) -> Candidate | None:
        """Return a candidate that is none of those so far; None where draws find no other."""
        if len(entered) < len(self.given):
            return Candidate(self.given[len(entered)])
        known = {candidate.cell for candidate in entered}
        seen = converged([candidate for candidate in entered if candidate.rungs])
        if self.config.search.finals.learn and len(seen) >= TEACHERS:
            drawn = self._by_model(seen, known, len(entered))
            if drawn is not None:
                return drawn
        cell = self._evenly(known, len(entered))
        return None if cell is None else Candidate(cell)

    def _evenly(self, known: set[Genotype], number: int) -> Genotype | None:
        """Return a cell drawn with the same probability as every other that fits."""
        chance = random.Random(f"{self.config.runtime.seed} {DRAWS} {number}")
        for _ in range(ENOUGH):
            cell = self.cells.draw(chance)
            if cell not in known and self._may_skip(cell):
                return cell
        return None

    def _by_model(self, seen: Sequence[Candidate], known: set[Genotype], number: int) -> Candidate | None:
        """Return the best cell of a draw from what the candidates so far say (Thompson sampling)."""
        model = LinearModel(self.features, [candidate.cell for candidate in seen], common_losses(seen))
        chance = np.random.default_rng([self.config.runtime.seed, DRAWS, number])
        for _ in range(ENOUGH):
            cell = best_cell(model.draw(chance), self.config, self.classes, self.config.search.derive).genotype
            if cell not in known:
                mean, sd = model.predict([cell])
                return Candidate(cell, expected=Expectation(float(mean[0]), float(sd[0])))
        return None

    def _shipped(self) -> Genotype | None:
        """Return the shipped cell where it may be a candidate."""
        if not self.config.search.finals.shipped:
            return None
        cell, space = load_genotype(SHIPPED), self.cells.space
        is_of_space = cell.nodes == space.nodes and set(cell.ops) <= set(space.operations)
        return cell if is_of_space and self.cells.allow(cell) and self._may_skip(cell) else None

    def _may_skip(self, cell: Genotype) -> bool:
        most = self.config.search.derive.max_skips
        return most < 0 or skips(cell) <= most


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
    return Features(Space.from_config(config.space), macs, supernet)


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
