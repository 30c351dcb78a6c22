"""`dasvit data`: how a folder of images is understood, and what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dasvit.commands.common import print_json
from dasvit.commands.data_page import write_data_page
from dasvit.commands.options import DataOptions
from dasvit.config import Config, DataConfig
from dasvit.config.implied import with_implied_name
from dasvit.config.units import window_text
from dasvit.data.cache import LARGEST
from dasvit.data.inspection import Inspection, inspect_data
from dasvit.data.view import fit_lines, window_lines
from dasvit.errors import listed, printable
from dasvit.io.files import write_whole

_SHOWN = 5  # names that are printed


def data_command(options: DataOptions, config: Config) -> None:
    """`dasvit data`: one screen, or all of it as JSON."""
    plain = asdict(DataConfig())
    given = {"data.path"} | {f"data.{name}" for name, value in asdict(config.data).items() if value != plain[name]}
    data = with_implied_name(replace(config.data, path=options.folder), given)
    found = inspect_data(data, config.runtime.seed)
    size = config.model.image_size
    if options.report:
        write_data_page(Path(options.report), found, lines(found, size), size, options.folder)
    if options.held_out:
        write_whole(Path(options.held_out), lambda file: file.write(names_text(found.held_out).encode()))
    if options.json:
        print_json(described(found, size))
        return
    for line in lines(found, size):
        print(printable(line))
    if options.report:
        print(f"page: {options.report}")


def names_text(names: Sequence[str]) -> str:
    return "".join(f"{printable(name)}\n" for name in names)


def lines(found: Inspection, image_size: int) -> list[str]:
    """Return what is printed."""
    said = found.understood.lines(found.counts) + ([found.labels] if found.labels else [])
    said += found.looks.seen().lines()
    said += fit_lines(found.view.fit, found.oblong) + window_lines(found.view.window)
    if found.held_out:
        said.append(f"held out: {len(found.held_out):,} images ({listed(found.held_out)}; --held-out FILE names all)")
    size = found.disk(image_size)
    kept = "decoded" if size <= LARGEST else "more than are kept decoded: they are decoded in every epoch"
    said.append(f"disk: {size / 1e6:,.0f} MB at model.image_size {image_size} ({kept})")
    if found.broken:
        said.append(f"broken: {len(found.broken):,} images cannot be read ({listed(found.broken, _SHOWN)})")
    return said


def described(found: Inspection, image_size: int) -> dict[str, Any]:
    """Return it as JSON holds it."""
    understood, sizes = found.understood, found.looks.sizes.most_common()
    parts = {part: {"from": whence, "by_class": found.counts[part]} for part, whence in understood.parts.items()}
    return {
        **parts,
        **({"multilabel": dict(found.multilabel)} if found.multilabel else {}),
        "labels": understood.labels,
        "left_out": understood.left_out.to_list(),
        "remarks": list(understood.remarks),
        "sizes": [{"width": width, "height": height, "count": count} for (width, height), count in sizes],
        "modes": dict(found.looks.modes.most_common()),
        "oblong": found.oblong,
        "fit": found.view.fit,
        "window": window_text(found.view.window),
        "held_out": [printable(name) for name in found.held_out],
        "disk": {"image_size": image_size, "bytes": found.disk(image_size)},
        "broken": [printable(name) for name in found.broken],
        "alike": [[{"part": part, "image": printable(name)} for part, name in group] for group in found.looks.alike],
    }
