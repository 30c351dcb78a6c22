"""The MLP with a depthwise convolution before its GELU, alone, in the supernet and in networks."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.cost import network_cost, operation_cost
from dasvit.cell.genotype import Genotype
from dasvit.cell.ops import Conv, Mlp, make_operation
from dasvit.cell.space import Space
from dasvit.config import Config, ModelConfig, SpaceConfig
from dasvit.config.validation import validate
from dasvit.errors import UserError
from dasvit.models.cost import cost_of
from dasvit.models.dasvit import DasViT

CELL = Genotype.from_ops(2, ["conv_0.5", "msa_2", "zero", "conv_2", "mlp_1"])


def make(number: float, dim: int = 6) -> Conv:
    torch.manual_seed(0)
    operation = make_operation(f"conv_{number:g}", dim)
    assert isinstance(operation, Conv)
    for parameter in operation.parameters():
        nn.init.normal_(parameter, std=0.5)
    return operation.double()


def naive(operation: Conv, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Every hidden unit of every patch in a loop: the sum of its nine neighbours' under its own weights."""
    hidden = operation.inner(operation.norm(x))
    rows, columns = grid
    mixed = hidden.clone()
    assert operation.depthwise.bias is not None
    for row in range(rows):
        for column in range(columns):
            total = operation.depthwise.bias.expand(len(x), -1).clone()
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    y, x_ = row + down, column + right
                    if 0 <= y < rows and 0 <= x_ < columns:
                        weight = operation.depthwise.weight[:, 0, down + 1, right + 1]
                        total += weight * hidden[:, 1 + y * columns + x_]
            mixed[:, 1 + row * columns + column] = total
    output: Tensor = operation.outer(F.gelu(mixed))
    return output


@pytest.mark.parametrize("number", [0.5, 1.0, 3.0])
def test_against_the_loop(number: float) -> None:
    operation, x = make(number), torch.randn(2, 13, 6, dtype=torch.float64)
    torch.testing.assert_close(operation(x, (3, 4)), naive(operation, x, (3, 4)), rtol=1e-12, atol=1e-12)


def test_a_convolution_that_hands_units_on_leaves_an_mlp() -> None:
    operation, mlp = make(2), Mlp(6, 2).double()
    nn.init.zeros_(operation.depthwise.weight)
    operation.depthwise.weight.data[:, 0, 1, 1] = 1
    nn.init.zeros_(operation.depthwise.bias)  # type: ignore[arg-type]
    mlp.load_state_dict({name: value for name, value in operation.state_dict().items() if "depthwise" not in name})
    x = torch.randn(2, 17, 6, dtype=torch.float64)
    torch.testing.assert_close(operation(x), mlp(x), rtol=1e-12, atol=1e-12)


def test_without_a_grid_patches_form_a_square() -> None:
    operation, x = make(2), torch.randn(2, 17, 6, dtype=torch.float64)
    assert torch.equal(operation(x), operation(x, (4, 4)))
    assert not torch.equal(operation(x), operation(x, (2, 8)))
    with pytest.raises(RuntimeError, match="shape"):
        operation(torch.randn(2, 16, 6, dtype=torch.float64))


def test_of_a_part_of_the_tokens_those_left_out_count_as_zeros() -> None:
    operation, x, grid = make(2), torch.randn(2, 13, 6, dtype=torch.float64), (3, 4)
    everywhere = torch.arange(13).expand(2, -1)
    torch.testing.assert_close(operation(x, grid, everywhere), operation(x, grid), rtol=1e-12, atol=1e-12)
    places = torch.tensor([[0, 1, 5, 12], [0, 3, 4, 8]])
    kept = torch.stack([x[i, places[i]] for i in range(2)])
    hidden = operation.inner(operation.norm(kept))
    whole = torch.zeros(2, 13, 12, dtype=torch.float64)
    for image in range(2):
        whole[image, places[image]] = hidden[image]
    patches = whole[:, 1:].transpose(1, 2).unflatten(2, grid)
    mixed = torch.cat([whole[:, :1], operation.depthwise(patches).flatten(2).transpose(1, 2)], dim=1)
    expected = operation.outer(F.gelu(torch.stack([mixed[i, places[i]] for i in range(2)])))
    torch.testing.assert_close(operation(kept, grid, places), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
def test_scripted_exported_and_in_bfloat16() -> None:
    torch.manual_seed(0)
    network = DasViT(CELL, img_size=8, patch_size=2, num_classes=4, embed_dim=6, depth=2).eval()
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(torch.jit.script(network)(images), network(images))
    exported = torch.export.export(network, (images,), strict=False).module()
    torch.testing.assert_close(exported(images), network(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(network(images)).all()


def test_its_cost_is_what_the_counter_finds() -> None:
    conv, mlp = operation_cost("conv_0.5", 12, 17), operation_cost("mlp_0.5", 12, 17)
    assert (conv.params - mlp.params, conv.macs - mlp.macs) == (10 * 6, 9 * 6 * 16)
    config = ModelConfig(image_size=8, patch_size=2, width=12, layers=2, heads=2)
    assert network_cost(CELL, config, 7) == cost_of(CELL, config, 7)


def test_a_recipe_names_it() -> None:
    config = Config(space=SpaceConfig(nodes=1, heads=[4], ratios=[1.0], convs=[0.5, 2.0]))
    config.search.stages = dataclasses.replace(config.search.stages, keep=[0, 4, 3])
    validate(config)
    assert Space.from_config(config.space).operations[-2:] == ("conv_0.5", "conv_2")
    for convs, said in (([0.0], "must all be positive"), ([1.0, 1.0], "names an operation twice")):
        with pytest.raises(UserError, match=rf"space\.convs.*{said}"):
            validate(dataclasses.replace(config, space=dataclasses.replace(config.space, convs=convs)))
    with pytest.raises(UserError, match=r"convolutions in space\.convs"):
        Space.from_config(SpaceConfig(extra=["conv_1"]))
