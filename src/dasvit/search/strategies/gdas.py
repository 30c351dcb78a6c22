"""GDAS: one sampled operation an edge."""

from torch import Tensor

from dasvit.search.architecture import Architecture, gumbel_softmax
from dasvit.search.strategies.base import StepProgress
from dasvit.search.strategies.single_path import SinglePath


class Gdas(SinglePath):
    """GDAS: Searching for A Robust Neural Architecture in Four GPU Hours (Dong, Yang; 2019; arXiv:1910.04465).

    Each step draws one operation an edge (the largest of alpha plus Gumbel noise) and evaluates that alone. Its weight
    is 1, with the gradient of the softmax at `search.temperature` (straight through).
    """

    def begin_step(self, progress: StepProgress, architecture: Architecture) -> None:
        """Draw an operation for every edge."""
        architecture.draw_noise(self.generator(progress.step))
        noisy = (architecture.alpha.detach() + architecture.noise).masked_fill(~architecture.alive, float("-inf"))
        self.choose(noisy.argmax(dim=1).tolist())

    def weights(self, architecture: Architecture) -> Tensor:
        """Return weights [E, O] of exactly 1 and 0 that have the gradient of the softmax of the noisy alphas."""
        soft = gumbel_softmax(architecture.alpha, architecture.alive, architecture.temperature, architecture.noise)
        return self.one_hot(soft) + (soft - soft.detach())
