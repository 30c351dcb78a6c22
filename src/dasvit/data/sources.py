"""The sources by name: what finds and reads each of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from dasvit.config import DataConfig
from dasvit.data.given import GIVEN, find_given
from dasvit.data.listing import ArrayRecords, Content, FileRecords, Part, Source
from dasvit.data.parquet import find_parquet, parquet_source
from dasvit.errors import UserError, unknown

_TEST_FOLDERS = ("val", "test", "valid", "validation")


def find_source(config: DataConfig) -> Source:
    """Find the source that a configuration names.

    Raises:
        UserError: The name is not one of SOURCES, or the source is not where it should be.
    """
    if config.name not in SOURCES:
        raise unknown("data set", config.name, SOURCES)
    return SOURCES[config.name](config)


def cache_folder(config: DataConfig) -> Path:
    """Return the folder of decoded images (which need not exist yet): the recipe's, $DASVIT_CACHE, or the system's."""
    own = config.cache or os.environ.get("DASVIT_CACHE")
    return Path(own).expanduser() if own else user_cache_path("dasvit", appauthor=False)


def _digits(config: DataConfig) -> Source:
    def read() -> Content:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        part = Part(ArrayRecords(pixels), digits.target.astype(np.int64))
        return Content(tuple(str(name) for name in digits.target_names), part, None)

    return Source([], "digits", False, read)


def _torchvision(class_name: str, files_in: str) -> Callable[[DataConfig], Source]:
    """Return the finder of a set that torchvision reads: its class, and the folder it keeps its files in."""

    def find(config: DataConfig) -> Source:
        folder = Path(config.path).expanduser() if config.path else cache_folder(config) / "downloads"
        parquet = find_parquet(folder) if folder.is_dir() else []
        if parquet:
            return parquet_source(str(folder))
        if config.download:
            _download(class_name, folder)
        files = sorted(file for file in (folder / files_in).rglob("*") if file.is_file())
        if not files:
            raise UserError(
                f"there is no {config.name} in {folder}: give its folder with --data.path, "
                "or fetch it with --data.download true."
            )
        return Source(files, config.name, True, lambda: _read_torchvision(class_name, folder))

    return find


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
    return Content(tuple(train.classes), *parts)


def _check_folder(config: DataConfig) -> Path:
    """Return the folder of the data set, which must be there."""
    if not config.path:
        raise UserError(f"{config.name} needs the folder it lies in: give --data.path FOLDER.")
    folder = Path(config.path).expanduser()
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} to read {config.name} from: check --data.path.")
    return folder


def _image_folder(config: DataConfig) -> Source:
    folder = _check_folder(config)
    train_folder = folder / "train"
    if not train_folder.is_dir():
        return _folder_source(folder, None, _class_folders(folder))
    classes = _class_folders(train_folder)
    test_folder = next((folder / n for n in _TEST_FOLDERS if (folder / n).is_dir()), None)
    if test_folder is not None:
        _check_same_classes(classes, _class_folders(test_folder), test_folder)
    return _folder_source(train_folder, test_folder, classes)


def _imagenet100(config: DataConfig) -> Source:
    folder = _check_folder(config)
    classes = sorted((resources.files("dasvit.data") / "imagenet100.txt").read_text("utf-8").split())
    for part in ("train", "val"):
        missing = [name for name in classes if not (folder / part / name).is_dir()]
        if missing:
            raise UserError(
                f"{len(missing)} of the 100 synset folders of ImageNet-100 are missing in {folder / part} "
                f"({_some(missing)}): --data.path must be the folder of ImageNet that holds train and val."
            )
    return _folder_source(folder / "train", folder / "val", classes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _class_folders(folder: Path) -> list[str]:
    # Hidden folders are those of tools, as .ipynb_checkpoints.
    classes = sorted(e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))
    if not classes:
        raise UserError(f"{folder} holds no folders: one is needed for every class, with its images in it.")
    return classes


def _check_same_classes(train: Sequence[str], test: Sequence[str], folder: Path) -> None:
    absent, extra = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    if absent:
        raise UserError(f"classes of the training images have no folder in {folder}: {_some(absent)}.")
    if extra:
        raise UserError(f"{folder} holds classes that no training image has: {_some(extra)}.")


def _folder_source(train: Path, test: Path | None, classes: Sequence[str]) -> Source:
    listings = [_list_images(folder, classes) for folder in (train, test) if folder]

    def read() -> Content:
        parts = [Part(FileRecords(paths), labels) for paths, labels in listings]
        return Content(tuple(classes), parts[0], parts[1] if test else None)

    files = [Path(path) for paths, _ in listings for path in paths]
    return Source(files, f"folder {list(classes)}", test is not None, read)


def _list_images(folder: Path, classes: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """List the image files below the class folders, and their labels, int64 [N]."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    numbers = {name: number for number, name in enumerate(classes)}
    listed = make_dataset(str(folder), numbers, extensions=IMG_EXTENSIONS, allow_empty=True)
    listed = [(path, label) for path, label in listed if not os.path.basename(path).startswith(".")]
    labels = np.array([label for _, label in listed], dtype=np.int64)
    empty = [classes[label] for label in np.setdiff1d(np.arange(len(classes)), labels)]
    if empty:
        raise UserError(
            f"the class folders {_some(empty)} in {folder} hold no image ({', '.join(IMG_EXTENSIONS)}): "
            "add images, or remove the folders."
        )
    return [path for path, _ in listed], labels


def find_images(paths: Sequence[str]) -> list[str]:
    """Return image files: those that are named, and all below the folders that are, in the order of their names.

    Raises:
        UserError: A folder holds none.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        below = []
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            images = (n for n in sorted(names) if n.lower().endswith(IMG_EXTENSIONS) and not n.startswith("."))
            below += [os.path.join(folder, name) for name in images]
        if not below:
            raise UserError(f"{path} holds no image ({', '.join(IMG_EXTENSIONS)}), nor do the folders in it.")
        found += below
    return found


SOURCES: dict[str, Callable[[DataConfig], Source]] = {
    "digits": _digits,
    "cifar10": _torchvision("CIFAR10", "cifar-10-batches-py"),
    "cifar100": _torchvision("CIFAR100", "cifar-100-python"),
    "fashion_mnist": _torchvision("FashionMNIST", "FashionMNIST/raw"),
    "imagefolder": _image_folder,
    "parquet": lambda config: parquet_source(config.path),
    "imagenet100": _imagenet100,
    GIVEN: find_given,
}
"""What finds each source."""
