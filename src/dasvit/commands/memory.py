"""`dasvit memory`: what a search needs, against batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dasvit.commands.common import print_json
from dasvit.commands.options import MemoryOptions
from dasvit.config import Config
from dasvit.config.methods import find_method
from dasvit.config.units import parse_memory
from dasvit.errors import UserError
from dasvit.memory.fits import GIB, count_search, readable
from dasvit.memory.live_bytes import Kind

BATCHES = tuple(2**power for power in range(11))
CARDS = (12, 24, 80)
"""Memory of common GPUs, in GiB."""
CLASSES = 10
"""Classes of the head that is counted: it weighs next to nothing."""


def memory_command(options: MemoryOptions, config: Config) -> None:
    if not find_method(config.search.method).trains_supernet:
        raise UserError(f"the method {config.search.method} trains no supernet, whose memory could be counted.")
    stem, kind = figure_stem(options.out), kind_of(config)
    limits = {f"{card} GB": card * GIB for card in CARDS}
    if options.fits:
        limits = {options.fits: parse_memory(options.fits, "--fits")}
    counted = count_search(config, CLASSES, kind, searched_alone=bool(options.fits))
    result = counted.to_dict(BATCHES, limits)
    if not options.fits:
        from dasvit.report.drawing.memory import draw_memory  # matplotlib is slow to import

        for place, size in counted.measured().items():
            result["networks"][place]["measured_bytes"] = size
        result["figures"] = [str(file) for file in draw_memory(result, BATCHES, CARDS, stem)] if stem else []
    if options.json:
        print_json(result)
    elif options.fits:
        print(answer(result, *limits))
    else:
        print_all(result)


def print_all(result: dict[str, Any]) -> None:
    """Print the table, the largest batches and the names of the figures."""
    about = f"{result['device']}, {result['precision']}, width {result['width']}, {result['tokens']} tokens"
    caption = "columns: layers × operations of every stage; last rows: the largest batch that fits, a tenth left free"
    table = Table("batch", title=f"peak memory of a search step in GiB: {about}", caption=caption)
    rows = result["networks"]
    for row in rows:
        short = row["network"].removeprefix("DASViT, ").removesuffix(" DARTS")
        table.add_column(f"{row['layers']}×{row['operations']}\n{short}", justify="right")
    for size in BATCHES:
        table.add_row(str(size), *(gib(row["peak_bytes"][str(size)]) for row in rows))
    table.add_section()
    for name in result["largest_batch"]:
        table.add_row(name, *(str(row["largest_batch"][name]) for row in rows))
    if any("measured_bytes" in row for row in rows):
        table.add_section()
        size = result["batch_size"]
        table.add_row(f"{size}, counted", *(gib(row["peak_bytes"][str(size)]) for row in rows))
        table.add_row("measured", *(gib(row["measured_bytes"]) if "measured_bytes" in row else "" for row in rows))
    Console().print(table)
    for name in result["largest_batch"]:
        print(answer(result, name))
    if result["figures"]:
        print(f"Figure: {' and '.join(result['figures'])}")


def gib(size: int) -> str:
    """Return bytes as GiB for the table, in few characters."""
    return f"{size / GIB:.1f}" if size < 100 * GIB else f"{size / GIB:.0f}"


def answer(result: dict[str, Any], name: str) -> str:
    """Return in a line what batch fits a card."""
    batch = result["largest_batch"][name]
    fits = f"a batch of {batch:,} fits" if batch else "not even a batch of one fits"
    own = f"the recipe's {result['batch_size']} takes {readable(result['peak_bytes'])}"
    return f"{name}: {fits} all stages at ρ {result['ratio']:g}, a tenth left free; {own}."


def kind_of(config: Config) -> Kind:
    """Return the kind of device that is counted for: a GPU, unless runtime.device says cpu."""
    name = config.runtime.device
    try:
        return "cpu" if name != "auto" and torch.device(name).type == "cpu" else "cuda"
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: give auto, cpu or cuda (runtime.device).") from None


def figure_stem(out: str) -> Path | None:
    """Return where the figures go, without the ending; none for an empty text."""
    if not out:
        return None
    path = Path(out)
    if path.suffix not in ("", ".png", ".svg"):
        raise UserError(f"--out ends in .png or .svg (both are written), not in {path.suffix}.")
    return path.with_suffix("")
