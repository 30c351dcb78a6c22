"""AutoFormer-B as a fixed network (method, section 13): the subnet that its authors published.

Importing this module registers `autoformer_b` with timm. Layers differ in heads and in the hidden width of their
MLP; attention knows how far apart two patches lie, on the side of the keys and on that of the values.

Shapes: B images, N tokens (class token first), D embedding width, H heads, d width of a head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dasvit.config.validation import ImageSize
from dasvit.errors import UserError
from dasvit.models.skeleton import TIMM_CFG, TokenEmbedding, TokenNetwork

HEADS: tuple[int, ...] = (9, 9, 9, 9, 9, 10, 9, 9, 10, 9, 10, 9, 9, 10)
"""Heads of AutoFormer-B's layers."""
RATIOS: tuple[float, ...] = (3.5, 3.5, 4, 3.5, 4, 3.5, 3.5, 3, 4, 4, 3, 4, 3, 3.5)
"""Hidden width over D of AutoFormer-B's MLPs."""
NORM_EPS = 1e-5


def relative_index(rows: int, columns: int, reach: int) -> tuple[Tensor, Tensor]:
    """Return which entries of the vertical and of the horizontal table stand between two tokens.

    Args:
        rows: Rows of the grid of patches.
        columns: Its columns.
        reach: Distance beyond which all are one.

    Returns:
        Two of [N, N], first the query: 0 where the class token is one of the two, else the distance from the query's
        patch to the key's, in rows or in columns, clipped to ±reach, plus reach + 1.
    """
    patches = torch.arange(rows * columns)
    indices = []
    for place in (patches // columns, patches % columns):
        distance = (place[None, :] - place[:, None]).clamp(-reach, reach)
        indices.append(nn.functional.pad(distance + reach + 1, (1, 0, 1, 0)))
    return indices[0], indices[1]


class RelativePositions(nn.Module):
    """What a layer knows of the place of one token as seen from another: a vector a pair, shared by the heads.

    Args:
        dim: Width d of a head.
        reach: Distance beyond which all are one.
    """

    def __init__(self, dim: int, reach: int) -> None:
        super().__init__()
        self.vertical = nn.Parameter(torch.empty(2 * reach + 2, dim))
        self.horizontal = nn.Parameter(torch.empty(2 * reach + 2, dim))
        nn.init.trunc_normal_(self.vertical, std=0.02)
        nn.init.trunc_normal_(self.horizontal, std=0.02)

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the vectors of all pairs from their indices, twice [N, N] -> [N, N, d]."""
        return self.vertical[rows] + self.horizontal[columns]


class RelativeAttention(nn.Module):
    """Multi-head self-attention with relative positions on keys and values.

    Args:
        dim: Embedding width D.
        heads: Heads H.
        head_dim: Width d of a head; H·d need not be D.
        reach: Distance beyond which all are one.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, reach: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * heads * head_dim)
        self.proj = nn.Linear(heads * head_dim, dim)
        self.key_positions = RelativePositions(head_dim, reach)
        self.value_positions = RelativePositions(head_dim, reach)

    def forward(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Attend, [B, N, D] and twice [N, N] -> [B, N, D]."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q = q * self.scale
        keys, values = self.key_positions(rows, columns), self.value_positions(rows, columns)
        scores = q @ k.transpose(-2, -1) + torch.einsum("bhnd,nmd->bhnm", q, keys)
        weights = scores.softmax(dim=-1)
        mixed = weights @ v + torch.einsum("bhnm,nmd->bhnd", weights, values)
        output: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return output


class Layer(nn.Module):
    """An encoder layer: attention and MLP, a LayerNorm in front of each and a skip around it."""

    def __init__(
        self, dim: int, heads: int, ratio: float, head_dim: int = 64, reach: int = 14, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = RelativeAttention(dim, heads, head_dim, reach)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the layer's output, [B, N, D] and twice [N, N] -> [B, N, D]."""
        x = x + self.drop_path(self.attn(self.norm1(x), rows, columns))
        output: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return output


class AutoFormer(TokenNetwork):
    """A network that AutoFormer found: a vision transformer whose layers differ. The defaults are AutoFormer-B's.

    Args:
        img_size: Size of the images.
        patch_size: Size of a patch; it divides the image size.
        in_chans: Channels of the images.
        num_classes: Classes. 0: no head.
        embed_dim: Embedding width D.
        heads: Heads H of every layer.
        ratios: Hidden width over D of every layer's MLP.
        head_dim: Width d of a head.
        reach: Distance, in patches, beyond which relative positions are one.
        drop_rate: Dropout in front of the head.
        drop_path_rate: Stochastic depth of the last layer, rising linearly from 0 at the first.

    Raises:
        UserError: Patches do not cover the image, or heads and ratios are not as many.
    """

    def __init__(
        self,
        img_size: ImageSize = 224,
        patch_size: ImageSize = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 576,
        heads: Sequence[int] = HEADS,
        ratios: Sequence[float] = RATIOS,
        head_dim: int = 64,
        reach: int = 14,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if len(heads) != len(ratios):
            raise UserError(f"{len(heads)} head counts and {len(ratios)} MLP ratios: give one of each a layer.")
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.grad_checkpointing, self.global_pool = False, "avg"
        self.embed = TokenEmbedding(img_size, patch_size, in_chans, embed_dim)
        grid_rows, grid_columns = self.embed.patch_embed.grid_size
        rows, columns = relative_index(grid_rows, grid_columns, reach)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.blocks = nn.ModuleList(
            Layer(embed_dim, count, ratio, head_dim, reach, drop_path_rate * i / max(1, len(heads) - 1))
            for i, (count, ratio) in enumerate(zip(heads, ratios, strict=True))
        )
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.head_drop = nn.Dropout(drop_rate)
        self.blocks.apply(_init_weights)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the normalised tokens of images, [B, C, H, W] -> [B, N, D]."""
        x = self.embed(x)
        for block in self.blocks:
            if self.grad_checkpointing:
                x = checkpoint(block, x, self.rows, self.columns, use_reentrant=False)
            else:
                x = block(x, self.rows, self.columns)
        features: Tensor = self.norm(x)
        return features

    def reset_classifier(self, num_classes: int) -> None:
        """Give the network a new head for another number of classes (0: none)."""
        self.num_classes = num_classes
        self.head = self.new_head(num_classes)
        self.head.apply(_init_weights)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that weight decay spares, beside biases and norms."""
        tables = {name for name, _ in self.named_parameters() if "_positions." in name}
        return {"embed.cls_token", "embed.pos_embed"} | tables


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


default_cfgs = generate_default_cfgs({"autoformer_b": TIMM_CFG})


@register_model
def autoformer_b(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build AutoFormer-B (see `AutoFormer`)."""
    model: nn.Module = build_model_with_cfg(AutoFormer, "autoformer_b", pretrained, **kwargs)
    return model
