"""A search that has ended, read from its folder: what `dasvit derive` and `dasvit study` ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Space
from dasvit.config import Config, DeriveConfig
from dasvit.config import recipe as recipes
from dasvit.config.methods import find_method
from dasvit.errors import UserError
from dasvit.io.files import read_object
from dasvit.io.run_folder import RunFolder
from dasvit.search.candidates import Candidate, best_first, operation_effects
from dasvit.search.cost import make_budget
from dasvit.search.derivation import derive_found, even_stages
from dasvit.search.derive import Derivation, skips
from dasvit.search.sampling import Cells
from dasvit.search.stages import Stages, StageWeights, read_stages
from dasvit.session import noted_classes


@dataclass(frozen=True)
class PastSearch:
    """A search as its folder tells it.

    Attributes:
        config: Its recipe.
        stages: Edge weights and operations alive at the end of every stage so far. None: it trains no supernet.
        candidates: The cells that it trained, best first; empty where it trained none, or has not ended.
        classes: Classes of its data.
    """

    config: Config
    stages: Stages | None
    candidates: Sequence[Candidate]
    classes: int

    def derive(self, choice: DeriveConfig, by_weights: bool) -> Derivation:
        """Derive a cell under a choice's rule and budget: by what candidates reached, where there are any.

        Args:
            choice: Rule and budget.
            by_weights: Whether the edge weights decide, though there are candidates.

        Raises:
            UserError: No cell fits, or there is nothing to derive one from.
        """
        if self.candidates and not (by_weights and self.stages):
            return derive_by_candidates(self.candidates, self.config, self.classes, choice)
        if not self.stages:
            raise UserError(
                f"a search by {self.config.search.method} has no edge weights, and no trained candidates yet: derive "
                "from a search that has ended, or of another method."
            )
        return derive_found(self.stages, self.config, self.classes, choice)


def read_search(folder: Path) -> PastSearch:
    """Read a search from its folder.

    Raises:
        UserError: The folder holds no search, or one that wrote no epoch yet.
    """
    run = RunFolder(folder, "search")
    if not run.config_path.is_file():
        raise UserError(f"{folder} is no run folder: it holds no config.yaml.")
    if run.identity().get("kind") != "search":
        raise UserError(f"{folder} holds a training, not a search.")
    config = recipes.load(run.config_path)
    stages, method = None, find_method(config.search.method)
    if method.finds == "network":
        raise UserError(f"{folder} holds a search by {method.name}, whose network is found, not derived.")
    if method.trains_supernet:
        stages = read_stages(run, Space.from_config(config.space))
    return PastSearch(config, stages, read_candidates(run), noted_classes(run))


def read_candidates(run: RunFolder) -> list[Candidate]:
    """Return the candidates that a search's `derivation.json` lists, best first.

    Raises:
        UserError: They are not as a search writes them.
    """
    rows = read_object(run.path / "derivation.json").get("finals", [])
    try:
        found = [
            Candidate(
                Genotype.from_dict(row["genotype"]), float(row["top1"]), float(row["loss"]), 0.0, int(row["epochs"])
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{run.path}/derivation.json is damaged: its finals are not as a search writes them.") from None
    return best_first(found)


def derive_by_candidates(
    candidates: Sequence[Candidate], config: Config, classes: int, choice: DeriveConfig
) -> Derivation:
    """Return the best candidate that fits; where none does, the cell that their results speak for most.

    Args:
        candidates: What was trained, best first.
        config: The search's recipe.
        classes: Classes of its data.
        choice: Limits of the cell.

    Raises:
        UserError: No cell of the space fits.
    """
    space, best = Space.from_config(config.space), candidates[0]
    budget = make_budget(config, classes, choice.max_params, choice.max_macs)
    cells = Cells(space, 0 if choice.rule == "strongest" else choice.edges_per_node, budget)
    fitting = [c for c in candidates if cells.allow(c.cell) and not 0 <= choice.max_skips < skips(c.cell)]
    if fitting and fitting[0] is best:
        return Derivation(best.cell, best.cell, "")
    if fitting:
        reason = (
            f"Of {len(candidates)} candidates {len(fitting)} fit; the best of these reached {fitting[0].top1:.2f} % in "
            f"{fitting[0].epochs} epochs, the best of all {best.top1:.2f} % in {best.epochs}."
        )
        return Derivation(fitting[0].cell, best.cell, reason)
    # Some were trained longer than others, so it is their order that counts.
    places = [replace(candidate, top1=-float(place)) for place, candidate in enumerate(candidates)]
    scores = np.exp(operation_effects(places, space, gain=1.0)).tolist()
    found = derive_found([StageWeights(scores, even_stages(space)[0].alive)], config, classes, choice)
    reason = f"None of {len(candidates)} candidates fits: this cell's operations did best in those that were trained."
    return Derivation(found.genotype, best.cell, reason)
