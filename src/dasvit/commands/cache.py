"""`dasvit cache`: the decoded images that are kept, and their removal."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console
from rich.table import Table

from dasvit.commands.common import print_json
from dasvit.commands.options import CacheOptions
from dasvit.config import DataConfig
from dasvit.config.units import parse_age
from dasvit.data.cache_use import Entry, clean_cache, list_cache
from dasvit.data.sources import cache_folder
from dasvit.errors import UserError
from dasvit.report.words import memory


def cache_command(options: CacheOptions) -> None:
    """`dasvit cache`: a table, or what was removed."""
    cache = cache_folder(DataConfig(cache=options.folder))
    if options.older and not options.clean:
        raise UserError("--older says what --clean removes: give both.")
    if not options.clean:
        entries = list_cache(cache)
        if options.json:
            print_json({"cache": str(cache), "entries": [described(entry) for entry in entries]})
            return
        print(f"{cache}: {len(entries)} data sets decoded, {memory(sum(e.size for e in entries) / 2**20)}")
        if entries:
            Console().print(table_of(entries))
            print("Remove them with --clean, those that were not used for a month with --clean --older 30d.")
        return
    done = list(clean_cache(cache, parse_age(options.older, "--older") if options.older else 0.0))
    removed, kept = ([entry for entry, gone in done if gone is which] for which in (True, False))
    if options.json:
        print_json({"removed": [described(e) for e in removed], "in_use": [described(e) for e in kept]})
        return
    print(f"{cache}: removed {len(removed)} data sets, {memory(sum(entry.size for entry in removed) / 2**20)}.")
    for entry in kept:
        print(f"{entry.path.name} is in use, or cannot be removed.")


def table_of(entries: list[Entry]) -> Table:
    """Return the folders as a table."""
    table = Table("data set", "images", "side", "size", "last used", "folder")
    for entry in entries:
        used = f"{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}" if entry.is_finished else "unfinished"
        images, side = (f"{entry.images:,}", f"{entry.side}") if entry.is_finished else ("–", "–")
        table.add_row(entry.name, images, side, memory(entry.size / 2**20), used, entry.path.name)
    return table


def described(entry: Entry) -> dict[str, object]:
    """Return a folder as JSON holds it."""
    numbers = {"images": entry.images, "side": entry.side, "bytes": entry.size, "used": round(entry.used)}
    return {"folder": entry.path.name, "name": entry.name, "finished": entry.is_finished, **numbers}
