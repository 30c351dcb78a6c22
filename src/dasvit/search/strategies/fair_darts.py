"""Fair DARTS: operations that do not compete, and decide."""

from torch import Tensor

from dasvit.search.architecture import Architecture
from dasvit.search.strategies.base import Strategy


class FairDarts(Strategy):
    """Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture Search.

    Chu, Zhou, Zhang, Li; 2019; arXiv:1911.12126. Every operation has a sigmoid of its own (`search.relaxation`), so a
    skip takes no weight from the others; the zero-one loss pushes each towards 0 or 1.
    """

    def alpha_loss(self, architecture: Architecture, weights: Tensor) -> Tensor:
        """Return the zero-one loss: -w · (1/N) Σ (σ(α) - 1/2)² over the N operations that are alive."""
        loss: Tensor = -(weights[architecture.alive] - 0.5).square().mean()
        return self.config.search.fair_darts.weight * loss
