"""The candidate operations (method, section 3).

Shapes: B images, N tokens, D embedding width, H heads. Attention and MLP hold their own LayerNorm in
front and no residual: a residual is what `identity` is for.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.cost import COSTS, Cost
from dasvit.cell.genotype import BLOCK, NUMBERED, OURS, Kind, Operation, parse_operation
from dasvit.errors import UserError

NORM_EPS = 1e-6
Grid = tuple[int, int]
"""Rows and columns of the patches."""
# Typed here once: what TorchScript reads may hold comments that silence one kind of mypy's errors only.
is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention (eq. 2), on the path that is fast on the device at hand.

    On a CPU in bfloat16 two matrix products and a softmax beat PyTorch's fused kernel, by two to eight times in
    the backward pass; elsewhere the fused kernel wins (`benchmarks/attention.py`).

    Args:
        q: Queries [B, H, N, D/H].
        k: Keys [B, H, N, D/H].
        v: Values [B, H, N, D/H].

    Returns:
        [B, H, N, D/H]
    """
    if q.device.type == "cpu" and q.dtype != torch.float32:
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

    def features_among(self, h: Tensor, places: Tensor) -> Tensor:
        """Return the features of a part of the tokens, as token selection asks for them, [B, K, F] -> [B, K, G].

        Args:
            h: The kept tokens' hidden units.
            places: Where these tokens stand among all N, [B, K], ascending; 0 is the class token. What treats tokens
                alike wherever they lie needs not know it.
        """
        return self.features(h)

    def class_token(self, z: Tensor) -> Tensor:
        """Return the output at the class token alone, which is all that the head reads of the last layer.

        Args:
            z: The input with mean 0 and variance 1 at every token, before the norm's scale and shift, [B, N, D].

        Returns:
            [B, 1, D]. An operation that needs less than all tokens' features says so by its own version.
        """
        output: Tensor = self.outer(self.features(self.inner(self.scaled(z)))[:, :1])
        return output

    def scaled(self, z: Tensor) -> Tensor:
        """Return what the norm makes of the normalised z: scale and shift, [..., D] -> [..., D]."""
        return z * self.norm.weight + self.norm.bias


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

    def class_token(self, z: Tensor) -> Tensor:
        """Return the output at the class token, [B, N, D] -> [B, 1, D], without a key or a value of any token.

        One query is worth no projection of N tokens: q·(W_K z_n) = (W_Kᵀ q)·z_n, and the mean of the values is the
        value of the mean. The keys' bias adds the same to every score, which a softmax does not see.
        """
        batch, _, dim = z.shape
        split = (self.heads, dim // self.heads)
        w_query, w_key, w_value = self.inner.weight.chunk(3)
        b_query, _, b_value = self.inner.bias.chunk(3)
        q = F.linear(self.scaled(z[:, 0]), w_query, b_query).reshape(batch, *split) * split[1] ** -0.5
        asked = torch.einsum("bhd,hdi->bhi", q, w_key.reshape(*split, dim)) * self.norm.weight
        attention = (asked.to(z.dtype) @ z.transpose(1, 2)).softmax(dim=-1)  # [B, H, N]
        seen = self.scaled(attention.to(z.dtype) @ z)  # [B, H, D]
        values = torch.einsum("bhi,hdi->bhd", seen.to(q.dtype), w_value.reshape(*split, dim)).flatten(1) + b_value
        output: Tensor = self.outer(values.unsqueeze(1))
        return output


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

    def class_token(self, z: Tensor) -> Tensor:
        """Return the output at the class token, [B, N, D] -> [B, 1, D]; other tokens have no part in it."""
        return super().class_token(z[:, :1])


def shift(h: Tensor, grid: Grid | None) -> Tensor:
    """Give every patch a ninth of the units of each of the 3 × 3 patches around it, zeros from beyond the border.

    Args:
        h: Hidden units [B, N, F], the class token's first, and a distillation token's where there is one; these stay.
        grid: Rows and columns of the patches. None: they form a square.

    Returns:
        [B, N, F]

    Raises:
        RuntimeError: The patches are not as many as the grid has.
    """
    # Neither scripts nor the ONNX that is made of a trace have words for functions of our own.
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _shifted(h, grid, False)
    if is_tracing():
        return _shifted(h, grid, False)
    check_grid(h, grid)
    shifted: Tensor = _Shifting.apply(h, grid, False)
    return shifted


torch.fx.wrap("shift")


def check_grid(h: Tensor, grid: Grid | None) -> None:
    """Check that tokens [B, N, F] are the patches of a grid (None: a square one) and one or two more.

    Scripts and traces leave it out.

    Raises:
        RuntimeError: They are not.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return
    if is_tracing():
        return
    rows, columns = _sides(h, grid)
    if not 1 <= h.shape[1] - rows * columns <= 2:
        raise RuntimeError(f"{h.shape[1]} tokens do not have the shape of {rows} × {columns} patches and a class token")


def _sides(h: Tensor, grid: Grid | None) -> Grid:
    """Return rows and columns of the patches among tokens [B, N, F]; one, or two, of these are no patches."""
    if grid is None:
        side = int((h.shape[1] - 1) ** 0.5 + 0.5)
        return (side, side)
    return grid


def _shifted(h: Tensor, grid: Grid | None, back: bool) -> Tensor:
    """Return h shifted, [B, N, F], or back to where it came from."""
    rows, columns = _sides(h, grid)
    first = h.shape[1] - rows * columns
    around = F.pad(h[:, first:].reshape(h.shape[0], rows, columns, h.shape[2]), (0, 0, 1, 1, 1, 1))
    width = h.shape[2]
    parts: list[Tensor] = []
    for i in range(9):
        part = around[..., i * width // 9 : (i + 1) * width // 9]
        place = 8 - i if back else i
        parts.append(part[:, place // 3 : place // 3 + rows, place % 3 : place % 3 + columns])
    return torch.cat([h[:, :first], torch.cat(parts, dim=-1).flatten(1, 2)], dim=1)


class _Shifting(torch.autograd.Function):
    """The shift, whose gradient is the shift back: autograd would fill a tensor of zeros for every slice."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, grid: Grid | None, back: bool) -> Tensor:
        """Return h shifted, or back to where it came from, [B, N, F]."""
        ctx.grid, ctx.back = grid, back
        return _shifted(h, grid, back)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of h, [B, N, F]."""
        return _Shifting.apply(grad, ctx.grid, not ctx.back), None, None


def spread(h: Tensor, places: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the units of all tokens where those of some are known, zeros for the others.

    Args:
        h: Units of the kept tokens, [B, K, F].
        places: Where these stand among all N tokens, [B, K].
        grid: Rows and columns of all patches.

    Returns:
        [B, N, F], and where the kept tokens stand in its B * N rows, [B * K].
    """
    batch, tokens, width = h.shape[0], 1 + grid[0] * grid[1], h.shape[-1]
    rows = (places + tokens * torch.arange(batch, device=h.device).unsqueeze(1)).flatten()
    whole = h.new_zeros(batch * tokens, width).index_copy(0, rows, h.flatten(0, 1))
    return whole.view(batch, tokens, width), rows


class Shift(Mlp):
    """Pre-norm MLP whose hidden units come from the 3 × 3 patches around: a convolution without its cost.

    A ninth of the hidden units is taken from the patch itself, a ninth from each of its eight neighbours, and zeros
    from beyond the border; the class token keeps its own. Between two linear layers that mixes what lies side by side,
    for not a multiply-add or a parameter more than the MLP (Wu et al., 2018, Shift, arXiv:1711.08141; for transformers
    Wang et al., 2022, arXiv:2201.10801).

    Args:
        dim: Embedding width D.
        number: Hidden width over D.
    """

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """Apply the operation, [B, N, D] -> [B, N, D].

        Args:
            x: The tokens.
            grid: Rows and columns of the patches. None: they form a square. It is no attribute, so that threads can
                share a network and a graph of it keeps no size of images.

        Raises:
            RuntimeError: The patches are not as many as the grid has.
        """
        output: Tensor = self.outer(self.features(self.inner(self.norm(x)), grid))
        return output

    def features(self, h: Tensor, grid: Grid | None = None) -> Tensor:
        """Return the GELU of the hidden units, shifted, [B, N, rD] -> [B, N, rD].

        Raises:
            RuntimeError: The patches are not as many as the grid has.
        """
        return F.gelu(shift(h, grid))

    def features_among(self, h: Tensor, places: Tensor, grid: Grid | None = None) -> Tensor:
        """Return the features of the kept tokens, [B, K, rD] -> [B, K, rD]; patches left out count as zeros."""
        assert grid is not None, "of a part of the patches no one can tell how many there are"
        whole, rows = spread(h, places, grid)
        return F.gelu(shift(whole, grid).flatten(0, 1).index_select(0, rows).view_as(h))

    def class_token(self, z: Tensor, grid: Grid | None = None) -> Tensor:
        """Return the output at the class token, [B, N, D] -> [B, 1, D]; no patch has a part in it."""
        output: Tensor = self.outer(F.gelu(self.inner(self.scaled(z[:, :1]))))
        return output


def convolve(h: Tensor, weight: Tensor, bias: Tensor | None, grid: Grid | None) -> Tensor:
    """Convolve the units of the patches, each unit by its own 3 × 3 weights, with zeros from beyond the border.

    Args:
        h: Hidden units [B, N, F], the class token's first, and a distillation token's where there is one; these stay.
        weight: [F, 1, 3, 3].
        bias: [F].
        grid: Rows and columns of the patches. None: they form a square.

    Returns:
        [B, N, F]

    Raises:
        RuntimeError: The patches are not as many as the grid has.
    """
    check_grid(h, grid)
    rows, columns = _sides(h, grid)
    first, units = h.shape[1] - rows * columns, h.shape[2]
    patches = h[:, first:].transpose(1, 2).reshape(h.shape[0], units, rows, columns)
    convolved = F.conv2d(patches, weight, bias, padding=1, groups=units).flatten(2).transpose(1, 2)
    return torch.cat([h[:, :first].to(convolved.dtype), convolved], dim=1)


torch.fx.wrap("convolve")


class Conv(nn.Module):
    """Pre-norm MLP with a 3 × 3 depthwise convolution before the GELU (Li et al., 2021, LocalViT, arXiv:2104.05707).

    What `Shift` takes from one neighbour, a hidden unit here takes from all nine patches, by weights of its own. The
    class token has no neighbours: its units go past the convolution. It is no `Parametric`: there are parameters
    between its linear layers, so a search mixes it by itself.

    Args:
        dim: Embedding width D.
        number: Hidden width over D.
    """

    def __init__(self, dim: int, number: float) -> None:
        super().__init__()
        hidden = max(1, round(dim * number))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.inner = nn.Linear(dim, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.outer = nn.Linear(hidden, dim)
        nn.init.normal_(self.depthwise.weight, std=1 / 3)  # nine of these keep a unit's variance
        nn.init.zeros_(self.depthwise.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, grid: Grid | None = None, places: Tensor | None = None) -> Tensor:
        """Apply the operation, [B, N, D] -> [B, N, D].

        Args:
            x: The tokens, or those that are kept.
            grid: Rows and columns of all patches. None: they form a square.
            places: Where the tokens stand among all, [B, N], as token selection says; patches left out count as
                zeros. None: they are all.

        Raises:
            RuntimeError: The patches are not as many as the grid has.
        """
        hidden = self.inner(self.norm(x))
        if places is None:
            mixed = convolve(hidden, self.depthwise.weight, self.depthwise.bias, grid)
        else:
            assert grid is not None, "of a part of the patches no one can tell how many there are"
            whole, rows = spread(hidden, places, grid)
            found = convolve(whole, self.depthwise.weight, self.depthwise.bias, grid).flatten(0, 1)
            mixed = found.index_select(0, rows).reshape(hidden.shape)
        output: Tensor = self.outer(F.gelu(mixed))
        return output


class Block(nn.Module):
    """A layer of a ViT: attention and an MLP of ratio 4, a LayerNorm in front of each and a skip around it.

    A cell whose one operation it is makes the plain ViT, which a search over sizes is held against (docs/sizes.md).

    Args:
        dim: Embedding width D.
        number: Heads H; D must be a multiple.

    Attributes:
        drop_path: Leaves out what is added to the skips (stochastic depth); a cell sets it.

    Raises:
        UserError: H does not divide D.
    """

    def __init__(self, dim: int, number: float) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(dim, number), Mlp(dim, 4)
        self.drop_path: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, [B, N, D] -> [B, N, D]."""
        x = x + self.drop_path(self.attention(x))
        output: Tensor = x + self.drop_path(self.mlp(x))
        return output


def grid_argument(operation: nn.Module, grid: Grid | None, places: Tensor | None = None) -> dict[str, Any]:
    """Return what an operation's methods are told of where the patches lie, by keyword: nothing, if it does not ask.

    Args:
        operation: The operation.
        grid: Rows and columns of all patches. None: they form a square.
        places: Where the tokens stand among all, for an operation that is not `Parametric`. None: they are all.
    """
    if isinstance(operation, Conv) and places is not None:
        return {"grid": grid, "places": places}
    return {"grid": grid} if isinstance(operation, (Shift, Conv)) else {}


OPERATIONS: dict[str, Callable[[int, float], nn.Module]] = {
    "zero": Zero,
    "identity": Identity,
    "msa": Attention,
    "mlp": Mlp,
    "shift": Shift,
    "conv": Conv,
    BLOCK: Block,
}
"""A kind of operation and its module, made from the width D and the number behind the name."""


def register_operation(
    kind: str,
    module: Callable[[int, float], nn.Module],
    cost: Callable[[float, int, int], Cost],
    *,
    number: str = "NUMBER",
    whole: bool = False,
    attends: bool = False,
) -> None:
    """Make a kind of operation known, so that genotypes and `space.extra` may name it, as `glu_2`.

    Files do not carry its code: every process that reads such a cell registers the kind first. Registering a kind of
    one's own again replaces it.

    Args:
        kind: The name in front of the number: small letters and digits.
        module: Makes the module from the width D and the number: [B, N, D] -> [B, N, D] for any N, as token selection
            leaves some out. One of the form outer(features(inner(norm(x)))) is best a `Parametric`: a search then
            mixes it as fast as our own.
        cost: Returns what one operation costs, from the number, the width D and the tokens N. It must be what
            `count_cost` counts: budgets are held by it.
        number: What the number means, for messages.
        whole: Whether the number must be whole.
        attends: Whether every token sees all others through it, as in attention (see `Kind`).

    Raises:
        UserError: The name is one of ours, or no such name.
    """
    taken = (*OURS, BLOCK)
    if kind in taken or not re.fullmatch("[a-z][a-z0-9]*", kind):
        raise UserError(f"an operation cannot be called {kind!r}: take small letters, and none of {', '.join(taken)}.")
    NUMBERED[kind] = Kind(number, whole, attends)
    OPERATIONS[kind], COSTS[kind] = module, cost


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
