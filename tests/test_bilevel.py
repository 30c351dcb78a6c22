"""The bilevel step against closed forms of a quadratic problem, in float64.

L_train(w, a) = 1/2 |w - M a|², L_val(w, a) = 1/2 |w - c|² + b·a. With w' = w - lr (w - M a):
d/da L_val(w', a) = lr Mᵀ (w' - c) + b.
"""

import torch
from torch import Tensor

from dasvit.search.bilevel import first_order, frozen, second_order


class Quadratic:
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.w = draw(4).requires_grad_()
        self.a = draw(3).requires_grad_()
        self.m, self.b, self.c = draw(4, 3), draw(3), draw(4)

    def train_loss(self) -> Tensor:
        return 0.5 * (self.w - self.m @ self.a).square().sum()

    def val_loss(self) -> Tensor:
        return 0.5 * (self.w - self.c).square().sum() + self.b @ self.a


def test_first_order_is_the_partial_derivative() -> None:
    problem = Quadratic()
    (gradient,) = first_order(problem.val_loss, [problem.a], [problem.w])
    torch.testing.assert_close(gradient, problem.b)
    assert problem.w.grad is None and problem.w.requires_grad


def test_second_order_is_the_derivative_through_one_step() -> None:
    problem, lr = Quadratic(), 0.3
    before = problem.w.detach().clone()
    (gradient,) = second_order(problem.train_loss, problem.val_loss, [problem.a], [problem.w], lr)
    stepped = before - lr * (before - problem.m @ problem.a.detach())
    expected = lr * problem.m.T @ (stepped - problem.c) + problem.b
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-8)
    assert torch.equal(problem.w.detach(), before)


def test_second_order_without_a_step_is_first_order() -> None:
    problem = Quadratic()
    (gradient,) = second_order(problem.train_loss, problem.val_loss, [problem.a], [problem.w], 0.0)
    torch.testing.assert_close(gradient, problem.b)


def test_frozen_leaves_parameters_as_it_found_them() -> None:
    on, off = torch.ones(1, requires_grad=True), torch.ones(1)
    with frozen([on, off]):
        inside = [on.requires_grad, off.requires_grad]
    assert inside == [False, False]
    assert [on.requires_grad, off.requires_grad] == [True, False]
