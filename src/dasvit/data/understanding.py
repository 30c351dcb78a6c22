"""The rules by which a source is understood, and the record of what they made of it (`docs/data.md`)."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

from dasvit.data.decode import image_formats
from dasvit.errors import UserError, printable

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("val", "valid", "validation", "dev"),
}
"""What splits are called, whatever the case."""
HOUSEKEEPING = frozenset(
    (
        "__macosx",
        "@eadir",
        "@recycle",
        "@__thumb",
        "#recycle",
        "#snapshot",
        "__pycache__",
        "$recycle.bin",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
    )
)
"""Files and folders of systems and tools, in small letters; hidden ones (their names begin with a dot) are, too."""
_EXAMPLES = 3  # names that stand for the others
_WORDS = re.compile(r"[^\W_]+")
_SHOWN_ALIKE = 4  # classes of as many images that are named one by one
_SHOWN_CLASSES = 12


def split_of(name: str) -> str:
    """Return the split that a name is the name of: train, test or validation; empty: of none."""
    return next((split for split, names in SPLIT_NAMES.items() if name.casefold() in names), "")


def split_in(path: str) -> str:
    """Return the split that a path names: one of its words is a split's name, the last part of the path first.

    Words are letters and digits between other characters, without digits at their end: birds-train-00000 and
    birds/train01 name one, devices does not.

    Raises:
        UserError: A part of the path names two.
    """
    for part in reversed(PurePath(path).parts):
        words = (word.rstrip("0123456789") for word in _WORDS.findall(part))
        found = sorted({split for word in words if (split := split_of(word))})
        if len(found) > 1:
            raise UserError(
                f"{path} names two splits, {' and '.join(found)}: which images are they? Rename it so that one is left."
            )
        if found:
            return found[0]
    return ""


def by_split(folder: Path, files: Sequence[Path], left_out: LeftOut, kind: str) -> dict[str, list[Path]]:
    """Sort files into splits by their names; where none is named train, those of no known name are.

    Args:
        folder: The folder that they lie in.
        files: The files.
        left_out: Takes up those of no known name, where others are named train.
        kind: What they are called there, as parquet.
    """
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(split_in(file.relative_to(folder).as_posix()), []).append(file)
    unnamed = splits.pop("", [])
    if unnamed and "train" not in splits:
        splits["train"] = unnamed
        return splits
    for file in unnamed:
        left_out.add(f"{kind} files whose names say no split", str(file))
    return splits


def is_housekeeping(name: str) -> bool:
    """Tell whether a file or a folder is hidden, or belongs to a system or a tool."""
    return name.startswith(".") or name.casefold() in HOUSEKEEPING


@cache
def image_endings() -> frozenset[str]:
    """Return the endings of the files that are taken for images: those that this build of PIL decodes, as .jpg."""
    readable = image_formats()
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in readable)


def wanted_endings(text: str) -> frozenset[str]:
    """Return the endings that `data.endings` names, as "jpg,png"; all of `image_endings` where it is empty.

    Raises:
        UserError: One cannot be read.
    """
    if not text:
        return image_endings()
    wanted = frozenset(f".{ending.strip().lstrip('.').casefold()}" for ending in text.split(","))
    strange = sorted(wanted - image_endings())
    if strange:
        raise UserError(
            f"--data.endings names {', '.join(strange)}, which cannot be read as images: "
            f"{', '.join(sorted(image_endings()))} can."
        )
    return wanted


def say_endings(endings: frozenset[str]) -> str:
    """Return endings as a text, the usual ones of many."""
    usual = [ending for ending in (".jpg", ".jpeg", ".png", ".tif", ".webp") if ending in endings]
    if len(endings) <= len(usual) + 2:
        return ", ".join(sorted(endings))
    return f"{', '.join(usual)} and {len(endings) - len(usual)} more"


def ending_of(name: str) -> str:
    """Return the ending of a file's name in small letters, as .jpg; empty: it has none."""
    return os.path.splitext(name)[1].casefold()


@dataclass
class LeftOut:
    """What was left out, by reason.

    Attributes:
        counts: How many files of each reason.
        examples: The first names of each.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: str, path: str, count: int = 1) -> None:
        """Leave out a file, or a folder of so many files."""
        if count:
            self.counts[reason] += count
            if len(self.examples[reason]) < _EXAMPLES:
                self.examples[reason].append(path)

    def take(self, other: LeftOut) -> None:
        """Leave out what another has left out as well."""
        self.counts.update(other.counts)
        for reason, names in other.examples.items():
            self.examples[reason] = (self.examples[reason] + names)[:_EXAMPLES]

    def add_folder(self, reason: str, folder: str) -> None:
        """Leave out all files below a folder."""
        self.add(reason, folder, sum(len(names) for _, _, names in os.walk(folder)))

    def add_image(self, path: str) -> None:
        """Leave out a file whose ending is none of those wanted."""
        self.add(f"ending in {ending_of(path)}" if ending_of(path) else "without an ending", path)

    def sentences(self) -> list[str]:
        """Return a line a reason, the commonest first."""
        return [
            f"{count:,} {reason} ({_some(self.examples[reason], count)})" for reason, count in self.counts.most_common()
        ]

    def to_list(self) -> list[dict[str, Any]]:
        """Return the reasons as JSON holds them."""
        return [
            {"reason": reason, "count": count, "examples": [printable(name) for name in self.examples[reason]]}
            for reason, count in self.counts.most_common()
        ]


def _some(names: Sequence[str], count: int) -> str:
    shown = ", ".join(printable(os.path.basename(name.rstrip("/"))) for name in names)
    return shown + (", …" if count > len(names) else "")


@dataclass(frozen=True)
class Understanding:
    """How a source was understood.

    Attributes:
        parts: What became the parts train and test, in words.
        labels: What the labels and the names of the classes are taken from.
        left_out: What is not used, by reason.
        remarks: What the user should look at, as sentences.
    """

    parts: Mapping[str, str] = field(default_factory=dict)
    labels: str = ""
    left_out: LeftOut = field(default_factory=LeftOut)
    remarks: tuple[str, ...] = ()

    def lines(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Return it as lines of text, with the images of each class by part."""
        said = [f"{part}: {whence}: {by_class(counts[part])}" for part, whence in self.parts.items()]
        said += [f"classes: {self.labels}"] if self.labels else []
        said += [f"left out: {'; '.join(self.left_out.sentences())}"] if self.left_out.counts else []
        return [printable(line) for line in [*said, *(f"note: {remark}" for remark in self.remarks)]]


def by_class(counts: Mapping[str, int]) -> str:
    """Say how many images each class has: all of few classes, the range of many, one number where it is the same."""
    if len(counts) > _SHOWN_ALIKE and len(set(counts.values())) == 1:
        return f"{len(counts):,} classes of {next(iter(counts.values())):,} images each"
    if len(counts) <= _SHOWN_CLASSES:
        return ", ".join(f"{printable(name)} {count:,}" for name, count in counts.items())
    few, many = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    return (
        f"{len(counts):,} classes of {counts[few]:,} to {counts[many]:,} images (fewest: {printable(few)}, "
        f"most: {printable(many)})"
    )


def some(names: Sequence[str]) -> str:
    """Return the first few names as a text."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def subfolders(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """Return the folders in a folder by name, housekeeping ones left out.

    Raises:
        UserError: It cannot be listed.
    """
    inner = []
    for entry in _entries(str(folder)):
        if _is_folder(entry) and not is_housekeeping(entry.name):
            inner.append(Path(entry.path))
        elif left_out is not None and _is_folder(entry):
            left_out.add_folder("in hidden or housekeeping folders", entry.path)
    return inner


def images_below(
    folder: Path | str, endings: frozenset[str], left_out: LeftOut, above: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield the images in a folder and, at any depth, below it, each folder's own first.

    A link that leads nowhere counts by its ending: whoever opens it says so.

    Args:
        folder: The folder.
        endings: Endings of images.
        left_out: Takes up whatever else lies there.
        above: The folders that it lies in, without links: a link back to one of them is not followed.

    Raises:
        UserError: A folder cannot be listed.
    """
    real = os.path.realpath(folder)
    if real in above:
        left_out.add("links to folders that they lie in", str(folder))
        return
    folders = []
    for entry in _entries(str(folder)):
        if _is_folder(entry):
            folders.append(entry)
        elif is_housekeeping(entry.name):
            left_out.add("hidden or housekeeping files", entry.path)
        elif ending_of(entry.name) not in endings:
            left_out.add_image(entry.path)
        elif entry.is_symlink() or entry.is_file():
            yield entry.path
        else:
            left_out.add("that are no files but devices or pipes", entry.path)
    for entry in folders:
        if is_housekeeping(entry.name):
            left_out.add_folder("in hidden or housekeeping folders", entry.path)
        else:
            yield from images_below(entry.path, endings, left_out, above | {real})


def holds_images(folder: Path, endings: frozenset[str]) -> bool:
    """Tell whether an image lies in a folder or below it."""
    return next(images_below(folder, endings, LeftOut()), None) is not None


def loose_images(folder: Path, endings: frozenset[str]) -> list[str]:
    """Return the images that lie in a folder itself."""
    return [
        entry.path
        for entry in _entries(str(folder))
        if ending_of(entry.name) in endings and not is_housekeeping(entry.name) and not _is_folder(entry)
    ]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot list the folder {folder} ({error.strerror}): make it readable, or move it.") from None
