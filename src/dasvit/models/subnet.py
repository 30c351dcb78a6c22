"""What the method autoformer finds, as a network: AutoFormer's class at the subnet's sizes.

Importing this module registers `autoformer_subnet` with timm, which takes those sizes as arguments.
"""

from __future__ import annotations

from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from dasvit.cell.ops import init_weights
from dasvit.cell.subnet import REACH, Subnet
from dasvit.config import ModelConfig
from dasvit.models.autoformer import AutoFormer

NAME = "autoformer_subnet"

default_cfgs = generate_default_cfgs(
    {
        NAME: {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "fixed_input_size": True,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "first_conv": "embed.patch_embed.proj",
            "classifier": "head",
        }
    }
)


@register_model
def autoformer_subnet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build a network of AutoFormer's space (see `AutoFormer`); without arguments it is AutoFormer-B."""
    model: nn.Module = build_model_with_cfg(AutoFormer, NAME, pretrained, **kwargs)
    return model


def make_subnet(subnet: Subnet, config: ModelConfig, num_classes: int, drop_path: float = 0.0) -> AutoFormer:
    """Build a subnet with fresh weights, initialised as our cells and the baseline `vit` are.

    Args:
        subnet: The network.
        config: Image and patch size; width and depth are the subnet's.
        num_classes: Classes.
        drop_path: Rate of stochastic depth at the last layer.

    Raises:
        UserError: The patches do not cover the image.
    """
    args: dict[str, Any] = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": subnet.width,
        "head_dim": subnet.head_width,
        "heads": list(subnet.heads),
        "ratios": list(subnet.ratios),
        "reach": REACH,
        "num_classes": num_classes,
    }
    model = timm.create_model(NAME, drop_path_rate=drop_path, **args)
    assert isinstance(model, AutoFormer)
    model.apply(init_weights)
    model.build_args = args  # type: ignore[assignment] # what `save_model` writes
    return model


def subnet_of(args: dict[str, Any]) -> Subnet:
    """Return the subnet that a model of the name `autoformer_subnet` was built from, by its arguments."""
    return Subnet(args["embed_dim"], args["head_dim"], tuple(args["heads"]), tuple(args["ratios"]))
