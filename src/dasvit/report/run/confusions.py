"""What a training's page shows of its test images: figures of every class, the confusion matrix, the worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dasvit.report.drawing.svg import tag
from dasvit.report.run.reading import Run, finite
from dasvit.report.run.tokens import picture_source
from dasvit.report.scores import class_rows
from dasvit.report.tables import MOST_CLASSES, confusions
from dasvit.report.words import percent

MOST_DRAWN = 200
"""Classes up to which the matrix is drawn."""
MOST_SQUARES = 4000
"""Squares of a drawing, which keep the page small."""
MOST_MISTAKES = 24
"""Mistakes that a file of others may ask the page to show."""


def label_section(run: Run) -> list[list[str]]:
    """Return the figures of every class of several labels an image; of many classes, those of the least AP."""
    rows = run.by_label
    if len(rows) > MOST_CLASSES:
        rows = tuple(sorted(rows, key=lambda row: row[1]["ap"])[:MOST_CLASSES])
    shares = ("prevalence", "ap", "precision", "recall", "f1")
    return [[name, f"{row['images']:,.0f}", *(percent(row[key]) for key in shares)] for name, row in rows]


def class_section(run: Run) -> list[list[str]]:
    """Return precision, recall and F1 of every class; of many classes, those of the least F1."""
    rows = class_rows(run.confusion, run.class_names) if run.confusion else []
    if len(rows) > MOST_CLASSES:
        rows = sorted(rows, key=lambda row: float(row["f1"]))[:MOST_CLASSES]
    shares = ("precision", "recall", "f1")
    return [[row["class"], f"{row['images']:,}", *(percent(row[key]) for key in shares)] for row in rows]


def confusion_section(run: Run) -> dict[str, Any] | None:
    """Return the confusion matrix of few classes; of many a drawing, and the commonest confusions."""
    table, names = run.confusion, run.class_names
    if not table:
        return None
    if len(table) <= MOST_CLASSES:
        rows = [
            (name, [(count, round(count / max(1, sum(row)), 3)) for count in row])
            for name, row in zip(names, table, strict=True)
        ]
        return {"names": names, "rows": rows, "pairs": [], "drawing": None}
    drawing = matrix(table, names) if len(table) <= MOST_DRAWN else None
    return {"names": (), "rows": [], "pairs": confusions(table, names)[:MOST_CLASSES], "drawing": drawing}


def matrix(table: Sequence[Sequence[int]], names: Sequence[str]) -> Markup:
    """Draw a confusion matrix: a square for each pair of classes, as strong as its share of the row; the commonest."""
    found = [(i, j, count) for i, row in enumerate(table) for j, count in enumerate(row) if count]
    shares = {(i, j): count / sum(table[i]) for i, j, count in found}
    found = sorted(found, key=lambda pair: -shares[pair[:2]])[:MOST_SQUARES]
    squares = [
        tag(
            "rect",
            tag("title", f"{names[i]} taken for {names[j]}: {count}" if i != j else f"{names[i]}: {count} right"),
            x=j,
            y=i,
            width=1,
            height=1,
            class_="right" if i == j else "wrong",
            fill_opacity=max(0.08, round(shares[i, j], 2)),
        )
        for i, j, count in found
    ]
    size, hits = len(table), sum(row[i] for i, row in enumerate(table))
    label = f"Confusion matrix of {size} classes: {hits:,} of {sum(map(sum, table)):,} images on the diagonal"
    return tag("svg", *squares, viewBox=f"0 0 {size} {size}", class_="matrix", role="img", aria_label=label)


def mistake_section(run: Run) -> list[dict[str, str]]:
    """Return the images that were taken for another class most surely: picture, file, classes, probability."""
    rows = run.mistakes.get("images")
    found = []
    for row in rows[:MOST_MISTAKES] if isinstance(rows, list) else []:
        source = picture_source(row)
        share = finite(row.get("probability")) if isinstance(row, Mapping) else None
        if source and share is not None:
            words = {key: str(row.get(key, ""))[:200] for key in ("file", "class", "prediction")}
            found.append({**words, "source": source, "probability": percent(100 * share)})
    return found
