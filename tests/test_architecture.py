import math

import pytest
import torch

from dasvit.cell.space import Space
from dasvit.errors import UserError
from dasvit.search.architecture import RELAXATIONS, Architecture, entropy

SPACE = Space(2, ("zero", "identity", "msa_2", "mlp_1"))
HALF = tuple((True, False, True, i == 0) for i in range(5))


@pytest.mark.parametrize("name", RELAXATIONS)
def test_dead_operations_weigh_nothing_and_live_alphas_get_gradients(name: str) -> None:
    architecture = Architecture(SPACE, HALF, name)
    architecture.sample()
    weights = architecture()
    alive = torch.tensor(HALF)
    assert (weights[~alive] == 0).all() and (weights[alive] > 0).all()
    (weights * torch.arange(1.0, 21.0).reshape(5, 4)).sum().backward()
    assert architecture.alpha.grad is not None
    assert ((architecture.alpha.grad != 0) == alive).all()


def test_softmax_is_a_softmax_over_the_operations_alive() -> None:
    architecture = Architecture(SPACE, HALF)
    architecture.temperature = 2.0
    alpha = architecture.alpha.detach()
    e = [math.exp(alpha[0, o] / 2) for o in (0, 2, 3)]
    assert architecture()[0].tolist() == pytest.approx([e[0] / sum(e), 0, e[1] / sum(e), e[2] / sum(e)])


def test_sigmoid_treats_every_operation_on_its_own() -> None:
    architecture = Architecture(SPACE, SPACE.everything(), "sigmoid")
    torch.testing.assert_close(architecture(), architecture.alpha.sigmoid())


def test_gumbel_softmax_chooses_as_often_as_softmax_says() -> None:
    torch.manual_seed(0)
    architecture = Architecture(SPACE, SPACE.everything(), "gumbel_softmax", init_std=1.0)
    counts = torch.zeros(5, 4)
    for _ in range(4000):
        architecture.sample()
        counts += torch.nn.functional.one_hot(architecture().argmax(1), 4)
    torch.testing.assert_close(counts / 4000, architecture.strengths(), atol=0.04, rtol=0)


def test_gumbel_softmax_sharpens_as_the_temperature_falls() -> None:
    architecture = Architecture(SPACE, SPACE.everything(), "gumbel_softmax")
    architecture.sample()
    architecture.temperature = 0.01
    assert (architecture().max(1).values > 0.9).all()


def test_noise_is_drawn_by_gumbel_alone() -> None:
    state = torch.get_rng_state()
    Architecture(SPACE, SPACE.everything()).sample()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    architecture = Architecture(SPACE, SPACE.everything(), "softmax")
    after = torch.get_rng_state()
    architecture.sample()
    assert torch.equal(torch.get_rng_state(), after) and not torch.equal(before, after)
    torch.set_rng_state(state)


def test_unknown_relaxation() -> None:
    with pytest.raises(UserError, match="Did you mean 'softmax'"):
        Architecture(SPACE, HALF, "softmx")


def test_entropy_by_hand() -> None:
    assert entropy(torch.full((5, 4), 0.25)).item() == pytest.approx(math.log(4))
    assert entropy(torch.eye(4)).item() == 0
