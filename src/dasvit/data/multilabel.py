"""Images of several labels: how they are split, chosen and described.

Shapes: N images, C classes. Labels are int64 [N, C], 1 where an image has the label; of one label an image they are
int64 [N], the label's number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasvit.errors import UserError

_MOST_MOVES, _LEAST_GAIN = 300, 1e-9  # of images between subsets, and what one must be good for
Labels = NDArray[np.int64]
Rows = NDArray[np.int64]


def has_several(labels: Labels) -> bool:
    """Tell whether labels [N, C] say of every class whether an image has it; of [N] it has one class."""
    return labels.ndim == 2


def class_counts(labels: Labels, classes: int) -> NDArray[np.int64]:
    """Return how many images each class has, int64 [C]; an image of several labels counts for each."""
    counts: NDArray[np.int64] = labels.sum(axis=0) if has_several(labels) else np.bincount(labels, minlength=classes)
    return counts


def label_names(labels: Labels, row: int, classes: Sequence[str]) -> str:
    """Return the names of an image's labels in a text; none where it has none."""
    if not has_several(labels):
        return classes[int(labels[row])]
    return " + ".join(classes[place] for place in np.flatnonzero(labels[row]).tolist()) or "none"


def describe_labels(parts: Sequence[Labels]) -> dict[str, Any]:
    """Return what is to be said of images of several labels: classes, labels an image, and images with none."""
    labels = np.concatenate(parts)
    each = labels.sum(axis=1)
    return {
        "classes": labels.shape[1],
        "labels_an_image": float(each.mean()) if len(each) else 0.0,
        "without_labels": int((each == 0).sum()),
    }


def labels_line(parts: Sequence[Labels]) -> str:
    """Say what `describe_labels` returns."""
    found = describe_labels(parts)
    count = found["without_labels"]
    return (
        f"multi-label: {found['classes']:,} classes, {found['labels_an_image']:.1f} labels an image on average, "
        f"{count:,} image{'' if count == 1 else 's'} with none"
    )


def split_several(
    labels: Labels, fraction: float, seed: int, groups: NDArray[np.int64] | None = None
) -> tuple[Rows, Rows]:
    """Split images of several labels in two by iterative stratification.

    Sechidis, Tsoumakas, Vlahavas (2011, "On the stratification of multi-label data"), Algorithm 1, for two subsets: the
    class of the fewest images left is dealt out first, each image to the subset that lacks that class most. That an
    image has no label counts as a class, and a group is dealt out as one image that counts for all of its images. In
    the end single images change sides while that makes the shares more even.

    Args:
        labels: Labels, int64 [N, C].
        fraction: Share of the images in the second part, between 0 and 1.
        seed: Fixes the choice.
        groups: Images of one number stay together, int64 [N]. None: each is by itself.

    Returns:
        Two sorted, disjoint int64 arrays that together hold 0 … N - 1. A class of one image stands in one of them.

    Raises:
        UserError: One of them would be empty.
    """
    if not len(labels):
        raise UserError("there are no images to split.")
    chance = np.random.default_rng(seed)
    unit = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    wanted = _with_none(labels)
    counts = np.zeros((int(unit.max()) + 1, wanted.shape[1]), dtype=np.int64)  # [units, C + 1]
    np.add.at(counts, unit, wanted)
    sizes = np.bincount(unit)
    order = chance.permutation(len(sizes))
    counts, sizes = counts[order], sizes[order]
    shares = np.array([1 - fraction, fraction])
    lacking, room = shares[:, None] * counts.sum(axis=0), shares * sizes.sum()  # [2, C + 1] and [2]
    side = np.full(len(sizes), -1)
    left = counts.sum(axis=0)
    while left.any():
        rarest = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        for place in np.flatnonzero((side < 0) & (counts[:, rarest] > 0)).tolist():
            # Of equal ones the subset with more room; of equal ones the first.
            lack, more = lacking[:, rarest], room
            second = lack[1] > lack[0] or (lack[1] == lack[0] and more[1] > more[0])
            side[place] = int(second)
            lacking[int(second)] -= counts[place]
            room[int(second)] -= sizes[place]
            left -= counts[place]
    _even_out(side, np.column_stack([counts, sizes]), fraction)
    if len(set(side.tolist())) == 1 and len(side) > 1:  # of a few: one of those that say least goes over
        side[np.lexsort((counts.sum(axis=1), sizes))[0]] = 1 - side[0]
    found = np.empty(len(sizes), dtype=np.int64)
    found[order] = side
    second_part = found[unit] == 1
    if second_part.all() or not second_part.any():
        what = "images" if groups is None else "groups"
        raise UserError(
            f"{len(sizes)} {what} are too few to hold out a share of {fraction:g}: add images, or hold out a share "
            "nearer to 0.5."
        )
    return np.flatnonzero(~second_part), np.flatnonzero(second_part)


def _even_out(side: NDArray[np.int64], counts: NDArray[np.int64], fraction: float) -> None:
    """Move images from one subset to the other, the one that helps most first, while that brings shares nearer.

    Iterative stratification leaves the commonest classes to the end, and groups as they are. What falls is Σ d² / n, of
    n images of each class of which d too many, or too few, stand in the second subset.

    Args:
        side: Which subset each image (or group) is in, 0 or 1, [U]; changed.
        counts: What each counts for, by class, [U, K].
        fraction: Share of the second subset.
    """
    weights, total = 1 / np.maximum(counts.sum(axis=0), 1), counts.sum(axis=0)
    squares = (counts**2) @ weights
    for _ in range(_MOST_MOVES):
        excess = counts[side == 1].sum(axis=0) - fraction * total
        change = (1 - 2 * side) * 2 * (counts @ (weights * excess)) + squares
        place = int(change.argmin())
        if change[place] >= -_LEAST_GAIN:
            return
        side[place] = 1 - side[place]


def subset_of_several(labels: Labels, limit: int, seed: int) -> Rows:
    """Choose images of several labels so that the classes, and images of none, are as even as they can be.

    One after the other, an image of the class that the chosen ones have least of; so a smaller limit chooses a part of
    what a larger one does.

    Args:
        labels: Labels, int64 [N, C].
        limit: Images wanted, at most N.
        seed: Fixes the choice.

    Returns:
        Sorted int64 [limit].
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    wanted = _with_none(labels)
    queues = [order[wanted[order, column] == 1].tolist()[::-1] for column in range(wanted.shape[1])]
    counts, is_chosen = np.zeros(wanted.shape[1]), np.zeros(len(labels), dtype=bool)
    for _ in range(limit):
        place = -1
        while place < 0 or is_chosen[place]:
            fewest = int(counts.argmin())
            if queues[fewest]:
                place = queues[fewest].pop()
            else:
                counts[fewest] = np.inf
        is_chosen[place] = True
        counts += wanted[place]
    return np.flatnonzero(is_chosen)


def _with_none(labels: Labels) -> Labels:
    """Return labels with a column for images that have none, int64 [N, C + 1]."""
    return np.concatenate([labels, (labels.sum(axis=1, keepdims=True) == 0).astype(np.int64)], axis=1)
