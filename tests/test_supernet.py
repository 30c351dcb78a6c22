import pytest
import torch
from torch import Tensor

from dasvit.cell.genotype import PUBLISHED, Genotype
from dasvit.cell.ops import make_operation
from dasvit.cell.space import OperationMask, Space
from dasvit.config import ModelConfig, TokensConfig
from dasvit.models.baselines import make_network
from dasvit.search.architecture import Architecture
from dasvit.search.supernet import MixedCell, Supernet

SPACE = Space(2, ("zero", "identity", "msa_2", "msa_8", "mlp_0.5", "mlp_1"))
NO_SELECTION = TokensConfig(ratio=1.0)
CELLS = [
    PUBLISHED["dasvit_cifar10"],
    Genotype.from_ops(2, ["identity", "msa_2", "zero", "mlp_1", "identity"]),
    Genotype.from_ops(2, ["zero", "msa_8", "identity", "mlp_0.5", "zero"]),
]


def make(
    space: Space = SPACE, alive: OperationMask | None = None, tokens: TokensConfig = NO_SELECTION, layers: int = 2
) -> Supernet:
    torch.manual_seed(0)
    supernet = Supernet(
        space,
        alive or space.everything(),
        image_size=8,
        patch_size=2,
        dim=16,
        layers=layers,
        num_classes=5,
        tokens=tokens,
    )
    for parameter in supernet.parameters():  # norms and biases too get values of their own
        torch.nn.init.normal_(parameter, std=0.3)
    return supernet.double()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("genotype", CELLS)
def test_one_hot_supernet_is_the_derived_network(genotype: Genotype, images: Tensor) -> None:
    supernet = make()
    config = ModelConfig(image_size=8, patch_size=2, width=16, layers=2, heads=2)
    network = make_network(genotype, config, 5).double()
    network.load_state_dict(supernet.state_of(genotype))  # strict: every weight has its place
    weights = torch.tensor(SPACE.one_hot(genotype), dtype=torch.float64)
    torch.testing.assert_close(supernet(images, weights), network(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_mixture_against_a_naive_loop(nodes: int) -> None:
    torch.manual_seed(0)
    space = Space(nodes, SPACE.operations)
    cell = MixedCell(space, space.everything(), 16, NO_SELECTION).double()
    prev2, prev1 = torch.randn(2, 3, 7, 16, dtype=torch.float64)
    weights = torch.rand(len(space.edges), len(space.operations), dtype=torch.float64)
    state = cell.state_dict()

    values = {"prev2": prev2, "prev1": prev1}
    for target in [f"x{i + 1}" for i in range(nodes)]:
        values[target] = torch.zeros_like(prev1)
        for e, edge in enumerate(space.edges):
            if edge[1] != target:
                continue
            for o, name in enumerate(space.operations):
                if name == "zero":
                    continue
                operation = make_operation(name, 16).double()
                prefix = f"edges.{edge[0]}_{target}.{name.replace('.', '_')}."
                own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
                operation.load_state_dict(own)
                values[target] = values[target] + weights[e, o] * operation(values[edge[0]])
    expected = sum(values[f"x{i + 1}"] for i in range(nodes))
    torch.testing.assert_close(cell(prev2, prev1, weights), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ratio", [0.5, 1.0])
@pytest.mark.parametrize("pruned", [False, True])
def test_every_parameter_and_every_alpha_gets_a_gradient(images: Tensor, ratio: float, pruned: bool) -> None:
    alive = SPACE.everything()
    if pruned:
        alive = tuple(tuple(o % 2 == e % 2 for o in range(len(row))) for e, row in enumerate(alive))
    supernet = make(alive=alive, tokens=TokensConfig(ratio=ratio, dim=4))
    architecture = Architecture(SPACE, alive).double()
    supernet(images, architecture()).square().sum().backward()
    for name, parameter in supernet.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert architecture.alpha.grad is not None
    assert ((architecture.alpha.grad != 0) == torch.tensor(alive)).all()


def test_no_selection_has_no_selector_and_full_selection_is_bit_exact(images: Tensor) -> None:
    supernet = make(tokens=TokensConfig(ratio=1.0))
    assert not any("selector" in name for name, _ in supernet.named_parameters())
    # a ratio just below 1 keeps all 16 tokens through the whole machinery of selection
    selecting = make(tokens=TokensConfig(ratio=0.99, dim=4))
    selecting.load_state_dict(supernet.state_dict(), strict=False)
    weights = torch.rand(5, 6, dtype=torch.float64)
    assert torch.equal(supernet(images, weights), selecting(images, weights))


def test_tokens_left_out_carry_prev1_unchanged() -> None:
    torch.manual_seed(0)
    cell = MixedCell(SPACE, SPACE.everything(), 16, TokensConfig(ratio=0.5, dim=4)).double()
    prev2, prev1 = torch.randn(2, 3, 9, 16, dtype=torch.float64)
    output = cell(prev2, prev1, torch.rand(5, 6, dtype=torch.float64))
    assert cell.selector is not None
    places, _ = cell.selector(prev1)
    for b in range(3):
        same = {n for n in range(9) if torch.equal(output[b, n], prev1[b, n])}
        assert same == set(range(9)) - set(places[b].tolist())


def test_a_cell_of_nothing_is_zero() -> None:
    space = Space(1, ("zero", "msa_2"))
    cell = MixedCell(space, ((True, False), (True, False)), 16, NO_SELECTION)
    x = torch.randn(2, 3, 16)
    assert torch.equal(cell(x, x, torch.ones(2, 2)), torch.zeros_like(x))


def test_a_deeper_supernet_inherits_weights() -> None:
    shallow, deep = make(layers=2), make(layers=4)
    for parameter in deep.parameters():
        torch.nn.init.zeros_(parameter)
    deep.inherit(shallow)
    mine, theirs = deep.state_dict(), shallow.state_dict()
    for layer in range(4):
        name = "edges.prev1_x2.msa_8.inner.weight"
        assert torch.equal(mine[f"blocks.{layer}.{name}"], theirs[f"blocks.{layer // 2}.{name}"])
    assert torch.equal(mine["head.weight"], theirs["head.weight"])
