"""P-DARTS: skips held back by dropout while the supernet deepens."""

import math
from typing import Any

from dasvit.search.architecture import Architecture
from dasvit.search.strategies.base import StepProgress, Strategy
from dasvit.search.supernet import ForwardMode

DECAY = 5.0
"""The dropout's exponent at a stage's end: 0.2 an epoch over the 25 epochs of a stage there."""


class PDarts(Strategy):
    """P-DARTS: Progressive Differentiable Architecture Search (Chen, Xie, Wu, Tian; 2019; arXiv:1904.12760).

    The supernet deepens and the candidates grow fewer stage by stage (`search.stages`); what skips pass on drops out,
    at a rate that starts at `search.p_darts.dropout` of the stage and decays exponentially; the derived cell holds
    `search.derive.max_skips` skips at most.
    """

    remembers = ("skip_dropout",)  # for an epoch's line that is still to be written
    skip_dropout = 0.0

    def begin_step(self, progress: StepProgress, architecture: Architecture) -> None:
        """Set the rate at which skips drop out."""
        rates = self.config.search.p_darts.dropout
        self.skip_dropout = rates[min(progress.stage, len(rates) - 1)] * math.exp(-DECAY * progress.stage_done)

    def mode(self) -> ForwardMode:
        """Return the step's rate."""
        return ForwardMode(skip_dropout=self.skip_dropout)

    def notes(self) -> dict[str, Any]:
        """Return the last rate."""
        return self.state_dict()
