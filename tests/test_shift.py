"""The MLP whose hidden units come from neighbouring patches; it and the convolution in supernets and networks."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.cost import network_cost, operation_cost
from dasvit.cell.genotype import Genotype
from dasvit.cell.ops import Shift, make_operation
from dasvit.cell.space import Space
from dasvit.config import Config, FairnessConfig, ModelConfig, SpaceConfig, TokensConfig
from dasvit.config.validation import validate
from dasvit.errors import UserError
from dasvit.models.cost import cost_of
from dasvit.models.dasvit import DasViT
from dasvit.search.fairness import fairness
from dasvit.search.plain_darts import PlainSupernet
from dasvit.search.supernet import Supernet

CELL = Genotype.from_ops(2, ["shift_0.5", "msa_2", "zero", "shift_2", "mlp_1"])


KINDS = pytest.mark.parametrize("kind", ["shift", "conv"])


def space_of(kind: str) -> Space:
    return Space(2, ("zero", "identity", "msa_2", "mlp_1", f"{kind}_0.5", f"{kind}_1"))


SPACE = space_of("shift")


def make(number: float, dim: int = 6) -> Shift:
    torch.manual_seed(0)
    operation = make_operation(f"shift_{number:g}", dim)
    assert isinstance(operation, Shift)
    for parameter in operation.parameters():
        nn.init.normal_(parameter, std=0.5)
    return operation.double()


def naive(operation: Shift, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Every hidden unit of every patch in a loop: the i-th ninth comes from the i-th patch of the 3 × 3 around."""
    hidden = operation.inner(operation.norm(x))
    (rows, columns), width = grid, hidden.shape[-1]
    moved = torch.zeros_like(hidden)
    moved[:, 0] = hidden[:, 0]
    for row in range(rows):
        for column in range(columns):
            for unit in range(width):
                ninth = next(i for i in range(9) if i * width // 9 <= unit < (i + 1) * width // 9)
                y, x_ = row + ninth // 3 - 1, column + ninth % 3 - 1
                if 0 <= y < rows and 0 <= x_ < columns:
                    moved[:, 1 + row * columns + column, unit] = hidden[:, 1 + y * columns + x_, unit]
    output: Tensor = operation.outer(F.gelu(moved))
    return output


@pytest.mark.parametrize("number", [0.5, 1.0, 3.0])  # 3, 6 and 18 hidden units: fewer than nine, too
def test_against_the_loop(number: float) -> None:
    operation, x = make(number), torch.randn(2, 13, 6, dtype=torch.float64)
    torch.testing.assert_close(operation(x, (3, 4)), naive(operation, x, (3, 4)), rtol=1e-12, atol=1e-12)


def test_without_a_grid_patches_form_a_square() -> None:
    operation, x = make(2), torch.randn(2, 17, 6, dtype=torch.float64)
    assert torch.equal(operation(x), operation(x, (4, 4)))
    assert not torch.equal(operation(x), operation(x, (2, 8)))
    with pytest.raises(RuntimeError, match="shape"):
        operation(torch.randn(2, 16, 6, dtype=torch.float64))


def test_of_a_part_of_the_tokens_those_left_out_count_as_zeros() -> None:
    operation, hidden, grid = make(2), torch.randn(2, 13, 12, dtype=torch.float64), (3, 4)
    everywhere = torch.arange(13).expand(2, -1)
    assert torch.equal(operation.features_among(hidden, everywhere, grid), operation.features(hidden, grid))
    places = torch.tensor([[0, 1, 5, 12], [0, 3, 4, 8]])
    left = torch.zeros_like(hidden)
    for image in range(2):
        left[image, places[image]] = hidden[image, places[image]]
    expected = torch.stack([operation.features(left, grid)[image, places[image]] for image in range(2)])
    found = operation.features_among(torch.stack([hidden[i, places[i]] for i in range(2)]), places, grid)
    assert torch.equal(found, expected)


@KINDS
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_a_supernet_mixes_it_as_operations_one_by_one(ratio: float, kind: str) -> None:
    """Against plain DARTS where all tokens are kept, and against differences where half of them are."""
    space = space_of(kind)
    torch.manual_seed(0)
    # One layer where tokens are chosen: the scores' gradient is no derivative, and deeper scores depend on weights.
    sizes: Any = {"image_size": 8, "patch_size": 2, "dim": 6, "layers": 2 if ratio == 1 else 1}
    ours = Supernet(space, space.everything(), **sizes, num_classes=3, tokens=TokensConfig(ratio=ratio)).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    images, labels = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.arange(3)
    weights = torch.linspace(0.1, 1, 5 * len(space.operations), dtype=torch.float64).view(5, -1).requires_grad_()

    def loss(network: nn.Module, weights: Tensor) -> Tensor:
        return F.cross_entropy(network(images, weights), labels)

    loss(ours, weights).backward()
    assert weights.grad is not None
    if ratio < 1:
        step = torch.zeros_like(weights)
        for edge in range(5):
            step[edge, 4] = 1e-6  # of ratio 0.5
            with torch.no_grad():
                slope = (loss(ours, weights + step) - loss(ours, weights - step)) / 2e-6
            assert weights.grad[edge, 4].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-8)
            step[edge, 4] = 0
        return
    gradients = [weights.grad, *(p.grad for _, p in sorted(ours.named_parameters()))]
    plain = PlainSupernet(space, **sizes, num_classes=3).double()
    plain.load_state_dict(ours.state_dict())
    weights.grad = None
    loss(plain, weights).backward()
    for one, other in zip(
        gradients, [weights.grad, *(p.grad for _, p in sorted(plain.named_parameters()))], strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@KINDS
def test_the_derived_network_computes_what_the_supernet_does(kind: str) -> None:
    torch.manual_seed(0)
    space, cell = space_of(kind), Genotype.from_ops(2, [f"{kind}_0.5", "msa_2", "zero", f"{kind}_1", "mlp_1"])
    sizes: Any = {"image_size": 8, "patch_size": 2, "layers": 3, "num_classes": 4}
    supernet = Supernet(space, space.everything(), dim=6, tokens=TokensConfig(ratio=1.0), **sizes).double()
    network = DasViT(cell, img_size=8, patch_size=2, num_classes=4, embed_dim=6, depth=3).double()
    network.load_state_dict(supernet.state_of(cell), strict=True)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    weights = torch.tensor(space.one_hot(cell), dtype=torch.float64)
    torch.testing.assert_close(network(images), supernet(images, weights), rtol=1e-11, atol=1e-11)


def test_networks_know_their_grid() -> None:
    network = DasViT(CELL, img_size=(8, 12), patch_size=2, num_classes=4, embed_dim=6, depth=2)
    assert network.embed.grid(torch.randn(1, 3, 8, 12)) == (4, 6)
    assert network(torch.randn(1, 3, 8, 12)).shape == (1, 4)
    network.set_input_size((16, 4))
    assert network.embed.grid(torch.randn(1, 3, 16, 4)) == (8, 2)
    assert network(torch.randn(1, 3, 16, 4)).shape == (1, 4)


@KINDS
def test_images_of_any_size(kind: str) -> None:
    """What a network of dynamic size computes is what one that was set to that size does."""
    torch.manual_seed(0)
    cell = Genotype.from_ops(2, [f"{kind}_0.5", "msa_2", "zero", f"{kind}_2", "mlp_1"])
    sizes = {"img_size": 8, "patch_size": 2, "num_classes": 4, "embed_dim": 6, "depth": 2}
    dynamic = DasViT(cell, **sizes, dynamic_img_size=True).eval()  # type: ignore[arg-type]
    for size in ((4, 16), (8, 8), (12, 6)):  # the first has as many patches as a square
        fixed = DasViT(cell, **sizes).eval()  # type: ignore[arg-type]
        fixed.load_state_dict(dynamic.state_dict())
        fixed.set_input_size(size)
        images = torch.randn(2, 3, *size)
        torch.testing.assert_close(dynamic(images), fixed(images))
        maps = dynamic.forward_intermediates(images, indices=1, intermediates_only=True)
        torch.testing.assert_close(maps, fixed.forward_intermediates(images, indices=1, intermediates_only=True))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
def test_scripted_and_in_bfloat16() -> None:
    torch.manual_seed(0)
    network = DasViT(CELL, img_size=8, patch_size=2, num_classes=4, embed_dim=6, depth=2).eval()
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(torch.jit.script(network)(images), network(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(network(images)).all()


def test_it_costs_what_an_mlp_does() -> None:
    assert operation_cost("shift_0.5", 12, 17) == operation_cost("mlp_0.5", 12, 17)
    config = ModelConfig(image_size=8, patch_size=2, width=12, layers=2, heads=2)
    assert network_cost(CELL, config, 7) == cost_of(CELL, config, 7)


def test_a_recipe_names_it() -> None:
    config = Config(space=SpaceConfig(nodes=1, heads=[4], ratios=[1.0], shifts=[0.5, 2.0]))
    config.search.stages = dataclasses.replace(config.search.stages, keep=[0, 4, 3])
    validate(config)
    assert Space.from_config(config.space).operations[-2:] == ("shift_0.5", "shift_2")
    for shifts, said in (([0.0], "must all be positive"), ([1.0, 1.0], "names an operation twice")):
        with pytest.raises(UserError, match=rf"space\.shifts.*{said}"):
            validate(dataclasses.replace(config, space=dataclasses.replace(config.space, shifts=shifts)))
    with pytest.raises(UserError, match=r"shifts in space\.shifts"):
        Space.from_config(SpaceConfig(extra=["shift_1"]))


def test_bounds_of_fairness_are_shared_among_three_types() -> None:
    """Thirds of the weight are as even for three types as halves are for two: 0.3 to 0.5 becomes 0.2 to 1/3."""
    alive = torch.ones(5, 6, dtype=torch.bool)
    weights = torch.zeros(5, 6)
    weights[:, 2], weights[:, 3], weights[:, 4] = 0.5, 0.3, 0.2
    terms = fairness(weights, alive, SPACE, FairnessConfig())
    assert terms.types.item() == pytest.approx(0.5 - 1 / 3)
    weights[:, 3], weights[:, 4] = 0.4, 0.1
    assert fairness(weights, alive, SPACE, FairnessConfig()).types.item() == pytest.approx(
        (0.5 - 1 / 3) + (0.4 - 1 / 3) + (0.2 - 0.1)
    )
    assert math.isclose(sum(v.item() for v in terms.type_weights.values()), 1.0, rel_tol=1e-6)
