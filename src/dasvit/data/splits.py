"""Which images belong to which part, balanced over the classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dasvit.data.multilabel import has_several, split_several, subset_of_several
from dasvit.errors import UserError, printable


def split_indices(
    labels: NDArray[np.int64],
    fraction: float,
    seed: int,
    names: Sequence[str] = (),
    groups: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split a set in two, with the same mixture of classes in both.

    Args:
        labels: Class of every image, int64 [N]; or its labels, int64 [N, C] (`multilabel.split_several`).
        fraction: Share of the images in the second part, between 0 and 1.
        seed: Fixes the choice.
        names: Names of the classes, for messages. Empty: their numbers.
        groups: Images of one number stay together, int64 [N]; the share is then as near as whole groups come. None:
            each is by itself.

    Returns:
        Two sorted, disjoint int64 arrays that together hold 0 … N - 1.

    Raises:
        UserError: A class has too few images to stand in both parts.
    """
    # scikit-learn takes a second to import, which the processes that load images should not wait for.
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split

    labels = np.asarray(labels)
    if not 0 < fraction < 1:
        raise UserError(f"the share of images to hold out must lie between 0 and 1, not {fraction}.")
    if has_several(labels):
        return split_several(labels, fraction, seed, groups)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) == 0:
        raise UserError("there are no images to split.")
    too_few = f"to hold out a share of {fraction:g}: add images, or hold out a share nearer to 0.5."
    if counts.min() < 2:
        raise UserError(f"class {_name(classes[counts.argmin()], names)} has a single image, too few {too_few}")
    try:
        if groups is None:
            first, second = train_test_split(
                np.arange(len(labels), dtype=np.int64), test_size=fraction, random_state=seed, stratify=labels
            )
        else:
            smaller = min(fraction, 1 - fraction)
            folds = StratifiedGroupKFold(max(2, round(1 / smaller)), shuffle=True, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # classes of few images: what they lack is said below
                first, second = next(folds.split(labels, labels, groups))
            if fraction > 0.5:
                first, second = second, first
    except ValueError:
        raise UserError(f"{len(labels)} images of {len(classes)} classes are too few {too_few}") from None
    for part in (first, second):
        missing = np.setdiff1d(classes, labels[part])
        if len(missing):
            count = counts[np.searchsorted(classes, missing[0])]
            if groups is not None:
                raise UserError(f"class {_name(missing[0], names)} has its {count} images in too few groups {too_few}")
            raise UserError(f"class {_name(missing[0], names)} has {count} images, too few {too_few}")
    return np.sort(first), np.sort(second)


def _name(label: int, names: Sequence[str]) -> str:
    return printable(names[label]) if label < len(names) else str(label)


def balanced_subset(labels: NDArray[np.int64], limit: int, seed: int, option: str) -> NDArray[np.int64]:
    """Choose images so that the classes are as even as they can be.

    Args:
        labels: Class of every image, int64 [N]; or its labels, int64 [N, C] (`multilabel.subset_of_several`).
        limit: Images wanted; 0 or more than there are means all of them.
        seed: Fixes the choice. A smaller limit chooses a part of what a larger one does.
        option: The option that limit came from, for the message.

    Returns:
        Sorted int64 [min(limit, N)].

    Raises:
        UserError: The limit leaves some class without an image.
    """
    if limit == 0 or limit >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    if has_several(labels):
        return subset_of_several(labels, limit, seed)
    classes = len(np.unique(labels))
    if limit < classes:
        raise UserError(f"--{option} {limit} is less than the number of classes, {classes}: raise it.")
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)  # how many of its class an image has before it
    for label in np.unique(labels):
        members = order[labels[order] == label]
        turn[members] = np.arange(len(members))
    by_turn = order[np.argsort(turn[order], kind="stable")]
    return np.sort(by_turn[:limit]).astype(np.int64)
