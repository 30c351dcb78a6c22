"""Which values of a recipe work, alone and together."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Any

from dasvit.config.fields import Config, SpaceConfig, StagesConfig
from dasvit.config.limits import MAX_PATCHES, MAX_SIZES, MIN_TEMPERATURE
from dasvit.config.methods import check_method, find_method
from dasvit.config.ranges import RANGE
from dasvit.config.units import parse_time, parse_window
from dasvit.errors import UserError, unknown

RELAXATION_NAMES = ("softmax", "sigmoid", "gumbel_softmax")
"""The names of `search.architecture.RELAXATIONS`, known here without torch."""
ImageSize = int | tuple[int, int]
"""Height and width in pixels, or the side of a square."""


def validate(config: Config, searching: bool = True) -> None:
    """Raise a UserError where fields have values that cannot work, alone or together.

    Args:
        config: What to check.
        searching: Whether a search is to come; a training of a given cell is free in its width.
    """
    check_numbers(config)
    find_method(config.search.method)
    if config.search.relaxation not in RELAXATION_NAMES:
        raise unknown("relaxation", config.search.relaxation, RELAXATION_NAMES)
    parse_time(config.search.derive.max_latency, "search.derive.max_latency")
    parse_window(config.data.window, "data.window")
    _check_images(config)
    if searching:
        _check_supernet(config)
    _check_space(config.space)
    _check_sizes(config, searching)
    _check_search(config)


SIZE_LISTS = ("widths", "depths", "patches", "stems", "pools")
"""Fields of the section space that list sizes of a network."""


def has_sizes(space: SpaceConfig) -> bool:
    """Tell whether a search looks for sizes beside the cell."""
    return any(getattr(space, name) for name in SIZE_LISTS)


def _check_sizes(config: Config, searching: bool) -> None:
    """Check the sizes that a search looks for."""
    space, model = config.space, config.model
    if searching and space.cell and find_method(config.search.method).finals != "always":
        raise UserError("space.cell vit leaves no cell to search, only heads and sizes: take --method finals.")
    if not has_sizes(space):
        return
    lists = {name: getattr(space, name) for name in SIZE_LISTS}
    for name, values in lists.items():
        if len(set(values)) != len(values):
            raise UserError(f"space.{name} names one twice: {values}.")
        if any(isinstance(value, int) and value < 1 for value in values):
            raise UserError(f"space.{name} must all be at least 1, not {values}.")
    if (count := math.prod(len(values) or 1 for values in lists.values())) > MAX_SIZES:
        raise UserError(f"space lists {count:,} combinations of sizes, more than {MAX_SIZES}: shorten its lists.")
    for patch in space.patches:
        if model.image_size % patch or (model.image_size // patch) ** 2 > MAX_PATCHES:
            raise UserError(
                f"space.patches has {patch}, but an image of {model.image_size} pixels is not divisible into at most "
                f"{MAX_PATCHES:,} such patches: leave it out, or change model.image_size."
            )
    if searching and not config.search.finals.cells:
        raise UserError(
            "sizes (space.widths and the like) are searched by candidates, and this search has none: take --method "
            "finals, or --search.finals.cells 24, say."
        )


def _check_images(config: Config) -> None:
    """Refuse augmentations and sizes that do not fit, and what no machine could hold, before anything tries to."""
    model, search = config.model, config.search
    if search.augment.mixup or search.augment.cutmix:
        raise UserError("search.augment.mixup and cutmix are for train.augment: the search's losses take whole labels.")
    for section, augment in (("search", search.augment), ("train", config.train.augment)):
        if augment.crop_padding > model.image_size:
            raise UserError(
                f"{section}.augment.crop_padding must be at most {model.image_size:,}, not {augment.crop_padding:,}."
            )
    patches = (model.image_size // model.patch_size) ** 2
    if patches > MAX_PATCHES:
        raise UserError(
            f"an image of {model.image_size} pixels in patches of {model.patch_size} has {patches:,} of them, more "
            f"than {MAX_PATCHES:,}: lower model.image_size or raise model.patch_size."
        )
    if model.image_size % model.patch_size:
        raise UserError(
            f"an image of {model.image_size} pixels is not divisible into patches of {model.patch_size}: "
            "change model.image_size or model.patch_size."
        )
    check_stem(model.stem, model.patch_size)
    if config.train.patience and config.train.monitor == "last":
        raise UserError("train.patience waits for what train.monitor looks at: give train.monitor macro_f1, say.")
    if not config.space.heads:
        raise UserError("space.heads is empty: without attention the class token never sees the image.")


def _check_supernet(config: Config) -> None:
    model, search, heads = config.model, config.search, config.space.heads
    if config.runtime.shard:
        raise UserError(
            "runtime.shard is for training and evaluation: a search keeps all of its weights on every device. "
            "Leave it out here, and give it to dasvit train."
        )
    widths = [("model.width", model.width), ("search.width", search.width or model.width)]
    if has_sizes(config.space) and not find_method(search.method).trains_supernet:
        widths = []  # the widths of space are the candidates', each with the heads that divide it
    for name, width in widths:
        for count in heads:
            if count < 1 or width % count:
                raise UserError(
                    f"{name} {width} is not divisible by {count} attention heads: change {name} or space.heads."
                )
    check_method(search, search.width or model.width, heads)


def _check_space(space: SpaceConfig) -> None:
    hidden = (("space.ratios", space.ratios), ("space.shifts", space.shifts), ("space.convs", space.convs))
    for name, values in hidden:
        if any(not ratio > 0 for ratio in values):
            raise UserError(f"{name} must all be positive, not {values}.")
    for name, values in (("space.heads", list(map(float, space.heads))), *hidden):
        if len(set(values)) != len(values):
            raise UserError(f"{name} names an operation twice: {values}.")


def _check_search(config: Config) -> None:
    search, space = config.search, config.space
    if not search.p_darts.dropout or not all(0 <= rate < 1 for rate in search.p_darts.dropout):
        raise UserError(f"search.p_darts.dropout needs rates in [0, 1), not {search.p_darts.dropout}.")
    if not 0 < search.val_fraction < 1 or not 0 < config.data.val_fraction < 1:
        raise UserError("search.val_fraction and data.val_fraction must lie between 0 and 1.")
    if min(search.temperature, search.final_temperature) < MIN_TEMPERATURE:
        raise UserError(
            f"search.temperature and search.final_temperature must be at least {MIN_TEMPERATURE:g}: below that the "
            "weights of an edge are 1 and 0, and no gradient is left."
        )
    numbers = (*space.heads, *space.ratios, *space.shifts, *space.convs)
    _check_stages(search.stages, 2 + len(numbers) + len(space.extra))
    _check_rungs(search.finals.rungs)


def _check_rungs(rungs: list[float]) -> None:
    """Check the rungs of finals."""
    if not rungs or rungs[0] <= 0 or any(after <= before for before, after in pairwise(rungs)):
        raise UserError(f"search.finals.rungs needs epochs above 0 that rise, as [0.5, 1, 4], not {rungs}.")
    if rungs[-1] != int(rungs[-1]):
        raise UserError(f"the last of search.finals.rungs must be whole epochs, not {rungs[-1]:g}.")


def check_numbers(section: Any, prefix: str = "") -> None:
    """Raise a UserError for a field that is empty, infinite, no number or out of the range that stands at it."""
    for field in dataclasses.fields(section):
        name, value = prefix + field.name, getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            check_numbers(value, f"{name}.")
            continue
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item is None:
                raise UserError(f"{name} is null: give it a value, or leave it out.")
            if isinstance(item, float) and not math.isfinite(item):
                raise UserError(f"{name} must be a finite number, not {item}.")
        if RANGE in field.metadata:
            field.metadata[RANGE].check(name, value)


def _check_stages(stages: StagesConfig, operations: int) -> None:
    columns = (stages.layers, stages.keep, stages.epochs, stages.weight_epochs)
    if len({len(column) for column in columns}) > 1 or not stages.layers:
        raise UserError(
            "search.stages.layers, keep, epochs and weight_epochs need an entry a stage each, but have "
            f"{', '.join(str(len(column)) for column in columns)}."
        )
    for number, stage in enumerate(stages, start=1):
        if stage.layers < 1 or stage.epochs < 1 or stage.keep < 0 or stage.weight_epochs < 0:
            raise UserError(f"stage {number} of search.stages has a value that is too small: {stage}.")
        if stage.weight_epochs >= stage.epochs:
            raise UserError(
                f"stage {number} of search.stages trains weights alone in all of its {stage.epochs} epochs, so its "
                "alphas would never move: lower its weight_epochs or raise its epochs."
            )
    if 0 < stages.keep[0] < operations:
        raise UserError(
            f"search.stages.keep starts with {stages.keep[0]}, but before the first stage no operation is the stronger "
            f"one: start with 0 (all {operations})."
        )


def size_pair(size: ImageSize | list[int]) -> tuple[int, int]:
    """Return (height, width) of a size that may be given as the side of a square."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def check_stem(stem: str, patch_size: int) -> None:
    """Check that a stem can make tokens of patches of that side.

    Raises:
        UserError: Its convolutions, each of which halves the image, do not.
    """
    if stem != "patch" and (patch_size < 2 or patch_size & (patch_size - 1)):
        raise UserError(
            f"a convolutional stem halves the image until a patch is a pixel: patches of {patch_size} pixels are none "
            "of 2, 4, 8, 16 and so on. Change the patch size, or take the stem patch."
        )


def check_patches(image_size: ImageSize, patch_size: ImageSize) -> None:
    """Check that whole patches cover the image.

    Raises:
        UserError: They do not.
    """
    image, patch = size_pair(image_size), size_pair(patch_size)
    if min(patch) < 1 or any(side < step or side % step for side, step in zip(image, patch, strict=True)):
        raise UserError(
            f"an image of {image[0]} × {image[1]} pixels cannot be cut into patches of "
            f"{patch[0]} × {patch[1]}: choose a patch size that divides the image size."
        )
