"""`data.stream`: a source's images as they lie in their shards, in place of a cache of decoded ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dasvit.config import DataConfig
from dasvit.data.cache import Cached, Prepared
from dasvit.data.decode import open_header
from dasvit.data.decoding import MixedSizes, Plan, holds_deep, plans
from dasvit.data.image_set import ImageSet, LazyPixels
from dasvit.data.listing import Records, spread_rows
from dasvit.data.parquet import ParquetRecords
from dasvit.data.shards import RowGroups, Shards, Spans
from dasvit.data.view import View, measure_window
from dasvit.errors import UserError

_LOOKED_AT = 64  # images, spread over a part, whose sizes and depths stand for all


def stream(prepared: Prepared, config: DataConfig, image_size: int) -> Cached:
    """Open a source's images where they lie; labels alone are in memory.

    A few images are looked at: whether all have one small size, and whether they have more than 8 bits.

    Args:
        prepared: The source, split.
        config: Where the images come from.
        image_size: Side of the network's input.

    Raises:
        UserError: They do not lie in shards.
    """
    shards = {name: _shards(part.records, config.shuffle_buffer) for name, part in prepared.parts.items()}
    some = [found.select(spread_rows(len(found), _LOOKED_AT)) for found in shards.values()]
    view = View.of(config)
    if view.window == "auto":
        deep = any(map(holds_deep, some))
        view = replace(view, window=measure_window(next(iter(shards.values()))) if deep else "full")
    plan = _plan(some, image_size, view)
    sets = {
        name: ImageSet(
            LazyPixels(shards[name], plan.side, plan.view),
            part.labels,
            part.group_numbers(),
            shards[name].chunks,
            config.shuffle_buffer,
        )
        for name, part in prepared.parts.items()
    }
    return Cached(prepared.classes, sets, plan, (), prepared.remarks, None, None, tuple(shards["test"].names()))


def _shards(records: Records, window: int) -> Shards:
    if isinstance(records, Spans):
        return records
    if isinstance(records, ParquetRecords):
        return RowGroups(records.files, records.column, records.rows, 2 * window)
    raise UserError("data.stream reads parquet files and webdataset's tar files: leave it out for other images.")


def _plan(some: Sequence[Records], image_size: int, view: View) -> Plan:
    """Return the first plan that takes the images looked at."""
    for plan in plans(some, image_size, False, view):
        try:
            for records in some:
                for name, encoded in records:
                    assert isinstance(encoded, bytes)
                    with open_header(encoded, name) as image:
                        plan.check(image.size)
            return plan
        except MixedSizes:
            continue
    raise AssertionError("the last plan takes images of every size")
