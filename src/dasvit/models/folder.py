"""A model as a folder: `config.json` and `model.safetensors`, in the layout of timm's models on the hub.

With dasvit imported, `timm.create_model("local-dir:FOLDER", pretrained=True)` reads them as well.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from dasvit.config.limits import MAX_CLASSES, MAX_IMAGE_SIDE, MAX_LAYERS, MAX_WIDTH
from dasvit.errors import UserError
from dasvit.io.files import write_whole
from dasvit.models.baselines import check_architecture
from dasvit.models.dasvit import DasViT

CONFIG, WEIGHTS = "config.json", "model.safetensors"
HUB, LOCAL = "hf-hub:", "local-dir:"
LIMITS = {"img_size": MAX_IMAGE_SIDE, "embed_dim": MAX_WIDTH, "depth": MAX_LAYERS, "num_classes": MAX_CLASSES}
"""The largest values of a model's arguments that a folder may ask for."""
SLACK, LARGEST_HEAD = 2, 10**8
"""How much larger than its weights a model may be: other channels, positions of a larger image, a new head."""
LARGEST_ARGUMENT = 2**20
"""The largest number among the others."""
_PLACES = ("checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pruned")
"""Arguments of timm's that name files or what is fetched: a folder's own weights are all that it is for."""


def save_model(
    model: nn.Module,
    folder: str | Path,
    *,
    class_names: Sequence[str],
    input_size: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    crop_pct: float = 1.0,
    crop_mode: str = "center",
    interpolation: str = "bicubic",
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model's folder; each file appears whole or not at all.

    Args:
        model: A DasViT, or a model made by timm or `make_model`; not a wrapper of one.
        folder: Where to; made when it is not there, other files in it are left alone.
        class_names: A name a class, in the order of the logits.
        input_size: Channels, height and width of the images.
        mean: Mean of each channel that images are normalised with.
        std: Standard deviation of each channel.
        crop_pct: Side of the centre crop over the side of the resized image.
        crop_mode: How an oblong image becomes a square, in timm's words: center, border (padded) or squash.
        interpolation: How images are resized.
        extra: Anything else worth keeping, fit for JSON; kept under the key `dasvit`.

    Returns:
        The folder.
    """
    architecture, model_args, num_classes = describe_model(model)
    assert len(class_names) == num_classes, f"{len(class_names)} names for {num_classes} classes"
    pretrained_cfg = {
        "num_classes": num_classes,
        "input_size": list(input_size),
        "fixed_input_size": "img_size" in model_args and not model_args.get("dynamic_img_size", False),
        "interpolation": interpolation,
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
        "mean": list(mean),
        "std": list(std),
        "label_names": list(class_names),
        **{key: _source_cfg(model).get(key) for key in ("first_conv", "classifier")},
    }
    config = {
        "architecture": architecture,
        "num_classes": num_classes,
        "num_features": vars(model).get("num_features"),
        "model_args": model_args,
        "pretrained_cfg": pretrained_cfg,
        "dasvit": dict(extra or {}),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2) + "\n"
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    weights = save(state, metadata={"format": "pt"})
    write_whole(folder / WEIGHTS, weights)
    write_whole(folder / CONFIG, text.encode())
    return folder


def describe_model(model: nn.Module) -> tuple[str, dict[str, Any], int]:
    """Return what timm needs to build a model again: architecture, arguments, classes."""
    if isinstance(model, DasViT):
        known = dict(model.model_args)
        return _source_cfg(model).get("architecture", model.ARCHITECTURE), known, model.num_classes
    attributes = vars(model)
    num_classes: int = attributes["num_classes"]
    # Of our own making, or recorded by timm itself (current versions do).
    known = dict(attributes.get("build_args", attributes.get("_model_args", {})))
    args = {key: value for key, value in known.items() if not key.endswith(("drop_rate", "drop_path_rate"))}
    return _source_cfg(model)["architecture"], args | {"num_classes": num_classes}, num_classes


def _source_cfg(model: nn.Module) -> dict[str, Any]:
    """Return what timm noted about a model; empty for one that timm did not build."""
    return dict(vars(model).get("pretrained_cfg", {}))


def read_model_config(folder: str | Path) -> dict[str, Any]:
    """Read and check the `config.json` of a model folder; without `model_args`, these are empty.

    Raises:
        UserError: It is no model folder, or holds no readable description of a model.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} is not a model folder: it holds no {CONFIG}. `dasvit train` writes one.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    required = {"architecture": str, "pretrained_cfg": dict}
    for key, kind in required.items():
        if not isinstance(config, dict) or not isinstance(config.get(key), kind):
            raise UserError(f"{path} does not describe a model: it must be an object with {' and '.join(required)}.")
    args = config.get("model_args") or {}
    if not isinstance(args, dict):
        raise UserError(f"{path} does not describe a model: model_args is no object.")
    for name, value in [*args.items(), ("num_classes", config.get("num_classes"))]:
        if name in _PLACES or (name == "cell" and not isinstance(value, dict)):
            raise UserError(f"{path}: model_args may hold sizes and a cell, not {name} {value!r}: remove it.")
        if _largest(value) > LIMITS.get(name, LARGEST_ARGUMENT):
            raise UserError(f"{path}: {name} is absurdly large ({value!r}): no model of dasvit or timm has it.")
    return {**config, "model_args": args}


def _largest(value: Any) -> float:
    """Return the largest number in a value of JSON."""
    if isinstance(value, (list, tuple, dict)):
        return max(map(_largest, value.values() if isinstance(value, dict) else value), default=0)
    return abs(value) if isinstance(value, (int, float)) else 0


def load_model(source: str | Path, **kwargs: Any) -> nn.Module:
    """Load a model with its weights.

    Args:
        source: A model folder, `hf-hub:USER/NAME`, or the name of a model of timm's with weights on the hub.
        **kwargs: Arguments of the model in place of those it was saved with, as num_classes for a new head.

    Raises:
        UserError: No such folder or model, a file is missing, or the weights do not fit.
    """
    name = str(source).removeprefix(LOCAL)
    if str(source).startswith(HUB):
        return _load_folder(_fetch(str(source).removeprefix(HUB)), kwargs)
    if str(source).startswith(LOCAL) or Path(name).exists() or len(Path(name).parts) > 1:
        return _load_folder(Path(name), kwargs)
    check_architecture(name)
    if not timm.models.is_model_pretrained(name):
        raise UserError(f"there are no published weights for {name}: give the folder of a trained model.")
    return create(name, kwargs)


def _load_folder(folder: Path, kwargs: dict[str, Any]) -> nn.Module:
    if not folder.is_dir():
        raise UserError(f"there is no model folder {folder}.")
    config = read_model_config(folder)
    check_architecture(config["architecture"])
    if not (folder / WEIGHTS).is_file():  # timm would go on to look for pickles
        raise UserError(f"{folder} holds no {WEIGHTS}: was its training cut off?")
    _check_weights(folder, config, kwargs)
    return create(f"{LOCAL}{folder}", kwargs)


def _fetch(name: str) -> Path:
    """Fetch a model's folder from the hub, or find it in the hub's own cache: its description and its safetensors.

    timm would take a pickle where there are no safetensors.
    """
    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # the hub's client raises errors of many kinds, by its network library
        raise UserError(f"cannot load {HUB}{name}: {' '.join(str(error).split())[:500]}") from None


def _check_weights(folder: Path, config: dict[str, Any], kwargs: dict[str, Any]) -> None:
    """Refuse a description of a far larger model than the weights beside it, before it takes the memory."""
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            kept = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    except Exception as error:  # safetensors' own kind, and the system's
        raise UserError(f"cannot load {folder / WEIGHTS}: {' '.join(str(error).split())}") from None
    try:
        with torch.device("meta"):
            model = timm.create_model(config["architecture"], **{**config["model_args"], **kwargs})
    except Exception:  # building it in earnest says what is wrong; some of timm's cannot be built on this device
        return
    wanted = sum(parameter.numel() for parameter in model.parameters())
    if wanted > SLACK * kept + LARGEST_HEAD:
        raise UserError(
            f"{folder / CONFIG} describes a model of {wanted:,} parameters, but {WEIGHTS} holds {kept:,}: they do not "
            "belong together."
        )


def create(name: str, kwargs: dict[str, Any]) -> nn.Module:
    """Have timm build a model with its weights.

    Raises:
        UserError: It cannot.
    """
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, **kwargs)
    except UserError:
        raise
    except Exception as error:  # whatever safetensors, torch or the hub have to say about what is there
        raise UserError(f"cannot load {name}: {' '.join(str(error).split())[:500]}") from error
    return model
