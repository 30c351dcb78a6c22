"""DARTS-: an auxiliary skip that fades."""

from typing import Any

import torch
from torch import Tensor

from dasvit.search.architecture import Architecture
from dasvit.search.strategies.base import StepProgress, Strategy


class DartsMinus(Strategy):
    """DARTS-: Robustly Stepping out of Performance Collapse Without Indicators.

    Chu, Wang, Zhang, Lu, Wei, Yan; 2020; arXiv:2009.01027. Beside its mixture every edge passes its source on, times a
    coefficient that falls linearly from 1 at the first step to 0 at the last: the candidate `identity` need not win to
    keep gradients flowing, and the network that the search ends with is the plain one.
    """

    remembers = ("auxiliary_skip",)  # for an epoch's line that is still to be written
    auxiliary_skip = 1.0

    def begin_step(self, progress: StepProgress, architecture: Architecture) -> None:
        """Set the auxiliary skip's coefficient."""
        self.auxiliary_skip = 1 - progress.done

    def weights(self, architecture: Architecture) -> Tensor:
        """Return the edge weights and the coefficient, [E, O + 1]."""
        weights = architecture()
        return torch.cat([weights, torch.full_like(weights[:, :1], self.auxiliary_skip)], dim=1)

    def notes(self) -> dict[str, Any]:
        """Return the last coefficient."""
        return self.state_dict()
