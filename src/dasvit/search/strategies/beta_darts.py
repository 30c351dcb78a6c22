"""beta-DARTS: alphas that do not drift."""

from torch import Tensor

from dasvit.search.architecture import Architecture
from dasvit.search.strategies.base import StepProgress, Strategy


class BetaDarts(Strategy):
    """β-DARTS: Beta-Decay Regularization for Differentiable Architecture Search.

    Ye, Li, Li, Chen, Fan, Ouyang; 2022; arXiv:2203.01665. The log-sum-exp of an edge's alphas, averaged over the edges,
    is added to the loss, with a weight that rises linearly from 0 to `search.beta_darts.weight`; it takes the place
    of the alphas' weight decay.
    """

    progress = 0.0

    def begin_step(self, progress: StepProgress, architecture: Architecture) -> None:
        """Note how far the search has come."""
        self.progress = progress.done

    def alpha_loss(self, architecture: Architecture, weights: Tensor) -> Tensor:
        """Return λ · mean over the edges of log Σ exp α."""
        alpha = architecture.alpha.masked_fill(~architecture.alive, float("-inf"))
        return self.config.search.beta_darts.weight * self.progress * alpha.logsumexp(dim=1).mean()
