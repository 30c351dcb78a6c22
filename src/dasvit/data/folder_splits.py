"""Which folders of a folder are splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dasvit.data.understanding import (
    LeftOut,
    holds_images,
    loose_images,
    say_endings,
    some,
    split_in,
    split_of,
    subfolders,
)
from dasvit.errors import UserError


def find_splits(folder: Path, endings: frozenset[str], left_out: LeftOut) -> dict[str, Path]:
    """Return the folders that are splits; none where a folder's folders are its classes.

    Raises:
        UserError: They could be either, or two of them could be the same split.
    """
    inner = [place for place in subfolders(folder) if holds_images(place, endings)]
    named = {place: split for place in inner if (split := split_of(place.name))} or _by_words(inner, endings)
    with_classes = {place: split for place, split in named.items() if _holds_class_folders(place, endings)}
    others = [place for place in inner if place not in named]
    if not named or (others and not with_classes):
        return {}  # a class may be called train
    if not with_classes:
        raise UserError(
            f"{folder} holds images in {some([place.name for place in named])}, but no folder for every class in it: "
            f"which classes are they? Images go to {next(iter(named)).name}/CLASS/ (or, if these are the names of "
            "classes, rename the folders: they are those of splits)."
        )
    if others:
        raise UserError(
            f"{folder} holds {some([place.name for place in with_classes])}, which has class folders in it as a split "
            f"has, and beside it {some([place.name for place in others])}, folders of images as classes are: which are "
            "meant? If splits, move the others away; if classes, rename the one that is called as a split is."
        )
    splits: dict[str, Path] = {}
    for place, split in with_classes.items():
        if split in splits:
            raise UserError(
                f"{folder} holds {splits[split].name} and {place.name}, which are both names of the {split} split: "
                "which is meant? Move the other away."
            )
        splits[split] = place
    for place in set(named) - set(with_classes):
        left_out.add_folder("in a split without class folders", str(place))
    for place in subfolders(folder, left_out):
        if place not in inner:
            _check_needed(place, splits, endings)
            left_out.add_folder("in folders without images", str(place))
    leave_loose(folder, endings, left_out)
    return splits


def _check_needed(empty: Path, splits: dict[str, Path], endings: frozenset[str]) -> None:
    """Refuse a folder without images that is called as a split of which there is no other.

    Raises:
        UserError: It is one.
    """
    split = split_of(empty.name)
    others = {"train": ("train",)}.get(split, ("test", "validation"))
    if split and not any(other in splits for other in others):
        raise UserError(
            f"{empty} holds no image ({say_endings(endings)}) in class folders: add images, or remove the folder."
        )


def _by_words(inner: Sequence[Path], endings: frozenset[str]) -> dict[Path, str]:
    """Return the splits of folders all of whose names have a split's name among their words, as birds_train."""
    if not all(_holds_class_folders(place, endings) and not loose_images(place, endings) for place in inner):
        return {}
    named = {place: split_in(place.name) for place in inner}
    return named if all(named.values()) else {}


def _holds_class_folders(folder: Path, endings: frozenset[str]) -> bool:
    return any(holds_images(place, endings) for place in subfolders(folder))


def test_split(splits: dict[str, Path], left_out: LeftOut) -> Path | None:
    """Return the folder of test images: that of the validation split where there is none of the test split."""
    if "test" in splits and "validation" in splits:
        left_out.add_folder("validation images: the test split is evaluated on", str(splits["validation"]))
    return splits.get("test", splits.get("validation"))


def leave_loose(folder: Path, endings: frozenset[str], left_out: LeftOut) -> None:
    """Leave out the images that lie beside folders of classes or splits."""
    for path in loose_images(folder, endings):
        left_out.add("images beside the class folders", path)
