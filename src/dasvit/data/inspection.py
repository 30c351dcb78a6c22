"""A look at every image of a data set: sizes, bit depths, broken images, and images that look alike."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from dasvit.config import DataConfig
from dasvit.config.units import window_text
from dasvit.data.cache import LARGEST, Prepared
from dasvit.data.decode import Encoded, decode
from dasvit.data.image_set import HeldPixels, ImageSet
from dasvit.data.listing import spread_rows
from dasvit.data.load import read_data
from dasvit.data.looks import Look, Looks
from dasvit.data.mirrored import LEAST, MOST, MOST_CLASSES, MOST_IMAGES, SIDE, mirrored_remarks
from dasvit.data.multilabel import class_counts, describe_labels, has_several, label_names, labels_line
from dasvit.data.understanding import Understanding
from dasvit.data.view import PLAIN, View, fit_lines, is_oblong, measure_window, window_lines
from dasvit.errors import UserError, listed, printable

SAMPLES = 4
"""Training images that a page shows."""
_CHUNK = 256  # images that are read ahead at once


@dataclass(frozen=True)
class Inspection:
    """What a data set is, seen image by image.

    Attributes:
        understood: How the source was understood.
        counts: Images of each class, by part.
        looks: What the images are like: sizes, modes, and which look alike.
        broken: Images that cannot be read.
        oblong: Share of the images that are longer than 1.5 : 1.
        view: How they become squares; its window is measured where images have more than 8 bits.
        held_out: Names of the test images, where they are held out from the others.
        samples: Some training images as they are: name, class and content.
        labels: A sentence on how many labels images have, where they can have several.
        multilabel: The same as numbers (`describe_labels`).
    """

    understood: Understanding
    counts: Mapping[str, Mapping[str, int]]
    looks: Looks
    broken: tuple[str, ...]
    oblong: float = 0.0
    view: View = PLAIN
    held_out: tuple[str, ...] = ()
    samples: tuple[tuple[str, str, Encoded], ...] = ()
    labels: str = ""
    multilabel: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sizes(self) -> Mapping[tuple[int, int], int]:
        """How many images have a width and height in pixels."""
        return self.looks.sizes

    @property
    def modes(self) -> Mapping[str, int]:
        """How many images have a mode of PIL's and bits a channel, as "RGB, 8 bit"."""
        return self.looks.modes

    @property
    def alike(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Groups of images that look alike, as (part, name); copies among them."""
        return self.looks.alike

    @property
    def images(self) -> int:
        """Images that can be read."""
        return sum(self.looks.sizes.values())

    def disk(self, image_size: int) -> int:
        """Return the bytes of the cache for a network's input of a side; more than LARGEST stay encoded."""
        [*sizes] = self.looks.sizes
        alone = sizes[0] if len(sizes) == 1 else (0, 0)
        is_native = alone[0] == alone[1] and 0 < alone[0] <= self.view.largest_native(image_size)
        side = alone[0] if is_native else self.view.side(image_size)
        return 3 * self.images * side**2

    def lines(self, image_size: int) -> list[str]:
        """Return what is said of it, for a network's input of a side."""
        said = self.understood.lines(self.counts) + ([self.labels] if self.labels else [])
        said += self.looks.seen().lines()
        said += fit_lines(self.view.fit, self.oblong) + window_lines(self.view.window)
        if self.held_out:
            said.append(f"held out: {len(self.held_out):,} images ({listed(self.held_out)}; --held-out FILE names all)")
        size = self.disk(image_size)
        kept = "decoded" if size <= LARGEST else "more than are kept decoded: they are decoded in every epoch"
        said.append(f"disk: {size / 1e6:,.0f} MB at model.image_size {image_size} ({kept})")
        if self.broken:
            said.append(f"broken: {len(self.broken):,} images cannot be read ({listed(self.broken)})")
        return said

    def to_dict(self, image_size: int) -> dict[str, Any]:
        """Return it as JSON holds it, for a network's input of a side."""
        sizes = self.looks.sizes.most_common()
        parts = {
            part: {"from": whence, "by_class": self.counts[part]} for part, whence in self.understood.parts.items()
        }
        return {
            **parts,
            **({"multilabel": dict(self.multilabel)} if self.multilabel else {}),
            "labels": self.understood.labels,
            "left_out": self.understood.left_out.to_list(),
            "remarks": list(self.understood.remarks),
            "sizes": [{"width": width, "height": height, "count": count} for (width, height), count in sizes],
            "modes": dict(self.looks.modes.most_common()),
            "oblong": self.oblong,
            "fit": self.view.fit,
            "window": window_text(self.view.window),
            "held_out": [printable(name) for name in self.held_out],
            "disk": {"image_size": image_size, "bytes": self.disk(image_size)},
            "broken": [printable(name) for name in self.broken],
            "alike": [[{"part": part, "image": printable(name)} for part, name in group] for group in self.alike],
        }


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
    looks = Looks()
    broken: list[str] = []
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
                    looks.add(part, name, look)
    counts = {
        part: dict(zip(prepared.classes, class_counts(images.labels, len(prepared.classes)).tolist(), strict=True))
        for part, images in prepared.parts.items()
    }
    labels = [images.labels for images in prepared.parts.values()]
    several = has_several(labels[0])
    if view.window == "auto":
        deep = any(not mode.endswith(", 8 bit") and not mode.endswith(", 1 bit") for mode in looks.modes)
        view = replace(view, window=measure_window(prepared.parts["train"].records) if deep else "full")
    understood = replace(understood, remarks=(*understood.remarks, *_mirrored(prepared, view, seed)))
    oblong = sum(count for size, count in looks.sizes.items() if is_oblong(size)) / max(1, looks.sizes.total())
    return Inspection(
        understood,
        counts,
        looks,
        tuple(broken),
        oblong,
        view,
        () if has_test else tuple(names),
        _samples(prepared),
        labels_line(labels) if several else "",
        describe_labels(labels) if several else {},
    )


def _mirrored(prepared: Prepared, view: View, seed: int) -> tuple[str, ...]:
    """Return a sentence where flips, as the recipes for photographs have them, make classes of each other."""
    train, rng = prepared.parts["train"], np.random.default_rng(seed)
    each = min(MOST, MOST_IMAGES // max(1, len(prepared.classes)))
    if len(prepared.classes) > MOST_CLASSES or each < LEAST or has_several(train.labels):
        return ()
    of_class = [np.flatnonzero(train.labels == label) for label in range(len(prepared.classes))]
    rows = np.sort(np.concatenate([rng.permutation(rows)[:each] for rows in of_class]))
    squares, labels = [], []
    for label, (name, encoded) in zip(train.labels[rows].tolist(), train.records.select(rows), strict=True):
        try:
            image = decode(encoded, name, window=view.window)
        except UserError:  # counted among the broken ones
            continue
        squares.append(np.asarray(view.square(image, 2 * SIDE)))
        labels.append(label)
    if not squares:
        return ()
    images = ImageSet(HeldPixels(np.stack(squares)), np.array(labels, dtype=np.int64))
    return mirrored_remarks(images, prepared.classes, ["search.augment.flip", "train.augment.flip"])


def _samples(prepared: Prepared) -> tuple[tuple[str, str, Encoded], ...]:
    """Return SAMPLES training images, spread over them and so over the classes."""
    train = prepared.parts["train"]
    rows = spread_rows(len(train.labels), SAMPLES)
    classes = [label_names(train.labels, row, prepared.classes) for row in rows.tolist()]
    return tuple((name, of, encoded) for of, (name, encoded) in zip(classes, train.records.select(rows), strict=True))


def _look(record: tuple[str, Encoded]) -> Look | None:
    """Return what is to be known of an image; None: it cannot be read."""
    name, encoded = record
    try:
        return Look.at(decode(encoded, name), encoded, name)
    except UserError:
        return None
