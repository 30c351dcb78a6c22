"""The candidate operations (method, section 3).

Shapes: B images, N tokens, D embedding width, H heads. Attention and MLP hold their own LayerNorm in
front and no residual: a residual is what `identity` is for.
"""

from collections.abc import Callable

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.genotype import Operation, parse_operation
from dasvit.errors import UserError

NORM_EPS = 1e-6


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention (eq. 2), on the path that is fast on the device at hand.

    On a CPU in bfloat16 the backward pass of PyTorch's fused kernel takes two to eight times as long as
    two matrix products and a softmax; elsewhere the fused kernel wins (`benchmarks/attention.py`).

    Args:
        q: Queries [B, H, N, D/H].
        k: Keys [B, H, N, D/H].
        v: Values [B, H, N, D/H].

    Returns:
        [B, H, N, D/H]
    """
    if q.device.type == "cpu" and q.dtype != torch.float32 and torch.is_grad_enabled():
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        mixed: Tensor = scores.softmax(dim=-1) @ v
        return mixed
    return F.scaled_dot_product_attention(q, k, v)


torch.fx.wrap("attend")  # symbolic tracing keeps the choice between its two paths for the run


class Identity(nn.Module):
    """The skip: its input, unchanged."""

    def __init__(self, dim: int, number: float) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return x, [B, N, D]."""
        return x


class Zero(nn.Module):
    """No edge: a zero tensor, given as None so that it costs nothing."""

    def __init__(self, dim: int, number: float) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor | None:
        """Return None, which stands for zeros of x's shape."""
        return None


class Parametric(nn.Module):
    """An operation of the form outer(features(inner(norm(x)))): a LayerNorm, and two linear layers around a function.

    Attributes:
        norm: The LayerNorm in front.
        inner: The linear layer that reads, D -> F.
        outer: The linear layer that writes, G -> D.
    """

    def __init__(self, dim: int, inner: int, outer: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.inner = nn.Linear(dim, inner)
        self.outer = nn.Linear(outer, dim)

    def features(self, h: Tensor) -> Tensor:
        """Return what stands between the linear layers, [B, N, F] -> [B, N, G]; it holds no parameters."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operation, [B, N, D] -> [B, N, D]."""
        output: Tensor = self.outer(self.features(self.inner(self.norm(x))))
        return output


class Attention(Parametric):
    """Pre-norm multi-head self-attention (eq. 1 to 3), biases on qkv and on the projection.

    Args:
        dim: Embedding width D.
        number: Heads H; D must be a multiple.

    Raises:
        UserError: H does not divide D.
    """

    def __init__(self, dim: int, number: float) -> None:
        heads = int(number)
        if dim % heads:
            raise UserError(f"a width of {dim} is not divisible by {heads} attention heads.")
        super().__init__(dim, 3 * dim, dim)
        self.heads = heads

    def features(self, h: Tensor) -> Tensor:
        """Return the heads' outputs side by side for queries, keys and values, [B, N, 3D] -> [B, N, D]."""
        batch, tokens, width = h.shape
        qkv = h.reshape(batch, tokens, 3, self.heads, width // (3 * self.heads))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return attend(q, k, v).transpose(1, 2).reshape(batch, tokens, width // 3)


class Mlp(Parametric):
    """Pre-norm MLP (eq. 4): two linear layers, GELU between.

    Args:
        dim: Embedding width D.
        number: Hidden width over D.
    """

    def __init__(self, dim: int, number: float) -> None:
        hidden = max(1, round(dim * number))
        super().__init__(dim, hidden, hidden)

    def features(self, h: Tensor) -> Tensor:
        """Return the GELU of the hidden units, [B, N, rD] -> [B, N, rD]."""
        return F.gelu(h)


OPERATIONS: dict[str, Callable[[int, float], nn.Module]] = {
    "zero": Zero,
    "identity": Identity,
    "msa": Attention,
    "mlp": Mlp,
}
"""A kind of operation and its module, made from the width D and the number behind the name."""


def make_operation(operation: str | Operation, dim: int) -> nn.Module:
    """Build an operation by name, as `make_operation("msa_4", 128)`.

    Args:
        operation: Its name, or its name taken apart.
        dim: Embedding width D.

    Raises:
        UserError: Unknown name, or a width that its heads do not divide.
    """
    parsed = parse_operation(operation) if isinstance(operation, str) else operation
    return OPERATIONS[parsed.kind](dim, parsed.number)


def init_weights(module: nn.Module) -> None:
    """Initialise one linear layer so that it keeps the variance of its input: Xavier uniform, zero bias.

    Cells without a residual do not train from ViT's truncated normal of 0.02 (method, section 15, and
    `benchmarks/initialisation.py`): the signal shrinks at every layer. Apply with `nn.Module.apply`.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
