"""What images are like, seen while they are decoded: sizes, bit depths, and which look alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from dasvit.data.decode import Encoded, is_deep, open_header
from dasvit.errors import printable

SIDE, BLOCKS = 16, 4
"""Side of the small grey pictures by which images are compared, and of the blocks by which candidates are found."""
NEAR, NEAR_LEVELS = 0.15, 10.0
"""Root mean square difference of two small pictures below which they look alike: in its standard deviations, its mean
taken off, and in grey levels of 255. Images of CIFAR-10 and Tiny ImageNet that were enlarged and compressed again
lie within it, other pairs of theirs do not (docs/lab-notes.md)."""
FLAT = 2.0
"""Deviation in grey levels below which a small picture shows nothing to be compared by."""
MOST_COMPARED, MOST_PAIRS = 200_000, 2_000_000
"""Images, and pairs of them, up to which those that look alike are looked for."""
SHOWN = 5
"""Sizes and modes that are named."""
_HALVINGS = 10  # of the radius, until there are few enough pairs
_DEPTHS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}


@dataclass(frozen=True)
class Look:
    """What is to be known of an image.

    Attributes:
        size: Width and height in pixels.
        mode: Mode of PIL's and bits a channel, as "RGB, 8 bit".
        small: It as a small grey picture, uint8 [SIDE, SIDE]. None: not made.
    """

    size: tuple[int, int]
    mode: str
    small: NDArray[np.uint8] | None = None

    @classmethod
    def at(cls, image: Image.Image, encoded: Encoded, name: str) -> Look:
        """Look at a decoded image and at its header.

        Args:
            image: It, upright.
            encoded: As its source holds it.
            name: What an error calls it.
        """
        small = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))
        return cls(image.size, mode_of(encoded, name), small)


def mode_of(encoded: Encoded, name: str) -> str:
    """Return the mode of an image that can be read, and its bits a channel, by its header."""
    if isinstance(encoded, np.ndarray):
        kind = "L" if encoded.ndim == 2 else "RGB"
        return f"{kind}, {8 * encoded.dtype.itemsize} bit"
    with open_header(encoded, name) as header:
        return f"{header.mode}, {_DEPTHS.get(header.mode, 16 if is_deep(header) else 8)} bit"


@dataclass(frozen=True)
class Seen:
    """What the images of a data set are like.

    Attributes:
        sizes: How many have a width and height, as "32×32", the most frequent first; SHOWN of them.
        modes: How many have a mode, likewise.
        more_sizes: How many other sizes there are.
        more_modes: How many other modes.
        alike: Images that look like another, copies among them.
        groups: Groups of such images.
        across: Groups of which images stand in several parts.
        pair: Names of two of a group.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    more_sizes: int = 0
    more_modes: int = 0
    alike: int = 0
    groups: int = 0
    across: int = 0
    pair: tuple[str, ...] = ()

    @classmethod
    def read(cls, noted: Any) -> Seen | None:
        """Return what `to_dict` noted; None: nothing was."""
        return cls(**{**noted, "pair": tuple(noted["pair"])}) if isinstance(noted, dict) else None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return what is printed of them."""
        said = []
        for name, counts, more in (("sizes", self.sizes, self.more_sizes), ("modes", self.modes, self.more_modes)):
            named = ", ".join(f"{value} ({count:,})" for value, count in counts.items())
            if counts:
                said.append(f"{name}: {named}{f' and {more:,} more' if more else ''}")
        if self.groups:
            pair = " ~ ".join(map(printable, self.pair))
            groups = f"{self.groups:,} groups" if self.groups > 1 else "one group"
            said.append(
                f"alike: {self.alike:,} images in {groups} look alike, {self.across:,} of the groups across train and "
                f"test ({pair})"
            )
        return said


class Looks:
    """Adds up what images are like.

    Attributes:
        sizes: How many have a width and height in pixels.
        modes: How many have a mode.
    """

    def __init__(self) -> None:
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.modes: Counter[str] = Counter()
        self._named: list[tuple[str, str]] = []
        self._small: list[NDArray[np.uint8]] = []

    def add(self, part: str, name: str, look: Look) -> None:
        """Take in an image of a part, train or test."""
        self.sizes[look.size] += 1
        self.modes[look.mode] += 1
        if look.small is not None and len(self._small) < MOST_COMPARED:
            self._named.append((part, name))
            self._small.append(look.small)

    @cached_property
    def alike(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Groups of images that look alike, as (part, name); to be asked once all are taken in."""
        groups = near_groups(np.stack(self._small)) if self._small else []
        return tuple(tuple(self._named[row] for row in rows) for rows in groups)

    def seen(self) -> Seen:
        """Return what is worth saying of all."""
        groups = sorted(self.alike, key=lambda group: not is_across(group))
        return Seen(
            {f"{width}×{height}": count for (width, height), count in self.sizes.most_common(SHOWN)},
            dict(self.modes.most_common(SHOWN)),
            max(0, len(self.sizes) - SHOWN),
            max(0, len(self.modes) - SHOWN),
            sum(map(len, groups)),
            len(groups),
            sum(map(is_across, groups)),
            _pair(groups[0]) if groups else (),
        )


def near_groups(small: NDArray[np.uint8]) -> list[list[int]]:
    """Return the groups of images that look alike, as rows, in the order of their first.

    Equal pictures are always alike. Of others, means of blocks are compared by a tree: averaging brings pictures nearer
    to one another, so none that are alike are missed.

    Args:
        small: Small grey pictures [N, SIDE, SIDE].
    """
    whole, first, same = np.unique(small.reshape(len(small), -1), axis=0, return_index=True, return_inverse=True)
    links = _near_pairs(whole.reshape(-1, SIDE, SIDE).astype(np.float32))
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(len(first), len(first)))
    labels = connected_components(graph, directed=False)[1][same.ravel()]
    groups: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def _near_pairs(small: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the pairs of different pictures [N, SIDE, SIDE] that look alike [P, 2]; of too many the nearest."""
    spread = small.std((1, 2))
    rows = np.flatnonzero(spread >= FLAT)
    plain = small[rows]
    scaled = (plain - plain.mean((1, 2), keepdims=True)) / spread[rows][:, None, None]
    if len(rows) < 2:
        return np.empty((0, 2), dtype=np.int64)
    step = SIDE // BLOCKS
    tree = KDTree(scaled.reshape(-1, BLOCKS, step, BLOCKS, step).mean((2, 4)).reshape(-1, BLOCKS**2))
    for halvings in range(_HALVINGS):  # of images all of one kind, as frames of a film, the nearest
        radius = NEAR * BLOCKS / 2**halvings
        if tree.count_neighbors(tree, radius) <= 2 * MOST_PAIRS + len(rows):
            break
    else:  # patterns of the same means, which say nothing
        return np.empty((0, 2), dtype=np.int64)
    pairs: NDArray[np.int64] = tree.query_pairs(radius, output_type="ndarray").astype(np.int64)
    differ = [_difference(pictures, pairs) for pictures in (scaled, plain)]
    return rows[pairs[(differ[0] < NEAR) & (differ[1] < NEAR_LEVELS)]]


def _difference(pictures: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the root mean square difference of pairs [P, 2] of pictures [N, SIDE, SIDE], a few at a time."""
    parts = np.array_split(pairs, len(pairs) // 10_000 + 1)
    found = [((pictures[part[:, 0]] - pictures[part[:, 1]]) ** 2).mean((1, 2)) for part in parts]
    differences: NDArray[np.float32] = np.sqrt(np.concatenate(found))
    return differences


def is_across(group: Sequence[tuple[str, str]]) -> bool:
    """Tell whether images of a group, as (part, name), stand in several parts."""
    return len({part for part, _ in group}) > 1


def _pair(group: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return the names of two images of a group, of different parts where there are such."""
    first = group[0]
    other = min(group[1:], key=lambda one: one[0] == first[0])
    return first[1], other[1]
