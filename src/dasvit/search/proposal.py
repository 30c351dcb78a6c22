"""Which cell is the next candidate: those that are given, then cells drawn evenly, then by what candidates reached."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.cell.sizes import Sizes
from dasvit.config import Config
from dasvit.errors import UserError
from dasvit.search.derive import skips
from dasvit.search.expected import best_cell, make_features
from dasvit.search.halving import Candidate, Expectation, converged
from dasvit.search.sized import best_network, draw_network, largest, pools_within, share_of_budget
from dasvit.search.stages import Stages
from dasvit.search.surrogate import LinearModel, common_losses

SHIPPED = "dasvit_shift"
"""The cell that the package ships (docs/results.md)."""
DRAWS = 5
"""What random numbers of the candidates are for, beside those of the search loop and of the strategies."""
ENOUGH = 200
"""Draws without a new cell, after which there are no more candidates."""
TRIES = 20_000
"""The same where most networks use too little of the budget."""
MANY = 2000
"""Networks among which the model chooses where candidates must use a share of the budget."""
TEACHERS = 4
"""Results below which candidates are drawn evenly: a model of fewer knows nothing."""


def uses_floor(config: Config) -> bool:
    """Tell whether a search's drawn candidates must use a share of the budget."""
    limits = config.search.derive
    return bool(config.search.finals.min_share and (limits.max_params or limits.max_macs or limits.max_latency))


def check_share(config: Config, classes: int) -> None:
    """Refuse a share of the budget that no network uses, before an image is decoded.

    Under a latency budget nothing is known before the table is measured: then the first draw says it.

    Raises:
        UserError: None of many networks that are drawn uses so much; the text has the largest share.
    """
    if not uses_floor(config) or config.search.derive.max_latency:
        return
    pools, chance, most = pools_within(config, classes), random.Random(config.runtime.seed), 0.0
    for _ in range(TRIES):
        cell = draw_network(pools, chance)
        most = max(most, share_of_budget(pools[cell.sizes].budget.cost(cell), pools[cell.sizes].budget))
        if most >= config.search.finals.min_share:
            return
    raise UserError(no_network(config.search.finals.min_share, most))


def no_network(share: float, most: float = 0.0) -> str:
    """Return the sentence where no drawn network uses a share of the budget, with the largest that one uses."""
    seen = f" (the largest uses {most:.2f})" if most else ""
    return f"no network that was drawn uses {share:g} of the budget{seen}: lower search.finals.min_share or the budget."


class Proposer:
    """Gives one candidate after the other.

    Args:
        config: The search's recipe.
        classes: Classes of the data.
        stages: Edge weights and operations alive at the end of every stage. None: there was no supernet.
        first: The candidates that enter first.

    Attributes:
        pools: The cells that fit, by the sizes of their networks.
        has_floor: Whether drawn networks must use a share of the budget.
        shipped: The shipped cell, if it is a candidate; where sizes are searched, at the largest that fit.
    """

    def __init__(self, config: Config, classes: int, stages: Stages | None, first: Sequence[Genotype]) -> None:
        self.config, self.classes = config, classes
        self.pools, self.features = pools_within(config, classes), make_features(config, classes, stages)
        self.has_floor = uses_floor(config)
        self.shipped = self._shipped()
        self.given = list(dict.fromkeys([*first, *([self.shipped] if self.shipped else [])]))

    def __call__(self, entered: Sequence[Candidate]) -> Candidate | None:
        """Return a candidate that is none of those so far; None where draws find no other.

        Raises:
            UserError: Draws find none at all.
        """
        if len(entered) < len(self.given):
            return Candidate(self.given[len(entered)])
        known = {candidate.cell for candidate in entered}
        seen = converged([candidate for candidate in entered if candidate.rungs])
        if self.config.search.finals.learn and (len(seen) >= TEACHERS or self.features.prior):
            drawn = self._by_model(seen if len(seen) >= TEACHERS else [], known, len(entered))
            if drawn is not None:
                return drawn
        cell = self._evenly(known, len(entered))
        if cell is None and not entered:
            raise UserError(no_network(self.config.search.finals.min_share))
        return None if cell is None else Candidate(cell)

    def _evenly(self, known: set[Genotype], number: int) -> Genotype | None:
        """Return a cell drawn with the same probability as every other that fits."""
        chance = random.Random(f"{self.config.runtime.seed} {DRAWS} {number}")
        draws = TRIES if self.has_floor else ENOUGH
        cells = (draw_network(self.pools, chance) for _ in range(draws))
        return next((cell for cell in cells if cell not in known and self._may_enter(cell)), None)

    def _by_model(self, seen: Sequence[Candidate], known: set[Genotype], number: int) -> Candidate | None:
        """Return the best cell of a draw from what the candidates so far say (Thompson sampling).

        Args:
            seen: Candidates and what they reached; none, and what other data say is all that is known.
            known: Cells that are candidates already.
            number: Of the draw.
        """
        losses = common_losses(seen) if seen else np.zeros(0)
        model = LinearModel(self.features, [candidate.cell for candidate in seen], losses)
        chance = np.random.default_rng([self.config.runtime.seed, DRAWS, number])
        for _ in range(ENOUGH):
            cell = self._best(model, chance, known, known_sizes=bool(seen))
            if cell is not None and cell not in known:
                if not seen:  # before a loss is seen, its scale is not known
                    return Candidate(cell)
                mean, sd = model.predict([cell])
                return Candidate(cell, expected=Expectation(float(mean[0]), float(sd[0])))
        return None

    def _best(
        self, model: LinearModel, chance: np.random.Generator, known: set[Genotype], known_sizes: bool
    ) -> Genotype | None:
        """Return the network of the least loss under a draw of the model's coefficients.

        Args:
            model: The model.
            chance: What draws.
            known: Cells that are candidates already.
            known_sizes: Whether the model has seen sizes; otherwise these are drawn evenly.
        """
        coefficients = model.draw_coefficients(chance)
        sizes = [one for one in self.pools if one is not None]
        if sizes:
            sizes = sizes if known_sizes else [sizes[int(chance.integers(len(sizes)))]]
        if self.has_floor:
            return self._best_drawn(coefficients, known, sizes)
        if sizes:
            return best_network(coefficients, model, sizes, self.config, self.classes)
        table = model.table(coefficients)
        return best_cell(table, self.config, self.classes, self.config.search.derive).genotype

    def _best_drawn(
        self, coefficients: NDArray[np.float64], known: set[Genotype], sizes: Sequence[Sizes]
    ) -> Genotype | None:
        """Return the best of many networks that cost enough: derivation is exact under limits from above alone."""
        values = self._rows @ coefficients[:-1]
        for place in np.argsort(values):
            cell = self._many[int(place)]
            if cell not in known and (not sizes or cell.sizes in sizes):
                return cell
        return None

    @cached_property
    def _many(self) -> list[Genotype]:
        """Different networks that cost enough, drawn evenly."""
        chance, found = random.Random(f"{self.config.runtime.seed} {DRAWS}"), dict[Genotype, None]()
        for _ in range(20 * MANY):
            cell = draw_network(self.pools, chance)
            if self._may_enter(cell):
                found[cell] = None
            if len(found) == MANY:
                break
        return list(found)

    @cached_property
    def _rows(self) -> NDArray[np.float64]:
        """Their rows in the model, [N, F]."""
        return self.features.rows(self._many)

    def _may_enter(self, cell: Genotype) -> bool:
        """Tell whether a drawn network has no more skips than it may, and uses as much of the budget as it must."""
        budget, share = self.pools[cell.sizes].budget, self.config.search.finals.min_share
        return self._may_skip(cell) and (not self.has_floor or share_of_budget(budget.cost(cell), budget) >= share)

    def _shipped(self) -> Genotype | None:
        """Return the shipped cell where it may be a candidate."""
        if not self.config.search.finals.shipped:
            return None
        cell = load_genotype(SHIPPED)
        return largest(cell, self.pools) if self._may_skip(cell) else None

    def _may_skip(self, cell: Genotype) -> bool:
        most = self.config.search.derive.max_skips
        return most < 0 or skips(cell) <= most
