"""Folders of images: which of them are splits and which are classes, and the images in them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dasvit.config import DataConfig
from dasvit.data.folder_splits import find_splits, leave_loose, test_split
from dasvit.data.listing import Content, FileRecords, Part, Source
from dasvit.data.understanding import (
    LeftOut,
    Understanding,
    ending_of,
    holds_images,
    image_endings,
    images_below,
    loose_images,
    say_endings,
    some,
    split_of,
    subfolders,
    wanted_endings,
)
from dasvit.errors import UserError

_KINDS = ("images", "image", "imgs", "img", "masks", "mask", "labels", "annotations", "segmentation", "segmentations")
"""What folders are called that hold kinds of files rather than classes."""


def image_folder(config: DataConfig, judged: bool = False) -> Source:
    """Find a folder of class folders, or of splits that hold them.

    Args:
        config: Its path, and the endings of images.
        judged: Only images to evaluate a model on are wanted: those of a test split, or all.

    Raises:
        UserError: It can be understood in two ways, or in none.
    """
    folder, endings, left_out = check_folder(config), wanted_endings(config.endings), LeftOut()
    splits = find_splits(folder, endings, left_out)
    train, test = splits.get("train"), test_split(splits, left_out)
    if judged and test:
        if train:
            left_out.add_folder("training images, which are not needed here", str(train))
        train = None
    if train is None and test is None:
        train = folder
    if train is None and not judged:
        assert test is not None
        raise UserError(
            f"{folder} holds {test.name}, but no images to train on: a folder called train must lie beside it."
        )
    parts = {name: _class_folders(place, endings, left_out) for name, place in _named(train, test)}
    remarks = _deeper(next(iter(parts.values())), endings)
    if train == folder:
        remarks += _split_beside(folder)
    if train and test:
        remarks += _compare_classes([c.name for c in parts["train"]], [c.name for c in parts["test"]], test)
    where = {name: str(place.relative_to(folder)) if place != folder else "" for name, place in _named(train, test)}
    return _source(parts, where, folder, endings, left_out, remarks)


def imagenet100(config: DataConfig) -> Source:
    """Find the 100 classes of ImageNet-100 in a folder of ImageNet.

    Raises:
        UserError: A class is not there.
    """
    folder, left_out = check_folder(config), LeftOut()
    classes = sorted((resources.files("dasvit.data") / "imagenet100.txt").read_text("utf-8").split())
    for split in ("train", "val"):
        missing = [name for name in classes if not (folder / split / name).is_dir()]
        if missing:
            raise UserError(
                f"{len(missing)} of the 100 synset folders of ImageNet-100 are missing in {folder / split} "
                f"({some(missing)}): --data.path must be the folder of ImageNet that holds train and val."
            )
        others = [place for place in subfolders(folder / split) if place.name not in classes]
        if others:
            left_out.add(f"folders in {split} of classes that are not ImageNet-100's", str(others[0]), len(others))
    parts = {part: [folder / split / name for name in classes] for part, split in (("train", "train"), ("test", "val"))}
    return _source(parts, {"train": "train", "test": "val"}, folder, wanted_endings(config.endings), left_out, [])


def find_images(paths: Sequence[str], left_out: LeftOut | None = None) -> list[str]:
    """Return image files: those that are named, and all below the folders that are, in the order of their names.

    Args:
        paths: Files and folders.
        left_out: Takes up which files of the folders are no images.

    Raises:
        UserError: A folder holds none.
    """
    found: list[str] = []
    others = LeftOut() if left_out is None else left_out
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        below = list(images_below(path, image_endings(), others))
        if not below:
            endings = say_endings(image_endings())
            raise UserError(f"{path} holds no image ({endings}), nor do the folders in it{_besides(others)}.")
        found += below
    return found


def check_folder(config: DataConfig) -> Path:
    """Return the folder of the data set, which must be there.

    Raises:
        UserError: It is not.
    """
    if not config.path:
        raise UserError(f"{config.name} needs the folder it lies in: give --data.path FOLDER.")
    folder = Path(config.path).expanduser()
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} to read {config.name} from: check --data.path.")
    return folder


def _named(train: Path | None, test: Path | None) -> list[tuple[str, Path]]:
    return [(name, place) for name, place in (("train", train), ("test", test)) if place is not None]


def _besides(left_out: LeftOut) -> str:
    said = left_out.sentences()
    return f"; there are {'; '.join(said[:3])}" if said else ""


# --- classes ----------------------------------------------------------------------------------------------------------


def _class_folders(folder: Path, endings: frozenset[str], left_out: LeftOut) -> list[Path]:
    """Return the folders of the classes in a folder.

    Raises:
        UserError: There are none, or they lie elsewhere.
    """
    classes = subfolders(folder, left_out)
    if not classes:
        raise UserError(
            f"{folder} holds no folders: one is needed for every class, with its images in it{_above(folder, endings)}."
        )
    if len(classes) == 1 and not loose_images(classes[0], endings):
        meant = _meant(classes[0], endings)
        if meant:
            names = some([place.name for place in subfolders(meant)])
            raise UserError(
                f"{folder} holds a single folder, {classes[0].name}, and the folders in it ({names}) look like what is "
                f"meant: give --data.path {meant}."
            )
    if len(classes) > 1 and all(place.name.casefold() in _KINDS for place in classes):
        raise UserError(
            f"the folders in {folder} are called {some([place.name for place in classes])}, which are kinds of files "
            "rather than classes: make a folder for every class, or rename these if they are the classes."
        )
    leave_loose(folder, endings, left_out)
    return classes


def _meant(folder: Path, endings: frozenset[str]) -> Path | None:
    """Return the first folder on the way down that holds several folders of images; None: there is none."""
    inner = [place for place in subfolders(folder) if holds_images(place, endings)]
    if len(inner) == 1 and not loose_images(folder, endings):
        return folder if split_of(inner[0].name) else _meant(inner[0], endings)
    return folder if inner else None


def _above(folder: Path, endings: frozenset[str]) -> str:
    """Say that a folder looks like one class's own."""
    if not loose_images(folder, endings):
        return ""
    return f"; if {folder.name} is itself a class, give the folder that it lies in, {folder.resolve().parent}"


def _split_beside(folder: Path) -> list[str]:
    """Return a remark where a folder is called train, and test images lie beside it."""
    folder = folder.resolve()
    tests = [place.name for place in subfolders(folder.parent) if split_of(place.name) in ("test", "validation")]
    if split_of(folder.name) != "train" or not tests:
        return []
    return [f"{some(tests)} beside {folder} is not looked at: to test on it, give --data.path {folder.parent}"]


def _deeper(classes: Sequence[Path], endings: frozenset[str]) -> list[str]:
    """Return a remark where no class folder holds images itself, and the folders in all of them are called alike."""
    inner = [{place.name for place in subfolders(c)} for c in classes if not loose_images(c, endings)]
    common = sorted(set.intersection(*inner)) if inner else []
    if len(inner) < len(classes) or len(common) < 2:
        return []
    return [
        f"no image lies in a class folder itself, but in the folders {some(common)} in each of them: if those are the "
        "classes, give a folder that holds them"
    ]


def _compare_classes(train: Sequence[str], test: Sequence[str], folder: Path) -> list[str]:
    """Return a remark on classes without a test image.

    Raises:
        UserError: Test images are of classes that no training image has.
    """
    extra = sorted(set(test) - set(train))
    if extra:
        raise UserError(f"{folder} holds classes that no training image has: {some(extra)}.")
    absent = sorted(set(train) - set(test))
    return [f"no folder in {folder.name} for {some(absent)}: these classes are not tested"] if absent else []


# --- images -----------------------------------------------------------------------------------------------------------


def _source(
    parts: dict[str, list[Path]],
    where: dict[str, str],
    folder: Path,
    endings: frozenset[str],
    left_out: LeftOut,
    remarks: Sequence[str],
) -> Source:
    """Return the source of class folders by part, the classes of the first of which are those of all."""
    classes = [place.name for place in next(iter(parts.values()))]
    listings = {part: _list_images(folders, classes, endings, left_out) for part, folders in parts.items()}
    if endings == image_endings():
        _check_twins([path for paths, _ in listings.values() for path in paths])

    def read() -> Content:
        found = {part: Part(FileRecords(paths), labels) for part, (paths, labels) in listings.items()}
        return Content(tuple(classes), found.get("train"), found.get("test"))

    files = [Path(path) for paths, _ in listings.values() for path in paths]
    said = {part: f"{folder / place}, a folder for each class" for part, place in where.items()}
    understood = Understanding(said, "the names of the class folders", left_out, tuple(remarks))
    return Source(files, f"folder {classes}", "test" in parts, read, understood)


def _list_images(
    folders: Sequence[Path], classes: Sequence[str], endings: frozenset[str], left_out: LeftOut
) -> tuple[list[str], NDArray[np.int64]]:
    """List the images below class folders in the order of folders and names, and their labels, int64 [N]."""
    paths: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    seen = LeftOut()
    for place in folders:
        below = sorted(images_below(place, endings, seen), key=os.path.split)
        if not below:
            empty.append(place.name)
        paths += below
        labels += [classes.index(place.name)] * len(below)
    if empty:
        raise UserError(
            f"the class folders {some(empty)} in {folders[0].parent} hold no image ({say_endings(endings)})"
            f"{_besides(seen)}: add images, or remove the folders."
        )
    left_out.take(seen)
    return paths, np.array(labels, dtype=np.int64)


def _check_twins(paths: Sequence[str]) -> None:
    """Refuse files of one name and two endings, one of which may be a mask or a preview of the other.

    Raises:
        UserError: There are some.
    """
    twins: dict[str, set[str]] = {}
    for _, inside in groupby(paths, os.path.dirname):  # millions of names at once would take much memory
        endings = defaultdict(set)
        for path in inside:
            endings[os.path.splitext(path)[0]].add(ending_of(path).lstrip("."))
        twins |= {name: found for name, found in endings.items() if len(found) > 1}
    if twins:
        name, found = next(iter(twins.items()))
        one, *others = sorted(found)
        raise UserError(
            f"{len(twins)} images have one name and two endings, as {name}.{one} and .{', .'.join(others)}: which are "
            f"the photographs, and which are masks or copies? Say --data.endings {one}, or {others[0]}, or "
            f"{','.join([one, *others])} if all are images of their own."
        )
