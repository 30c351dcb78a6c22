"""A ViT whose patches come from a convolutional stem: the baseline `vit` where `model.stem` is `conv` or `cct`."""

from __future__ import annotations

from typing import Any

from timm.layers.patch_embed import PatchEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

from dasvit.models.skeleton import TIMM_CFG, ConvPatchEmbed, PooledPatchEmbed

STEMS = {"conv": "vit_conv_base_patch16_224", "cct": "vit_cct_base_patch16_224"}
"""The names under which timm knows it, by the stem."""
BASE = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}

default_cfgs = generate_default_cfgs(
    {
        STEMS["conv"]: TIMM_CFG | {"first_conv": "patch_embed.proj.0.conv"},
        STEMS["cct"]: TIMM_CFG | {"first_conv": "patch_embed.proj.0.0"},
    }
)


@register_model
def vit_conv_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Build timm's ViT on a convolutional stem (see `ConvPatchEmbed`).

    Raises:
        UserError: The patch's side is no power of two.
    """
    return _build("conv", ConvPatchEmbed, pretrained, kwargs)


@register_model
def vit_cct_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Build timm's ViT on a convolutional stem with pooling (see `PooledPatchEmbed`).

    Raises:
        UserError: The patch's side is no power of two.
    """
    return _build("cct", PooledPatchEmbed, pretrained, kwargs)


def _build(stem: str, layer: type[PatchEmbed], pretrained: bool, kwargs: dict[str, Any]) -> VisionTransformer:
    model: VisionTransformer = build_model_with_cfg(
        VisionTransformer,
        STEMS[stem],
        pretrained,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **(BASE | {"embed_layer": layer} | kwargs),
    )
    return model
