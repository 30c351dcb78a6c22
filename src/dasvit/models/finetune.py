"""Trained models to begin with: a folder's weights under another head, for images of another size.

Everything but the head is taken over; positions are resampled where the images have another size (timm's way).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import timm
from torch import nn

from dasvit.cell.subnet import Found
from dasvit.config.fields import Pool
from dasvit.config.validation import size_pair
from dasvit.errors import UserError
from dasvit.models.baselines import OURS
from dasvit.models.dasvit import DasViT
from dasvit.models.distilled import DISTILLED
from dasvit.models.folder import CONFIG, load_model, read_model_config
from dasvit.models.subnet import NAME as SUBNET
from dasvit.models.subnet import subnet_of
from dasvit.models.vit_conv import STEMS

FIELDS = {"img_size": "image_size", "patch_size": "patch_size", "embed_dim": "width", "depth": "layers"}
"""Arguments of a model, and the fields of a recipe's section model that say the same."""


def sizes_of(folder: Path) -> dict[str, Any]:
    """Return what a recipe's section model says of a folder's model, as far as it fixes that; its image size always.

    Raises:
        UserError: It is no model folder, its images are no squares, or have other channels than red, green and blue.
    """
    config = read_model_config(folder)
    args = config["model_args"]
    try:
        sizes = {"img_size": list(map(int, config["pretrained_cfg"]["input_size"]))[1:]}
        sizes |= {name: list(size_pair(args[name])) for name in FIELDS if name in args}
        heads = {"heads": int(args["num_heads"])} if "num_heads" in args else {}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{folder}/{CONFIG} does not say what sizes its model has ({error!r}).") from None
    if args.get("in_chans", 3) != 3:
        raise UserError(f"the model in {folder} takes images of {args['in_chans']!r} channels, not of three colours.")
    if any(len(sides) != 2 or sides[0] != sides[1] for sides in sizes.values()):
        raise UserError(f"the model in {folder} takes oblong images: a training here takes squares.")
    return {FIELDS[name]: sides[0] for name, sides in sizes.items()} | heads | _form(config["architecture"], args)


def _form(architecture: str, args: dict[str, Any]) -> dict[str, str]:
    """Return stem and pooling of a model of a recipe's width and depth; other poolings are timm's own affair."""
    if "embed_dim" not in args or architecture.split(".")[0] == SUBNET:
        return {}
    of_vit = {name: stem for stem, name in STEMS.items()}
    stem = of_vit.get(architecture.split(".")[0], args.get("stem", "patch"))
    pool = args.get("global_pool", "token")
    return {"stem": stem, **({"pool": pool} if pool in get_args(Pool) else {})}


def subject_of(model: nn.Module, folder: Path) -> Found | str:
    """Return what a folder's model is a network of: its cell, its sizes, vit, vit_shift, or a name of timm's."""
    if isinstance(model, DasViT):
        return model.genotype
    config = read_model_config(folder)
    name = str(config["architecture"]).split(".")[0]
    if name == SUBNET:
        return subnet_of(config["model_args"])
    behind = [*OURS.items(), *DISTILLED.items(), *(("vit", name) for name in STEMS.values())]
    own = next((own for own, architecture in behind if architecture == name), name)
    return own if "embed_dim" in config["model_args"] else name


def load_start(
    folder: Path, image_size: int, num_classes: int, *, keep_head: bool = False, drop_path: float = 0.0
) -> nn.Module:
    """Load a folder's model to go on training it.

    Args:
        folder: The model's folder.
        image_size: Side of the images to come; positions are resampled for it.
        num_classes: Classes to come.
        keep_head: The classes are those that it knows: its head stays. Otherwise it gets a fresh one.
        drop_path: Rate of stochastic depth at the last layer.

    Raises:
        UserError: It cannot be loaded with these.
    """
    config = read_model_config(folder)
    args: dict[str, Any] = {"num_classes": num_classes}
    if "img_size" in config["model_args"] or timm.get_pretrained_cfg_value(config["architecture"], "fixed_input_size"):
        args["img_size"] = image_size
    model = load_model(folder, **args, **({"drop_path_rate": drop_path} if drop_path else {}))
    if not keep_head:
        reset: Any = model.reset_classifier
        reset(num_classes)
    if not isinstance(model, DasViT):
        model.build_args = {**config["model_args"], **args}  # type: ignore[assignment] # what `save_model` writes
    return model
