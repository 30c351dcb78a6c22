"""Tables for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from dasvit.cell.genotype import Genotype
from dasvit.config.units import time_text
from dasvit.errors import printable

SHARES = {
    "top1": "top-1",
    "majority": "majority",
    "map": "mAP",
    "prevalence": "prevalence",
    "top5": "top-5",
    "balanced_accuracy": "balanced",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "exact_match": "all labels right",
    "ece": "ECE",
}
"""The shares of an evaluation, in percent, and the heads of their columns (docs/tasks.md)."""
OF_SEVERAL = ("map", "prevalence", "micro_f1", "exact_match")
"""Those of several labels an image."""

MOST_CLASSES = 20
"""Classes up to which all of them are shown."""


def plain(name: str) -> Text:
    """Return a name as it stands: it may hold what a terminal, or the table's own markup, would act upon."""
    return Text(printable(name))


def number(value: float) -> str:
    """Return a count for readers, as 1.21M."""
    for unit, size in {"G": 1e9, "M": 1e6, "k": 1e3}.items():
        if value >= size:
            return f"{value / size:.2f}{unit}"
    return f"{value:g}"


def text_table(texts: Sequence[str], figures: Iterable[str], title: str | None = None) -> Table:
    """Return an empty table: heads of columns of text, and behind them of figures, which stand at the right."""
    table = Table(*texts, title=title)
    for head in figures:
        table.add_column(head, justify="right")
    return table


def network_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """Return the table of networks, each with network, params, macs, top1, majority and macro_f1: 80 columns.

    Of several labels an image, map and prevalence stand in the place of top1 and majority.
    """
    several = any("map" in row for row in rows)
    keys = ("map", "prevalence", "macro_f1") if several else ("top1", "majority", "macro_f1")
    table = text_table(["network"], ["parameters", "multiply-adds", *(SHARES[key] for key in keys)], title)
    for row in rows:
        shares = [f"{row[key]:.2f} %" for key in keys]
        table.add_row(plain(row["network"]), number(row["params"]), number(row["macs"]), *shares)
    return table


def front_table(rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> Table:
    """Return the candidates that none beats at no more cost, and the found one, the cheapest first.

    Args:
        rows: The candidates, as `derivation.json` has them.
        chosen: The found network's genotype.
    """
    timed = any("latency" in row for row in rows)
    share = "map" if any("map" in row for row in rows) else "top1"
    figures = ["multiply-adds", *(["time"] if timed else []), "epochs", "val loss", f"val {SHARES[share]}"]
    table = text_table(["network", "operations"], figures, f"the best of {len(rows)} candidates at their cost")
    shown = [row for row in rows if row.get("front") or row["genotype"] == chosen]
    for row in sorted(shown, key=lambda row: row["latency"] if timed else row["macs"]):
        cell = Genotype.from_dict(row["genotype"])
        sizes = (cell.sizes.brief if cell.sizes else "–") + (" ←" if row["genotype"] == chosen else "")
        time = [time_text(row["latency"])] if timed else []
        loss = "–" if row["loss"] is None else f"{row['loss']:.4f}"
        reached = "–" if row.get(share) is None else f"{row[share]:.2f} %"
        table.add_row(sizes, " ".join(cell.ops), number(row["macs"]), *time, f"{row['epochs']:g}", loss, reached)
    return table


def confusion_table(confusion: Sequence[Sequence[int]], names: Sequence[str], most: int = MOST_CLASSES) -> Table:
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


def class_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return precision, recall and F1 of every class, as an evaluation's record holds them; AP of several labels."""
    heads = {"prevalence": "prevalence", "ap": "AP", "precision": "precision", "recall": "recall", "f1": "F1"}
    shown = [key for key in heads if rows and key in rows[0]]
    table = text_table(["class"], ["images", *(heads[key] for key in shown)], "by class")
    for row in rows:
        shares = [f"{row[key]:.2f} %" for key in shown]
        table.add_row(plain(row["class"]), str(row["images"]), *shares)
    return table


def confusions(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return a class, what its images were taken for, and how many were, the commonest first."""
    counts = [(i, j, count) for i, row in enumerate(confusion) for j, count in enumerate(row) if i != j and count]
    return [(names[i], names[j], count) for i, j, count in sorted(counts, key=lambda found: -found[2])]
