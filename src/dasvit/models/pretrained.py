"""timm's published weights to begin with: found on the disk, fetched only where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from timm.models import get_pretrained_cfg
from torch import nn

from dasvit.errors import UserError
from dasvit.models.baselines import OURS, check_architecture
from dasvit.models.folder import WEIGHTS, create


def has_weights(name: str) -> bool:
    """Tell whether timm publishes weights for a name (as safetensors on the hub: pickles are not read)."""
    return bool(timm.is_model(name.split(".")[0]) and timm.models.is_model_pretrained(name) and _cfg(name).hf_hub_id)


def weights_name(name: str) -> str:
    """Return the full name of a model's weights, as resnet18.a1_in1k.

    Raises:
        UserError: There are none.
    """
    if name not in OURS:
        check_architecture(name)
    if not has_weights(name):
        raise UserError(f"there are no published weights for {name}: leave out --pretrained to train it from scratch.")
    return str(_cfg(name).hf_hub_id).rpartition("/")[2]


def find_weights(name: str, download: bool = False) -> Path:
    """Return the file of a model's published weights: from the hub's own cache, or fetched into it.

    Args:
        name: A name of timm's.
        download: They may be fetched where they are not there.

    Raises:
        UserError: There are none, or they are not there and cannot be had.
    """
    full, repository = weights_name(name), str(_cfg(name).hf_hub_id)
    try:
        return Path(hf_hub_download(repository, WEIGHTS, local_files_only=not download))
    except Exception as error:  # the hub's client raises errors of many kinds, by its network library
        if download:
            raise UserError(f"cannot fetch the weights {full}: {' '.join(str(error).split())[:300]}") from None
        raise UserError(
            f"the weights {full} are not on this machine: --download true fetches them once, about "
            f"{4e-6 * _params(name):,.0f} MB, into the hub's cache ($HF_HOME)."
        ) from None


def make_pretrained(name: str, weights: Path, image_size: int, num_classes: int, drop_path: float = 0.0) -> nn.Module:
    """Build a model of timm's with published weights, and a fresh head.

    Args:
        name: timm's name.
        weights: The file of its weights, safetensors.
        image_size: Side of the images; positions are resampled for it where the model has such.
        num_classes: Classes of the head.
        drop_path: Rate of stochastic depth at the last layer.

    Raises:
        UserError: It cannot be built for these.
    """
    args: dict[str, Any] = {"num_classes": num_classes}
    if _cfg(name).fixed_input_size:
        args["img_size"] = image_size
    if drop_path:
        args["drop_path_rate"] = drop_path
    model = create(name, {**args, "pretrained_cfg_overlay": {"file": str(weights)}})
    model.build_args = {key: value for key, value in args.items() if key != "drop_path_rate"}  # type: ignore[assignment]
    return model


def published_input(name: str) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Return what images a model's weights were trained on: side in pixels, mean and deviation of each channel."""
    cfg = _cfg(name)
    return cfg.input_size[-1], tuple(cfg.mean), tuple(cfg.std)


def _cfg(name: str) -> Any:
    return get_pretrained_cfg(name)


def _params(name: str) -> int:
    with torch.device("meta"):
        return sum(param.numel() for param in timm.create_model(name).parameters())
