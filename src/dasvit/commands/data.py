"""`dasvit data`: how a folder of images is understood, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dasvit.commands.common import print_json
from dasvit.commands.options import DataOptions
from dasvit.config import Config, DataConfig
from dasvit.config.implied import with_implied_name
from dasvit.data.inspection import Inspection, inspect_data
from dasvit.errors import listed, printable

_SHOWN = 5  # sizes, modes and names that are printed


def data_command(options: DataOptions, config: Config) -> None:
    """`dasvit data`: one screen, or all of it as JSON."""
    given = {"data.path"} | ({"data.name"} if config.data.name != DataConfig().name else set())
    data = with_implied_name(replace(config.data, path=options.folder), given)
    found = inspect_data(data, config.runtime.seed)
    if options.json:
        print_json(described(found))
        return
    for line in lines(found):
        print(printable(line))


def lines(found: Inspection) -> list[str]:
    """Return what is printed."""
    said = found.understood.lines(found.counts)
    said.append(f"sizes: {_counted({f'{width}×{height}': count for (width, height), count in found.sizes.items()})}")
    said.append(f"modes: {_counted(found.modes)}")
    if found.broken:
        said.append(f"broken: {len(found.broken):,} images cannot be read ({listed(found.broken, _SHOWN)})")
    if found.alike:
        images = sum(map(len, found.alike))
        pair = " ~ ".join(name for _, name in found.alike[0][:2])
        said.append(
            f"alike: {images:,} images in {len(found.alike):,} groups have the same average hash, "
            f"{found.alike_across:,} of the groups across train and test ({pair})"
        )
    return said


def described(found: Inspection) -> dict[str, Any]:
    """Return it as JSON holds it."""
    understood = found.understood
    parts = {part: {"from": whence, "by_class": found.counts[part]} for part, whence in understood.parts.items()}
    return {
        **parts,
        "labels": understood.labels,
        "left_out": understood.left_out.to_list(),
        "remarks": list(understood.remarks),
        "sizes": [{"width": width, "height": height, "count": count} for (width, height), count in found.sizes.items()],
        "modes": dict(found.modes),
        "broken": [printable(name) for name in found.broken],
        "alike": [[{"part": part, "image": printable(name)} for part, name in group] for group in found.alike],
    }


def _counted(counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({count:,})" for name, count in list(counts.items())[:_SHOWN]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")
