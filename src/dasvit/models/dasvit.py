"""The derived network: a cell, stacked, as a model that timm knows by name.

Importing this module registers `dasvit_{tiny,small,base}_patch16_224` (the cell published for CIFAR-10),
`dasvit_{tiny,small,base}_in100_patch16_224` (the one for ImageNet-100) and `dasvit_{tiny,small,base}_shift_patch16_224`
(the package's own, `dasvit_shift`) with timm; any other cell goes in by
`timm.create_model("dasvit_base_patch16_224", cell=...)`.

Shapes: B images, C channels, H × W pixels, N tokens (class token first), D embedding width.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dasvit.cell.cell import Cell
from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.cell.ops import NORM_EPS, init_weights
from dasvit.config.validation import ImageSize, size_pair
from dasvit.errors import UserError, unknown
from dasvit.models.skeleton import TIMM_CFG, TokenEmbedding, TokenNetwork, resample_positions

POOLINGS = ("token", "avg", "")
"""What the head reads: the class token, the mean of the patch tokens, or every token."""

CellLike = Genotype | str | Path | dict[str, Any]
"""A cell: as such, by name or file (see `load_genotype`), or as the dictionary that its file holds."""


def resolve_cell(cell: CellLike) -> Genotype:
    """Return the genotype that was meant.

    Raises:
        UserError: There is no such cell, or it is not one.
    """
    if isinstance(cell, Genotype):
        return cell
    return Genotype.from_dict(cell) if isinstance(cell, dict) else load_genotype(cell)


USUAL: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "embed_dim": 768,
    "depth": 12,
    "stem": "patch",
    "global_pool": "token",
}
"""The sizes of a network whose cell has none, as arguments of `DasViT`."""


def arguments(genotype: Genotype) -> dict[str, Any]:
    """Return a cell's own sizes as arguments of `DasViT`; empty where it has none."""
    if genotype.sizes is None:
        return {}
    sizes = genotype.sizes
    image = {"img_size": sizes.image_size} if sizes.image_size else {}
    named = {"patch_size": sizes.patch_size, "embed_dim": sizes.width, "depth": sizes.layers}
    return {**image, **named, "stem": sizes.stem, "global_pool": sizes.pool}


class DasViT(TokenNetwork):
    """A vision transformer whose encoder layers are copies of one cell (method, sections 1 and 2).

    The names of its arguments, methods and attributes are timm's, so that whatever works on timm's vision
    transformers works on it.

    Sizes that are not given are those of the cell's file, where it has some (format dasvit-genotype/2).

    Args:
        cell: The cell.
        img_size: Size of the images. None: the file's, or 224.
        patch_size: Size of a patch; it divides the image size. None: the file's, or 16.
        in_chans: Channels C of the images.
        num_classes: Classes. 0: no head.
        global_pool: What the head reads: token, avg, or nothing for all tokens. None: what the file says, or token.
        embed_dim: Embedding width D. None: the file's, or 768.
        depth: Encoder layers. None: the file's, or 12.
        stem: How an image becomes tokens: patch, conv or cct. None: what the file says, or patch.
        drop_rate: Dropout in front of the head.
        drop_path_rate: Stochastic depth of the last layer, rising linearly from 0 at the first.
        dynamic_img_size: Take images of any size that the patch divides.

    Attributes:
        genotype: The cell, without sizes.
        model_args: What to call the constructor with to build this network again, fit for JSON.

    Raises:
        UserError: No such cell, or sizes that do not fit together.
    """

    ARCHITECTURE: ClassVar[str] = "dasvit_base_patch16_224"
    """A name under which timm builds this class."""

    def __init__(
        self,
        cell: CellLike = "dasvit_cifar10",
        img_size: ImageSize | None = None,
        patch_size: ImageSize | None = None,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str | None = None,
        embed_dim: int | None = None,
        depth: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dynamic_img_size: bool = False,
        stem: str | None = None,
    ) -> None:
        super().__init__()
        genotype = resolve_cell(cell)
        sizes = {**USUAL, **arguments(genotype)}
        img_size, patch_size = img_size or sizes["img_size"], patch_size or sizes["patch_size"]
        embed_dim, depth = embed_dim or sizes["embed_dim"], depth or sizes["depth"]
        stem, global_pool = stem or sizes["stem"], sizes["global_pool"] if global_pool is None else global_pool
        self.genotype = genotype.alone
        self.in_chans = in_chans
        self.num_prefix_tokens = 1
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.grad_checkpointing = False
        self.model_args = dict[str, Any](
            cell=self.genotype.to_dict(),
            img_size=list(size_pair(img_size)),
            patch_size=list(size_pair(patch_size)),
            in_chans=in_chans,
            embed_dim=embed_dim,
            depth=depth,
            dynamic_img_size=dynamic_img_size,
            **({} if stem == "patch" else {"stem": stem}),
        )
        self.embed = TokenEmbedding(img_size, patch_size, in_chans, embed_dim, dynamic=dynamic_img_size, stem=stem)
        rates = [drop_path_rate * layer / max(1, depth - 1) for layer in range(depth)]
        self.blocks = nn.ModuleList([Cell(self.genotype, embed_dim, rate) for rate in rates])
        self.norm: nn.Module = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.head_drop = nn.Dropout(drop_rate)
        self.blocks.apply(init_weights)
        self.reset_classifier(num_classes, global_pool)
        reduction = self.embed.patch_embed.feat_ratio()
        self.feature_info = [
            {"module": f"blocks.{layer}", "num_chs": embed_dim, "reduction": reduction} for layer in range(depth)
        ]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the normalised tokens of images, [B, C, H, W] -> [B, N, D]."""
        grid = self.embed.grid(x)
        prev1 = self.embed(x)
        prev2 = prev1
        for block in self.blocks:
            if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
                output = checkpoint(block, prev2, prev1, grid, use_reentrant=False)
            else:
                output = block(prev2, prev1, grid)
            prev2, prev1 = prev1, output
        features: Tensor = self.norm(prev1)
        return features

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """Return what layers give, for timm's feature extraction.

        Args:
            x: Images [B, C, H, W].
            indices: The layers wanted: the last so many, those listed, or all (None).
            return_prefix_tokens: Return a pair (patches, class token) a layer.
            norm: Apply the final norm to every one of them.
            stop_early: Do not compute the layers behind the last one wanted.
            output_fmt: NCHW for maps [B, D, rows, columns], NLC for sequences [B, rows × columns, D].
            intermediates_only: Leave the final features out.
            output_dict: Return a dictionary with timm's keys.

        Returns:
            The final features [B, N, D] and a list with an entry a layer; that list alone; or a dictionary.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise unknown("output format", output_fmt, ["NCHW", "NLC"])
        wanted, last = feature_take_indices(len(self.blocks), indices)
        outputs = self._layers(x, last + 1 if stop_early else len(self.blocks))
        chosen = [self.norm(outputs[i]) if norm else outputs[i] for i in sorted(wanted)]
        prefix = [tokens[:, : self.num_prefix_tokens] for tokens in chosen]
        patches = [tokens[:, self.num_prefix_tokens :] for tokens in chosen]
        if output_fmt == "NCHW":
            patches = [tokens.transpose(1, 2).unflatten(2, self.embed.grid(x)).contiguous() for tokens in patches]
        if output_dict:
            content: dict[str, Any] = {"image_intermediates": patches}
            if return_prefix_tokens:
                content["image_intermediates_prefix"] = prefix
            return content if intermediates_only else {**content, "image_features": self.norm(outputs[-1])}
        result = list(zip(patches, prefix, strict=True)) if return_prefix_tokens else patches
        return result if intermediates_only else (self.norm(outputs[-1]), result)

    def _layers(self, x: Tensor, count: int) -> list[Tensor]:
        grid = self.embed.grid(x)
        prev2 = prev1 = self.embed(x)
        outputs = []
        for block in list(self.blocks)[:count]:
            if self.grad_checkpointing:
                output = checkpoint(block, prev2, prev1, grid, use_reentrant=False)
            else:
                output = block(prev2, prev1, grid)
            prev2, prev1 = prev1, output
            outputs.append(output)
        return outputs

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the layers behind the last one wanted; return the indices of those wanted."""
        wanted, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        self.model_args["depth"] = len(self.blocks)
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return list(wanted)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the network a new head for another number of classes (0: none).

        Raises:
            UserError: Unknown pooling.
        """
        if global_pool is not None:
            if global_pool not in POOLINGS:
                raise unknown("pooling", global_pool, [repr(name) for name in POOLINGS])
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.model_args |= {"num_classes": num_classes, "global_pool": self.global_pool}
        self.head = self.new_head(num_classes)
        self.head.apply(init_weights)

    def set_input_size(self, img_size: ImageSize | None = None, patch_size: ImageSize | None = None) -> None:
        """Change the size of the images or of the patches; kernel and positions are resampled.

        Raises:
            UserError: The patches do not cover the image.
        """
        self.embed.set_input_size(img_size, patch_size)
        patches = self.embed.patch_embed
        self.model_args |= {"img_size": list(patches.img_size), "patch_size": list(patches.patch_size)}
        self.feature_info = [{**info, "reduction": patches.feat_ratio()} for info in self.feature_info]
        # Where current versions of timm look for the size of a network's images.
        self._traits = {**vars(self).get("_traits", {}), "img_size": patches.img_size}
        self._model_args = {**vars(self).get("_model_args", {}), "img_size": patches.img_size}

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that weight decay spares, beside biases and norms."""
        return {"embed.cls_token", "embed.pos_embed"}


def fit_weights(state: dict[str, Tensor], model: DasViT) -> dict[str, Tensor]:
    """Resample saved positions for the size of images that the model was built for."""
    positions, wanted = state.get("embed.pos_embed"), model.embed.pos_embed
    if positions is None or positions.shape[1] == wanted.shape[1]:
        return state
    prefix = model.num_prefix_tokens
    side = int((positions.shape[1] - prefix) ** 0.5)
    if side * side != positions.shape[1] - prefix:
        raise UserError("the saved positions are of an oblong image: load at its size, then call set_input_size.")
    resampled = resample_positions(positions, (side, side), model.embed.patch_embed.grid_size, prefix)
    return {**state, "embed.pos_embed": resampled}


WIDTHS = {"tiny": 192, "small": 384, "base": 768}
"""Embedding widths of the registered sizes, those of ViT; 8 and 12 heads divide them all."""

VARIANTS: dict[str, dict[str, Any]] = {
    f"dasvit_{size}{mark}_patch16_224": {"cell": cell, "embed_dim": width}
    for size, width in WIDTHS.items()
    for mark, cell in {"": "dasvit_cifar10", "_in100": "dasvit_imagenet100", "_shift": "dasvit_shift"}.items()
}
"""A registered name, and what it builds."""

default_cfgs = generate_default_cfgs({variant: TIMM_CFG for variant in VARIANTS})


def entrypoint(network: type[DasViT], variant: str, defaults: dict[str, Any]) -> Callable[..., nn.Module]:
    """Return the function that timm calls to build a registered network; its name is what is registered.

    Args:
        network: What is built.
        variant: The name.
        defaults: Its arguments, where neither the call nor a cell's file has others.
    """

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        own = arguments(resolve_cell(kwargs["cell"])) if "cell" in kwargs else {}
        model: nn.Module = build_model_with_cfg(
            network,
            variant,
            pretrained,
            pretrained_filter_fn=fit_weights,
            feature_cfg={"out_indices": 3, "feature_cls": "getter"},
            **(defaults | own | kwargs),
        )
        return model

    build.__name__ = build.__qualname__ = variant
    build.__module__ = network.__module__  # where timm looks for its default_cfgs
    build.__doc__ = f"Build {variant} (see `{network.__name__}`)."
    return build


for _variant in default_cfgs:
    register_model(entrypoint(DasViT, _variant, VARIANTS[_variant]))
