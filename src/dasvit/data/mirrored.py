"""Classes that are each other's mirror images: what horizontal flips would teach a network to confuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dasvit.config import Config
from dasvit.data.image_set import Data, ImageSet
from dasvit.data.multilabel import has_several

SIDE, PATCH, STRIDE, PATCHES, CELLS = 32, 6, 2, 64, 8
"""Side of the grey images; side, step and number of the patches they are held against; side of the coarse picture."""
LEAST, MOST = 20, 200
"""Images of a class that are needed, and that are looked at."""
MOST_IMAGES, MOST_CLASSES = 1000, 50
FOLDS, RIDGE = 4, 1.0
SHARE, DEVIATIONS = 0.65, 4.0
"""What share of the images must change sides when flipped, and by how many standard deviations more than half."""

_NAMED = 5  # pairs that a remark names


def flips_of(config: Config, searching: bool) -> dict[str, float]:
    """Return the options by which a run flips training images, and their probabilities."""
    found = {"train.augment.flip": config.train.augment.flip}
    if searching:
        found = {"search.augment.flip": config.search.augment.flip, **found}
    return {name: share for name, share in found.items() if share}


def with_mirrored(data: Data, flips: Mapping[str, float]) -> Data:
    """Return data with a remark where flips make classes of each other."""
    remarks = mirrored_remarks(data.train, data.classes, [*flips]) if flips else ()
    return replace(data, understood=replace(data.understood, remarks=(*data.understood.remarks, *remarks)))


def mirrored_remarks(images: ImageSet, classes: Sequence[str], flips: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence where flips make classes of each other.

    Args:
        images: The training images.
        classes: Names of the classes, by label.
        flips: Options by which images are flipped.
    """
    pairs = mirrored_classes(images, len(classes))
    if not pairs:
        return ()
    named = "; ".join(f"{classes[one]} and {classes[other]}" for one, other in pairs[:_NAMED])
    return (
        f"flipped left to right, images of {named}{'; …' * (len(pairs) > _NAMED)} look like one another: flips take "
        f"away what tells them apart, so give {' '.join(f'--{name} 0' for name in flips)}",
    )


def mirrored_classes(images: ImageSet, classes: int, seed: int = 0) -> list[tuple[int, int]]:
    """Return the pairs of classes, flipped images of which look like the other class.

    A ridge classifier on responses to random patches of the images (Coates, Lee and Ng 2011, "An analysis of
    single-layer networks"), pooled over quadrants, learns from images as they are, and is asked about others, as they
    are and flipped. Two classes are a pair where it tells most images of either from the other class, and takes most
    of their mirror images for the other class. Photographs show things from both sides: their mirror images stay.

    Args:
        images: The training images; a few thousand at most are read.
        classes: How many classes there are.
        seed: Fixes which images, patches and folds.

    Returns:
        Pairs of labels. None where there are more than MOST_CLASSES, or fewer than LEAST images in either class, or
        images can have several labels.
    """
    generator = np.random.default_rng(seed)
    each = min(MOST, MOST_IMAGES // max(1, classes))
    if classes > MOST_CLASSES or each < LEAST or has_several(images.labels):
        return []
    members = [np.flatnonzero(images.labels == label) for label in range(classes)]
    rows = [np.sort(generator.permutation(rows)[:each]) for rows in members if len(rows) >= LEAST]
    if len(rows) < 2:
        return []
    chosen = np.concatenate(rows)
    labels = images.labels[chosen]
    order = np.argsort(chosen)  # as they lie, which shards are read by
    grey = _grey(images, chosen[order])[np.argsort(order)]
    plain, flipped = _features(grey, generator)
    scores = np.zeros((2, len(labels), classes))
    folds = generator.permutation(len(labels)) % FOLDS
    for fold in range(FOLDS):
        is_asked = folds == fold
        weights, center, scale = _ridge(plain[~is_asked], labels[~is_asked], classes)
        for form, features in enumerate((plain, flipped)):
            scores[form, is_asked] = ((features[is_asked] - center) / scale) @ weights
    present = [int(images.labels[some[0]]) for some in rows]
    return [pair for pair in combinations(present, 2) if _is_mirrored(scores, labels, *pair)]


def _is_mirrored(scores: NDArray[np.float64], labels: NDArray[np.int64], one: int, other: int) -> bool:
    """Tell whether images of two classes are told apart, and change sides when they are flipped."""
    shares = []
    for own, strange in ((one, other), (other, one)):
        is_own = scores[:, labels == own, own] > scores[:, labels == own, strange]
        n = is_own.shape[1]
        shares += [(is_own[0].mean(), n), (1 - is_own[1].mean(), n)]
    return all(share >= SHARE and (share - 0.5) * 2 * n**0.5 >= DEVIATIONS for share, n in shares)


def _grey(images: ImageSet, rows: NDArray[np.int64]) -> Tensor:
    """Return images as grey [n, 1, SIDE, SIDE] of 0 to 1."""
    parts = [torch.from_numpy(images.images[some]) for some in np.array_split(rows, -(-len(rows) // 128))]
    grey = [part.float().mean(dim=3)[:, None] / 255 for part in parts]
    return torch.cat([F.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True) for part in grey])


def _features(grey: Tensor, generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the features of images and of their mirror images, [n, features] each."""
    places = generator.integers((len(grey), SIDE - PATCH + 1, SIDE - PATCH + 1), size=(PATCHES, 3)).tolist()
    patches = torch.stack([grey[i, :, y : y + PATCH, x : x + PATCH] for i, y, x in places])
    patches = patches - patches.mean(dim=(2, 3), keepdim=True)
    patches = patches / patches.flatten(1).norm(dim=1).clamp(min=1e-3).view(-1, 1, 1, 1)
    found = []
    for form in (grey, grey.flip(3)):
        responses = [_pooled(part, patches) for part in form.split(128)]
        found.append(torch.cat(responses).double().numpy())
    return found[0], found[1]


def _pooled(grey: Tensor, patches: Tensor) -> Tensor:
    # A product of matrices: torch's convolution of a single channel takes ten times as long.
    side = (SIDE - PATCH) // STRIDE + 1
    windows = F.unfold(grey, PATCH, stride=STRIDE).transpose(1, 2)
    answer = (windows @ patches.flatten(1).T).transpose(1, 2).unflatten(2, (side, side))
    both = torch.cat([answer.clamp(min=0), (-answer).clamp(min=0)], dim=1)
    return torch.cat([F.adaptive_avg_pool2d(both, 2).flatten(1), F.adaptive_avg_pool2d(grey, CELLS).flatten(1)], dim=1)


def _ridge(
    features: NDArray[np.float64], labels: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights [features, classes] of ridge regression on standardised features, and their mean and scale."""
    center, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    standard = (features - center) / scale
    targets = np.eye(classes)[labels] - np.bincount(labels, minlength=classes) / len(labels)
    penalty = RIDGE * len(labels) * np.eye(features.shape[1]) / 10
    weights = np.linalg.solve(standard.T @ standard + penalty, standard.T @ targets)
    return weights, center, scale
