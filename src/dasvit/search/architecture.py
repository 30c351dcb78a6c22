"""The architecture parameters alpha, and how they become edge weights (eq. 5, 8 and 9).

Shapes: E edges, O operations.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dasvit.cell.space import OperationMask, Space
from dasvit.errors import unknown

Relaxation = Callable[[Tensor, Tensor, float, Tensor], Tensor]


def softmax(alpha: Tensor, alive: Tensor, temperature: float, noise: Tensor) -> Tensor:
    """Softmax over the operations of every edge (eq. 5); the noise is not used."""
    return (alpha / temperature).masked_fill(~alive, float("-inf")).softmax(dim=-1)


def sigmoid(alpha: Tensor, alive: Tensor, temperature: float, noise: Tensor) -> Tensor:
    """Each operation on its own, as in Fair DARTS; the noise is not used."""
    return (alpha / temperature).sigmoid() * alive


def gumbel_softmax(alpha: Tensor, alive: Tensor, temperature: float, noise: Tensor) -> Tensor:
    """Softmax of alpha plus Gumbel noise: a sample that sharpens as the temperature falls."""
    return softmax(alpha + noise, alive, temperature, noise)


RELAXATIONS: dict[str, Relaxation] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "gumbel_softmax": gumbel_softmax,
}
"""Each takes alpha [E, O], alive [E, O] (bool), a temperature and Gumbel noise [E, O], and returns edge
weights [E, O] that are 0 for operations that are not alive."""


class Architecture(nn.Module):
    """One set of architecture parameters, shared by all layers.

    Args:
        space: The search space.
        alive: Operations that are still candidates.
        relaxation: A name in RELAXATIONS.
        init_std: Standard deviation of alpha at the start.
        normalise_edges: Multiply an edge's weights by its share among the edges into its node.

    Attributes:
        alpha: [E, O]; entries of operations that are not alive are never used.
        beta: [E], the edges' own parameters; None unless edges are normalised.
        temperature: Of the relaxation; the search loop lowers it.
    """

    alive: Tensor
    noise: Tensor

    def __init__(
        self,
        space: Space,
        alive: OperationMask,
        relaxation: str = "softmax",
        init_std: float = 1e-3,
        normalise_edges: bool = False,
    ) -> None:
        super().__init__()
        if relaxation not in RELAXATIONS:
            raise unknown("relaxation", relaxation, RELAXATIONS)
        self.relax = RELAXATIONS[relaxation]
        self.temperature = 1.0
        mask = torch.tensor(alive)
        self.alpha = nn.Parameter(torch.randn(mask.shape) * init_std)
        self.register_buffer("alive", mask)
        self.register_buffer("noise", torch.zeros(mask.shape))
        self.beta = nn.Parameter(torch.randn(len(mask)) * init_std) if normalise_edges else None
        self.targets = [target for _, target in space.edges]

    def sample(self, generator: torch.Generator | None = None) -> None:
        """Draw the Gumbel noise of the next step; relaxations without noise draw nothing.

        Args:
            generator: Where from. None: torch's own.
        """
        if self.relax is gumbel_softmax:
            self.draw_noise(generator)

    def draw_noise(self, generator: torch.Generator | None) -> None:
        """Draw Gumbel noise, whatever the relaxation."""
        uniform = torch.rand(self.noise.shape, generator=generator).clamp_(1e-9, 1 - 1e-9)
        self.noise.copy_(-(-uniform.log()).log())

    def forward(self) -> Tensor:
        """Return the edge weights [E, O] of this step."""
        return self._of_edges(self.relax(self.alpha, self.alive, self.temperature, self.noise))

    @torch.no_grad()
    def strengths(self) -> Tensor:
        """Return the edge weights [E, O] free of noise and at temperature 1: what pruning and derivation see."""
        return self._of_edges(self.relax(self.alpha, self.alive, 1.0, torch.zeros_like(self.noise)))

    def _of_edges(self, weights: Tensor) -> Tensor:
        return weights if self.beta is None else weights * self.edge_shares().unsqueeze(1)

    def edge_shares(self) -> Tensor:
        """Return the softmax of beta over the edges into each node, [E]; without beta all are 1."""
        if self.beta is None:
            return torch.ones_like(self.alpha[:, 0])
        others = torch.tensor([[one != other for other in self.targets] for one in self.targets])
        shares = self.beta.repeat(len(others), 1).masked_fill(others.to(self.beta.device), float("-inf"))
        return shares.softmax(dim=1).diagonal()


def entropy(weights: Tensor) -> Tensor:
    """Return the entropy in nats of the operations' shares on an edge, averaged over the edges: [E, O] -> []."""
    shares = weights / weights.sum(dim=-1, keepdim=True)
    mean: Tensor = torch.special.entr(shares).sum(dim=-1).mean()
    return mean
