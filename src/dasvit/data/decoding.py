"""Decoding many images: which size they get, on many threads, with a progress bar where it takes long."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from dasvit.data.decode import DeepImage, Encoded, Window, decode, is_deep, open_header
from dasvit.data.listing import Records
from dasvit.data.looks import Look, Looks, mode_of
from dasvit.data.view import CROP_PCT, PLAIN, View, is_oblong
from dasvit.errors import UserError

_CHUNK = 512  # images held decoded at once
_PATIENCE = 2.0  # seconds before a progress bar shows


class MixedSizes(Exception):
    """An image is of another size than the first: they cannot be kept as they are."""


@dataclass(frozen=True)
class Plan:
    """The size that every image gets.

    Attributes:
        side: Side of the square in pixels.
        native: Whether images are kept as they are, all being of that size.
        view: How they become squares of 8-bit pixels.
    """

    side: int
    native: bool
    view: View = PLAIN

    def crop_pct(self, image_size: int) -> float:
        """Return the share of the side that evaluation looks at."""
        if self.native:
            return min(1.0, image_size / self.side)
        return CROP_PCT if self.view.fit == "crop" else 1.0

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels of an image at this size, uint8 [side, side, 3].

        Raises:
            MixedSizes: It should have this size, but has another.
        """
        self.check(image.size)
        return np.asarray(image if self.native else self.view.square(image, self.side))

    def check(self, size: tuple[int, int]) -> None:
        """Raise MixedSizes where images of that width and height do not go with this plan."""
        if self.native and size != (self.side, self.side):
            raise MixedSizes


def plans(parts: Sequence[Records], image_size: int, skip: bool, view: View) -> Iterator[Plan]:
    """Yield the sizes to try: the first image's where it is small and square, then the square to cut from.

    Small images are kept as they are and enlarged on the device: CIFAR at 224 pixels takes 0.2 GB, not 12.
    """
    width, height = _first_size(parts, skip)
    if width == height <= view.largest_native(image_size):
        yield Plan(width, True, view)
    yield Plan(view.side(image_size), False, view)


def _first_size(parts: Sequence[Records], skip: bool) -> tuple[int, int]:
    for records in parts:
        for name, encoded in records:
            try:
                return decode(encoded, name).size
            except UserError:
                if not skip:
                    raise
    raise UserError("none of the images can be read.")


class Decoding:
    """A pass over images; as a context it holds the threads and the progress bar.

    Args:
        total: Images in all.
        skip: Whether broken images are left out, rather than raised.

    Attributes:
        oblong: Good images of this pass that are longer than OBLONG : 1.
        names: Good images of the part that was decoded last.
        looks: What all good images of this pass are like.
    """

    def __init__(self, total: int, skip: bool) -> None:
        self.total = total
        self.skip = skip
        self.oblong = 0
        self.names: list[str] = []
        self.looks = Looks()

    def __enter__(self) -> None:
        self.pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
        self.bar = Progress(console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("decoding images", total=self.total)
        self.began = time.monotonic()
        self.oblong, self.looks = 0, Looks()

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self.pool.shutdown(cancel_futures=True)
        if self.bar.live.is_started:
            self.bar.stop()

    def decode(
        self, part: str, records: Records, plan: Plan, sink: Callable[[NDArray[np.uint8]], object]
    ) -> tuple[list[int], list[str]]:
        """Decode records of a part in order and hand their pixels on, uint8 [B, side, side, 3] at a time.

        Returns:
            The rows that could be decoded, and the names of those that could not.

        Raises:
            UserError: An image is broken, and is not to be left out.
            MixedSizes: The images are not all of the size that the plan keeps.
            DeepImage: One has more than 8 bits, and the plan's window is still to be measured.
        """

        def work(name: str, encoded: Encoded) -> tuple[Look, NDArray[np.uint8]]:
            image = decode(encoded, name, window=plan.view.window)
            return Look.at(image, encoded, name), plan.pixels(image)

        return self._each(part, records, work, lambda done: sink(np.stack([pixels for _, pixels in done])))

    def scan(
        self, part: str, records: Records, plan: Plan, sink: Callable[[Any], object]
    ) -> tuple[list[int], list[str]]:
        """Check records of a part in order and hand on the good ones, encoded as they are; see `decode`.

        Where broken images are to be left out, each is decoded once to find them. Where not, the header
        has to do, and a file that is damaged further down stops the run when it is reached.
        """

        def work(name: str, encoded: Encoded) -> tuple[Look, None]:
            window = plan.view.window
            size = decode(encoded, name, window=window).size if self.skip else _header_size(encoded, name, window)
            plan.check(size)
            return Look(size, mode_of(encoded, name)), None

        return self._each(part, records, work, lambda done: [sink(encoded) for encoded, _ in done])

    def _each(
        self,
        part: str,
        records: Records,
        work: Callable[[str, Encoded], Any],
        sink: Callable[[list[tuple[Encoded, Any]]], object],
    ) -> tuple[list[int], list[str]]:
        def attempt(record: tuple[str, Encoded]) -> Any:
            try:
                return work(*record)
            except UserError as error:
                if self.skip:
                    return error
                raise

        kept: list[int] = []
        self.names = []
        broken: list[str] = []
        row = 0
        remaining = iter(records)
        while chunk := list(islice(remaining, _CHUNK)):
            done = []
            for (name, encoded), result in zip(chunk, self.pool.map(attempt, chunk), strict=True):
                if isinstance(result, UserError):
                    broken.append(name)
                else:
                    kept.append(row)
                    self.names.append(name)
                    self.oblong += is_oblong(result[0].size)
                    self.looks.add(part, name, result[0])
                    done.append((encoded, result[1]))
                row += 1
            if done:
                sink(done)
            self._show(len(chunk))
        return kept, broken

    def _show(self, images: int) -> None:
        self.bar.update(self.task, advance=images)
        if sys.stderr.isatty() and time.monotonic() - self.began > _PATIENCE:
            self.bar.start()


def _header_size(encoded: Encoded, name: str, window: Window) -> tuple[int, int]:
    if isinstance(encoded, np.ndarray):
        return encoded.shape[1], encoded.shape[0]
    try:
        with open_header(encoded, name) as image:
            size, deep = image.size, is_deep(image)
    except Exception:
        return decode(encoded, name).size  # says what is wrong
    if deep and window == "auto":
        raise DeepImage
    return size


def holds_deep(records: Records) -> bool:
    """Tell whether one of the images that can be read has more than 8 bits, by their headers."""

    def deep(encoded: Encoded, name: str) -> bool:
        if isinstance(encoded, np.ndarray):
            return encoded.dtype != np.uint8
        try:
            with open_header(encoded, name) as image:
                return is_deep(image)
        except Exception:  # decoding says what is wrong with it
            return False

    return any(deep(encoded, name) for name, encoded in records)


class NpyWriter:
    """Writes a `.npy` file whose length is not known before its end.

    Written in order rather than through a memory map, so that a full disk is an OSError and not a crash.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path = path
        self.shape = shape
        self.count = 0

    def __enter__(self) -> NpyWriter:
        self.file = open(self.path, "wb")
        self._header()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        with self.file:
            if kind is None:
                self.file.seek(0)
                self._header()

    def _header(self) -> None:
        # numpy leaves room in the header for the first axis to grow.
        head = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, head)

    def append(self, arrays: NDArray[np.uint8]) -> None:
        """Write arrays [B, *shape] behind those written before."""
        self.file.write(arrays.tobytes())
        self.count += len(arrays)
