"""Images that are there more than once: files of the same bytes, within a part and across parts."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dasvit.data.listing import FileRecords, Part
from dasvit.errors import printable

_PIECE = 4096
"""Bytes from the middle of a file that are compared before the whole is."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a source.

    Attributes:
        part: The part that it belongs to, train or test.
        label: Its class; of several labels an image, whether it has each.
        path: Where it is.
    """

    part: str
    label: int | tuple[int, ...]
    path: str


def find_copies(parts: Mapping[str, Part]) -> list[list[File]]:
    """Return the groups of files that have the same bytes; images that are no files are not looked at.

    Files are told apart by size, then by a piece of their middle: hardly any but copies are read whole.
    """
    files = [
        File(name, label if isinstance(label, int) else tuple(label), path)
        for name, part in parts.items()
        if isinstance(part.records, FileRecords)
        for path, label in zip(part.records.paths, part.labels.tolist(), strict=True)
    ]
    keys: tuple[Callable[[str], Hashable], ...] = (os.path.getsize, _middle, _digest)
    groups = [files]
    for key in keys:
        groups = [group for same in groups for group in _by(key, same)]
    return groups


def _by(key: Callable[[str], Hashable], files: Iterable[File]) -> list[list[File]]:
    """Return the groups of two files or more that have the same key; what cannot be read has none."""
    groups: dict[Hashable, list[File]] = defaultdict(list)
    for file in files:
        try:
            groups[key(file.path)].append(file)
        except OSError:  # decoding says so
            continue
    return [group for group in groups.values() if len(group) > 1]


def _middle(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _PIECE) // 2)
        return hashlib.blake2b(file.read(_PIECE), digest_size=16).digest()


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def say_copies(parts: Mapping[str, Part], classes: Sequence[str]) -> list[str]:
    """Return remarks on files that are there more than once.

    Args:
        parts: The images of each part.
        classes: Names of the classes, by label.
    """
    groups = find_copies(parts)
    leaked = [group for group in groups if len({file.part for file in group}) > 1]
    torn = [group for group in groups if len({file.label for file in group}) > 1]
    rest = [group for group in groups if group not in leaked and group not in torn]
    said = []
    if leaked:
        count = sum(file.part == "test" for group in leaked for file in group)
        said.append(
            f"{count:,} test images are copies of training images, byte by byte ({_pair(leaked[0])}): how the model "
            "does on them says little"
        )
    if torn:
        by_label = {file.label: _labels(file, classes) for file in torn[0]}
        order = sorted(by_label, key=lambda label: (label,) if isinstance(label, int) else label)
        names = " and ".join(by_label[label] for label in order)
        said.append(f"{len(torn):,} images lie under several classes ({_pair(torn[0])}: {names})")
    if rest:
        said.append(f"{sum(len(group) - 1 for group in rest):,} images are copies of others ({_pair(rest[0])})")
    return said


def _labels(file: File, classes: Sequence[str]) -> str:
    """Name the class of a file, or its labels."""
    if isinstance(file.label, int):
        return printable(classes[file.label])
    return " + ".join(printable(name) for name, has in zip(classes, file.label, strict=True) if has) or "none"


def _pair(group: Sequence[File]) -> str:
    """Name two files of a group, of different parts or classes where there are such."""
    first = group[0]
    others = sorted(group[1:], key=lambda file: (file.part == first.part, file.label == first.label))
    return f"{printable(first.path)} = {printable(others[0].path)}"
