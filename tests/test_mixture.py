"""The mixture of an edge, against its operations one by one."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from dasvit.cell.ops import Attention, Mlp, Parametric
from dasvit.search.mixture import mix
from dasvit.search.supernet import normalise

DIM = 12


class Shift(Parametric):
    """An operation of a user's own, whose features mix tokens: each sees its left neighbour's."""

    def __init__(self) -> None:
        super().__init__(DIM, 5, 5)

    def features(self, h: Tensor) -> Tensor:
        return torch.tanh(h) * h.roll(1, dims=1)


def operations() -> list[Parametric]:
    torch.manual_seed(0)
    made = [Attention(DIM, 2), Mlp(DIM, 0.5), Shift(), Attention(DIM, 3), Mlp(DIM, 2)]
    for operation in made:
        for parameter in operation.parameters():
            nn.init.normal_(parameter, std=0.4)
        operation.double()
    return made


def one_by_one(candidates: list[Parametric], x: Tensor, weights: Tensor) -> Tensor:
    return sum((w * operation(x) for w, operation in zip(weights, candidates, strict=True)), start=torch.zeros_like(x))


@pytest.mark.parametrize(
    ("moves_x", "moves_weights", "moves_parameters"), list(itertools.product([False, True], repeat=3))[1:]
)
def test_same_output_and_gradients(moves_x: bool, moves_weights: bool, moves_parameters: bool) -> None:
    candidates = operations()
    parameters = [p for operation in candidates for p in operation.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(moves_parameters)
    x = torch.randn(2, 7, DIM, dtype=torch.float64, requires_grad=moves_x)
    weights = torch.randn(len(candidates), dtype=torch.float64, requires_grad=moves_weights)
    wanted = [t for t in (x, weights, *parameters) if t.requires_grad]
    outputs = [mix(candidates, normalise(x), weights), one_by_one(candidates, x, weights)]
    upstream = torch.randn_like(outputs[0])
    found, expected = (torch.autograd.grad(output, wanted, upstream) for output in outputs)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_gradients_against_differences() -> None:
    candidates = operations()[:3]
    parameters = tuple(p for operation in candidates for p in operation.parameters())
    z = torch.randn(1, 3, DIM, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, w, *_: mix(candidates, z, w), (z, weights, *parameters))


@pytest.mark.parametrize("operation", operations(), ids=lambda o: type(o).__name__)
def test_the_class_token_alone(operation: Parametric) -> None:
    x = torch.randn(2, 7, DIM, dtype=torch.float64, requires_grad=True)
    outputs = [operation.class_token(normalise(x)), operation(x)[:, :1]]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)
    wanted = [x, *operation.parameters()]
    upstream = torch.randn_like(outputs[1])
    found, expected = (torch.autograd.grad(output, wanted, upstream) for output in outputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_bfloat16_is_no_less_precise_than_one_by_one() -> None:
    candidates = operations()
    x = torch.randn(4, 33, DIM, dtype=torch.float64)
    weights = torch.rand(len(candidates), dtype=torch.float64)
    exact = one_by_one(candidates, x, weights)
    for operation in candidates:
        operation.float()
    with torch.autocast("cpu", torch.bfloat16):
        ours = mix(candidates, normalise(x.float()), weights.float())
        plain = one_by_one(candidates, x.float(), weights.float())
    assert ours.dtype == torch.bfloat16
    errors = [(found.double() - exact).square().mean() for found in (ours, plain)]
    assert errors[0] < 1.5 * errors[1]


def test_only_the_hidden_units_stay_in_memory() -> None:
    candidates = operations()
    z = torch.randn(4, 33, DIM, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(len(candidates), dtype=torch.float64)
    parameters = {p.untyped_storage().data_ptr() for o in candidates for p in o.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mix(candidates, z, weights)
    shapes = sorted(tuple(t.shape) for key, t in kept.items() if key not in parameters and t.ndim == 3)
    assert shapes == sorted([(4, 33, DIM), *((4, 33, o.inner.out_features) for o in candidates)])


def test_where_only_the_weights_move_the_outputs_stay() -> None:
    """In the alpha step, on edges out of the embedding, nothing goes back through the operations."""
    candidates = operations()
    for operation in candidates:
        operation.requires_grad_(False)
    z = torch.randn(4, 33, DIM, dtype=torch.float64)
    weights = torch.rand(len(candidates), dtype=torch.float64, requires_grad=True)
    output = mix(candidates, z, weights)
    with torch.autograd.profiler.profile() as profile:
        output.sum().backward()
    names = {event.name for event in profile.function_events}
    assert "aten::mul" in names
    assert not names & {"aten::mm", "aten::addmm", "aten::gelu"}
