"""The figure of memory against batch size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

GIB = 2**30


def draw_memory(counted: Mapping[str, Any], batches: Sequence[int], cards: Sequence[int], path: Path) -> list[Path]:
    """Draw peak memory against batch size, save it as PNG and SVG, and return the files.

    Args:
        counted: What was counted, as `dasvit memory --json` has it.
        batches: Batch sizes; the recipe's own is drawn as a line.
        cards: Memory of GPUs in GiB, drawn as lines.
        path: Where to, without the ending.
    """
    networks, batch = counted["networks"], counted["batch_size"]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row["network"] for row in networks))
    styles = dict(zip(names, (":", "--", "-"), strict=False))
    for row in networks:
        label = f"stage {row['stage']}, {row['layers']} layers, {row['operations']} operations: {row['network']}"
        gibibytes = [row["peak_bytes"][str(size)] / GIB for size in batches]
        axes.plot(batches, gibibytes, styles[row["network"]], color=f"C{row['stage'] - 1}", label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for card in cards:
        axes.axhline(card, color="0.6", linewidth=0.8)
        axes.annotate(f"{card} GB", (batches[0], card), color="0.4", va="bottom", fontsize=8)
    axes.axvline(batch, color="0.6", linewidth=0.8)
    axes.annotate(f"batch {batch}", (batch, 0.02), color="0.4", fontsize=8, xycoords=("data", "axes fraction"))
    axes.set_xticks(batches, [str(value) for value in batches])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("batch size")
    axes.set_ylabel("peak memory of a search step, GiB")
    about = f"width {counted['width']}, {counted['tokens']} tokens, {counted['precision']}, {counted['device']}"
    axes.set_title(about, fontsize=10)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.{ending}") for ending in ("png", "svg")]
    for file in files:
        figure.savefig(file, dpi=150)
    return files
