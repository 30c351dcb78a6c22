"""A mixture of operations on one edge, as fast and as small as its mathematics allows (eq. 8).

Shapes: B images, N tokens, D width, O operations with parameters; F and G are the widths of an operation's hidden
units inner(z) and of its features, T = B * N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dasvit.cell.ops import Grid, Parametric, grid_argument

Gradients = tuple[Tensor | None, ...]


def mix(
    operations: Sequence[Parametric], z: Tensor, weights: Tensor, places: Tensor | None = None, grid: Grid | None = None
) -> Tensor:
    """Return sum_o w_o * outer_o(features_o(inner_o(norm_o(x)))) for the normalised x.

    Args:
        operations: The O operations.
        z: x with mean 0 and variance 1 at every token, [B, N, D], in the precision of the products.
        weights: The operations' weights [O].
        places: Where the N tokens stand among all, [B, N]. None: they are all.
        grid: Rows and columns of all patches. None: they form a square.

    Returns:
        [B, N, D], in z's precision.
    """
    biases = torch.stack([operation.outer.bias for operation in operations])
    bias = (weights.unsqueeze(1) * biases).sum(dim=0)  # one vector, added once
    parameters = [parameter for operation in operations for parameter in _Layers.of(operation)]
    features = [_features(operation, places, grid) for operation in operations]
    output: Tensor = _Mixture.apply(features, z, bias, weights, *parameters)
    return output


def _features(operation: Parametric, places: Tensor | None, grid: Grid | None) -> Callable[[Tensor], Tensor]:
    """Return an operation's features as a function of its hidden units alone."""
    told: dict[str, Any] = grid_argument(operation, grid)
    if places is None:
        return partial(operation.features, **told)
    return partial(operation.features_among, places=places, **told)


class _Layers(NamedTuple):
    """The parameters around an operation's features, but for the outer bias."""

    scale: Tensor  # of the norm, [D]
    shift: Tensor  # of the norm, [D]
    inner: Tensor  # [F, D]
    bias: Tensor  # of the inner layer, [F]
    outer: Tensor  # [D, G]

    @classmethod
    def of(cls, operation: Parametric) -> _Layers:
        norm, inner = operation.norm, operation.inner
        return cls(norm.weight, norm.bias, inner.weight, inner.bias, operation.outer.weight)

    def folded(self, dtype: torch.dtype) -> Tensor:
        """Return the inner layer's matrix, the norm's scale folded in, [F, D]: all operations then read one z."""
        return _product(self.inner, self.scale, dtype)

    def folded_bias(self, dtype: torch.dtype) -> Tensor:
        """Return the inner layer's bias, the norm's shift folded in, [F]."""
        return torch.addmv(self.bias, self.inner, self.shift).to(dtype)

    def gradients(self, folded: Tensor, folded_bias: Tensor, outer: Tensor) -> Gradients:
        """Return the parameters' gradients from those of the folded matrix, the folded bias and the outer matrix."""
        wide = folded.to(self.inner.dtype)
        bias = folded_bias.to(self.bias.dtype)
        scale = (wide * self.inner).sum(0)
        inner = wide.mul_(self.scale).addr_(bias, self.shift)
        return scale, bias @ self.inner, inner, bias, outer.to(self.outer.dtype)


class _Mixture(torch.autograd.Function):
    """The mixture, written by hand so that of each operation only the hidden units inner(z) stay in memory.

    Features are computed again in the backward pass: for a GELU, or attention without its N x N matrix, that costs
    little. Outputs are added up by the matrix products that make them. Where the weights of the mixture are all that
    wants a gradient (the alpha step, on edges out of the embedding), the outputs stay instead, and the backward pass
    is a few inner products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Sequence[Callable[[Tensor], Tensor]],
        z: Tensor,
        bias: Tensor,
        weights: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        """Return the mixture [B, N, D]; `parameters` are the `_Layers` of the operations, one after the other."""
        _, z_moves, _, weights_move, *parameters_move = ctx.needs_input_grad
        keep_outputs = weights_move and not z_moves and not any(parameters_move)
        total, kept = bias.to(z.dtype), []
        for feature, weight, layers in zip(features, weights, _by_operation(parameters), strict=True):
            hidden = F.linear(z, layers.folded(z.dtype), layers.folded_bias(z.dtype))
            found = feature(hidden).flatten(0, 1)
            if keep_outputs:
                kept.append(found @ layers.outer.to(z.dtype).T)
                total = total + weight.to(z.dtype) * kept[-1]
            else:
                kept.append(hidden)
                total = torch.addmm(total, found, _product(layers.outer, weight, z.dtype).T)
        ctx.features, ctx.keep_outputs, ctx.autocast = features, keep_outputs, _autocast_as_now(z.device.type)
        ctx.save_for_backward(z, weights, *parameters, *kept)
        return total.view_as(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        """Return the gradients of z, the bias, the weights and the parameters for that of the output [B, N, D]."""
        z, weights, *rest = ctx.saved_tensors
        operations = _by_operation(rest[: -len(ctx.features)])
        kept = rest[-len(ctx.features) :]
        _, z_moves, bias_moves, weights_move, *parameters_move = ctx.needs_input_grad
        grad = grad.flatten(0, 1)
        grad_bias = grad.sum(0, dtype=weights.dtype) if bias_moves else None
        if ctx.keep_outputs:
            inner_products = torch.stack([_dot(grad, output) for output in kept])
            return None, None, grad_bias, inner_products.to(weights.dtype), *[None] * len(parameters_move)

        flat, grad_z = z.flatten(0, 1), None
        grad_weights: list[Tensor] = []
        grad_parameters: list[Tensor | None] = []
        for feature, layers, hidden, weight in zip(ctx.features, operations, kept, weights, strict=True):
            with torch.enable_grad(), ctx.autocast():
                leaf = hidden.detach().requires_grad_()
                found = feature(leaf)
            if weights_move:
                grad_found = grad @ layers.outer.to(z.dtype)
                grad_weights.append(_dot(grad_found, found.detach()))
                grad_found = grad_found * weight.to(z.dtype)
            else:
                grad_found = grad @ _product(layers.outer, weight, z.dtype)
            (grad_hidden,) = torch.autograd.grad(found, leaf, grad_found.view_as(found))
            grad_hidden = grad_hidden.flatten(0, 1)
            if z_moves:
                folded = layers.folded(z.dtype)
                grad_z = grad_hidden @ folded if grad_z is None else torch.addmm(grad_z, grad_hidden, folded)
            if any(parameters_move):
                outer = _product(grad.T @ found.detach().flatten(0, 1), weight, z.dtype)
                grad_parameters += layers.gradients(grad_hidden.T @ flat, grad_hidden.sum(0), outer)
        return (
            None,
            None if grad_z is None else grad_z.view_as(z),
            grad_bias,
            torch.stack(grad_weights).to(weights.dtype) if weights_move else None,
            *(grad_parameters or [None] * len(parameters_move)),
        )


def _by_operation(parameters: Sequence[Tensor]) -> list[_Layers]:
    count = len(_Layers._fields)
    return [_Layers(*parameters[i : i + count]) for i in range(0, len(parameters), count)]


def _product(matrix: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return matrix * factor in a precision, rounded once and without a copy in another."""
    return torch.mul(matrix, factor, out=matrix.new_empty(matrix.shape, dtype=dtype))


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner product of two tensors of as many elements, added up in float32 at least."""
    return (one * other.reshape(one.shape)).sum(dtype=torch.promote_types(one.dtype, torch.float32))


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the precision in which matrix products of x are computed here: autocast's, or its own."""
    return torch.get_autocast_dtype(x.device.type) if _is_autocast(x.device.type) else x.dtype


def _is_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # the meta device knows none


def _autocast_as_now(device: str) -> Callable[[], AbstractContextManager[None]]:
    if not _is_autocast(device):
        return nullcontext
    dtype = torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype)
