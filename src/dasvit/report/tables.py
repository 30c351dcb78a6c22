"""Tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from dasvit.errors import printable


def plain(name: str) -> Text:
    """Return a name as it stands: it may hold what a terminal, or the table's own markup, would act upon."""
    return Text(printable(name))


def number(value: float) -> str:
    """Return a count for readers, as 1.21M."""
    for unit, size in {"G": 1e9, "M": 1e6, "k": 1e3}.items():
        if value >= size:
            return f"{value / size:.2f}{unit}"
    return f"{value:g}"


def network_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """Return the table of networks, each with network, params, macs, top1 and top5."""
    table = Table(title=title)
    table.add_column("network")
    for name in ("parameters", "multiply-adds", "test top-1", "test top-5"):
        table.add_column(name, justify="right")
    for row in rows:
        accuracies = [f"{row[name]:.2f} %" for name in ("top1", "top5")]
        table.add_row(plain(row["network"]), number(row["params"]), number(row["macs"]), *accuracies)
    return table


def confusion_table(confusion: Sequence[Sequence[int]], names: Sequence[str], most: int = 20) -> Table:
    """Return the confusion matrix, `[C][C]`, of up to `most` classes, or so many of the commonest entries of more."""
    if len(names) <= most:
        table = Table("", "is \\ taken for", title="confusion")  # columns by number: names would be cut to nothing
        for j in range(len(names)):
            table.add_column(str(j), justify="right", no_wrap=True)
        for i, (name, row) in enumerate(zip(names, confusion, strict=True)):
            table.add_row(str(i), plain(name), *(str(count) if count else "·" for count in row))
        return table
    table = Table("is", "taken for", "images", title="commonest confusions")
    for name, other, count in confusions(confusion, names)[:most]:
        table.add_row(plain(name), plain(other), str(count))
    return table


def confusions(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return a class, what its images were taken for, and how many were, the commonest first."""
    counts = [(i, j, count) for i, row in enumerate(confusion) for j, count in enumerate(row) if i != j and count]
    return [(names[i], names[j], count) for i, j, count in sorted(counts, key=lambda found: -found[2])]
