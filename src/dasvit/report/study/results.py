"""A study's results: accuracy and compute of every method beside the control, references and random cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dasvit.report.drawing.dot_plots import Row, Scatter, strips
from dasvit.report.study.words import (
    MISSING,
    REFERENCES,
    Colours,
    Study,
    Table,
    cell_words,
    count,
    figure,
    mean_sd,
    references_of,
    with_interval,
)
from dasvit.report.tables import number
from dasvit.report.words import percent

Methods = Sequence[Mapping[str, Any]]
"""Rows of the summary: the methods and the control."""


def accuracy_strips(study: Study, methods: Methods, colours: Colours) -> Any:
    """Return the picture of all accuracies on one axis, or None where nothing was trained."""
    cells, summary = study["cells"], study["summary"]
    rows = []
    for row in methods:
        seeds: dict[str, list[str]] = {}  # of each cell: found twice, it is one dot
        for search in study["searches"]:
            if search["variant"] == row["key"]:
                seeds.setdefault(search["cell"], []).append(str(search["seed"]))
        values = [(f"seed {', '.join(own)}", cells[cell]["top1"]) for cell, own in seeds.items()]
        rows.append(Row(f"{row['label']}: a dot a cell found", values, colours[row["key"]][0], mean_sd(row)))
    luck = [(cell_words(cells[key]), cells[key]["top1"]) for key in study["random"]["cells"]]
    rows.append(Row("random cells: a dot a cell", luck, "luck", mean_sd(summary["random"])))
    for name, title in references_of(study).items():
        values = [(f"seed {t['seed']}", t["top1"]) for t in cells[study[name]]["trainings"]]
        rows.append(Row(f"{title}: a dot a training", values, "luck", mean_sd(summary[name])))
    rows = [row._replace(values=[value for value in row.values if value[1] is not None]) for row in rows]
    rows = [row for row in rows if row.values]
    return strips(rows, "Test top-1 of found cells, random cells and references", percent) if rows else None


def compute_scatter(study: Study, methods: Methods, colours: Colours) -> Scatter | None:
    """Return the picture of accuracy against the images that a search trained on; None where no search said them."""
    cells, clouds = study["cells"], []
    for row in methods:
        points = [
            (f"{row['label']}, seed {search['seed']}", search["images"], cells[search["cell"]]["top1"])
            for search in study["searches"]
            if search["variant"] == row["key"] and search.get("images") is not None
        ]
        clouds.append((colours[row["key"]][0], [p for p in points if p[2] is not None]))
    if not any(points for _, points in clouds):
        return None
    luck = [(cell_words(cells[key]), 0.0, cells[key]["top1"]) for key in study["random"]["cells"]]
    luck += [(title, 0.0, cells[study[name]]["top1"]) for name, title in references_of(study).items()]
    clouds.append(("luck", [p for p in luck if p[2] is not None]))
    axes = ("images that the search trained on", "test top-1 of what it found")
    note = "A dot a search. Grey, at 0: random cells and references, for which nothing was searched."
    return Scatter("Test top-1 against compute", clouds, axes, (number, percent), note)


def result_table(study: Study, methods: Methods) -> Table:
    """Return what the methods found and spent, beside the control, random cells and references."""
    heads = ["", "top-1", "different cells", "sd of trainings", "multiply-adds", "images of a search"]
    heads += ["core-seconds of a search", "over the control, points", "corrected p"]
    summary, blank = study["summary"], [MISSING] * 4
    rows = [
        [
            row["label"],
            mean_sd(row),
            str(row["cells"]),
            figure(row["training_sd"], ".2f"),
            count(row["macs"]),
            count(row["images"]),
            figure(row["core_seconds"], ",.0f" if (row["core_seconds"] or 0) >= 100 else ".3g"),
            *_difference(row["over_control"]),
        ]
        for row in methods
    ]
    luck = summary["random"]
    if luck["mean"] is not None:
        rows.append([f"{luck['n']} random cells", mean_sd(luck), str(luck["n"]), MISSING, count(luck["macs"]), *blank])
    for name, title in references_of(study).items():
        of = summary[name]
        rows.append([f"{title} (sd over trainings)", mean_sd(of), MISSING, MISSING, count(of["macs"]), *blank])
    return Table(heads, rows)


def _difference(against: Mapping[str, Any] | None) -> list[str]:
    """Return a difference with its interval, and its p corrected for all questions, where a verdict hangs on it."""
    if against is None:
        return [MISSING, MISSING]
    points = with_interval(against["mean"], against["low"], against["high"], "+.2f")
    return [points, figure(against.get("adjusted"), ".2g")]


def against_table(methods: Methods) -> Table:
    """Return how the methods' cells differ from the references."""
    rows = [
        [row["label"], title, *_difference(over), f"{over['wins']} of {over['pairs']}"]
        for row in methods
        for name, title in REFERENCES.items()
        if (over := row[f"over_{name}"])
    ]
    return Table(["", "against", "difference, points", "corrected p", "pairs won"], rows)


def space_table(methods: Methods) -> Table:
    """Return how the methods' cells stand among random cells, and whether they cost the same."""
    heads = ["", "multiply-adds", "of the random cells'", "percentile", "RI, %", "p"]
    rows = [
        [row["label"], count(row["macs"]), figure(row["relative_macs"], ".2f"), *among_random(row)] for row in methods
    ]
    return Table(heads, rows)


def among_random(row: Mapping[str, Any]) -> list[str]:
    """Return percentile, relative improvement and p of a method's cells among random ones."""
    ri, test = row["improvement"], row["test"]
    return [
        figure(row["percentile"], ".0f"),
        with_interval(ri["ri"], ri["low"], ri["high"], "+.2f") if ri else MISSING,
        f"{test['p']:.3g} (least {test['least']:.2g})" if test else MISSING,
    ]


def tolerance(study: Study) -> str:
    """Return the random cells' budget in words."""
    luck = study["random"]
    return f"{number(round(luck['macs']))} multiply-adds ± {100 * luck['tolerance']:g} %" if luck["cells"] else ""


def space_words(study: Study) -> str:
    """Return which random cells these are, in words."""
    luck, of = study["random"]["cells"], study["summary"]["random"]["of"]
    return f"{len(luck)} random cells of {of}'s cost, {tolerance(study)}" if luck else ""


def control_words(study: Study) -> str:
    """Return what the control is and why it is so large, in a sentence; nothing where there is none."""
    control = study.get("control")
    if not control:
        return "There is no control: nothing is held against luck."
    cells = f"{control['finalists']} evenly drawn cell{'s' if control['finalists'] != 1 else ''}"
    first = study["summary"]["random"]["of"]
    if control["matched"] == "images":
        return (
            f"The control chooses the best of {cells} by validation: as many as train on about the images of a search "
            f"of {first}, which has no finals of its own."
        )
    return f"The control sends {cells} through the same finals as {first}'s, and the best by validation is its cell."
