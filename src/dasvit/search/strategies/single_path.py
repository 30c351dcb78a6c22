"""What methods share whose steps evaluate one operation an edge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dasvit.cell.space import OperationMask, Space
from dasvit.config import Config
from dasvit.search.strategies.base import Strategy
from dasvit.search.supernet import ForwardMode


class SinglePath(Strategy):
    """A method whose steps evaluate one operation an edge: which, `begin_step` says by calling `choose`.

    Attributes:
        active: For every edge the index of the step's operation.
    """

    def __init__(self, config: Config, space: Space, classes: int) -> None:
        super().__init__(config, space, classes)
        self.active = [0] * len(space.edges)

    def choose(self, active: Sequence[int]) -> None:
        """Evaluate these operations until others are chosen."""
        self.active = list(active)

    def one_hot(self, like: Tensor) -> Tensor:
        """Return weights of 1 at the step's operations and 0 elsewhere, [E, O], of another tensor's type and device."""
        return F.one_hot(torch.tensor(self.active), len(self.space.operations)).to(like)

    def mode(self) -> ForwardMode:
        """Return the step's operations."""
        return ForwardMode(active=self.active)

    def extreme_paths(self, alive: OperationMask) -> list[list[int]]:
        """Return for every operation the path that has it on every edge where it is a candidate."""
        operations = range(len(self.space.operations))
        return [[o if row[o] else row.index(True) for row in alive] for o in operations if any(row[o] for row in alive)]
