"""What a source offers before anything is decoded: images one after the other, and their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dasvit.data.decode import Encoded
from dasvit.data.understanding import Understanding


class Records(Protocol):
    """Encoded images, read in order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[str, Encoded]]:
        """Yield the name and the encoded image of every record."""
        ...

    def select(self, rows: NDArray[np.int64]) -> Records:
        """Return the records of the given rows (rising)."""
        ...

    def names(self) -> list[str]:
        """Return what the records are called, as iterating does, without reading them."""
        ...


def spread_rows(count: int, most: int) -> NDArray[np.int64]:
    """Return up to so many rows of a count, spread over them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


@dataclass(frozen=True)
class FileRecords:
    """Images that are files."""

    paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[str, Encoded]]:
        return ((path, path) for path in self.paths)

    def select(self, rows: NDArray[np.int64]) -> FileRecords:
        """Return the records of the given rows."""
        return FileRecords([self.paths[row] for row in rows])

    def names(self) -> list[str]:
        """Return the paths."""
        return list(self.paths)


@dataclass(frozen=True)
class ArrayRecords:
    """Images that are decoded already: uint8 [N, h, w] or [N, h, w, 3]."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    def __iter__(self) -> Iterator[tuple[str, Encoded]]:
        return ((f"number {row}", pixels) for row, pixels in enumerate(self.pixels))

    def select(self, rows: NDArray[np.int64]) -> ArrayRecords:
        """Return the records of the given rows."""
        return ArrayRecords(self.pixels[rows])

    def names(self) -> list[str]:
        """Return the images' numbers."""
        return [f"number {row}" for row in range(len(self))]


@dataclass(frozen=True)
class Part:
    """The training or the test images of a source.

    Attributes:
        records: The images.
        labels: Their classes, int64 [N]; of several labels an image int64 [N, C], 1 where it has the label.
        groups: What is not to be split, as patients' names: texts [N], an empty one a group by itself; or None.
    """

    records: Records
    labels: NDArray[np.int64]
    groups: NDArray[np.str_] | None = None

    def select(self, rows: NDArray[np.int64]) -> Part:
        """Return the part that holds the given rows (rising) alone."""
        groups = None if self.groups is None else self.groups[rows]
        return Part(self.records.select(rows), self.labels[rows], groups)

    def group_numbers(self) -> NDArray[np.int64] | None:
        """Return the groups as numbers, int64 [N]; None: there are none."""
        if self.groups is None:
            return None
        own = [name or f"\0{row}" for row, name in enumerate(self.groups.tolist())]
        return np.unique(own, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class Content:
    """What is in a source.

    Attributes:
        classes: Names of the classes, by label.
        train: Training images. None: the source has none, and a model can only be evaluated on it.
        test: Test images. None: the source has none of its own, a part of train is to be held out.
        remarks: What the user should look at, as sentences.
    """

    classes: tuple[str, ...]
    train: Part | None
    test: Part | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A source that was found, and is read only if the cache does not know it.

    Attributes:
        files: Every file that the content depends on.
        identity: What else it depends on, as a version.
        has_test: Whether it has test images of its own.
        read: Reads labels, and prepares the images to be read.
        understood: How it was understood.
    """

    files: Sequence[Path]
    identity: str
    has_test: bool
    read: Callable[[], Content]
    understood: Understanding = field(default_factory=Understanding)
