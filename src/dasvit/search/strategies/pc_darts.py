"""PC-DARTS: partial channels, and edges normalised."""

import torch
from torch import Tensor

from dasvit.search.architecture import Architecture
from dasvit.search.strategies.base import Strategy


class PcDarts(Strategy):
    """PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search.

    Xu, Xie, Zhang, Chen, Qi, Tian, Xiong; 2019; arXiv:1907.05737. The first D/K of the embedding channels pass through
    an edge's operations, the others bypass them, and all are dealt out anew behind the edge, so that every channel
    has its turn. An edge has a parameter of its own; its softmax over the edges into a node scales the edge.
    """

    def weights(self, architecture: Architecture) -> Tensor:
        """Return the operations' weights, each times its edge's share; the share alone is the bypass's, [E, O + 1]."""
        return torch.cat([architecture(), architecture.edge_shares().unsqueeze(1)], dim=1)
