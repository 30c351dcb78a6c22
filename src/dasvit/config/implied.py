"""Which kind of data a folder holds, where only the folder is given."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from dasvit.config.fields import DataConfig

FILES_IN = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "fashion_mnist": "FashionMNIST/raw"}
"""The folder that each set of torchvision's keeps its files in."""
_SYNSETS = "train/n[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]"
_OWN = ("endings", "image_column", "label_column", "label_separator", "groups", "group_column")
_OURS = ("digits", *FILES_IN, "imagenet100", "imagefolder", "parquet", "csv", "webdataset")


def with_implied_name(data: DataConfig, given: Collection[str]) -> DataConfig:
    """Return a section data whose name fits its path, where a path was given without a name.

    A CSV file, as the path or as data.csv, is a list of images. A recipe's name stays where the folder clearly holds
    the set of that name; other folders hold parquet files, or images. Columns and endings that a recipe has for its own
    data do not apply to others.

    Args:
        data: The section.
        given: The fields that were given, as data.path.
    """
    if "data.csv" in given and "data.name" not in given and data.csv:
        return replace(_without(data, ("path", *_OWN), given), name="csv")
    if "data.path" in given and data.path.endswith(".csv") and Path(data.path).expanduser().is_file():
        return replace(_without(data, _OWN, given), name="csv", csv=data.path, path="")
    if "data.path" not in given or "data.name" in given or data.name not in _OURS or not data.path:
        return data
    name = _implied(data)
    return data if name == data.name else replace(_without(data, ("csv", *_OWN), given), name=name)


def _without(data: DataConfig, fields: Collection[str], given: Collection[str]) -> DataConfig:
    """Return a section without what a recipe says of its own data in some fields, as far as it was not given."""
    empty: dict[str, Any] = {field: "" for field in fields if f"data.{field}" not in given}
    return replace(data, **empty, stream=data.stream and "data.stream" in given)


def _implied(data: DataConfig) -> str:
    folder = Path(data.path).expanduser()
    if not folder.is_dir():
        keeps = data.name == "parquet" or (data.download and data.name in FILES_IN)  # an id on the hub, a place to fill
        return data.name if keeps else "imagefolder"
    parquet = any(next(folder.glob(pattern), None) for pattern in ("*.parquet", "*/*.parquet"))
    if data.name in FILES_IN and (parquet or data.download or (folder / FILES_IN[data.name]).is_dir()):
        return data.name
    if data.name == "imagenet100" and next(folder.glob(_SYNSETS), None):
        return data.name
    if parquet:
        return "parquet"
    return "webdataset" if any(next(folder.glob(pattern), None) for pattern in ("*.tar", "*/*.tar")) else "imagefolder"
