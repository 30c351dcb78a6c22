"""What the last layer of a network attends to, for pictures of it.

Shapes: B images, N tokens (class token first), P = rows × columns patches, H heads, D embedding width.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.attention import Attention as TimmAttention
from torch import Tensor, nn

from dasvit.cell.ops import Attention
from dasvit.models.dasvit import DasViT


def class_attention(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return a network's logits, and the attention that its last layer's class token pays to the patches.

    Args:
        model: Maps images to logits; not changed.
        images: [B, 3, H, W].

    Returns:
        Logits [B, C]; and [B, rows, columns], the mean over heads and attention operations, which adds up to 1 for
        every image. None where the last layer has no attention, or the network no class token.
    """
    found: list[Tensor] = []
    first: Any = vars(model).get("num_prefix_tokens")
    hooks = [
        projection.register_forward_hook(
            lambda _, __, qkv, heads=heads: found.append(of_class_token(qkv, heads, first))
        )
        for projection, heads in projections(model)
    ]
    try:
        logits: Tensor = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        return logits, None
    mean = torch.stack(found).mean(dim=0)
    patches: Any = model.embed.patch_embed if isinstance(model, DasViT) else model.patch_embed
    grid = patches.dynamic_feat_size((images.shape[-2], images.shape[-1]))
    return logits, (mean / mean.sum(dim=1, keepdim=True)).unflatten(1, grid)


def projections(model: nn.Module) -> list[tuple[nn.Module, int]]:
    """Return the layers that give queries, keys and values in the network's last layer, [B, N, 3D], and their heads.

    They are known of our own networks and of timm's vision transformers with one class token, and perhaps a
    distillation token behind it; none are of others.
    """
    known: dict[str, Any] = vars(model)
    blocks = model._modules.get("blocks")
    first = 2 if "head_dist" in model._modules else 1
    if known.get("global_pool", "token") != "token":  # the head reads the patches' mean
        return []
    if known.get("num_prefix_tokens") != first:
        return []
    if not isinstance(blocks, (nn.ModuleList, nn.Sequential)) or not len(blocks):
        return []
    found: list[tuple[nn.Module, int]] = []
    for module in blocks[-1].modules():
        if isinstance(module, Attention):
            found.append((module.inner, module.heads))
        elif isinstance(module, TimmAttention) and isinstance(module.q_norm, nn.Identity):
            found.append((module.qkv, module.num_heads))
    return found


def of_class_token(qkv: Tensor, heads: int, first: int = 1) -> Tensor:
    """Return the attention of the class token to the patches, [B, N, 3D] -> [B, P], the mean over heads.

    Args:
        qkv: Queries, keys and values.
        heads: Heads.
        first: Tokens in front of the patches.
    """
    q, k, _ = qkv.detach().float().unflatten(-1, (3, heads, -1)).unbind(2)  # [B, N, H, D/H]
    scores = torch.einsum("bhd,bnhd->bhn", q[:, 0], k) * q.shape[-1] ** -0.5
    paid: Tensor = scores.softmax(dim=-1).mean(dim=1)[:, first:]
    return paid
