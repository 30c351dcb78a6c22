"""A search method as what it does differently from DARTS.

Shapes: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dasvit.cell.space import OperationMask, Space
from dasvit.config import Config
from dasvit.config.methods import find_method
from dasvit.search.architecture import Architecture
from dasvit.search.stages import EvaluatedCell
from dasvit.search.supernet import EVERYTHING, ForwardMode

DRAWS = 4
"""What random numbers of `Strategy.generator` are for, beside those of the search loop."""
Evaluator = Callable[[Tensor], float]
"""Gives the supernet's top-1 on the validation images under edge weights, in percent."""


@dataclass(frozen=True)
class StepProgress:
    """Where a search is at the start of a step.

    Attributes:
        step: Steps of the whole search that are done.
        done: Share of the search: 0 at its first step, 1 at its last.
        stage: The stage's number, from 0.
        stage_done: Share of the stage: 0 at its first step, 1 at its last.
    """

    step: int
    done: float
    stage: int
    stage_done: float


class Strategy:
    """A search method: hooks that the search loop calls. Here each does what DARTS and DASViT do: nothing.

    DARTS: Differentiable Architecture Search (Liu, Simonyan, Yang; 2018; arXiv:1806.09055). DASViT's parts (token
    selection, fairness, stages) are fields of the recipe, open to every method.

    What a strategy draws comes from `generator`, a function of seed and position, the same on every process. What else
    it must remember from step to step belongs into its state, so that an interrupted run ends as an undisturbed one.

    Args:
        config: The recipe.
        space: The search space.
        classes: Classes of the data.

    Attributes:
        method: The method's record.
        stopped: Whether the search is over before its last epoch.
        remembers: Names of the attributes that a checkpoint must hold.
    """

    remembers: tuple[str, ...] = ()

    def __init__(self, config: Config, space: Space, classes: int) -> None:
        self.config, self.space, self.classes = config, space, classes
        self.method = find_method(config.search.method)
        self.stopped = False

    @property
    def moves_alphas(self) -> bool:
        """Whether there are alpha steps."""
        return self.method.learns_alphas

    @property
    def evaluations(self) -> int:
        """How often the supernet was evaluated; the checkpoints' numbers go on by it."""
        return 0

    def begin_step(self, progress: StepProgress, architecture: Architecture) -> None:
        """Prepare a step: the alpha step and the weight step that follow see the same."""

    def weights(self, architecture: Architecture) -> Tensor:
        """Return the edge weights of a forward pass, [E, O], or [E, O + 1] with a bypass (see `MixedCell`)."""
        weights: Tensor = architecture()
        return weights

    def mode(self) -> ForwardMode:
        """Return which operations a step's forward passes evaluate, and what drops out."""
        return EVERYTHING

    def extreme_paths(self, alive: OperationMask) -> list[list[int]]:
        """Return the paths among which the step is that takes the most memory; none where steps do not differ.

        Args:
            alive: The candidates of every edge.
        """
        return []

    def choose(self, active: Sequence[int]) -> None:
        """Evaluate one of the `extreme_paths` in the steps that come, as `begin_step` would have drawn it."""
        raise NotImplementedError(f"{type(self).__name__} has no paths to choose from")

    def alpha_loss(self, architecture: Architecture, weights: Tensor) -> Tensor:
        """Return what the upper level's loss has beside L_val and L_fair, a scalar.

        Args:
            architecture: The alphas.
            weights: Their edge weights [E, O], without a bypass.
        """
        return weights.new_zeros(())

    def end_epoch(self, architecture: Architecture, moved: bool, is_last: bool, evaluate: Evaluator) -> None:
        """Look at an epoch's outcome, before it is logged.

        Args:
            architecture: The alphas.
            moved: Whether the epoch had alpha steps.
            is_last: Whether it is the search's last.
            evaluate: Evaluates the supernet; the state is saved in between.
        """

    def evaluated_cells(self) -> tuple[EvaluatedCell, ...]:
        """Return the cells that the method evaluated, best first; they decide before the edge weights do."""
        return ()

    def notes(self) -> dict[str, Any]:
        """Return what the epoch's line of `architecture.jsonl` says under `method`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold: the attributes of `remembers`."""
        return {name: getattr(self, name) for name in self.remembers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        for name in self.remembers:
            setattr(self, name, state[name])

    def generator(self, step: int) -> torch.Generator:
        """Return the generator of a step's draws, the same on every process."""
        place = [self.config.runtime.seed, DRAWS, step]
        generator = torch.Generator()
        generator.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        return generator
