"""Operations of one's own: registered, they are searched, derived, counted and drawn like ours."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dasvit
from dasvit.cell.cost import COSTS, Cost, network_cost
from dasvit.cell.genotype import NUMBERED, Genotype, is_viable, parse_operation
from dasvit.cell.ops import OPERATIONS, Identity
from dasvit.cell.space import Space
from dasvit.config import Config, ModelConfig, SpaceConfig, TokensConfig
from dasvit.config.validation import validate
from dasvit.errors import UserError
from dasvit.models.cost import cost_of
from dasvit.report.drawing.cells import leading_cell
from dasvit.report.drawing.palette import SHADES, colours
from dasvit.search.derive import derive
from dasvit.search.plain_darts import PlainSupernet
from dasvit.search.stages import prune
from dasvit.search.supernet import ForwardMode, MixedCell, Supernet

EXAMPLE = Path(__file__).parents[1] / "examples" / "new_operation.py"


class Mean(nn.Module):
    """What is no `Parametric`: every token gets a scaled mean of all."""

    def __init__(self, dim: int, number: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), float(number)))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean(dim=1, keepdim=True).expand_as(x)


def mean_cost(number: float, dim: int, tokens: int) -> Cost:
    return Cost(dim)


@pytest.fixture(autouse=True)
def own_kinds() -> Iterator[ModuleType]:
    """Register swiglu, as the example does, and mean; forget them afterwards."""
    tables: list[dict[str, Any]] = [NUMBERED, OPERATIONS, COSTS]
    before = [dict(table) for table in tables]
    spec = importlib.util.spec_from_file_location("new_operation", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dasvit.register_operation("mean", Mean, mean_cost, number="SCALE", whole=True, attends=True)
    yield module
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


SPACE = ("zero", "identity", "msa_2", "mlp_1", "swiglu_0.5", "mean_2")


def test_a_supernet_mixes_them_as_plain_darts_does() -> None:
    torch.manual_seed(0)
    sizes: Any = {"image_size": 8, "patch_size": 2, "dim": 8, "layers": 2}
    space = Space(2, SPACE)
    ours = Supernet(space, space.everything(), **sizes, num_classes=5, tokens=TokensConfig(ratio=1.0)).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    plain = PlainSupernet(space, **sizes, num_classes=5).double()
    plain.load_state_dict(ours.state_dict())
    images, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.arange(4)
    gradients = []
    for network in (ours, plain):
        weights = torch.linspace(0.1, 1, 5 * len(SPACE), dtype=torch.float64).view(5, -1).requires_grad_()
        F.cross_entropy(network(images, weights), labels).backward()
        gradients.append([weights.grad, *(p.grad for _, p in sorted(network.named_parameters()))])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_dropout_of_skips_leaves_them_alone() -> None:
    space = Space(1, ("identity", "mean_2"))
    cell = MixedCell(space, space.everything(), 4, TokensConfig(ratio=1.0))
    x, only_mean = torch.randn(1, 50, 4), torch.tensor([[0.0, 1.0]] * 2)
    found = cell.train()(x, x, only_mean, ForwardMode(skip_dropout=0.999))
    torch.testing.assert_close(found, 4 * x.mean(dim=1, keepdim=True).expand_as(x))
    assert isinstance(cell.get_submodule("edges.prev1_x1.identity"), Identity)


def test_their_closed_forms_equal_the_count() -> None:
    config = ModelConfig(image_size=8, patch_size=2, width=12, layers=2, heads=2)
    cell = Genotype.from_ops(2, ["swiglu_0.5", "msa_2", "zero", "mean_3", "swiglu_2"])
    assert network_cost(cell, config, 7) == cost_of(cell, config, 7)


def test_one_that_attends_counts_as_attention() -> None:
    assert is_viable(Genotype.from_ops(1, ["identity", "mean_2"]))
    assert not is_viable(Genotype.from_ops(1, ["identity", "swiglu_1"]))
    space = Space(1, ("zero", "identity", "mean_2", "swiglu_1"))
    weights = [[0.0, 0.2, 0.1, 0.7], [0.0, 0.7, 0.05, 0.2]]
    alive = prune(weights, space.everything(), 1, space)
    assert alive == ((False, False, True, False), (False, True, False, False))
    assert derive(weights, space.everything(), space).genotype.ops == ("mean_2", "identity")


def test_a_recipe_names_them() -> None:
    config = SpaceConfig(nodes=1, heads=[2], ratios=[1.0], extra=["swiglu_1", "swiglu_2"])
    space = Space.from_config(config)
    assert space.operations == ("zero", "identity", "msa_2", "mlp_1", "swiglu_1", "swiglu_2")
    assert space.kinds()[-2:] == ["swiglu", "swiglu"]
    recipe = Config(space=SpaceConfig(heads=[4, 8, 12], extra=["swiglu_1"]))
    validate(recipe)
    recipe.search.stages.keep[0] = 8  # would prune before any is known to be the weaker one
    with pytest.raises(UserError, match="all 9"):
        validate(recipe)
    with pytest.raises(UserError, match=r"the number of space\.extra must be at most 64"):
        validate(Config(space=SpaceConfig(extra=[f"swiglu_{i + 1}" for i in range(65)])))


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("swiglu_1", "an operation twice: swiglu_1"),
        ("mlp_3", r"MLPs in space\.ratios"),
        ("zero", "names zero"),
        ("glu_1", "unknown operation .glu_1.. Valid: zero.*swiglu_RATIO"),
    ],
)
def test_a_recipe_that_names_them_wrongly(extra: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Space.from_config(SpaceConfig(heads=[2], ratios=[1.0], extra=["swiglu_1", extra]))


def test_names_that_cannot_be() -> None:
    for kind in ("msa", "zero", "Swiglu", "swi_glu", "2glu", ""):
        with pytest.raises(UserError, match="cannot be called"):
            dasvit.register_operation(kind, Mean, mean_cost)
    with pytest.raises(UserError, match="number of scale must be whole"):
        parse_operation("mean_1.5")
    with pytest.raises(UserError, match="swiglu_RATIO, mean_SCALE"):
        parse_operation("nothing_1")


def test_pages_show_them_whether_they_are_registered_or_not() -> None:
    weights = {"prev2→x1": {"mean_2": 0.9, "zero": 0.1}, "prev1→x1": {"msa_2": 0.6, "swiglu_1": 0.4}}
    assert leading_cell(weights) == Genotype.from_ops(1, ["mean_2", "msa_2"])
    known = colours(["msa_2", "mean_2", "swiglu_1"])
    assert known["mean_2"] == known["swiglu_1"] == SHADES["light"]["other"][0]
    del NUMBERED["mean"], NUMBERED["swiglu"]
    assert leading_cell(weights) is None
    assert colours(["msa_2", "mean_2", "swiglu_1"]) == known
