"""Sets of images as training reads them: pixels by row, from the cache or decoded on the way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dasvit.data.decode import decode
from dasvit.data.looks import Seen
from dasvit.data.multilabel import has_several, labels_line
from dasvit.data.shards import Shards
from dasvit.data.understanding import Understanding
from dasvit.data.view import PLAIN, View, fit_lines, window_lines
from dasvit.errors import UserError, listed

Rows = NDArray[np.int64]


class Pixels(Protocol):
    """Images of one size, uint8 [N, H, W, 3], that are read by rows."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W and 3."""
        ...

    def __getitem__(self, rows: Rows) -> NDArray[np.uint8]:
        """Return the pixels of the rows [B], uint8 [B, H, W, 3]."""
        ...


class StoredPixels:
    """Decoded images in a `.npy` file, mapped into memory; workers map the file again by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.array: NDArray[np.uint8] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        if self.array.dtype != np.uint8 or self.array.ndim != 4:
            raise ValueError(f"{path} holds no images")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W and 3."""
        n, h, w, c = self.array.shape
        return n, h, w, c

    def __getitem__(self, rows: Rows) -> NDArray[np.uint8]:
        return np.take(self.array, rows, axis=0)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredPixels, (self.path,)


@dataclass(frozen=True)
class HeldPixels:
    """Decoded images in memory, where no cache folder can be written."""

    array: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W and 3."""
        n, h, w, c = self.array.shape
        return n, h, w, c

    def __getitem__(self, rows: Rows) -> NDArray[np.uint8]:
        return np.take(self.array, rows, axis=0)


@dataclass(frozen=True)
class SomePixels:
    """Some rows of other pixels."""

    pixels: Pixels
    rows: Rows

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W and 3."""
        return len(self.rows), *self.pixels.shape[1:]

    def __getitem__(self, rows: Rows) -> NDArray[np.uint8]:
        return self.pixels[self.rows[rows]]


@dataclass(frozen=True)
class EncodedFiles:
    """Encoded images that are files of their own, as they were when the set was listed.

    Attributes:
        paths: The files.
        states: Size and time of change (in ns) of each, int64 [N, 2].
    """

    paths: Sequence[str]
    states: NDArray[np.int64]

    @classmethod
    def of(cls, paths: Sequence[str]) -> EncodedFiles:
        """Return files as they are now."""
        return cls(paths, np.array([_state(path) for path in paths], dtype=np.int64).reshape(-1, 2))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[str, str]:
        """Return a file's name and path.

        Raises:
            UserError: It is not there any more, or was changed since.
        """
        path = self.paths[row]
        if _state(path) != tuple(self.states[row].tolist()):
            raise UserError(f"the image {path} was changed during the run: start anew, or put it back as it was.")
        return path, path


def _state(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise UserError(f"the image {path} was removed during the run ({error.strerror}): put it back.") from None
    return found.st_size, found.st_mtime_ns


class EncodedBlob:
    """Encoded images one behind the other in a file, mapped into memory."""

    def __init__(self, path: Path, ends: Path) -> None:
        self.path, self.ends_path = path, ends
        self.ends: NDArray[np.int64] = np.load(ends, allow_pickle=False)
        self.blob = np.memmap(path, dtype=np.uint8, mode="r")
        if self.ends.dtype != np.int64 or self.ends.ndim != 1 or (np.diff(self.ends, prepend=0) < 0).any():
            raise ValueError(f"{ends} holds no ends of images")
        if self.ends[-1] != len(self.blob):
            raise ValueError(f"{path} has {len(self.blob)} bytes, not {self.ends[-1]}")

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> tuple[str, bytes]:
        start = self.ends[row - 1] if row else 0
        return f"number {row} in {self.path}", self.blob[start : self.ends[row]].tobytes()

    def __reduce__(self) -> tuple[Any, ...]:
        return EncodedBlob, (self.path, self.ends_path)


@dataclass(frozen=True)
class LazyPixels:
    """Images that are decoded when they are asked for, because all of them decoded would be too large.

    Attributes:
        encoded: The images as their source holds them.
        side: Side of the square that each is brought to.
        view: How it is.
    """

    encoded: EncodedFiles | EncodedBlob | Shards
    side: int
    view: View = PLAIN

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W and 3."""
        return len(self.encoded), self.side, self.side, 3

    def __getitem__(self, rows: Rows) -> NDArray[np.uint8]:
        pixels = np.empty((len(rows), self.side, self.side, 3), dtype=np.uint8)
        for place, row in enumerate(rows.tolist()):
            name, encoded = self.encoded[row]
            image = decode(encoded, name, window=self.view.window)
            same = image.size == (self.side, self.side)
            pixels[place] = np.asarray(image if same else self.view.square(image, self.side))
        return pixels


@dataclass(frozen=True)
class ImageSet:
    """Images of one size and their classes; a copy for another process takes the paths, not the pixels.

    Attributes:
        images: Pixels, uint8 [N, H, W, 3]; `images[rows]` reads some of them.
        labels: Class of every image, int64 [N]; of several labels an image int64 [N, C], 1 where it has the label.
        groups: Images of one number are not to be split, int64 [N]. None: each is by itself.
        chunks: Of images that are streamed, the chunk of every one, int64 [N]. None: they can be read in any order.
        window: Images among which the order of those is shuffled.
    """

    images: Pixels
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None
    chunks: NDArray[np.int64] | None = None
    window: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def size(self) -> int:
        """Side of the images in pixels, before they are enlarged or cropped for the network."""
        return self.images.shape[1]

    @property
    def is_stored(self) -> bool:
        """Whether the images lie decoded on the disk."""
        return isinstance(self.images, StoredPixels)

    def select(self, rows: Rows) -> ImageSet:
        """Return some of the images, in the order of the rows [N]."""
        groups = None if self.groups is None else self.groups[rows]
        chunks = None if self.chunks is None else self.chunks[rows]
        if chunks is None or not isinstance(self.images, LazyPixels) or (np.diff(rows) <= 0).any():
            return ImageSet(SomePixels(self.images, rows), self.labels[rows], groups, chunks, self.window)
        shards = self.images.encoded
        assert not isinstance(shards, (EncodedFiles, EncodedBlob)), "chunks are of shards"
        images = replace(self.images, encoded=shards.select(rows))
        return ImageSet(images, self.labels[rows], groups, chunks, self.window)

    def image(self, i: int) -> Image.Image:
        """Return an image as RGB."""
        return Image.fromarray(self.images[np.array([i])][0])


@dataclass(frozen=True)
class Data:
    """A data set, ready to be read.

    Attributes:
        train: Training images.
        test: Test images, of the same size.
        classes: Names of the classes, by label.
        fingerprint: Changes with the source and with how it was split and decoded.
        crop_pct: Share of the images' side that evaluation looks at; 1: all of it.
        skipped: Broken images that were left out.
        understood: How the source was understood.
        view: How pictures became squares of 8-bit pixels.
        enlarged: Whether they are smaller than the network's input, and are enlarged on the device.
        oblong: Share of the images that are longer than 1.5 : 1; None: not known of an older cache.
        held_out: Names of the test images, where they were held out from the others.
        seen: What the images are like; None: not known of an older cache.
        disk: Bytes of the decoded images.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    fingerprint: str
    crop_pct: float
    skipped: tuple[str, ...]
    understood: Understanding
    view: View = PLAIN
    enlarged: bool = False
    oblong: float | None = None
    held_out: tuple[str, ...] = ()
    seen: Seen | None = None
    disk: int = 0

    @property
    def multilabel(self) -> bool:
        """Whether an image can have several labels, or none."""
        return has_several(self.test.labels)

    def labels(self) -> list[str]:
        """Say how many labels images have, where they can have several."""
        return [labels_line([self.train.labels, self.test.labels])] if self.multilabel else []

    def pixels(self) -> list[str]:
        """Say what the pictures are like, how they became squares, and which grey levels became black and white."""
        said = self.seen.lines() if self.seen else []
        said += fit_lines(self.view.fit, self.oblong) + window_lines(self.view.window)
        if self.held_out:
            said.append(f"held out: {len(self.held_out):,} images ({listed(self.held_out)}; held_out.txt names all)")
        return said + ([f"disk: {self.disk / 1e6:,.1f} MB of decoded images"] if self.disk else [])
