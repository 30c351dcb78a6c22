"""Networks to train, by name: the derived one, and the baselines that it is measured against."""

import difflib
from typing import Any

import timm
import torch
from torch import nn

from dasvit.cell.genotype import Genotype
from dasvit.cell.ops import init_weights
from dasvit.config import ModelConfig
from dasvit.config.validation import check_patches
from dasvit.errors import UserError
from dasvit.models.dasvit import DasViT
from dasvit.models.vit_conv import STEMS
from dasvit.models.vit_shift import VIT_SHIFT

VIT = "vit_base_patch16_224"
"""The architecture behind the name `vit`; everything that makes it base is overridden."""
OURS = {"vit": VIT, "vit_shift": VIT_SHIFT}
"""Baselines that take width, layers and heads from the configuration, and the architectures behind their names."""


def make_network(
    genotype: Genotype,
    config: ModelConfig,
    num_classes: int,
    drop_path: float = 0.0,
    architecture: str = DasViT.ARCHITECTURE,
) -> DasViT:
    """Build the network of a cell, as timm would.

    Args:
        genotype: The cell.
        config: Image, patch, width, layers, stem and pooling, where the cell has none of its own.
        num_classes: Classes.
        drop_path: Rate of stochastic depth at the last layer.
        architecture: A name under which timm builds networks of cells.

    Raises:
        UserError: Sizes that do not fit together.
    """
    config = genotype.at(config)
    network = timm.create_model(
        architecture,
        cell=genotype.alone.to_dict(),
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.layers,
        num_classes=num_classes,
        drop_path_rate=drop_path,
        stem=config.stem,
        global_pool=config.pool,
    )
    assert isinstance(network, DasViT)
    return network


def make_model(name: str, config: ModelConfig, num_classes: int, *, drop_path: float = 0.0) -> nn.Module:
    """Build a baseline with fresh weights.

    Args:
        name: vit for a vision transformer of the configuration's width, layers, heads, patch and image size (timm's,
            with the Xavier initialisation of our cells, from which it gains as well); vit_shift for the same with a
            shift in its MLPs (`models/vit_shift.py`); or any name of timm's, at its own width and depth, with timm's
            own initialisation.
        config: The configuration; of a name of timm's, the image size alone is taken over.
        num_classes: Classes.
        drop_path: Rate of stochastic depth at the last layer.

    Raises:
        UserError: Unknown name, or sizes that do not fit together.
    """
    args: dict[str, Any] = {"num_classes": num_classes, "in_chans": 3}
    if drop_path:
        args["drop_path_rate"] = drop_path
    ours = name in OURS
    if ours:
        name, args = _behind(name, config), args | vit_args(config)
    else:
        check_architecture(name)
        if timm.get_pretrained_cfg_value(name, "fixed_input_size"):
            args["img_size"] = config.image_size
    try:
        model: nn.Module = timm.create_model(name, **args)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        hint = " Set drop_path to 0 if it has no stochastic depth." if drop_path else ""
        size = config.image_size
        raise UserError(f"timm cannot build {name} for images of {size} × {size} pixels: {error}.{hint}") from error
    if ours:
        model.apply(init_weights)
    # What `save_model` writes, so that the folder is enough to build the model again.
    model.build_args = {key: value for key, value in args.items() if key != "drop_path_rate"}  # type: ignore[assignment]
    return model


def _behind(name: str, config: ModelConfig) -> str:
    """Return the architecture behind the name of a baseline."""
    if config.stem == "patch":
        return OURS[name]
    if name != "vit":
        raise UserError(f"{name} has no convolutional stem: leave out model.stem, or compare with vit.")
    return STEMS[config.stem]


def vit_args(config: ModelConfig) -> dict[str, Any]:
    """Return what a vision transformer of timm's is built with for a configuration's sizes.

    Raises:
        UserError: Sizes that do not fit together.
    """
    check_patches(config.image_size, config.patch_size)
    if config.width % config.heads:
        raise UserError(f"a width of {config.width} is not divisible by {config.heads} attention heads.")
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.width,
        "depth": config.layers,
        "num_heads": config.heads,
        # The norm stays in front of the mean, as in our networks.
        **({"global_pool": "avg", "fc_norm": False} if config.pool == "avg" else {}),
    }


def check_architecture(name: str) -> None:
    """Check that timm knows a name (the whole list is too long to print: the nearest are).

    Raises:
        UserError: It does not.
    """
    if timm.is_model(name.split(".")[0]):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"unknown model {name!r}.{hint} Valid: {', '.join(OURS)}, and every name of timm.list_models().")


def prefer_fast_attention(model: nn.Module, device: torch.device | str, dtype: torch.dtype) -> None:
    """Set timm's attention to the path that trains fast, as `dasvit.cell.ops.attend` chooses for cells.

    On a CPU in bfloat16 the backward pass of PyTorch's fused attention is several times slower than two
    matrix products and a softmax (`benchmarks/attention.py`); without this, a comparison of training times
    would be one of kernels. Modules without timm's `fused_attn` switch are left alone.

    Args:
        model: A model of timm's, changed in place.
        device: Where it will be trained.
        dtype: What its attention will compute in (under autocast, autocast's type).
    """
    fused = torch.device(device).type != "cpu" or dtype == torch.float32
    for module in model.modules():
        if isinstance(vars(module).get("fused_attn"), bool):
            module.fused_attn = fused  # type: ignore[assignment]
