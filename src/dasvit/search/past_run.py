"""A search that has ended, read from its folder: what `dasvit derive` and `dasvit study` ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dasvit.cell.space import Space
from dasvit.config import Config, DeriveConfig
from dasvit.config import recipe as recipes
from dasvit.config.methods import find_method
from dasvit.config.validation import has_sizes
from dasvit.errors import UserError
from dasvit.io.run_folder import RunFolder
from dasvit.search.derivation import derive_found
from dasvit.search.derive import Derivation
from dasvit.search.expected import gains_of, make_features
from dasvit.search.halving import Candidate, converged
from dasvit.search.prior import past_prior
from dasvit.search.sized import derive_sized
from dasvit.search.stages import EvaluatedCell, Stages, StageWeights, read_candidates, read_stages
from dasvit.search.surrogate import LinearModel, common_losses
from dasvit.session import noted_classes


@dataclass(frozen=True)
class PastSearch:
    """A search as its folder tells it.

    Attributes:
        config: Its recipe.
        stages: Edge weights, operations alive and cells evaluated at the end of every stage so far. None: it trains no
            supernet.
        candidates: The cells that it trained, best first; empty where it trained none, or has not ended.
        classes: Classes of its data.
    """

    config: Config
    stages: Stages | None
    candidates: Sequence[Candidate]
    classes: int

    def derive(self, choice: DeriveConfig, by_weights: bool) -> Derivation:
        """Derive a cell under a choice's rule and budget: by what cells reached, where any were evaluated.

        Args:
            choice: Rule and budget.
            by_weights: Whether the edge weights decide, though cells were evaluated.

        Raises:
            UserError: No cell fits, or there is nothing to derive one from.
        """
        stages = self.stages
        if has_sizes(self.config.space):
            return derive_sized(self.candidates, stages, self.config, self.classes, choice, by_weights=by_weights)
        if self.candidates and not (by_weights and stages):
            stages = candidate_stages(self.candidates, self.config, self.classes, stages)
        elif stages and by_weights:
            stages = [stage._replace(cells=()) for stage in stages]
        if not stages:
            raise UserError(
                f"a search by {self.config.search.method} has no edge weights, and no trained candidates yet: derive "
                "from a search that has ended, or of another method."
            )
        return derive_found(stages, self.config, self.classes, choice)


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
    config = past_prior(recipes.load(run.config_path), folder)
    stages, method = None, find_method(config.search.method)
    if method.finds == "network":
        raise UserError(f"{folder} holds a search by {method.name}, whose network is found, not derived.")
    if method.trains_supernet:
        stages = read_stages(run, Space.from_config(config.space))
    return PastSearch(config, stages, read_candidates(run), noted_classes(run))


def candidate_stages(
    candidates: Sequence[Candidate], config: Config, classes: int, supernet: Stages | None = None
) -> Stages:
    """Return candidates, best first, as what a search ends with.

    The logarithm of an operation's weight is what a model of their losses expects it to take off the loss.

    Args:
        candidates: What was trained, best first.
        config: The search's recipe.
        classes: Classes of its data.
        supernet: Its stages, whose weights enter the model. None: there was none.
    """
    space, candidates = Space.from_config(config.space), converged(candidates)
    model = LinearModel(
        make_features(config, classes, supernet), [one.cell for one in candidates], common_losses(candidates)
    )
    weights = np.exp(gains_of(model.table(model.posterior[0]), space)).tolist()
    reached = (f"a loss of {one.last.loss:.4f} after {one.last.epochs:g} epochs" for one in candidates)
    cells = tuple(map(EvaluatedCell, (one.cell for one in candidates), reached))
    return [StageWeights(weights, space.everything(), cells)]
