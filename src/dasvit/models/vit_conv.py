"""A ViT whose patches come from a convolutional stem: the baseline `vit` of a recipe with `model.stem: conv`."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

from dasvit.models.skeleton import TIMM_CFG, ConvPatchEmbed

VIT_CONV = "vit_conv_base_patch16_224"
"""The name under which timm knows it."""
BASE = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}

default_cfgs = generate_default_cfgs({VIT_CONV: TIMM_CFG | {"first_conv": "patch_embed.proj.0.conv"}})


@register_model
def vit_conv_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Build timm's ViT on a convolutional stem (see `ConvPatchEmbed`).

    Raises:
        UserError: The patch's side is no power of two.
    """
    model: VisionTransformer = build_model_with_cfg(
        VisionTransformer,
        VIT_CONV,
        pretrained,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **(BASE | {"embed_layer": ConvPatchEmbed} | kwargs),
    )
    return model
