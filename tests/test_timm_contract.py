"""What timm asks of its own vision transformers, asked of every network that is registered with it.

The tests are ours, in the spirit of the `tests/test_models.py` of timm, whose own run is in `docs/lab-notes.md`.
"""

import fnmatch
import re
from typing import Any

import pytest
import timm
import torch
from timm.models import get_notrace_functions, get_notrace_modules
from timm.models._manipulate import group_parameters
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from dasvit.cell.genotype import load_genotype
from dasvit.models import distilled
from dasvit.models.dasvit import DasViT, default_cfgs

NAMES = sorted(default_cfgs)
CELLS = ["dasvit_tiny_patch16_224", "dasvit_tiny_in100_patch16_224", "dasvit_tiny_shift_patch16_224"]
"""One name a cell: at the reduced width below, the sizes are the same network."""
SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_classes": 7}


def small(name: str, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, **(SMALL | kwargs)).eval()


def images(size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def test_names_are_listed() -> None:
    assert timm.list_models(module="dasvit") == NAMES
    assert timm.list_models("dasvit_*") == sorted([*NAMES, *distilled.NAMES])
    assert fnmatch.filter(NAMES, "dasvit_base*") == [
        "dasvit_base_in100_patch16_224",
        "dasvit_base_patch16_224",
        "dasvit_base_shift_patch16_224",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_full_size(name: str) -> None:
    device = "meta" if "base" in name else "cpu"
    with torch.device(device), torch.no_grad():
        model = timm.create_model(name)
        logits = model(torch.randn(1, 3, 224, 224))
    assert logits.shape == (1, 1000)
    assert device == "meta" or logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_configuration(name: str) -> None:
    model = small(name)
    cfg, state = model.default_cfg, model.state_dict()
    assert cfg is model.pretrained_cfg and cfg["architecture"] == name
    assert cfg["input_size"] == (3, 224, 224) and cfg["fixed_input_size"]
    assert f"{cfg['classifier']}.weight" in state and f"{cfg['first_conv']}.weight" in state
    assert (model.num_classes, model.num_features, model.head_hidden_size, model.embed_dim) == (7, 48, 48, 48)
    mark = re.fullmatch(r"dasvit_[a-z]+_?(.*)_patch16_224", name)
    assert mark is not None
    cell = {"": "dasvit_cifar10", "in100": "dasvit_imagenet100", "shift": "dasvit_shift"}[mark[1]]
    assert model.genotype == load_genotype(cell)


@pytest.mark.parametrize("name", NAMES)
def test_backward_reaches_every_parameter(name: str) -> None:
    model = small(name, drop_rate=0.1, drop_path_rate=0.1).train()
    model(images()).mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("pool", ["token", "avg", ""])
def test_heads(name: str, pool: str) -> None:
    model = small(name, global_pool=pool)
    features = model.forward_features(images())
    assert features.shape == (2, 17, 48)
    hidden = model.forward_head(features, pre_logits=True)
    assert hidden.shape == ((2, 48) if pool else (2, 17, 48))
    torch.testing.assert_close(model(images()), model.head(hidden))
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity) and model.num_classes == 0
    torch.testing.assert_close(model(images()), hidden)
    model.reset_classifier(3, "avg")
    assert model(images()).shape == (2, 3) and model.get_classifier() is model.head
    assert small(name, num_classes=0)(images()).shape == (2, 48)


@pytest.mark.parametrize("name", CELLS)
def test_intermediates(name: str) -> None:
    model = small(name)
    final, maps = model.forward_intermediates(images())
    torch.testing.assert_close(final, model.forward_features(images()))
    assert [tuple(m.shape) for m in maps] == [(2, 48, 4, 4)] * 4
    last = model.norm(maps[-1].flatten(2).transpose(1, 2))
    torch.testing.assert_close(last, final[:, 1:])
    chosen = model.forward_intermediates(images(), [0, 2], intermediates_only=True, stop_early=True)
    torch.testing.assert_close(chosen, [maps[0], maps[2]])
    pairs = model.forward_intermediates(
        images(), 1, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
    )
    torch.testing.assert_close(torch.cat([pairs[0][1], pairs[0][0]], 1), final)
    content = model.forward_intermediates(images(), 2, output_dict=True, return_prefix_tokens=True)
    assert sorted(content) == ["image_features", "image_intermediates", "image_intermediates_prefix"]
    only = model.forward_intermediates(images(), 2, output_dict=True, intermediates_only=True)
    assert list(only) == ["image_intermediates"] and len(only["image_intermediates"]) == 2
    with pytest.raises(ValueError, match="NHWC"):
        model.forward_intermediates(images(), output_fmt="NHWC")


@pytest.mark.parametrize("name", CELLS)
def test_pruning_and_features_only(name: str) -> None:
    model = small(name)
    _, maps = model.forward_intermediates(images())
    assert model.prune_intermediate_layers([0, 2], prune_norm=True) == [0, 2]
    assert len(model.blocks) == 3 and isinstance(model.head, nn.Identity) and isinstance(model.norm, nn.Identity)
    features = small(name, features_only=True, out_indices=[1, -1])
    assert features.feature_info.channels() == [48, 48] and features.feature_info.reduction() == [8, 8]
    torch.testing.assert_close(features(images()), [maps[1], maps[3]])


@pytest.mark.parametrize("name", CELLS)
def test_grad_checkpointing_changes_nothing(name: str) -> None:
    plain, checkpointed = small(name), small(name)
    checkpointed.set_grad_checkpointing()
    for model in (plain, checkpointed):
        model.train()(images()).square().mean().backward()
    torch.testing.assert_close(plain(images()), checkpointed(images()))
    _, maps = checkpointed.forward_intermediates(images())
    torch.testing.assert_close(maps, plain.forward_intermediates(images())[1])
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("name", CELLS)
def test_parameter_groups(name: str) -> None:
    model = small(name)
    groups = group_parameters(model, model.group_matcher())
    grouped = [key for keys in groups.values() for key in keys]
    assert sorted(grouped) == sorted(key for key, _ in model.named_parameters())
    assert len(groups) == 1 + 4 + 1  # stem, layers, and the norm with the head
    spared = model.no_weight_decay()
    assert spared == {key for key, _ in model.named_parameters() if re.search("cls_token|pos_embed", key)}


@pytest.mark.parametrize("name", CELLS)
def test_other_channels_and_sizes(name: str) -> None:
    assert small(name, in_chans=1)(images(channels=1)).shape == (2, 7)
    assert small(name, img_size=(16, 48))(torch.randn(1, 3, 16, 48)).shape == (1, 7)
    assert small(name, dynamic_img_size=True)(images(48)).shape == (2, 7)
    resized = small(name)
    resized.set_input_size(48)
    assert resized(images(48)).shape == (2, 7)


@pytest.mark.parametrize("name", CELLS)
def test_graph_tracing(name: str) -> None:
    model = small(name)
    options: dict[str, Any] = {
        "leaf_modules": get_notrace_modules(),
        "autowrap_functions": get_notrace_functions(),
        "param_shapes_constant": True,
    }
    last = get_graph_node_names(model, tracer_kwargs=options)[1][-1]
    traced = create_feature_extractor(model, [last], tracer_kwargs=options)
    with torch.no_grad():
        assert torch.equal(traced(images())[last], model(images()))


# TorchScript is on its way out of PyTorch and says so; timm still asks for it.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # timm compares the sizes of images
@pytest.mark.parametrize("name", CELLS)
def test_torchscript(name: str) -> None:
    model = small(name)
    with torch.no_grad():
        expected = model(images())
        traced = torch.jit.trace(model, images())
        torch.testing.assert_close(traced(images()), expected)
        torch.testing.assert_close(torch.jit.script(model)(images()), expected)


def test_export() -> None:
    model = small(NAMES[0])
    program = torch.export.export(model, (images(),)).module()
    torch.testing.assert_close(program(images()), model(images()))


def test_a_cell_of_ones_own() -> None:
    model = timm.create_model(
        "dasvit_base_patch16_224",
        cell="dasvit_imagenet100",
        num_classes=100,
        img_size=32,
        patch_size=4,
        embed_dim=96,
        depth=2,
    )
    assert isinstance(model, DasViT) and model.genotype.ops[-1] == "msa_12"
    assert model(images()).shape == (2, 100)
