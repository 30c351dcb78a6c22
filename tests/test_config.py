import re
from pathlib import Path
from typing import Any

import pytest
import torch

import dasvit
from dasvit.cell.genotype import PUBLISHED, Genotype
from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.config.methods import with_method
from dasvit.config.validation import RELAXATION_NAMES
from dasvit.errors import UserError
from dasvit.models.baselines import make_model, make_network
from dasvit.search.architecture import RELAXATIONS, Architecture
from dasvit.search.state import make_supernet


@pytest.mark.parametrize("name", recipes.recipe_names())
def test_every_recipe_builds(name: str) -> None:
    """On the meta device: every stage's supernet, a derived network and the ViT, and a forward pass of each."""
    config = recipes.from_dict(recipes.read_recipe(name), name)
    space = Space.from_config(config.space)
    side = config.model.image_size
    with torch.device("meta"):
        images = torch.empty(2, 3, side, side)
        for stage in config.search.stages:
            supernet = make_supernet(config, space, space.everything(), stage.layers, 10)
            assert supernet(images, torch.empty(len(space.edges), len(space.operations))).shape == (2, 10)
        cell = Genotype.from_ops(2, [space.operations[-1]] * 4 + [space.operations[2]])
        for network in (make_network(cell, config.model, 10), make_model("vit", config.model, 10)):
            assert network(images).shape == (2, 10)
    Architecture(space, space.everything(), config.search.relaxation)


@pytest.mark.parametrize("name", recipes.recipe_names())
def test_every_recipe_says_its_command_cost_and_outcome(name: str) -> None:
    text = (Path(dasvit.__file__).parent / "recipes" / f"{name}.yaml").read_text()
    assert text.startswith("# Command:  dasvit ") and "\n# Cost:     " in text and "\n# Expected: " in text


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = recipes.from_dict({"search": {"alphas": {"betas": [0.4, 0.9]}}, "data": {"path": "some where"}})
    (tmp_path / "config.yaml").write_text(recipes.to_yaml(config))
    assert recipes.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"serch": {}}, "Did you mean 'search'"),
        ({"search": {"tokens": {"ratoi": 1}}}, r"Did you mean 'search\.tokens\.ratio'"),
        ({"search": {"batch_size": "many"}}, r"search\.batch_size.*int"),
        ({"search": 3}, "must be a section"),
        ({"search": {"method": "dart"}}, "Did you mean 'darts'"),
        ({"search": {"batch_size": 0}}, r"search\.batch_size must be at least 1"),
        ({"model": {"image_size": 30, "patch_size": 4}}, "not divisible into patches of 4"),
        ({"model": {"width": 100}}, "width 100 is not divisible by 8 attention heads"),
        ({"search": {"width": 100}}, r"search\.width 100 is not divisible"),
        ({"space": {"heads": []}}, "never sees the image"),
        ({"space": {"heads": [4, 4]}}, "twice"),
        ({"space": {"ratios": [-1.0]}}, "positive"),
        ({"search": {"tokens": {"ratio": 0.0}}}, "tokens.ratio must lie in"),
        ({"search": {"val_fraction": 1.0}}, "between 0 and 1"),
        ({"search": {"temperature": 0.0}}, "must be at least 0.0001"),
        ({"search": {"stages": {"layers": [2, 4]}}}, "an entry a stage each, but have 2, 3, 3, 3"),
        ({"search": {"stages": {"weight_epochs": [30, 5, 5]}}}, "stage 1 .* never move"),
        ({"search": {"stages": {"weight_epochs": [5, 31, 5]}}}, "stage 2 .* never move"),
        ({"search": {"stages": {"weight_epochs": [5, 5, 30]}}}, "stage 3 .* never move"),
        ({"search": {"weights": {"weight_decay": -0.1}}}, "must not be negative"),
        ({"train": {"ema": 1.0}}, r"train\.ema must lie in \[0, 1\)"),
        ({"search": {"relaxation": "softmx"}}, "Did you mean 'softmax'"),
        ({"search": {"stages": {"layers": [0, 2, 4]}}}, "stage 1"),
        ({"search": {"stages": {"keep": [5, 5, 3]}}}, r"start with 0 \(all 8\)"),
        ({"runtime": {"workers": -1}}, "must not be negative"),
    ],
)
def test_wrong_values_are_refused_in_words(content: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        recipes.from_dict(content)


def test_unknown_recipe_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'cifar10-small'"):
        recipes.read_recipe("cifar10-smal")
    with pytest.raises(UserError, match="cannot read the configuration"):
        recipes.read_recipe(str(tmp_path / "x.yaml"))
    (tmp_path / "x.yaml").write_text("a: [")
    with pytest.raises(UserError, match="no valid YAML"):
        recipes.read_recipe(str(tmp_path / "x.yaml"))
    (tmp_path / "x.yaml").write_text("[1, 2]")
    with pytest.raises(UserError, match="must hold sections"):
        recipes.read_recipe(str(tmp_path / "x.yaml"))
    (tmp_path / "x.yaml").write_text("")
    assert recipes.read_recipe(str(tmp_path / "x.yaml")) == {}


def test_plain_darts_has_none_of_the_parts() -> None:
    config = with_method(recipes.from_dict(recipes.read_recipe("cifar10-small")), "darts")
    assert with_method(config, "darts") == config
    search = config.search
    assert search.tokens.ratio == 1
    assert search.fairness.skip == search.fairness.types == 0
    (stage,) = search.stages
    assert (stage.layers, stage.keep, stage.epochs) == (2, 0, 30)


def test_flat_keys_are_dotted() -> None:
    assert recipes.flatten({"search": {"tokens": {"ratio": 0.5}}, "runtime": {"seed": 1}}) == {
        "search.tokens.ratio": 0.5,
        "runtime.seed": 1,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_build_under_the_paper_recipe(name: str) -> None:
    config = recipes.from_dict(recipes.read_recipe("cifar10-paper"))
    with torch.device("meta"):
        network = make_network(PUBLISHED[name], config.model, 10)
    assert sum(p.numel() for p in network.parameters()) == 50_449_162


def test_relaxations_are_those_that_the_recipe_knows() -> None:
    assert tuple(RELAXATIONS) == RELAXATION_NAMES


@pytest.mark.parametrize("tag", ["timestamp", "int", "float", "bool", "binary", "set", "omap", "pairs", "null"])
def test_a_tag_that_does_not_fit_its_text(tag: str) -> None:
    """PyYAML's constructors then raise whatever they fall over; what one does not mind is no mapping either."""
    with pytest.raises(UserError):
        content = recipes.read_yaml(f"!!{tag} text: 1", "x.yaml")
        recipes.from_dict(content)


def test_nested_dictionaries_are_flattened() -> None:
    content: dict[Any, Any] = {"a": {"b": {"c": 1, "d": [2]}, "e": {}}, 3: None}
    assert recipes.flatten(content) == {"a.b.c": 1, "a.b.d": [2], "3": None}
    assert recipes.flatten(content, "/") == {"a/b/c": 1, "a/b/d": [2], "3": None}


RANGES: list[tuple[str, list[float], list[tuple[float, str]]]] = [
    ("model.width", [8, 32768], [(0, "at least 1"), (32776, "at most 32,768")]),
    ("space.nodes", [1, 16], [(0, "at least 1"), (17, "at most 16")]),
    ("runtime.seed", [0, 4294967295], [(-1, "not be negative"), (4294967296, "at most 4,294,967,295")]),
    ("search.finals.cells", [0, 1000], [(-1, "not be negative")]),
    ("search.weights.lr", [0, 1e-3], [(-1e-9, "not be negative")]),
    ("train.ema", [0, 0.999], [(1, r"\[0, 1\)"), (-0.1, r"\[0, 1\)")]),
    ("search.evolution.mutation", [1e-9, 1], [(0, r"\(0, 1\]"), (1.1, r"\(0, 1\]")]),
]


@pytest.mark.parametrize(("name", "taken", "refused"), RANGES, ids=[name for name, _, _ in RANGES])
def test_ranges_of_fields(name: str, taken: list[float], refused: list[tuple[float, str]]) -> None:
    def changed(value: float) -> Config:
        content = recipes.to_dict(Config())
        *sections, field = name.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[field] = value
        return recipes.from_dict(content, searching=False)

    for value in taken:
        changed(value)
    for value, words in refused:
        with pytest.raises(UserError, match=f"{re.escape(name)} must .*{words}"):
            changed(value)


def test_ranges_of_lists() -> None:
    recipes.from_dict({"space": {"ratios": [64.0]}}, searching=False)
    with pytest.raises(UserError, match=r"space\.ratios must be at most 64"):
        recipes.from_dict({"space": {"ratios": [1.0, 65.0]}}, searching=False)
    with pytest.raises(UserError, match=r"the number of space\.heads must be at most 64, not 65"):
        recipes.from_dict({"space": {"heads": list(range(1, 66))}}, searching=False)
