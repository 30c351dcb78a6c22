"""A look at every image of a data set: sizes, bit depths, broken images, and images that look alike."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from dasvit.config import DataConfig
from dasvit.data.cache import Prepared
from dasvit.data.decode import Encoded, decode, is_deep, open_header
from dasvit.data.load import read_data
from dasvit.data.multilabel import class_counts, describe_labels, has_several, label_names, labels_line
from dasvit.data.understanding import Understanding
from dasvit.data.view import PLAIN, View, is_oblong, measure_window
from dasvit.errors import UserError

SIDE = 16
"""Side of the picture whose pixels are held against their mean, for images that look alike."""
SAMPLES = 4
"""Training images that a page shows."""
_CHUNK = 256  # images that are read ahead at once
_DEPTHS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}


@dataclass(frozen=True)
class Inspection:
    """What a data set is, seen image by image.

    Attributes:
        understood: How the source was understood.
        counts: Images of each class, by part.
        sizes: How many images have a width and height in pixels.
        modes: How many images have a mode of PIL's and bits a channel, as "RGB, 8 bit".
        broken: Images that cannot be read.
        alike: Groups of images with the same average hash, as (part, name); copies among them.
        oblong: Share of the images that are longer than 1.5 : 1.
        view: How they become squares; its window is measured where images have more than 8 bits.
        held_out: Names of the test images, where they are held out from the others.
        samples: Some training images as they are: name, class and content.
        labels: A sentence on how many labels images have, where they can have several.
        multilabel: The same as numbers (`describe_labels`).
    """

    understood: Understanding
    counts: Mapping[str, Mapping[str, int]]
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    broken: tuple[str, ...]
    alike: tuple[tuple[tuple[str, str], ...], ...]
    oblong: float = 0.0
    view: View = PLAIN
    held_out: tuple[str, ...] = ()
    samples: tuple[tuple[str, str, Encoded], ...] = ()
    labels: str = ""
    multilabel: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Images that can be read."""
        return sum(self.sizes.values())

    def disk(self, image_size: int) -> int:
        """Return the bytes of the cache for a network's input of a side; more than LARGEST stay encoded."""
        [*sizes] = self.sizes
        alone = sizes[0] if len(sizes) == 1 else (0, 0)
        is_native = alone[0] == alone[1] and 0 < alone[0] <= self.view.largest_native(image_size)
        side = alone[0] if is_native else self.view.side(image_size)
        return 3 * self.images * side**2

    @property
    def alike_across(self) -> int:
        """Groups of images that look alike and stand in several parts."""
        return sum(len({part for part, _ in group}) > 1 for group in self.alike)


@dataclass(frozen=True)
class _Look:
    size: tuple[int, int]
    mode: str
    hashed: bytes


def inspect_data(config: DataConfig, seed: int = 0) -> Inspection:
    """Look at all images of a data set, as it would be split for a training.

    Args:
        config: Where the images come from.
        seed: Fixes which images are held out where there are no test images.

    Raises:
        UserError: The data set is not there, or can be understood in two ways.
    """
    prepared, understood, has_test = read_data(config, seed)
    view = View.of(config)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    broken: list[str] = []
    hashes: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    names: list[str] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for part, images in prepared.parts.items():
            records = iter(images.records)
            while chunk := list(islice(records, _CHUNK)):
                for (name, _), look in zip(chunk, pool.map(_look, chunk), strict=True):
                    if part == "test":
                        names.append(name)
                    if look is None:
                        broken.append(name)
                        continue
                    sizes[look.size] += 1
                    modes[look.mode] += 1
                    hashes[look.hashed].append((part, name))
    counts = {
        part: dict(zip(prepared.classes, class_counts(images.labels, len(prepared.classes)).tolist(), strict=True))
        for part, images in prepared.parts.items()
    }
    labels = [images.labels for images in prepared.parts.values()]
    several = has_several(labels[0])
    alike = tuple(tuple(group) for group in hashes.values() if len(group) > 1)
    if view.window == "auto":
        deep = any(not mode.endswith(", 8 bit") and not mode.endswith(", 1 bit") for mode in modes)
        view = replace(view, window=measure_window(prepared.parts["train"].records) if deep else "full")
    oblong = sum(count for size, count in sizes.items() if is_oblong(size)) / max(1, sum(sizes.values()))
    return Inspection(
        understood,
        counts,
        dict(sizes.most_common()),
        dict(modes.most_common()),
        tuple(broken),
        alike,
        oblong,
        view,
        () if has_test else tuple(names),
        _samples(prepared),
        labels_line(labels) if several else "",
        describe_labels(labels) if several else {},
    )


def _samples(prepared: Prepared) -> tuple[tuple[str, str, Encoded], ...]:
    """Return SAMPLES training images, spread over them and so over the classes."""
    train = prepared.parts["train"]
    rows = np.unique(np.linspace(0, len(train.labels) - 1, SAMPLES).round().astype(np.int64))
    classes = [label_names(train.labels, row, prepared.classes) for row in rows.tolist()]
    return tuple((name, of, encoded) for of, (name, encoded) in zip(classes, train.records.select(rows), strict=True))


def _look(record: tuple[str, Encoded]) -> _Look | None:
    """Return what is to be known of an image; None: it cannot be read."""
    name, encoded = record
    try:
        image = decode(encoded, name)
        if isinstance(encoded, np.ndarray):
            mode, deep = "L" if encoded.ndim == 2 else "RGB", False
        else:
            with open_header(encoded, name) as header:
                mode, deep = header.mode, is_deep(header)
    except UserError:
        return None
    small = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    bits = np.packbits(small > small.mean())
    return _Look(image.size, f"{mode}, {_DEPTHS.get(mode, 16 if deep else 8)} bit", bits.tobytes())
