"""The shrunken rows of Table I: what they cost, that all of each learns, and that they come back from a folder."""

from pathlib import Path

import pytest
import timm
import torch

from dasvit.cell.genotype import PUBLISHED
from dasvit.config import recipe as recipes
from dasvit.models.baselines import make_model
from dasvit.models.cost import cost_of
from dasvit.models.folder import load_model, save_model
from dasvit.models.paper import PAPER
from dasvit.models.scaled_down import CONTROLS, SMALL, TRANSFORMERS

SIZES = recipes.from_dict(recipes.read_recipe("cifar10-compare")).model
NAMES = [f"{name}_small" for name in SMALL]


def test_every_row_of_the_paper_has_a_small_one() -> None:
    rows = [f"{name}_small" for name in SMALL if name not in CONTROLS]
    assert sorted(rows) == sorted(row.small for row in PAPER if row.small not in ("vit", *PUBLISHED))
    assert set(NAMES) <= set(timm.list_models("*_small"))


@pytest.mark.parametrize("row", PAPER, ids=lambda row: row.label)
def test_two_cores_can_train_it(row: object) -> None:
    name = row.small  # type: ignore[attr-defined]
    macs = cost_of(PUBLISHED.get(name, name), SIZES, 10).macs
    assert 20e6 < macs < 80e6


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_cost_at_most_what_the_vit_of_the_study_does(name: str) -> None:
    study = recipes.from_dict(recipes.read_recipe("cifar10-study")).model
    assert 0.9 < cost_of(f"{name}_small", study, 10).macs / cost_of("vit", study, 10).macs <= 1


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_comes_back(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make_model(name, SIZES, 3)
    images = torch.randn(2, 3, 32, 32)
    model.train()(images).square().mean().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    save_model(model, tmp_path, class_names=["a", "b", "c"], input_size=(3, 32, 32), mean=[0.5] * 3, std=[0.5] * 3)
    loaded = load_model(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model.eval()(images))


def test_no_image_is_halved_away() -> None:
    """The CNNs' last maps: at least four pixels of an image of 32, one of VGG's, whose five halvings are its own."""
    sides = {"vgg16": 1, "vgg19": 1, "resnet18": 4, "mobilenetv4": 4}
    for name in NAMES:
        if SMALL[name.removesuffix("_small")].build not in TRANSFORMERS:
            with torch.no_grad():
                maps = make_model(name, SIZES, 3).eval().forward_features(torch.randn(1, 3, 32, 32))  # type: ignore[operator]
            side = sides.get(name.removesuffix("_small"), 2)
            assert maps.shape[-2:] == (side, side)
