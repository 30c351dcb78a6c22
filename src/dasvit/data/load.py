"""`load_data`: from a configuration to images that are ready to be read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dasvit.config import DataConfig
from dasvit.data.cache import Cached, Prepared, fingerprint, obtain, open_or_none
from dasvit.data.copies import say_copies
from dasvit.data.groups import say_groups, with_groups
from dasvit.data.image_set import Data, ImageSet
from dasvit.data.listing import Content, Part, Source, spread_rows
from dasvit.data.multilabel import class_counts, has_several
from dasvit.data.sources import cache_folder, find_source
from dasvit.data.splits import balanced_subset, split_indices
from dasvit.data.streaming import stream
from dasvit.data.understanding import Understanding
from dasvit.data.view import PLAIN, View
from dasvit.errors import UserError, listed, printable
from dasvit.io.main_guard import end_second_run

_LOOKED_AT = 64  # images whose levels are looked at
_TAIL = 0.001  # share of the levels at either end that does not count
_NARROW = 64  # levels of 256 below which a remark is made
Check = Callable[[NDArray[np.int64], Sequence[str]], None]
"""Is told the labels of the training images, int64 [N] or [N, C], and the classes, and refuses what cannot be."""


def load_data(
    config: DataConfig, image_size: int, seed: int, judged: Sequence[str] | None = None, check: Check | None = None
) -> Data:
    """Find a data set, split and limit it, and open it decoded from the cache.

    Args:
        config: Where the images come from.
        image_size: Side of the network's input. Larger images are cached at 8/7 of it.
        seed: Fixes which images are held out and which a limit chooses.
        judged: Classes of a model that is to be evaluated on other images than its own. Then test images alone are
            returned, with these classes: the test split, or all images where there is none; nothing is held out.
        check: Asked before an image is decoded, and of what the cache holds; of judged images it is told their labels.

    Raises:
        UserError: The data set is unknown, not there, not as it should be, or can be understood in two ways.
    """
    end_second_run()
    source = find_source(config, judged is not None)
    name, cached = (_streamed if config.stream else _obtain)(config, source, image_size, seed, judged, check)
    if set(cached.sets) != ({"train", "test"} if judged is None else {"test"}):
        raise UserError(
            f"the cached images {config.name}-{name} are not those that they should be: `dasvit cache --clean` removes "
            "them."
        )
    for part, images in cached.sets.items():
        if not len(images):
            raise UserError(f"none of the images for {part} in {config.path or config.name} can be read.")
    if check:
        check(cached.sets["test" if judged is not None else "train"].labels, cached.classes)
    test = cached.sets["test"]
    understood = replace(
        source.understood,
        parts=_parts(config, source, seed, judged),
        remarks=source.understood.remarks + cached.remarks + _say_range(cached.sets),
    )
    return Data(
        train=test.select(np.empty(0, dtype=np.int64)) if judged is not None else cached.sets["train"],
        test=test,
        classes=cached.classes,
        fingerprint=name,
        crop_pct=cached.plan.crop_pct(image_size),
        skipped=cached.skipped,
        understood=understood,
        view=replace(cached.plan.view, window="full") if cached.deep is False else cached.plan.view,
        enlarged=cached.plan.native and cached.plan.side < image_size,
        held_out=cached.names if judged is None and not source.has_test else (),
        seen=cached.seen,
        disk=sum(math.prod(images.images.shape) for images in cached.sets.values() if images.is_stored),
        oblong=None if cached.oblong is None else cached.oblong / max(1, sum(map(len, cached.sets.values()))),
    )


def _obtain(
    config: DataConfig, source: Source, image_size: int, seed: int, judged: Sequence[str] | None, check: Check | None
) -> tuple[str, Cached]:
    """Return the images of a source from the cache, with their fingerprint."""
    view = View.of(config)
    facts = _facts(config, source, image_size, seed, judged)
    if view.window != "auto":
        # A window changes nothing where all images have 8 bits: they are cached once.
        plain = fingerprint(source.files, facts)
        folder = cache_folder(config) / f"{config.name}-{plain}"
        cached = open_or_none(folder)
        if cached is not None and cached.deep is False:
            return plain, cached
        facts["window"] = config.window
    name = fingerprint(source.files, facts)
    folder = cache_folder(config) / f"{config.name}-{name}"
    cached = obtain(
        folder,
        lambda: _checked(prepare(source.read(), config, seed, judged), check),
        image_size,
        view,
        config.on_error,
        lambda: fingerprint(source.files, facts) == name,
    )
    return name, cached


def _streamed(
    config: DataConfig, source: Source, image_size: int, seed: int, judged: Sequence[str] | None, check: Check | None
) -> tuple[str, Cached]:
    """Return the images of a source as they lie in their shards, with their fingerprint."""
    if config.on_error == "skip":
        raise UserError("data.on_error skip looks at all images beforehand, data.stream does not: leave out one.")
    facts = {**_facts(config, source, image_size, seed, judged), "stream": True, "window": config.window}
    prepared = _checked(prepare(source.read(), config, seed, judged), check)
    return fingerprint(source.files, facts), stream(prepared, config, image_size)


def _checked(prepared: Prepared, check: Check | None) -> Prepared:
    if check:
        check(prepared.parts["train" if "train" in prepared.parts else "test"].labels, prepared.classes)
    return prepared


def read_data(config: DataConfig, seed: int) -> tuple[Prepared, Understanding, bool]:
    """Find a data set and split it as `load_data` does, without decoding it; tell whether it has its own test images.

    Raises:
        UserError: As `load_data`, but for broken images.
    """
    source = find_source(config)
    prepared = prepare(source.read(), config, seed)
    remarks = source.understood.remarks + prepared.remarks
    return (
        prepared,
        replace(source.understood, parts=_parts(config, source, seed, None), remarks=remarks),
        source.has_test,
    )


def _say_range(sets: Mapping[str, ImageSet]) -> tuple[str, ...]:
    """Return a remark where the images use a small part of the levels from black to white."""
    images = next(iter(sets.values()))
    rows = spread_rows(len(images), _LOOKED_AT)
    counts = np.bincount(images.images[rows].ravel(), minlength=256)
    low, high = np.searchsorted(np.cumsum(counts) / counts.sum(), [_TAIL, 1 - _TAIL])
    if high - low >= _NARROW:
        return ()
    return (
        f"the images use the levels {low} to {high} of 0 to 255 alone: of images of more than 8 bits another "
        "--data.window LOW,HIGH may show more; others are to be converted so that they use all of it",
    )


def test_names(config: DataConfig, data: Data, seed: int, judged: Sequence[str] | None = None) -> list[str]:
    """Return the names of the test images of loaded data: their files', below the data's path, or their numbers.

    Their numbers also where the source is not any more what was loaded.

    Args:
        config: Where the images come from.
        data: What `load_data` gave.
        seed: As for `load_data`.
        judged: As for `load_data`.
    """
    numbers = [f"number {row}" for row in range(len(data.test))]
    try:
        content = find_source(config, judged is not None).read()
        part = _test_part(content, config, seed, judged)
        broken = set(data.skipped)
        names = [name for name in part.records.names() if name not in broken]
    except UserError:
        return numbers
    folder = os.path.join(os.path.abspath(os.path.expanduser(config.path)), "")
    return [name.removeprefix(folder) for name in names] if len(names) == len(numbers) else numbers


def _test_part(content: Content, config: DataConfig, seed: int, judged: Sequence[str] | None) -> Part:
    """Return the test images as `prepare` splits and limits them."""
    where = config.path or config.name
    if judged is None:
        _, part = _both(with_groups(content, config), config, seed, where)
    else:
        found = content.test or content.train
        assert found is not None
        part = _judged(found, content.classes, judged, where, [])
    return part.select(balanced_subset(part.labels, config.eval_limit, seed, "eval_limit"))


def _facts(
    config: DataConfig, source: Source, image_size: int, seed: int, judged: Sequence[str] | None
) -> dict[str, object]:
    """Return what the decoded images depend on besides the files."""
    holds_out = judged is None and not source.has_test
    chosen = config.limit or config.eval_limit or holds_out
    return {
        "name": config.name,
        "path": os.path.abspath(os.path.expanduser(config.path)) if source.files else "",
        "identity": source.identity,
        "limits": [config.limit, config.eval_limit],
        "held_out": config.val_fraction if holds_out else 0,
        "seed": seed if chosen else None,
        "on_error": config.on_error,
        "side": PLAIN.side(image_size),
        "judged": judged if judged is None else list(judged),
        **({} if config.fit == "crop" else {"fit": config.fit}),
        **({} if not (config.groups or config.group_column) else {"groups": [config.groups, config.group_column]}),
    }


def _parts(config: DataConfig, source: Source, seed: int, judged: Sequence[str] | None) -> dict[str, str]:
    """Say what the parts are made of."""
    said = {part: source.understood.parts.get(part, config.name) for part in ("train", "test")}
    if judged is not None:
        said = {"test": said["test"] if source.has_test else f"all of {said['train']}"}
    elif not source.has_test:
        whole = " in whole groups" if config.groups or config.group_column else ""
        held_out = (
            f"a share of {config.val_fraction:g} of each class of {said['train']}, held out by seed {seed}{whole}"
        )
        said = {"train": f"{said['train']}, without what is held out", "test": held_out}
    for part, limit, option in (("train", config.limit, "limit"), ("test", config.eval_limit, "eval_limit")):
        if limit and part in said:
            said[part] += f", at most {limit:,} of them (data.{option})"
    return said


def prepare(content: Content, config: DataConfig, seed: int, judged: Sequence[str] | None = None) -> Prepared:
    """Check the labels, hold out test images where the source has none, and apply the limits."""
    where = config.path or config.name
    for part in (content.train, content.test):
        if part is not None:
            _check_labels(part, content.classes, where)
    remarks = list(content.remarks)
    if judged is not None:
        found = content.test or content.train
        assert found is not None
        test = _judged(found, content.classes, judged, where, remarks)
        remarks += say_copies({"test": test}, tuple(judged))
        rows = balanced_subset(test.labels, config.eval_limit, seed, "data.eval_limit")
        return Prepared(tuple(judged), {"test": test.select(rows)}, tuple(remarks))
    content = with_groups(content, config)
    train, test = _both(content, config, seed, where)
    remarks += say_groups(train, test)
    remarks += _say_classes(train, test, content.classes) + say_copies({"train": train, "test": test}, content.classes)
    parts = {
        "train": train.select(balanced_subset(train.labels, config.limit, seed, "data.limit")),
        "test": test.select(balanced_subset(test.labels, config.eval_limit, seed, "data.eval_limit")),
    }
    return Prepared(content.classes, parts, tuple(remarks))


def _both(content: Content, config: DataConfig, seed: int, where: str) -> tuple[Part, Part]:
    """Return training and test images.

    Raises:
        UserError: There is nothing to learn from the training images.
    """
    train = content.train
    if train is None:
        raise UserError(f"{where} holds no training images.")
    if has_several(train.labels):
        _check_several(train, content.classes, where)
    elif len(np.unique(train.labels)) == 1:
        only = printable(content.classes[train.labels[0]])
        raise UserError(
            f"all {len(train.labels):,} training images of {where} are of one class, {only}: there is nothing to tell "
            "apart. Give images of two classes or more."
        )
    if content.test is not None:
        return train, content.test
    kept, held_out = split_indices(train.labels, config.val_fraction, seed, content.classes, train.group_numbers())
    return train.select(kept), train.select(held_out)


def _judged(part: Part, classes: Sequence[str], judged: Sequence[str], where: str, remarks: list[str]) -> Part:
    """Return images with the labels that a model has for their classes.

    Raises:
        UserError: It does not know one of them.
    """
    present = np.flatnonzero(class_counts(part.labels, len(classes))).tolist()
    strange = [classes[label] for label in present if classes[label] not in judged]
    if strange:
        raise UserError(
            f"{where} holds images of {listed(strange)}, which the model does not know: its classes are "
            f"{listed(judged)}."
        )
    missing = [name for name in judged if name not in {classes[label] for label in present}]
    if missing:
        remarks.append(f"no image of {listed(missing)}: the model is judged on its other classes alone")
    places = np.array([judged.index(name) if name in judged else -1 for name in classes], dtype=np.int64)
    if has_several(part.labels):
        labels = np.zeros((len(part.labels), len(judged)), dtype=np.int64)
        labels[:, places[present]] = part.labels[:, present]
        return Part(part.records, labels)
    return Part(part.records, places[part.labels])


def _say_classes(train: Part, test: Part, classes: Sequence[str]) -> list[str]:
    """Return remarks on the classes that have hardly an image."""
    counts, tested = class_counts(train.labels, len(classes)), class_counts(test.labels, len(classes))
    found = {
        "no training image of": np.flatnonzero(counts == 0),
        "a single training image of": np.flatnonzero(counts == 1),
        "no test image of": np.flatnonzero((tested == 0) & (counts > 0)),
    }
    return [
        f"{what} {listed([classes[label] for label in labels.tolist()])}"
        for what, labels in found.items()
        if len(labels)
    ]


def _check_several(part: Part, classes: Sequence[str], where: str) -> None:
    """Refuse training images of several labels that differ in none of them."""
    if not len(classes):
        raise UserError(f"none of the images of {where} has a label: there is nothing to learn.")
    if (part.labels == part.labels[:1]).all():
        raise UserError(
            f"all {len(part.labels):,} training images of {where} have the same labels: there is nothing to tell apart."
        )


def _check_labels(part: Part, classes: tuple[str, ...], where: str) -> None:
    if has_several(part.labels):
        return
    wrong = np.flatnonzero((part.labels < 0) | (part.labels >= len(classes)))
    if len(wrong):
        raise UserError(
            f"an image of {where} has the label {part.labels[wrong[0]]}, but there are {len(classes)} "
            f"classes, numbered from 0: correct the labels ({len(wrong)} are out of range)."
        )
