"""Model folders and baselines by name."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_data_config
from torch import nn

from dasvit.cell.genotype import PUBLISHED
from dasvit.cell.ops import Shift
from dasvit.config import ModelConfig
from dasvit.errors import UserError
from dasvit.models.baselines import make_model, make_network, prefer_fast_attention
from dasvit.models.dasvit import DasViT
from dasvit.models.folder import load_model, read_model_config, save_model

CONFIG = ModelConfig(image_size=16, patch_size=4, width=24, layers=3, heads=4)
NAMES = ["cat", "dog", "ship"]
CIFAR = PUBLISHED["dasvit_cifar10"]


def save(model: nn.Module, folder: Path, size: int = 16) -> Path:
    half = (0.5, 0.5, 0.5)
    return save_model(
        model, folder, class_names=NAMES, input_size=(3, size, size), mean=half, std=half, extra={"seed": 1}
    )


def outputs(model: nn.Module, size: int = 16) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(torch.linspace(-1, 1, 2 * 3 * size * size).reshape(2, 3, size, size))
    return logits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(make_network(CIFAR, CONFIG, 3, drop_path=0.1), tmp_path / "model")


@pytest.mark.parametrize("name", ["cell", "vit", "vit_shift", "test_resnet", "test_vit"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    config = ModelConfig(image_size=32, patch_size=4, width=24, layers=3, heads=4)
    model = make_network(CIFAR, config, 3) if name == "cell" else make_model(name, config, 3, drop_path=0.1)
    folder = save(model, tmp_path, size=32)
    for loaded in (load_model(folder), timm.create_model(f"local-dir:{folder}", pretrained=True)):
        assert torch.equal(outputs(loaded, 32), outputs(model, 32))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_what_timm_reads_from_the_folder(folder: Path) -> None:
    model = load_model(folder)
    assert isinstance(model, DasViT) and model.genotype == CIFAR
    data = resolve_data_config(model=model)
    assert (tuple(data["input_size"]), list(data["mean"]), data["crop_pct"]) == ((3, 16, 16), [0.5] * 3, 1.0)
    cfg: dict[str, Any] = vars(model)["pretrained_cfg"]
    assert list(cfg["label_names"]) == NAMES and cfg["classifier"] == "head"
    config = read_model_config(folder)
    assert config["architecture"] == "dasvit_base_patch16_224" and config["dasvit"] == {"seed": 1}
    assert config["model_args"]["cell"] == CIFAR.to_dict()


def test_a_network_that_timm_did_not_build(tmp_path: Path) -> None:
    model = DasViT(img_size=16, patch_size=4, embed_dim=24, depth=2, num_classes=3)
    assert torch.equal(outputs(load_model(save(model, tmp_path))), outputs(model))


def test_new_head_new_channels_new_size(folder: Path) -> None:
    assert outputs(load_model(folder, num_classes=7)).shape == (2, 7)
    assert outputs(load_model(folder, img_size=32), 32).shape == (2, 3)
    assert load_model(folder, in_chans=1)(torch.zeros(1, 1, 16, 16)).shape == (1, 3)


def test_saving_again_replaces_both_files(folder: Path) -> None:
    model = make_network(PUBLISHED["dasvit_imagenet100"], CONFIG, 3)
    save(model, folder)
    assert torch.equal(outputs(load_model(folder)), outputs(model))


def test_a_failed_save_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "model.safetensors").read_bytes()

    def broken(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("dasvit.io.files.os.fsync", broken)
    with pytest.raises(OSError, match="no space"):
        save(make_network(CIFAR, CONFIG, 3), folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert len(list(folder.iterdir())) == 2


def test_files_are_on_the_disk_before_they_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each file its content, then its name; their modes follow the umask."""
    done: list[str] = []
    real, rename = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        done.append(f"synced {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        real(descriptor)

    def replace(self: Path, target: Path) -> Path:
        done.append(f"named {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    before = os.umask(0o027)
    try:
        save(make_network(CIFAR, CONFIG, 3), tmp_path / "model")
    finally:
        os.umask(before)
    weights, config = "model.safetensors", "config.json"
    assert done == [
        *(f"synced .{weights}.tmp", f"named {weights}", "synced model"),
        *(f"synced .{config}.tmp", f"named {config}", "synced model"),
    ]
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "model").iterdir()} == {"0o640"}


def test_folders_that_are_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no config\.json"):
        load_model(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load_model(folder)
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot read"):
        load_model(folder)
    (folder / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="does not describe a model"):
        load_model(folder)


def test_weights_that_do_not_fit(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state.pop("norm.weight")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"norm\.weight"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(UserError, match="cannot load"):
        load_model(folder)


def test_unknown_architecture_in_a_folder(folder: Path) -> None:
    config = read_model_config(folder) | {"architecture": "dasvit_bass_patch16_224"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="Did you mean dasvit_base_patch16_224"):
        load_model(folder)


def test_names() -> None:
    with pytest.raises(UserError, match="resnet50"):
        make_model("resnt50", CONFIG, 3)
    with pytest.raises(UserError, match="resnet50"):
        load_model("resnt50")
    with pytest.raises(UserError, match="no published weights"):
        load_model("dasvit_base_patch16_224")


def test_vit_is_timms_at_our_size() -> None:
    model = make_model("vit", CONFIG, 3)
    assert type(model) is timm.models.VisionTransformer
    assert (
        len(model.blocks) == 3
        and model.embed_dim == 24
        and vars(model.get_submodule("blocks.0.attn"))["num_heads"] == 4
    )
    assert outputs(model).shape == (2, 3)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="4 attention heads"):
        make_model("vit", ModelConfig(image_size=16, patch_size=4, width=30, heads=4), 3)
    with pytest.raises(UserError, match="choose a patch size"):
        make_model("vit", ModelConfig(image_size=30, patch_size=4, width=24, heads=4), 3)
    with pytest.raises(UserError, match="drop_path to 0"):
        make_model("vgg11", CONFIG, 3, drop_path=0.1)


def test_fast_attention_is_the_explicit_one_on_a_cpu_in_bfloat16() -> None:
    model = make_model("vit", CONFIG, 3)
    switches = [module for module in model.modules() if "fused_attn" in vars(module)]
    expected = outputs(model)
    for device, dtype, fused in [("cpu", torch.bfloat16, False), ("cuda", torch.bfloat16, True)]:
        prefer_fast_attention(model, device, dtype)
        assert [vars(module)["fused_attn"] for module in switches] == [fused] * 3
        torch.testing.assert_close(outputs(model), expected, rtol=1e-5, atol=1e-5)


def test_a_vit_with_shift_computes_what_the_operation_does() -> None:
    """Every MLP with the norm before it, against the operation `shift_4` on the same weights."""
    torch.manual_seed(0)
    vit, shifted = (make_model(name, CONFIG, 3).eval() for name in ("vit", "vit_shift"))
    shifted.load_state_dict(vit.state_dict())
    tokens = torch.randn(2, 17, 24)
    for block, plain in zip(vars(shifted)["_modules"]["blocks"], vars(vit)["_modules"]["blocks"], strict=True):
        operation = Shift(24, 4)
        operation.norm, operation.inner, operation.outer = block.norm2, block.mlp.fc1, block.mlp.fc2
        torch.testing.assert_close(block.mlp(block.norm2(tokens)), operation(tokens))
        torch.testing.assert_close(block.attn(tokens), plain.attn(tokens))
    assert not torch.allclose(outputs(shifted), outputs(vit))


@pytest.mark.parametrize("sizes", [{"dynamic_img_size": True}, {"img_size": (32, 64)}, {"patch_size": (8, 16)}])
def test_a_vit_with_shift_takes_squares_alone(sizes: dict[str, Any]) -> None:
    """It would take 4 x 16 patches for 8 x 8."""
    with pytest.raises(UserError, match="square images of one size"):
        timm.create_model("vit_shift_base_patch16_224", depth=1, embed_dim=24, num_heads=3, **sizes)
