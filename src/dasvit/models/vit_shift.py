"""A ViT whose MLPs take their hidden units from the patches around: what `shift` gives where nothing was searched."""

from __future__ import annotations

from typing import Any

from timm.layers.mlp import Mlp
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.ops import shift
from dasvit.config.validation import size_pair
from dasvit.errors import UserError
from dasvit.models.skeleton import TIMM_CFG

VIT_SHIFT = "vit_shift_base_patch16_224"
"""The name under which timm knows it."""
BASE = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}

default_cfgs = generate_default_cfgs({VIT_SHIFT: TIMM_CFG | {"first_conv": "patch_embed.proj"}})


class ShiftedGelu(nn.Module):
    """The GELU of hidden units that come from the 3 × 3 patches around, as in `dasvit.cell.ops.Shift`.

    The patches must form a square.
    """

    def forward(self, h: Tensor) -> Tensor:
        """Return the GELU of the hidden units, shifted, [B, N, F] -> [B, N, F].

        Raises:
            RuntimeError: The patches form no square.
        """
        return F.gelu(shift(h, None))


@register_model
def vit_shift_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Build timm's ViT with a shift in front of the activation of every MLP; it has the same parameters and costs.

    Raises:
        UserError: Its patches would not always form a square, which is all that it knows of where they lie.
    """
    return build_shifted(VisionTransformer, VIT_SHIFT, pretrained, kwargs)


def build_shifted(
    network: type[VisionTransformer], name: str, pretrained: bool, kwargs: dict[str, Any]
) -> VisionTransformer:
    """Build a vision transformer of timm's, of one class or another, whose MLPs shift their hidden units.

    Raises:
        UserError: Its patches would not always form a square.
    """
    image, patch = size_pair(kwargs.get("img_size") or 224), size_pair(kwargs.get("patch_size") or BASE["patch_size"])
    if kwargs.get("dynamic_img_size") or image[0] // patch[0] != image[1] // patch[1]:
        raise UserError(
            f"{name} takes square images of one size: leave out dynamic_img_size and oblong sizes, or take a cell "
            "with shift, as dasvit_tiny_shift_patch16_224."
        )
    model: VisionTransformer = build_model_with_cfg(
        network,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **(BASE | kwargs),
    )
    for module in model.modules():
        if isinstance(module, Mlp):
            module.act = ShiftedGelu()
    return model
