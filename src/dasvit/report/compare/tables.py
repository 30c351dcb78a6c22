"""A comparison of networks as a table: for the terminal, and as CSV, Markdown, LaTeX and JSON."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.table import Table

from dasvit.config.recipe import flatten
from dasvit.config.units import time_text
from dasvit.report.label_scores import no_better_map
from dasvit.report.markup import latex_table, markdown_table
from dasvit.report.scores import no_better
from dasvit.report.tables import SHARES, number

Row = Mapping[str, Any]
"""A network: `network`, `name`, `design`, `classes`, `params` and `macs`; `paper_flops` where ptflops counted;
`latency` (`median` and `iqr` in seconds, `machine`) where it was measured; the keys of `SHARES`, each with a `_sd` over
the seeds, `images`, `seconds_per_epoch` and `images_per_second` where it was trained; `published` (`params`, `flops`,
and by data set `top1` and `top5`) where the paper has it."""
MISSING = "–"
DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet100": "ImageNet-100"}


@dataclass(frozen=True)
class Column:
    """A column: its head, a row's entry, and whether it holds figures, which stand at the right."""

    title: str
    text: Callable[[Row], str]
    number: bool = True


def columns(rows: Sequence[Row], published: Sequence[str] | None = None) -> list[Column]:
    """Return the columns that there is something to put into.

    Args:
        rows: The networks.
        published: Data sets whose published accuracies are shown, beside the published cost. None: nothing published.
    """
    chosen = [Column("network", lambda row: str(row["network"]), number=False)]
    for key, head in SHARES.items():
        if any(key in row for row in rows):
            chosen.append(Column(head, partial(_percent, key=key)))
    for name in published or ():
        chosen.append(Column(f"paper {DATASETS[name]}", partial(_published_accuracy, dataset=name)))
    chosen.append(Column("parameters", lambda row: number(row["params"])))
    if published is not None:
        chosen.append(Column("paper parameters", lambda row: _published_cost(row, "params", "M")))
    chosen.append(Column("multiply-adds", lambda row: number(row["macs"])))
    if any("latency" in row for row in rows):
        chosen.append(Column("latency", _latency))
    if any("paper_flops" in row for row in rows):
        chosen.append(Column("ptflops", lambda row: _optional(row, "paper_flops", number)))
    if published is not None:
        chosen.append(Column("paper FLOPs", lambda row: _published_cost(row, "flops", "G")))
    chosen.append(Column("design", lambda row: str(row["design"]) or MISSING, number=False))
    if any("seconds_per_epoch" in row for row in rows):
        chosen += [
            Column("s/epoch", lambda row: _optional(row, "seconds_per_epoch", "{:.1f}".format)),
            Column("images/s", lambda row: _optional(row, "images_per_second", "{:.0f}".format)),
        ]
    return chosen


def _percent(row: Row, key: str) -> str:
    spread = f" ± {row[f'{key}_sd']:.2f}" if f"{key}_sd" in row else ""
    return f"{row[key]:.2f}{spread} %" if key in row else MISSING


def _latency(row: Row) -> str:
    found = row.get("latency")
    return f"{time_text(found['median'])} (IQR {time_text(found['iqr'])})" if found else MISSING


def _optional(row: Row, key: str, text: Callable[[float], str]) -> str:
    return text(row[key]) if key in row else MISSING


def _published_accuracy(row: Row, dataset: str) -> str:
    pair = row.get("published", {}).get(dataset)
    return f"{pair['top1']:.1f} / {pair['top5']:.1f}" if pair else MISSING


def _published_cost(row: Row, key: str, unit: str) -> str:
    return f"{row['published'][key]:.1f}{unit}" if "published" in row else MISSING


def remarks(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for every network that is no better than a constant, or sees images of another size."""
    found = [
        (row["network"], no_better(row["top1"], row["majority"], row.get("images", 0)))
        for row in rows
        if "top1" in row and "majority" in row
    ]
    found += [
        (row["network"], no_better_map(row["map"], row["prevalence"]))
        for row in rows
        if "map" in row and "prevalence" in row
    ]
    found += [
        (row["network"], f"sees images of {row['image_size']} × {row['image_size']} pixels, as its file says")
        for row in rows
        if "image_size" in row
    ]
    return [f"{name}: {sentence}" for name, sentence in found if sentence]


def ranked(rows: Sequence[Row], figure: str) -> str:
    """Return the trained networks in the order of a share, best first, in a sentence; empty of fewer than two.

    Args:
        rows: The networks.
        figure: The share, of SHARES.
    """
    found = sorted((row for row in rows if figure in row), key=lambda row: -float(row[figure]))
    named = ", ".join(f"{row['network']} {row[figure]:.2f} %" for row in found)
    return f"by {SHARES[figure]}, best first: {named}" if len(found) > 1 else ""


def terminal_table(rows: Sequence[Row], shown: Sequence[Column], title: str) -> Table:
    """Return the table for the terminal."""
    table = Table(title=title)
    for column in shown:
        table.add_column(column.title, justify="right" if column.number else "left")
    for row in rows:
        table.add_row(*(column.text(row) for column in shown))
    return table


def as_markdown(rows: Sequence[Row], shown: Sequence[Column]) -> str:
    """Return the table as Markdown."""
    return markdown_table(_written(rows, shown), _align(shown)) + "\n"


def as_latex(rows: Sequence[Row], shown: Sequence[Column]) -> str:
    """Return the table as LaTeX, in the manner of the package booktabs."""
    return latex_table(*_written(rows, shown), _align(shown))


def _written(rows: Sequence[Row], shown: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    return [column.title for column in shown], [[column.text(row) for column in shown] for row in rows]


def _align(shown: Sequence[Column]) -> str:
    return "".join("r" if column.number else "l" for column in shown)


def as_csv(rows: Sequence[Row]) -> str:
    """Return the rows as CSV: figures in full, a column a key, nested keys joined by a dot."""
    flat = [
        {key: " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value for key, value in row.items()}
        for row in map(flatten, rows)
    ]
    names = list(dict.fromkeys(key for row in flat for key in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()


def as_json(content: Any) -> str:
    """Return what there is to say as the text of a JSON file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
