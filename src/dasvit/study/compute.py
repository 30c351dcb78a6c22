"""What searches spend: the images that they train on, and the seconds of the cores that do it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dasvit.config import Config
from dasvit.config.methods import find_method

SECOND_ORDER = 4
"""Passes of an alpha step of second order: the validation images, and the training images three times."""
Row = Mapping[str, Any]
"""An epoch's line of `metrics.jsonl`."""


def images_for_weights(config: Config, images: int) -> int:
    """Return how many training images a search learns weights from; the others are for alpha and for choosing."""
    return images - math.ceil(config.search.val_fraction * images)


def planned_images(config: Config, half: int) -> int:
    """Return how many images a search trains on if it ends no stage early: see `spent_images`.

    Args:
        config: The search's recipe.
        half: Images for the weights (`images_for_weights`).
    """
    search, total = config.search, finals_images(config, half)
    method = find_method(search.method)
    if not method.trains_supernet and method.finds == "cell":
        return total
    for stage in search.stages:
        alone = stage.epochs if not method.learns_alphas else min(stage.weight_epochs, stage.epochs)
        total += epoch_images(config, half, False) * alone + epoch_images(config, half, True) * (stage.epochs - alone)
    return total


def spent_images(config: Config, half: int, supernet: Sequence[Row], finals: Sequence[float]) -> int:
    """Return how many images a search has trained on: every forward and backward pass of an image counts once.

    Weight steps and alpha steps of the supernet, and its candidates' trainings. An image costs more in a supernet than
    in a candidate, which core-seconds show. Images that are only judged do not count.

    Args:
        config: The search's recipe.
        half: Images for the weights.
        supernet: The epochs of the supernet.
        finals: Epochs that each candidate was trained for.
    """
    total = sum(epoch_images(config, half, "val_loss" in row) for row in supernet)
    return total + round(sum(finals) * final_images(config, half))


def epoch_images(config: Config, half: int, moves_alphas: bool) -> int:
    """Return the images of an epoch of the supernet; an alpha step has as many as a weight step, or four times them."""
    search = config.search
    passes = 1 + moves_alphas * (1 if search.order == 1 else SECOND_ORDER)
    return half // search.batch_size * search.batch_size * passes


def final_images(config: Config, half: int) -> int:
    """Return the images of an epoch of a candidate."""
    batch = min(config.train.batch_size, half)
    return half // batch * batch


def finals_images(config: Config, half: int) -> int:
    finals = config.search.finals
    lengths = [after - before for before, after in zip([0.0, *finals.rungs], finals.rungs, strict=False)]
    epochs = sum(size * length for size, length in zip(finals.sizes(), lengths, strict=True))
    return round(epochs * final_images(config, half))


def matched_finalists(config: Config, half: int) -> int:
    """Return how many candidates train on about as many images as a search that has none: one or more."""
    images, cells = planned_images(config, half), 1

    def needed(cells: int) -> int:
        finals = replace(config.search.finals, cells=cells)
        return finals_images(replace(config, search=replace(config.search, finals=finals)), half)

    while needed(cells + 1) - images <= images - needed(cells):
        cells += 1
    return cells
