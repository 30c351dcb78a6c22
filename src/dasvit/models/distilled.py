"""Networks with a distillation token (Touvron et al. 2021, DeiT, arXiv:2012.12877).

Behind the class token stands a second one, with positions and a head of its own, which learns what a teacher says
while the class token's head learns the labels. The protocol is that of timm's `VisionTransformerDistilled`: both heads'
logits come apart while `set_distilled_training` asks for it, in training; else a network gives their mean.

Importing this module registers `dasvit_{tiny,small,base}_distilled_patch16_224` (any cell, as `cell=...`) and
`vit_shift_base_distilled_patch16_224` with timm.

Shapes: B images, C channels, H × W pixels, N tokens (class token, distillation token, patches), D embedding width.
"""

from typing import Any, ClassVar, TypeGuard

import timm
import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from dasvit.cell.genotype import Genotype
from dasvit.cell.ops import init_weights
from dasvit.config import ModelConfig
from dasvit.errors import UserError
from dasvit.models.baselines import make_network, vit_args
from dasvit.models.dasvit import WIDTHS, CellLike, DasViT, entrypoint
from dasvit.models.skeleton import TIMM_CFG, TokenEmbedding
from dasvit.models.vit_shift import build_shifted

VIT_SHIFT_DISTILLED = "vit_shift_base_distilled_patch16_224"
DISTILLED = {"vit": "deit_base_distilled_patch16_224", "vit_shift": VIT_SHIFT_DISTILLED}
"""Baselines of our own sizes, and the architectures behind them with a distillation token."""
NAMES = {f"dasvit_{size}_distilled_patch16_224": width for size, width in WIDTHS.items()}
"""Registered names of networks of cells, and their widths."""


class DistilledEmbedding(TokenEmbedding):
    """Patches, a class token and a distillation token in front; learned absolute positions.

    Args:
        *sizes: Image, patch, channels and width D, as of `TokenEmbedding`.
        **options: dynamic and stem, likewise.

    Raises:
        UserError: The patches do not cover the image.
    """

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.prefix = 2
        dim = self.cls_token.shape[2]
        self.dist_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.patch_embed.num_patches + self.prefix, dim))
        nn.init.trunc_normal_(self.dist_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def first(self, batch: int) -> Tensor:
        """Return the tokens in front of the patches of so many images, [B, 2, D]."""
        return torch.cat([self.cls_token, self.dist_token], dim=1).expand(batch, -1, -1)


class DistilledDasViT(DasViT):
    """A `DasViT` with a distillation token.

    Args:
        cell: The cell.
        **sizes: The other arguments of `DasViT`; its head reads both tokens, so that there is no other pooling.

    Attributes:
        head_dist: The distillation token's head.
        distilled_training: Whether both heads' logits come apart in training, as a pair.

    Raises:
        UserError: No such cell, sizes that do not fit together, or another pooling.
    """

    ARCHITECTURE: ClassVar[str] = "dasvit_base_distilled_patch16_224"

    def __init__(self, cell: CellLike = "dasvit_cifar10", **sizes: Any) -> None:
        super().__init__(cell, **sizes)
        args = self.model_args
        image, patch = tuple(args["img_size"]), tuple(args["patch_size"])
        dynamic, stem = args["dynamic_img_size"], args.get("stem", "patch")
        self.embed = DistilledEmbedding(image, patch, self.in_chans, self.embed_dim, dynamic=dynamic, stem=stem)
        self.num_prefix_tokens = 2
        self.distilled_training = False

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the mean of both heads' logits of normalised tokens, [B, N, D] -> [B, classes].

        Args:
            x: The tokens.
            pre_logits: Return the mean of what the heads would be given instead, [B, D].

        Returns:
            While `distilled_training` is set, in training: the pair of both heads' logits, the class token's first.
        """
        token, distilled = self.head_drop(x[:, 0]), self.head_drop(x[:, 1])
        if pre_logits:
            mean: Tensor = (token + distilled) / 2
            return mean
        logits, taught = self.head(token), self.head_dist(distilled)
        if self.distilled_training and self.training and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return logits, taught  # type: ignore[return-value]
        average: Tensor = (logits + taught) / 2
        return average

    def set_distilled_training(self, enable: bool = True) -> None:
        """Have both heads' logits come apart in training."""
        self.distilled_training = enable

    def get_classifier(self) -> Any:
        """Return both heads, the class token's first."""
        return self.head, self.head_dist

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the network new heads for another number of classes (0: none).

        Raises:
            UserError: Another pooling than token, or none.
        """
        if global_pool == "avg":
            raise UserError("a network with a distillation token reads its two tokens: global_pool is token, not avg.")
        super().reset_classifier(num_classes, global_pool)
        self.head_dist = self.new_head(num_classes)
        self.head_dist.apply(init_weights)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that weight decay spares, beside biases and norms."""
        return super().no_weight_decay() | {"embed.dist_token"}


_CFG = TIMM_CFG | {"classifier": ("head", "head_dist")}
default_cfgs = generate_default_cfgs(
    {**dict.fromkeys(NAMES, _CFG), VIT_SHIFT_DISTILLED: _CFG | {"first_conv": "patch_embed.proj"}}
)


for _name, _width in NAMES.items():
    register_model(entrypoint(DistilledDasViT, _name, {"embed_dim": _width}))


@register_model
def vit_shift_base_distilled_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build timm's ViT with a distillation token, and a shift in front of the activation of every MLP.

    Raises:
        UserError: Its patches would not always form a square.
    """
    return build_shifted(VisionTransformerDistilled, VIT_SHIFT_DISTILLED, pretrained, kwargs)


def takes_token(subject: object, config: ModelConfig) -> TypeGuard[Genotype | str]:
    """Tell whether a network can have a distillation token: a cell's, vit and vit_shift, whose head reads a token.

    Args:
        subject: What is built.
        config: Its stem and pooling, where a cell has no sizes of its own.
    """
    model = subject.at(config) if isinstance(subject, Genotype) else config
    if model.pool != "token":
        return False
    return isinstance(subject, Genotype) or (
        isinstance(subject, str) and subject in DISTILLED and model.stem == "patch"
    )


def make_distilled(subject: Genotype | str, config: ModelConfig, num_classes: int, drop_path: float = 0.0) -> nn.Module:
    """Build a network with a distillation token, its weights fresh.

    Args:
        subject: A cell, vit or vit_shift (see `takes_token`).
        config: Image, patch, width, layers and heads.
        num_classes: Classes.
        drop_path: Rate of stochastic depth at the last layer.

    Raises:
        UserError: Sizes that do not fit together.
    """
    if isinstance(subject, Genotype):
        return make_network(subject, config, num_classes, drop_path, DistilledDasViT.ARCHITECTURE)
    args = {"num_classes": num_classes, "in_chans": 3, **vit_args(config)}
    network: nn.Module = timm.create_model(DISTILLED[subject], drop_path_rate=drop_path, **args)
    network.apply(init_weights)
    network.build_args = args  # type: ignore[assignment] # what `save_model` writes
    return network
