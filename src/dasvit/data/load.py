"""`load_data`: from a configuration to images that are ready to be read."""

from __future__ import annotations

import os

import numpy as np

from dasvit.config import DataConfig
from dasvit.data.cache import Prepared, fingerprint, obtain
from dasvit.data.decode import square_side
from dasvit.data.image_set import Data
from dasvit.data.listing import Content, Part, Source
from dasvit.data.sources import cache_folder, find_source
from dasvit.data.splits import balanced_subset, split_indices
from dasvit.errors import UserError
from dasvit.io.main_guard import end_second_run


def load_data(config: DataConfig, image_size: int, seed: int) -> Data:
    """Find a data set, split and limit it, and open it decoded from the cache.

    Args:
        config: Where the images come from.
        image_size: Side of the network's input. Larger images are cached at 8/7 of it.
        seed: Fixes which images are held out and which a limit chooses.

    Raises:
        UserError: The data set is unknown, not there, or not as it should be.
    """
    end_second_run()
    source = find_source(config)
    facts = _facts(config, source, image_size, seed)
    name = fingerprint(source.files, facts)
    folder = cache_folder(config) / f"{config.name}-{name}"
    cached = obtain(
        folder,
        lambda: prepare(source.read(), config, seed),
        image_size,
        config.on_error,
        lambda: fingerprint(source.files, facts) == name,
    )
    for part, images in cached.sets.items():
        if not len(images):
            raise UserError(f"none of the images for {part} in {config.path or config.name} can be read.")
    return Data(
        train=cached.sets["train"],
        test=cached.sets["test"],
        classes=cached.classes,
        fingerprint=name,
        crop_pct=cached.plan.crop_pct(image_size),
        skipped=cached.skipped,
    )


def _facts(config: DataConfig, source: Source, image_size: int, seed: int) -> dict[str, object]:
    """Return what the decoded images depend on besides the files."""
    chosen = config.limit or config.eval_limit or not source.has_test
    return {
        "name": config.name,
        "path": os.path.abspath(os.path.expanduser(config.path)) if source.files else "",
        "identity": source.identity,
        "limits": [config.limit, config.eval_limit],
        "held_out": 0 if source.has_test else config.val_fraction,
        "seed": seed if chosen else None,
        "on_error": config.on_error,
        "side": square_side(image_size),
    }


def prepare(content: Content, config: DataConfig, seed: int) -> Prepared:
    """Check the labels, hold out test images where the source has none, and apply the limits."""
    where = config.path or config.name
    for part in (content.train, content.test):
        if part is not None:
            _check_labels(part, content.classes, where)
    train, test = content.train, content.test
    if test is None:
        kept, held_out = split_indices(train.labels, config.val_fraction, seed)
        train, test = train.select(kept), train.select(held_out)
    return Prepared(
        content.classes,
        train.select(balanced_subset(train.labels, config.limit, seed, "limit")),
        test.select(balanced_subset(test.labels, config.eval_limit, seed, "eval_limit")),
    )


def _check_labels(part: Part, classes: tuple[str, ...], where: str) -> None:
    wrong = np.flatnonzero((part.labels < 0) | (part.labels >= len(classes)))
    if len(wrong):
        raise UserError(
            f"an image of {where} has the label {part.labels[wrong[0]]}, but there are {len(classes)} "
            f"classes, numbered from 0: correct the labels ({len(wrong)} are out of range)."
        )
