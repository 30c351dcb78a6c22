"""The bilevel step (eq. 6 and 7): gradients of the architecture parameters.

Knows two lists of parameters and two loss closures, and nothing of vision transformers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Closure = Callable[[], Tensor]
Differentiate = Callable[[Closure, Sequence[Tensor]], list[Tensor | None]]
"""Gives the gradients of a loss in some tensors, None for those that it does not depend on."""


def gradients(loss: Closure, tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradients of a loss that one call computes."""
    return list(torch.autograd.grad(loss(), list(tensors), allow_unused=True))


def first_order(
    val_loss: Closure, alphas: Sequence[Tensor], weights: Sequence[Tensor], differentiate: Differentiate = gradients
) -> list[Tensor]:
    """Return the gradients of L_val(w, alpha) in alpha alone.

    The weights are frozen meanwhile, so autograd neither computes their gradients nor keeps what these need.

    Args:
        val_loss: Computes the upper level's loss.
        alphas: The upper level's parameters.
        weights: The lower level's parameters.
        differentiate: How a loss is differentiated.
    """
    with frozen(weights):
        return _filled(differentiate(val_loss, alphas), alphas)


def second_order(
    train_loss: Closure,
    val_loss: Closure,
    alphas: Sequence[Tensor],
    weights: Sequence[Tensor],
    lr: float,
    differentiate: Differentiate = gradients,
) -> list[Tensor]:
    """Return the gradients of L_val(w', alpha) in alpha, where w' = w - lr * grad_w L_train(w, alpha).

    DARTS's unrolled step: grad_alpha L_val(w', alpha) - lr * grad²_{alpha,w} L_train(w, alpha) · v with
    v = grad_w' L_val(w', alpha), the product by central differences. The weights are bit-identical afterwards,
    also where a loss cannot be computed.

    Args:
        train_loss: Computes the lower level's loss.
        val_loss: Computes the upper level's loss.
        alphas: The upper level's parameters.
        weights: The lower level's parameters.
        lr: Learning rate of the unrolled step.
        differentiate: How a loss is differentiated.
    """
    alphas, weights = list(alphas), list(weights)
    saved = [w.detach().clone() for w in weights]
    try:
        _move(weights, saved, differentiate(train_loss, weights), -lr)
        outer = differentiate(val_loss, [*alphas, *weights])
        direct, v = _filled(outer[: len(alphas)], alphas), outer[len(alphas) :]
        norm = torch.sqrt(sum((g.square().sum() for g in v if g is not None), torch.zeros((), device=saved[0].device)))
        # DARTS's step 0.01 / ||v||. The floor lies far below any loss that still moves weights.
        epsilon = 0.01 / max(norm.item(), 1e-12)
        sides = []
        for sign in (1.0, -1.0):
            _move(weights, saved, v, sign * epsilon)
            sides.append(first_order(train_loss, alphas, weights, differentiate))
    finally:
        _move(weights, saved, [None] * len(weights), 0.0)
    return [d - lr * (plus - minus) / (2 * epsilon) for d, plus, minus in zip(direct, *sides, strict=True)]


def _filled(found: Sequence[Tensor | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)]


@contextmanager
def frozen(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Take these parameters out of autograd for a while; those that were out already stay out."""
    moving = [p for p in parameters if p.requires_grad]
    for p in moving:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in moving:
            p.requires_grad_(True)


@torch.no_grad()
def _move(weights: list[Tensor], origin: list[Tensor], direction: Sequence[Tensor | None], step: float) -> None:
    for weight, old, d in zip(weights, origin, direction, strict=True):
        weight.copy_(old if d is None else old + step * d)
