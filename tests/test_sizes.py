"""Sizes of a network: their file, the stem and the pooling, and what takes them over from a file."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import dasvit
from dasvit.cell.cell import Cell
from dasvit.cell.cost import network_cost, vit_cost
from dasvit.cell.genotype import Genotype, is_viable, load_genotype
from dasvit.cell.sizes import Sizes
from dasvit.cell.space import Space
from dasvit.config import Config, LatencyConfig, ModelConfig, SpaceConfig
from dasvit.errors import UserError
from dasvit.latency.table import check_table, measure_table, read_table, with_table
from dasvit.models.baselines import make_model, make_network
from dasvit.models.cost import cost_of
from dasvit.models.dasvit import DasViT
from dasvit.models.export import make_program
from dasvit.models.folder import load_model, save_model
from dasvit.runtime.progress import Reporter
from dasvit.search.state import make_supernet
from helpers import SMALL, call_cli

CELL = Genotype.from_ops(1, ["mlp_1", "msa_2"])
SIZES = Sizes(width=16, layers=3, patch_size=4, stem="conv", pool="avg", image_size=8)
MODEL = ModelConfig(image_size=8, patch_size=2, width=12, layers=2, heads=2)


def test_a_file_of_a_cell_and_its_sizes() -> None:
    sized = CELL.sized(SIZES)
    content = json.loads(sized.to_json())
    assert content["format"] == "dasvit-genotype/2"
    assert content["sizes"] == {**dataclasses.asdict(SIZES)}
    assert Genotype.from_json(sized.to_json()) == sized != CELL == sized.alone
    assert json.loads(CELL.to_json())["format"] == "dasvit-genotype/1", "a cell alone is written as ever"
    usual = CELL.sized(Sizes(16, 3, 4))
    assert "image_size" not in usual.to_dict()["sizes"] and Genotype.from_dict(usual.to_dict()) == usual
    assert usual.at(MODEL) == dataclasses.replace(MODEL, width=16, layers=3, patch_size=4)
    assert CELL.at(MODEL) is MODEL


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"width": 0}, "width must be a whole number of 1"),
        ({"width": True}, "width must be a whole number"),
        ({"layers": 10**6}, "layers must be a whole number of 1 to 1,024"),
        ({"layers": 2.5}, "not 2.5"),
        ({"stem": "mlp"}, "stem is patch or conv or cct, not 'mlp'"),
        ({"pool": ["avg"]}, "pool is token or avg"),
        ({"patch_size": 6, "image_size": 12}, "patches of 6 pixels are none of 2, 4"),
        ({"image_size": 10}, "cannot be cut into patches"),
        ({"colour": 1}, "object with width, layers, patch_size"),
    ],
)
def test_sizes_that_no_network_has(edits: dict[str, Any], words: str) -> None:
    content = CELL.sized(SIZES).to_dict()
    content["sizes"] = {**content["sizes"], **edits}
    with pytest.raises(UserError, match=words):
        Genotype.from_dict(content)
    with pytest.raises(UserError, match="object with width"):
        Genotype.from_dict({**content, "sizes": {"width": 3}})


@pytest.mark.parametrize("stem", ["patch", "conv", "cct"])
@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("patch_size", [2, 8])
def test_costs_of_every_form_are_those_counted(stem: Any, pool: Any, patch_size: int) -> None:
    model = ModelConfig(image_size=16, patch_size=patch_size, width=12, layers=2, heads=2, stem=stem, pool=pool)
    assert network_cost(CELL, model, 5) == cost_of(CELL, model, 5)
    assert vit_cost(model, 5) == cost_of("vit", model, 5)
    assert cost_of(CELL.sized(Sizes.of(model)), MODEL, 5) == cost_of(CELL, model, 5), "a file's sizes count"


def test_the_usual_network_is_the_one_it_was() -> None:
    """Weights and logits of a seed, to the bit: digests of the networks before there were stems."""
    torch.manual_seed(0)
    network = make_network(CELL, MODEL, 3).eval()
    state = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    assert hashlib.sha256(state).hexdigest()[:16] == "3fd3f3b79686452f"
    torch.manual_seed(0)
    parts = make_model("vit", MODEL, 3).state_dict()
    state = b"".join(value.numpy().tobytes() for value in parts.values())
    assert hashlib.sha256(state).hexdigest()[:16] == "3219ad9dcdd2fcdf"


def test_the_stem_by_hand() -> None:
    """Convolutions, norms over the channels and GELU, written out, against the network's tokens."""
    torch.manual_seed(0)
    model = dataclasses.replace(MODEL, patch_size=4, stem="conv")
    embed = make_network(CELL, model, 3).embed
    images = torch.randn(2, 3, 8, 8)
    x = images
    layers: list[Any] = list(embed.patch_embed.proj.children())
    assert [layer.conv.weight.shape for layer in layers] == [(6, 3, 3, 3), (12, 6, 3, 3), (12, 12, 1, 1)]
    for layer in layers[:-1]:
        x = nn.functional.conv2d(x, layer.conv.weight, stride=2, padding=1)
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        x = nn.functional.gelu((x - mean) / (variance + 1e-5).sqrt())
    x = nn.functional.conv2d(x, layers[-1].conv.weight, layers[-1].conv.bias).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed.patch_embed(images), x, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="one size of patches"):
        embed.set_input_size(16, 8)
    embed.set_input_size(16)
    assert embed(torch.randn(1, 3, 16, 16)).shape == (1, 17, 12)


def test_the_pooled_stem_by_hand() -> None:
    """Convolutions at the size before each halving, norms over the channels, GELU and max pooling, written out."""
    torch.manual_seed(0)
    embed = make_network(CELL, dataclasses.replace(MODEL, patch_size=4, stem="cct"), 3).embed
    images = x = torch.randn(2, 3, 8, 8)
    layers: list[Any] = list(embed.patch_embed.proj.children())
    assert [layer[0].weight.shape for layer in layers] == [(6, 3, 3, 3), (12, 6, 3, 3)]
    for layer in layers:
        x = nn.functional.conv2d(x, layer[0].weight, padding=1)
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        x = nn.functional.gelu((x - mean) / (variance + layer[1].eps).sqrt())
        beyond = nn.functional.pad(x, (1, 1, 1, 1), value=-math.inf).unfold(2, 3, 2).unfold(3, 3, 2)
        x = beyond.amax((4, 5))
    torch.testing.assert_close(embed.patch_embed(images), x.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)
    embed.set_input_size(16)
    assert embed(torch.randn(1, 3, 16, 16)).shape == (1, 17, 12)


def test_the_mean_of_the_patches_by_hand() -> None:
    model = dataclasses.replace(MODEL, pool="avg")
    network, vit = make_network(CELL, model, 3).eval(), make_model("vit", model, 3).eval()
    images = torch.randn(2, 3, 8, 8)
    for one in (network, vit):
        tokens = one.forward_features(images)  # type: ignore[operator]
        torch.testing.assert_close(one(images), one.head(tokens[:, 1:].mean(1)))  # type: ignore[operator]


def test_the_supernet_has_stem_and_pooling() -> None:
    """With one operation chosen it computes what the derived network with its weights does."""
    config = Config(model=dataclasses.replace(MODEL, stem="conv", pool="avg"))
    config.space = SpaceConfig(nodes=1, heads=[2], ratios=[1.0], shifts=[1.0])
    config.search.tokens.ratio = 1.0
    space = Space.from_config(config.space)
    supernet = make_supernet(config, space, space.everything(), 2, 3).eval()
    cell = Genotype.from_ops(1, ["shift_1", "msa_2"])
    network = make_network(cell, config.model, 3).eval()
    network.load_state_dict(supernet.state_of(cell))
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(supernet(images, torch.tensor(space.one_hot(cell))), network(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["dasvit", "vit"])
def test_a_model_folder_and_an_export_keep_the_form(name: str, tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, stem="conv", pool="avg")
    network = (make_network(CELL, model, 2) if name == "dasvit" else make_model(name, model, 2)).eval()
    save_model(network, tmp_path, class_names=["a", "b"], input_size=(3, 8, 8), mean=(0,) * 3, std=(1,) * 3)
    images = torch.randn(2, 3, 8, 8)
    again = load_model(tmp_path).eval()
    assert torch.equal(again(images), network(images))
    exported = make_program(again, 8).module()
    torch.testing.assert_close(exported(images), network(images), atol=1e-5, rtol=1e-5)


def test_timm_builds_a_file_at_its_sizes(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(CELL.sized(SIZES).to_json())
    network = timm.create_model("dasvit_tiny_patch16_224", cell=str(path), num_classes=3)
    assert isinstance(network, DasViT)
    args = network.model_args
    found = (args["embed_dim"], args["depth"], args["patch_size"], args["img_size"], args["stem"], args["global_pool"])
    assert found == (16, 3, [4, 4], [8, 8], "conv", "avg")
    assert network.genotype == CELL and args["cell"]["format"] == "dasvit-genotype/1"
    other = timm.create_model("dasvit_tiny_patch16_224", cell=str(path), num_classes=3, embed_dim=32)
    assert isinstance(other, DasViT) and other.embed_dim == 32 and len(other.blocks) == 3
    usual = timm.create_model("dasvit_tiny_patch16_224", cell="dasvit_shift", num_classes=3)
    assert isinstance(usual, DasViT) and usual.embed_dim == 192 and "stem" not in usual.model_args
    assert torch.equal(DasViT(path, num_classes=3)(torch.zeros(1, 3, 8, 8)).isfinite(), torch.ones(1, 3).bool())


@pytest.mark.parametrize("stem", ["conv", "cct"])
def test_images_of_other_sizes_pass_the_stem(stem: str) -> None:
    network = DasViT(
        Genotype.from_ops(1, ["shift_1", "msa_2"]),
        16,
        4,
        embed_dim=12,
        depth=2,
        stem=stem,
        num_classes=3,
        dynamic_img_size=True,
    ).eval()
    assert network(torch.randn(2, 3, 16, 16)).shape == network(torch.randn(2, 3, 24, 8)).shape == (2, 3)


def test_a_latency_table_is_of_a_stem(tmp_path: Path) -> None:
    config = Config(model=MODEL, space=SpaceConfig(nodes=1, heads=[2], ratios=[1.0]))
    config.search.latency = LatencyConfig(threads=1)
    conv = dataclasses.replace(config, model=dataclasses.replace(MODEL, stem="conv"))
    table = measure_table(conv, 3, Reporter(quiet=True))
    assert table.sizes["stem"] == "conv" and "pool" not in table.sizes
    (tmp_path / "t.json").write_text(table.to_json())
    assert read_table(tmp_path / "t.json") == table
    check_table(table, conv)
    with pytest.raises(UserError, match="stem conv, not patch"):
        check_table(table, with_table(config, tmp_path / "t.json"))


def test_training_takes_a_files_sizes(tmp_path: Path) -> None:
    """By itself; what the command line says of them stands above, and is said."""
    path = tmp_path / "found.json"
    path.write_text(CELL.sized(SIZES).to_json())
    small = [option for option in SMALL if not option.startswith("--model.")]
    status, _, err = call_cli("train", *small, "--cell", path, "--run", tmp_path / "run")
    assert status == 0, err
    assert load_genotype(tmp_path / "run") == CELL.sized(SIZES) and "command line" not in err
    model = json.loads((tmp_path / "run/model/config.json").read_text())["model_args"]
    assert (model["embed_dim"], model["stem"], model["global_pool"]) == (16, "conv", "avg")
    status, _, err = call_cli("train", *small, "--cell", path, "--model.width", "8", "--run", tmp_path / "other")
    assert status == 0, err
    assert "model.width 8, not 16 as its file says: the command line's word counts" in err
    assert load_genotype(tmp_path / "other").sizes == dataclasses.replace(SIZES, width=8)
    status, _, err = call_cli("train", *small, "--init", tmp_path / "run", "--run", tmp_path / "more")
    assert status == 0, err
    status, _, err = call_cli("export", tmp_path / "run", "--to", "torch", "--out", tmp_path / "net.pt2")
    assert status == 0, err
    status, _, err = call_cli("evaluate", tmp_path / "run", "--json")
    assert status == 0, err


def test_costs_and_comparisons_take_a_files_sizes(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(CELL.sized(SIZES).to_json())
    config = dataclasses.replace(MODEL)
    own = cost_of(CELL.sized(SIZES), config, 10)
    status, out, err = call_cli("cost", path, "--config", "digits", "--json")
    assert status == 0, err
    assert json.loads(out)["params"] == own.params
    status, out, _ = call_cli("cost", path, "--config", "digits", "--json", "--model.width=8")
    wanted = cost_of(CELL, dataclasses.replace(SIZES, width=8).within(config), 10)
    assert json.loads(out)["params"] == wanted.params
    assert dasvit.cost(path).params == own.params == dasvit.cost(CELL.sized(SIZES)).params
    status, out, err = call_cli("compare", path, "dasvit_shift", "--cost-only", "--config=digits", "--json")
    assert status == 0, err
    assert json.loads(out)["networks"][0]["params"] == own.params
    options = [*SMALL[:-2], "--run", tmp_path / "compared", "--json", *SMALL[-2:]]
    (tmp_path / "alone.json").write_text(CELL.to_json())
    status, out, err = call_cli("compare", path, tmp_path / "alone.json", *options)
    assert status == 0, err
    rows = json.loads(out)["networks"]
    assert rows[0]["params"] == own.params and rows[1]["params"] != own.params
    assert all(np.isfinite(row["top1"]) for row in rows)


def test_a_cell_of_one_block_is_the_plain_vit() -> None:
    """With the weights of timm's, the logits of timm's; what it costs is what that costs."""
    cell = Genotype.from_ops(1, ["zero", "vit_2"])
    network, vit = make_network(cell, MODEL, 3).eval(), make_model("vit", MODEL, 3).eval()
    names = {"cls_token": "embed.cls_token", "pos_embed": "embed.pos_embed"}
    parts = {
        "norm1": "attention.norm",
        "attn.qkv": "attention.inner",
        "attn.proj": "attention.outer",
        "norm2": "mlp.norm",
        "mlp.fc1": "mlp.inner",
        "mlp.fc2": "mlp.outer",
    }
    state = {}
    for name, value in vit.state_dict().items():
        for theirs, ours in parts.items():
            name = name.replace(f".{theirs}.", f".prev1_x1.{ours}.")
        state[names.get(name, name.replace("patch_embed.", "embed.patch_embed."))] = value
    network.load_state_dict(state)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(network(images), vit(images), atol=1e-5, rtol=1e-5)
    assert network_cost(cell, MODEL, 3) == vit_cost(MODEL, 3) == cost_of(cell, MODEL, 3)
    assert is_viable(cell)


def test_stochastic_depth_leaves_a_blocks_skips_alone() -> None:
    """At a rate of nearly 1 in training the last layer passes its input on, as in a ViT."""
    torch.manual_seed(0)
    cell = Cell(Genotype.from_ops(1, ["zero", "vit_2"]), 8, 0.999999).train()
    x = torch.randn(2, 5, 8)
    assert torch.equal(cell(x, x, (2, 2)), x)
