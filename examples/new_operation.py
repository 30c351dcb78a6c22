"""A new operation: SwiGLU (Shazeer, 2020, arXiv:2002.05202), the MLP whose hidden units pass through a gate.

This file is the command line with one more operation, so it takes every command of dasvit's:

    python examples/new_operation.py search --config digits --space.extra '[swiglu_1]' --run runs/swiglu
    python examples/new_operation.py train --cell runs/swiglu
"""

from torch import Tensor
from torch.nn import functional as F

import dasvit
from dasvit.cli import main


class SwiGlu(dasvit.Parametric):
    """outer(silu(gate) * value), where inner makes both gate and value: [B, N, D] -> [B, N, D]."""

    def __init__(self, dim: int, number: float) -> None:
        hidden = max(1, round(dim * number))
        super().__init__(dim, 2 * hidden, hidden)

    def features(self, h: Tensor) -> Tensor:
        """Return what stands between the linear layers, [B, N, 2F] -> [B, N, F]."""
        gate, value = h.chunk(2, dim=-1)
        return F.silu(gate) * value


def cost(number: float, dim: int, tokens: int) -> dasvit.Cost:
    """Return the parameters and multiply-adds of one SwiGLU: its norm, two linear layers and their biases."""
    hidden = max(1, round(dim * number))
    linear = 3 * tokens * dim * hidden
    return dasvit.Cost(2 * dim + 3 * dim * hidden + 2 * hidden + dim, linear, linear)


dasvit.register_operation("swiglu", SwiGlu, cost, number="RATIO")

if __name__ == "__main__":
    main()
