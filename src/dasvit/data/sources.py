"""The sources by name: what finds and reads each of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from dasvit.config import DataConfig
from dasvit.config.implied import FILES_IN
from dasvit.data.folders import image_folder, imagenet100
from dasvit.data.given import GIVEN, find_given
from dasvit.data.image_list import image_list
from dasvit.data.listing import ArrayRecords, Content, Part, Source
from dasvit.data.parquet import find_parquet, parquet_source
from dasvit.data.understanding import Understanding
from dasvit.data.webdataset import webdataset_source
from dasvit.errors import UserError, unknown

CLASSES = {"cifar10": 10, "cifar100": 100, "fashion_mnist": 10}
"""Classes of the sets that torchvision reads."""


def find_source(config: DataConfig, judged: bool = False) -> Source:
    """Find the source that a configuration names.

    Args:
        config: The configuration.
        judged: Only images to evaluate a model on are wanted.

    Raises:
        UserError: The name is not one of SOURCES, or the source is not where it should be.
    """
    if config.name not in SOURCES:
        raise unknown("data set", config.name, SOURCES)
    if judged and config.name in _JUDGED:
        return _JUDGED[config.name](config)
    return SOURCES[config.name](config)


def cache_folder(config: DataConfig) -> Path:
    """Return the folder of decoded images (which need not exist yet): the recipe's, $DASVIT_CACHE, or the system's."""
    own = config.cache or os.environ.get("DASVIT_CACHE")
    return Path(own).expanduser() if own else user_cache_path("dasvit", appauthor=False)


def _digits(config: DataConfig) -> Source:
    if config.path:
        raise UserError(
            f"digits come with scikit-learn, and {config.path} is not looked at: give --data.name imagefolder for "
            "images of your own, or no --data.path."
        )

    def read() -> Content:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        part = Part(ArrayRecords(pixels), digits.target.astype(np.int64))
        return Content(tuple(str(name) for name in digits.target_names), part, None)

    return Source([], "digits", False, read, Understanding({"train": "scikit-learn's digits"}, "the set's own"))


def _torchvision(class_name: str, files_in: str) -> Callable[[DataConfig], Source]:
    """Return the finder of a set that torchvision reads: its class, and the folder it keeps its files in."""

    def find(config: DataConfig) -> Source:
        folder = Path(config.path).expanduser() if config.path else cache_folder(config) / "downloads"
        parquet = find_parquet(folder) if folder.is_dir() else []
        if parquet:
            return _parquet_of(config, folder)
        if config.download:
            _download(class_name, folder)
        files = sorted(file for file in (folder / files_in).rglob("*") if file.is_file())
        if not files:
            raise UserError(
                f"there is no {config.name} in {folder}: give its folder with --data.path, "
                "or fetch it with --data.download true."
            )
        parts = {"train": f"{class_name}'s training images in {folder}", "test": "its test images"}
        understood = Understanding(parts, "the set's own")
        return Source(files, config.name, True, lambda: _read_torchvision(class_name, folder), understood)

    return find


def _parquet_of(config: DataConfig, folder: Path) -> Source:
    """Return a set that torchvision reads from parquet files, which must have its number of classes.

    Raises:
        UserError: They have another.
    """
    source = parquet_source(replace(config, path=str(folder)))

    def read() -> Content:
        content = source.read()
        if len(content.classes) != CLASSES[config.name]:
            raise UserError(
                f"the parquet files in {folder} have {len(content.classes)} classes, and {config.name} has "
                f"{CLASSES[config.name]}: give --data.name parquet if other images are meant."
            )
        return content

    return replace(source, read=read)


def _open_torchvision(class_name: str, folder: Path, **options: bool) -> Any:
    from torchvision import datasets

    with warnings.catch_warnings():
        # The files of CIFAR were written by a numpy so old that today's warns of how they spell types.
        warnings.simplefilter("ignore")
        return getattr(datasets, class_name)(folder, **options)


def _download(class_name: str, folder: Path) -> None:
    try:
        _open_torchvision(class_name, folder, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot fetch {class_name} into {folder}: {' '.join(str(error).split())}") from None


def _read_torchvision(class_name: str, folder: Path) -> Content:
    try:
        # CIFAR's files are pickles: torchvision opens those alone whose MD5 is the published one's.
        train, test = (_open_torchvision(class_name, folder, train=train) for train in (True, False))
        parts = [Part(ArrayRecords(np.asarray(p.data)), np.asarray(p.targets, dtype=np.int64)) for p in (train, test)]
        if any(part.labels.shape != (len(part.records),) for part in parts):
            raise ValueError("there are not as many labels as images")
    except Exception as error:  # whatever damaged files make torchvision's readers raise
        raise UserError(
            f"{class_name} in {folder} is incomplete or damaged ({' '.join(str(error).split())}): "
            "remove it and fetch it anew with --data.download true."
        ) from None
    return Content(tuple(train.classes), parts[0], parts[1])


SOURCES: dict[str, Callable[[DataConfig], Source]] = {
    "digits": _digits,
    "cifar10": _torchvision("CIFAR10", FILES_IN["cifar10"]),
    "cifar100": _torchvision("CIFAR100", FILES_IN["cifar100"]),
    "fashion_mnist": _torchvision("FashionMNIST", FILES_IN["fashion_mnist"]),
    "imagefolder": image_folder,
    "parquet": parquet_source,
    "csv": image_list,
    "webdataset": webdataset_source,
    "imagenet100": imagenet100,
    GIVEN: find_given,
}
"""What finds each source."""
_JUDGED: dict[str, Callable[[DataConfig], Source]] = {
    "imagefolder": partial(image_folder, judged=True),
    "parquet": partial(parquet_source, judged=True),
    "csv": partial(image_list, judged=True),
    "webdataset": partial(webdataset_source, judged=True),
}
"""What finds the sources that may hold test images alone, or more than are needed."""
