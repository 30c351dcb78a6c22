"""Several runs side by side: results, cells, overlaid curves, and where their configurations differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dasvit.config import Config, recipe
from dasvit.report.drawing.cells import describe_cell, found_cell
from dasvit.report.drawing.charts import Chart, Points, Series, limited, overlaid
from dasvit.report.drawing.palette import line_style
from dasvit.report.rendering import render, write_page
from dasvit.report.run.plots import operations_of
from dasvit.report.run.reading import Run, outcome_remark, read_run
from dasvit.report.run.sections import facts, written
from dasvit.report.tables import OF_SEVERAL, SHARES, number
from dasvit.report.words import duration, known_interval, memory, percent, plain, weight

TOOK = ("search took", "training took", "peak memory")
COMPARED_FACTS = ("seed", "machine", "device", "precision", "versions", "classes", "fingerprint of the data")


Networks = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Heads and rows of a table."""


def write_comparison(
    folders: Sequence[Path], path: Path, names: Sequence[str] = (), title: str = "", networks: Networks | None = None
) -> Path:
    """Write one page that sets runs side by side.

    Args:
        folders: Run folders, of searches and trainings; a search brings the training inside its folder along.
        path: The page.
        names: What the runs are called. Empty: as their folders.
        title: Of the page. Empty: the runs' names.
        networks: The table of `dasvit compare`. None: there is none.

    Raises:
        UserError: A folder holds no run, or another file stands in the page's place.
        OSError: The page cannot be written.
    """
    runs = [read_run(folder) for folder in folders]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = comparison_of(runs, names or distinct_names(runs))
    content |= {"title": title or content["title"], "networks": networks}
    write_page(path, render("comparison.html.j2", content))
    return path


def comparison_of(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    """Return what the template is given of runs, each with its name."""
    index = operations_of(runs)
    return {
        "title": " · ".join(names),
        "operations": index,
        "runs": [(i, name, *line_style(i)) for i, name in enumerate(names)],
        "heads": ["run", "parameters", "multiply-adds", "top-1 (95 %)", *(SHARES[key] for key in shown(runs)), *TOOK],
        "results": results(runs, names),
        "remarks": [(name, text) for run, name in zip(runs, names, strict=True) if (text := outcome_remark(run))],
        "cells": cells(runs, names, index),
        "searching": curves(SEARCH_CURVES, [run if run.kind == "search" else None for run in runs], names),
        "training": curves(TRAIN_CURVES, [run.training for run in runs], names),
        "searches": [i for i, run in enumerate(runs) if run.kind == "search"],
        "trainings": [i for i, run in enumerate(runs) if run.training],
        "differences": differences([written(compared(run)) for run in runs]),
        "surroundings": differences([{k: v for k, v in facts(run) if k in COMPARED_FACTS} for run in runs]),
    }


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """Return the runs' names, with as much of their paths as tells them apart."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True)]


def compared(run: Run) -> dict[str, Any]:
    """Return the configuration that a run's results come from: a search's with its training's section train.

    A field that an older version did not write has its default.
    """
    judged, defaults = run.training, recipe.to_dict(Config())
    config = {**run.config, **({"train": judged.option("train", {})} if judged and run.kind == "search" else {})}
    unused = () if run.kind == "search" else ("space", "search")
    return {name: _filled(content, defaults.get(name)) for name, content in config.items() if name not in unused}


def _filled(content: Any, defaults: Any) -> Any:
    """Return a nested dictionary with the defaults of what it lacks."""
    if not isinstance(content, Mapping) or not isinstance(defaults, Mapping):
        return content
    return {**defaults, **{name: _filled(value, defaults.get(name)) for name, value in content.items()}}


def results(runs: Sequence[Run], names: Sequence[str]) -> list[list[str]]:
    """Return the table of results: what each network costs and reaches, and what it took."""
    rows = []
    for run, name in zip(runs, names, strict=True):
        outcome, judged = run.outcome, run.training
        costs = [number(outcome[key]) if key in outcome else "–" for key in ("params", "macs")]
        times = [one.seconds if one else 0.0 for one in (run if run.kind == "search" else None, judged)]
        peak = max(one.peak_memory for one in (run, judged or run))
        shares = [percent(outcome[key]) if key in outcome else "–" for key in shown(runs)]
        took = [duration(seconds) if seconds else "–" for seconds in times]
        rows.append([name, *costs, accuracy(outcome), *shares, *took, memory(peak) if peak else "–"])
    return rows


def shown(runs: Sequence[Run]) -> list[str]:
    """Return the shares that the table shows beside top-1: those of several labels an image where a run has them."""
    there = {key for run in runs for key in run.outcome}
    return [key for key in SHARES if key != "top1" and (key not in OF_SEVERAL or key in there)]


def accuracy(outcome: Mapping[str, float]) -> str:
    """Return top-1 with its 95 % interval."""
    if "top1" not in outcome:
        return "–"
    found = known_interval(outcome)
    return percent(outcome["top1"]) + (f" ({found[0]:.1f} to {found[1]:.1f})" if found else "")


def cells(runs: Sequence[Run], names: Sequence[str], index: Mapping[str, int]) -> list[tuple[str, Markup, str]]:
    """Return the runs' names, the drawings of their cells, and these in words."""
    return [
        (name, found_cell(run.genotype, run.weights, index, f"The cell of {name}"), describe_cell(run.genotype))
        for run, name in zip(runs, names, strict=True)
        if run.genotype
    ]


def _of(name: str, group: str = "") -> Callable[[Run], Points]:
    """Return what gives a metric of a run, or an entry of such a group of its snapshots."""
    return lambda run: run.track(group, name) if group else run.column(name)


Curves = list[tuple[str, Callable[[Run], Points], Callable[[float], str]]]
SEARCH_CURVES: Curves = [
    ("Weight of identity (mean of the edges)", _of("identity", "mean"), weight),
    ("Weight of zero (mean of the edges)", _of("zero", "mean"), weight),
    ("Total weight of attention", _of("msa", "types"), weight),
    ("Entropy of an edge's weights", Run.entropies, weight),
    ("Supernet, validation top-1", _of("val_top1"), percent),
    ("Supernet, validation images with all labels right", _of("val_exact_match"), percent),
    ("Supernet, training loss (each run's own augmentation and smoothing)", _of("train_loss"), plain),
]
TRAIN_CURVES: Curves = [
    ("Test top-1", _of("test_top1"), percent),
    ("Test mAP", _of("test_map"), percent),
    ("Test loss (cross-entropy)", _of("test_loss"), plain),
    ("Training loss (each run's own augmentation and smoothing)", _of("train_loss"), plain),
]


def curves(chosen: Curves, runs: Sequence[Run | None], names: Sequence[str]) -> list[Chart]:
    """Return a chart for every curve that some run (None: nothing of the kind) has; lines break where stages begin."""
    charts = []
    for title, points_of, show in chosen:
        lines = [
            Series(name, points_of(run), *line_style(i), breaks=[stage.start + 1 for stage in run.stages])
            for i, (run, name) in enumerate(zip(runs, names, strict=True))
            if run
        ]
        charts += overlaid(title, lines, show, show is weight)
    return limited(charts)


def differences(tables: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """Return the keys whose values are not the same in all tables that have them, with the value of each."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return [
        (key, [table.get(key, "–") for table in tables])
        for key in keys
        if len({table[key] for table in tables if key in table}) > 1
    ]
