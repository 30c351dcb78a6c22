"""The figure of memory against batch size."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

GIB = 2**30


def draw_memory(
    networks: Sequence[Mapping[str, object]],
    peaks: Sequence[Sequence[int]],
    batches: Sequence[int],
    cards: Sequence[int],
    batch: int,
    title: str,
    path: Path,
) -> list[Path]:
    """Draw peak memory against batch size, save it as PNG and SVG, and return the files.

    Args:
        networks: Each with network, stage, layers and operations, as `dasvit memory --json` has them.
        peaks: For every network, its bytes at every batch size.
        batches: Batch sizes.
        cards: Memory of GPUs in GiB, drawn as lines.
        batch: The recipe's batch size, drawn as a line.
        title: Written above.
        path: Where to, without the ending.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row["network"] for row in networks))
    styles = dict(zip(names, (":", "--", "-"), strict=False))
    for row, bytes_ in zip(networks, peaks, strict=True):
        label = f"stage {row['stage']}, {row['layers']} layers, {row['operations']} operations: {row['network']}"
        colour = f"C{int(str(row['stage'])) - 1}"
        axes.plot(batches, [value / GIB for value in bytes_], styles[row["network"]], color=colour, label=label)
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
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.{ending}") for ending in ("png", "svg")]
    for file in files:
        figure.savefig(file, dpi=150)
    return files
