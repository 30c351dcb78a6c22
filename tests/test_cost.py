"""Costs: known figures, and the closed forms against the counter."""

import pytest
import torch
from torch import nn

from dasvit.cell.cost import Cost, network_cost, operation_cost, skeleton_cost, vit_cost
from dasvit.cell.genotype import PUBLISHED, Genotype
from dasvit.cell.ops import make_operation
from dasvit.config import ModelConfig
from dasvit.errors import UserError
from dasvit.models.baselines import make_model, make_network
from dasvit.models.cost import cost_of, count_cost
from test_models_dasvit import random_genotypes

PAPER = ModelConfig(image_size=224, patch_size=16, width=768, layers=12, heads=12)
SMALL = ModelConfig(image_size=16, patch_size=4, width=24, layers=3, heads=4)
CIFAR = PUBLISHED["dasvit_cifar10"]


def test_the_papers_network_costs_what_the_paper_says() -> None:
    cost = cost_of(CIFAR, PAPER, 10)
    assert cost.params == 50_449_162
    assert round(cost.macs_linear / 1e9, 3) == 9.876
    assert round(cost.macs / 1e9, 3) == 10.591
    assert cost == network_cost(CIFAR, PAPER, 10)


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("vit", 17.56),
        ("resnet50", 4.09),
        ("vgg16", 15.47),
        ("regnety_120", 12.09),
        ("tnt_b_patch16_224", 14.05),
        ("cait_s36_384", 13.90),
        ("efficientnet_b7", 5.17),
    ],
)
def test_baselines_at_224_pixels(name: str, giga: float) -> None:
    assert cost_of(name, PAPER, 1000).macs / 1e9 == pytest.approx(giga, abs=0.006)


@pytest.mark.parametrize("cell", [*random_genotypes(10), *random_genotypes(3, nodes=3)], ids=lambda c: "/".join(c.ops))
def test_closed_form_equals_the_count(cell: Genotype) -> None:
    assert network_cost(cell, SMALL, 7) == cost_of(cell, SMALL, 7)


@pytest.mark.parametrize("config", [PAPER, SMALL], ids=["paper", "small"])
def test_closed_form_of_the_vit_equals_the_count(config: ModelConfig) -> None:
    assert vit_cost(config, 7) == cost_of("vit", config, 7) == cost_of("vit_shift", config, 7)


@pytest.mark.parametrize("name", ["msa_1", "msa_4", "mlp_0.5", "mlp_1", "mlp_2.5", "mlp_0.01"])
def test_one_operation(name: str) -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.operation = make_operation(name, 24)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.operation(image.flatten(2).transpose(1, 2))
            return output

    assert count_cost(Alone(), (3, 5), in_chans=24) == operation_cost(name, 24, 15)


def test_operations_without_parameters_are_free() -> None:
    assert operation_cost("zero", 24, 17) == operation_cost("identity", 24, 17) == Cost()


def test_a_network_is_its_skeleton_and_its_operations() -> None:
    layer = sum((operation_cost(op, 24, 17) for op in ("msa_8", *["mlp_0.5"] * 3)), start=Cost())
    assert skeleton_cost(SMALL, 7) + layer * 3 == cost_of(CIFAR, SMALL, 7)


def test_counting_leaves_the_model_alone() -> None:
    model = make_network(CIFAR, SMALL, 7).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost = count_cost(model, 16)
    assert cost == cost_of(CIFAR, SMALL, 7)
    assert model.training and all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_buffers_are_no_parameters() -> None:
    model = make_model("resnet18", ModelConfig(image_size=32), 10)
    assert count_cost(model, 32).params == sum(p.numel() for p in model.parameters())


def test_patches_that_do_not_cover_the_image() -> None:
    with pytest.raises(UserError, match="choose a patch size"):
        skeleton_cost(ModelConfig(image_size=30, patch_size=4), 10)
