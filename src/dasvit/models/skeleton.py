"""The beginning of every network: an image becomes tokens (method, section 1).

Shapes: B images, C channels, H × W pixels, N tokens (class token first), D embedding width.
"""

import itertools
from typing import TYPE_CHECKING, Any, Final

import torch
from timm.layers.norm import LayerNorm2d
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer_hybrid import ConvStem
from torch import Tensor, nn

from dasvit.cell.cost import stem_channels
from dasvit.cell.ops import is_tracing
from dasvit.config.validation import ImageSize, check_patches, size_pair
from dasvit.errors import UserError, unknown

TIMM_CFG: dict[str, Any] = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "fixed_input_size": True,
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    "first_conv": "embed.patch_embed.proj",
    "classifier": "head",
}
"""What timm is told of the networks that are registered with it."""


class ConvPatchEmbed(PatchEmbed):
    """Patches by convolutions (Xiao et al., 2021, Early Convolutions Help Transformers See Better, arXiv:2106.14881).

    3 × 3 convolutions of stride 2, each with a norm over the channels and GELU, until a patch is a pixel; then a 1 × 1
    convolution: timm's `ConvStem` in the place of the linear layer. The norm is a LayerNorm, not theirs over the batch,
    so that an image's tokens do not depend on its neighbours.

    Args:
        img_size: Size of the images.
        patch_size: Side of a patch: a power of two.
        in_chans: Channels C of the images.
        embed_dim: Embedding width D.
        **kwargs: As of timm's `PatchEmbed`.

    Raises:
        UserError: The patch's sides are no power of two.
    """

    def __init__(
        self, img_size: Any = 224, patch_size: Any = 16, in_chans: int = 3, embed_dim: int = 768, **kwargs: Any
    ) -> None:
        sides = size_pair(patch_size)
        if sides[0] != sides[1]:
            raise UserError(f"a convolutional stem takes square patches, not {sides[0]} × {sides[1]} pixels.")
        channels = stem_channels(embed_dim, sides[0])
        super().__init__(img_size, patch_size, in_chans, embed_dim, **kwargs)
        depth = len(channels)
        self.proj = ConvStem(  # type: ignore[assignment]
            in_chans,
            depth + 1,
            (*channels, embed_dim),
            kernel_size=(3,) * depth + (1,),
            stride=(2,) * depth + (1,),
            norm_layer=LayerNorm2d,
            act_layer=nn.GELU,
        )

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the size of the images; the convolutions are of one size of patches.

        Raises:
            UserError: Another size of patches is asked for.
        """
        if patch_size is not None and size_pair(patch_size) != self.patch_size:
            raise UserError(f"a convolutional stem is of one size of patches, {self.patch_size[0]}: leave it as it is.")
        super().set_input_size(img_size)


class PooledPatchEmbed(ConvPatchEmbed):
    """Patches by convolutions and pooling (Hassani et al., 2021, Compact Convolutional Transformers, arXiv:2104.05704).

    3 × 3 convolutions of stride 1, each with a LayerNorm over its channels, GELU and a max pooling that halves the
    image, until a patch is a pixel. The convolutions see the image before it is halved, so they cost several times
    what those of `ConvPatchEmbed` do. The LayerNorm is ours.
    """

    def __init__(
        self, img_size: Any = 224, patch_size: Any = 16, in_chans: int = 3, embed_dim: int = 768, **kwargs: Any
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, **kwargs)
        channels = (in_chans, *stem_channels(embed_dim, self.patch_size[0]))
        self.proj = nn.Sequential(*itertools.starmap(_pooled, itertools.pairwise(channels)))  # type: ignore[assignment]


def _pooled(before: int, behind: int) -> nn.Module:
    """Return a convolution that a pooling halves."""
    convolution = nn.Conv2d(before, behind, 3, padding=1, bias=False)
    return nn.Sequential(convolution, LayerNorm2d(behind), nn.GELU(), nn.MaxPool2d(3, stride=2, padding=1))


PATCHES: dict[str, type[PatchEmbed]] = {"patch": PatchEmbed, "conv": ConvPatchEmbed, "cct": PooledPatchEmbed}
"""What makes patches into tokens, by a model's stem."""


class TokenEmbedding(nn.Module):
    """Patches, projected to the embedding width; a class token in front; learned absolute positions.

    Args:
        image_size: Size of the images.
        patch_size: Size of a patch; it divides the image size.
        in_chans: Channels C of the images.
        dim: Embedding width D.
        dynamic: Take images of any size that the patch divides; positions are resampled for them.
        stem: patch, conv (see `ConvPatchEmbed`) or cct (see `PooledPatchEmbed`).

    Raises:
        UserError: The patches do not cover the image, or the stem does not make tokens of them.
    """

    dynamic: Final[bool]  # a constant for TorchScript, which then leaves the other branch out

    def __init__(
        self,
        image_size: ImageSize,
        patch_size: ImageSize,
        in_chans: int,
        dim: int,
        *,
        dynamic: bool = False,
        stem: str = "patch",
    ) -> None:
        super().__init__()
        check_patches(image_size, patch_size)
        if stem not in PATCHES:
            raise unknown("stem", stem, [*PATCHES])
        self.dynamic = dynamic
        self.prefix = 1  # tokens in front of the patches
        image, patch = size_pair(image_size), size_pair(patch_size)
        self.patch_embed = PATCHES[stem](image, patch, in_chans, dim, strict_img_size=not dynamic)  # type: ignore[arg-type]
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.patch_embed.num_patches + 1, dim))
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise: the projection as the linear layer that it is (Xavier uniform), the tables at 0.02.

        So are the convolutions of a stem.
        """
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for layer in self.patch_embed.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight.flatten(1))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens of images, [B, C, H, W] -> [B, N, D]."""
        patches = self.patch_embed(images)
        tokens = torch.cat([self.first(patches.shape[0]), patches], dim=1)
        if self.dynamic:
            grid = self.grid(images)
            return tokens + resample_positions(self.pos_embed, self.patch_embed.grid_size, grid, self.prefix)
        return tokens + self.pos_embed

    def first(self, batch: int) -> Tensor:
        """Return the tokens in front of the patches of so many images, [B, 1, D]: the class token."""
        return self.cls_token.expand(batch, -1, -1)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Return the rows and columns of patches that images have, [B, C, H, W]."""
        if self.dynamic:
            rows, columns = self.patch_embed.dynamic_feat_size((images.shape[-2], images.shape[-1]))
        else:
            rows, columns = self.patch_embed.grid_size
        return rows, columns

    def set_input_size(self, image_size: ImageSize | None = None, patch_size: ImageSize | None = None) -> None:
        """Change the size of the images or of the patches; kernel and positions are resampled.

        Raises:
            UserError: The patches do not cover the image.
        """
        size = size_pair(image_size or self.patch_embed.img_size)
        check_patches(size, patch_size or self.patch_embed.patch_size)
        before = self.patch_embed.grid_size
        self.patch_embed.set_input_size(size, patch_size)
        if self.patch_embed.grid_size != before:
            grid = self.patch_embed.grid_size
            positions = resample_positions(self.pos_embed.detach(), before, grid, self.prefix)
            self.pos_embed = nn.Parameter(positions, requires_grad=self.pos_embed.requires_grad)


class TokenNetwork(nn.Module):
    """A network from `embed` over `blocks` and `norm` to `head_drop` and `head`, by the names that timm calls it by.

    Attributes:
        global_pool: What the head reads: token (the class token), avg (the mean of the patch tokens), or every token.
        grad_checkpointing: Whether layers keep their inputs alone for the backward pass.
    """

    if TYPE_CHECKING:  # at run time TorchScript would read these
        embed: TokenEmbedding
        embed_dim: int
        global_pool: str
        head_drop: nn.Module
        head: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images, [B, C, H, W] -> [B, classes]."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the normalised tokens of images, [B, C, H, W] -> [B, N, D]."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits of normalised tokens, [B, N, D] -> [B, classes].

        Args:
            x: The tokens.
            pre_logits: Return what the last layer would be given instead, [B, D].
        """
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x[:, 1:].mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def new_head(self, num_classes: int) -> nn.Module:
        """Return a linear layer from a token to so many classes (0: none), where the embedding lies and of its type."""
        like = self.embed.cls_token
        if not num_classes:
            return nn.Identity()
        return nn.Linear(self.embed_dim, num_classes, device=like.device, dtype=like.dtype)

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the layers' inputs alone for the backward pass, and compute the rest again."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the patterns by which timm groups parameters into layers."""
        return {"stem": r"^embed", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


def resample_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int = 1) -> Tensor:
    """Interpolate positions from one grid of patches to another; those of the tokens in front stay as they are.

    Args:
        positions: [1, prefix + rows × columns of old, D].
        old: Rows and columns that the positions are for.
        new: Rows and columns wanted.
        prefix: Tokens in front of the patches.

    Returns:
        [1, prefix + rows × columns of new, D]
    """
    if not torch.jit.is_scripting() and is_tracing():  # type: ignore[attr-defined]
        return _resampled_by_products(positions, old, new, prefix)
    resampled: Tensor = resample_abs_pos_embed(positions, list(new), list(old), num_prefix_tokens=prefix)
    return resampled


def _resampled_by_products(positions: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int) -> Tensor:
    """Return what `resample_positions` does, in operations that a trace keeps for every size and ONNX has words for."""
    rows, columns = (_bicubic(count, wanted).to(positions) for count, wanted in zip(old, new, strict=True))
    table = positions[0, prefix:].unflatten(0, old)
    resampled = torch.einsum("rh,hwd,cw->rcd", rows, table, columns)
    return torch.cat([positions[:, :prefix], resampled.flatten(0, 1).unsqueeze(0)], dim=1)


def _bicubic(count: int, wanted: int) -> Tensor:
    """Return the matrix of PyTorch's bicubic interpolation with antialiasing, [wanted, count].

    The kernel is Keys' (1981) with a = -1/2, as wide as a step of the coarser of the two grids.
    """
    step = count / torch.as_tensor(wanted, dtype=torch.float32)
    centres = (torch.arange(wanted, dtype=torch.float32) + 0.5) * step
    places = torch.arange(count, dtype=torch.float32) + 0.5
    x = ((places - centres.unsqueeze(1)) / step.clamp(min=1.0)).abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(dim=1, keepdim=True)
