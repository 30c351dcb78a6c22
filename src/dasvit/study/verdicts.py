"""A study's outcome: its statistics, as `study.json`, `study.md` and one HTML page (definitions: docs/study.md)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dasvit.io.run_folder import RunFolder
from dasvit.report.rendering import render, render_text, write_page
from dasvit.report.study.page import page_of
from dasvit.report.study.words import REFERENCES
from dasvit.report.tables import SHARES
from dasvit.study.plan import CONTROL
from dasvit.study.rankings import looked_at, rankings
from dasvit.study.statistics import (
    Numbers,
    difference,
    holm,
    mean_difference,
    percentile,
    permutation,
    rate,
    relative_improvement,
    spread,
)

Study = Mapping[str, Any]
"""What `dasvit study` gathered: see `study/study.py`, and docs/study.md for `study.json`."""
LEVEL = 0.05
"""The corrected p under which a difference is called one."""


def write_study(folder: Path, study: Study) -> dict[str, Any]:
    """Write a study's `study.json`, `study.md` and `report.html`, each whole or not at all.

    Returns:
        What `study.json` holds: the same, and `summary`.

    Raises:
        UserError: A file that is no page of ours stands in the page's place.
        OSError: A file cannot be written.
    """
    content = {**study, "summary": summarise(study)}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    run = RunFolder(folder, "study")
    run.write_text("study.json", text)
    page = page_of(content)
    texts = [render_text("study.md.j2", page) + "\n", render("study.html.j2", page)]
    if study.get("figure", "top1") != "top1":
        texts = [text.replace("top-1", SHARES[study["figure"]]) for text in texts]
    run.write_text("study.md", texts[0])
    write_page(folder / "report.html", texts[1])
    return content


def summarise(study: Study) -> dict[str, Any]:
    """Return all that the study's numbers say."""
    luck = [accuracy for key in study["random"]["cells"] if (accuracy := study["cells"][key]["top1"]) is not None]
    cost = mean_cost(study, study["random"]["cells"])
    rows = [summarise_variant(study, variant, luck, cost) for variant in study["variants"]]
    references = {name: describe_reference(study, name) for name in REFERENCES if study.get(name)}
    ranked = rankings(study)
    return {
        "variants": rows,
        "random": {**spread(luck), "macs": cost, "of": rows[0]["label"]},
        **references,
        "ranking": ranked,
        "taus": looked_at(ranked),
        "questions": correct(rows),
        "verdicts": verdicts(rows, references),
    }


def mean_cost(study: Study, keys: Sequence[str]) -> float | None:
    return statistics.fmean(study["cells"][key]["macs"] for key in keys) if keys else None


def found_cells(study: Study, key: str) -> list[Mapping[str, Any]]:
    """Return the cells that a variant's searches found; one found twice stands there once."""
    keys = [search["cell"] for search in study["searches"] if search["variant"] == key]
    return [study["cells"][cell] for cell in dict.fromkeys(keys)]


def summarise_variant(
    study: Study, variant: Mapping[str, Any], luck: Sequence[float], luck_macs: float | None
) -> Numbers:
    """Return what one method's searches found, and how that stands to luck, ViT and the published cell."""
    searches = [search for search in study["searches"] if search["variant"] == variant["key"]]
    cells = found_cells(study, variant["key"])
    found = [cell["top1"] for cell in cells if cell["top1"] is not None]
    macs = statistics.fmean(cell["macs"] for cell in cells) if cells else None
    row: Numbers = {
        **variant,
        **spread(found),
        "searches": len(searches),
        "training_sd": _within(cells),
        "macs": macs,
        "params": statistics.fmean(cell["params"] for cell in cells) if cells else None,
        "cells": len(cells),
        **_state(searches),
        **_spent(searches),
        "relative_macs": macs / luck_macs if macs and luck_macs else None,
        "percentile": None,
        "improvement": None,
        "test": None,
    }
    if found and luck:
        row["percentile"] = statistics.fmean(percentile(value, luck) for value in found)
        row["improvement"] = relative_improvement(found, luck)
        row["test"] = permutation(found, luck)
    row["over_control"] = over_control(study, variant, found)
    for name in REFERENCES:
        row[f"over_{name}"] = compare(study, cells, study.get(name))
    return row


def _state(searches: Sequence[Mapping[str, Any]]) -> Numbers:
    """Return in what state searches ended: how many collapsed, why, and the gap of discretisation."""
    ended = [search["epochs"][-1] for search in searches if search["epochs"]]
    return {
        "collapse": rate(sum(bool(epoch["collapsed"]) for epoch in ended), len(ended)),
        "reasons": {why: sum(why in epoch["collapsed"] for epoch in ended) for why in ("no attention", "skips")},
        "gap": spread([epoch["gap"] for epoch in ended if epoch["gap"] is not None]),
    }


def _spent(searches: Sequence[Mapping[str, Any]]) -> Numbers:
    """Return what a search spends, the mean over searches; None where an older study did not say."""
    means: Numbers = {}
    for name in ("seconds", "images", "core_seconds"):
        values = [value for search in searches if (value := search.get(name)) is not None]
        means[name] = statistics.fmean(values) if values and len(values) == len(searches) else None
    return means | {"peak_memory_mib": max((search["peak_memory_mib"] or 0 for search in searches), default=0) or None}


def _within(cells: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the standard deviation over the trainings of a cell, pooled over cells."""
    found = [[t["top1"] for t in cell["trainings"]] for cell in cells]
    variances = [statistics.variance(row) for row in found if len(row) > 1]
    return statistics.fmean(variances) ** 0.5 if variances else None


def over_control(study: Study, variant: Mapping[str, Any], found: Sequence[float]) -> Numbers | None:
    """Return how found cells differ from the control's: luck with a choice at its end."""
    if variant["group"] == CONTROL:
        return None
    others = [cell["top1"] for cell in found_cells(study, CONTROL) if cell["top1"] is not None]
    return mean_difference(found, others) if found and others else None


def compare(study: Study, cells: Sequence[Mapping[str, Any]], key: str | None) -> Numbers | None:
    """Return how cells differ from one network, over the seeds that all of them were trained with."""
    if key is None:
        return None
    tables = [{t["seed"]: t["top1"] for t in cell["trainings"]} for cell in cells]
    theirs = {t["seed"]: t["top1"] for t in study["cells"][key]["trainings"]}
    tables = [table for table in tables if table]
    seeds = [seed for seed in theirs if all(seed in table for table in tables)]
    if not tables or not seeds:
        return None
    return difference([[table[seed] for seed in seeds] for table in tables], [theirs[seed] for seed in seeds])


def describe_reference(study: Study, name: str) -> Numbers:
    """Return what a reference reaches, mean and standard deviation over its trainings."""
    cell = study["cells"][study[name]]
    top1 = spread([training["top1"] for training in cell["trainings"]])
    return {"cell": study[name], "macs": cell["macs"], "params": cell["params"], **top1}


def correct(rows: Sequence[Numbers]) -> int:
    """Add to every difference that a verdict is given on its p corrected for all of them (Holm); return how many."""
    asked = [row[f"over_{name}"] for row in rows if row["group"] == "methods" for name in (CONTROL, *REFERENCES)]
    asked = [against for against in asked if against and against["p"] is not None]
    for against, adjusted in zip(asked, holm([against["p"] for against in asked]), strict=True):
        against["adjusted"] = adjusted
    return len(asked)


def verdicts(rows: Sequence[Numbers], references: Mapping[str, Numbers]) -> list[str]:
    """Return the answers in sentences: better than luck, and than what is there already?"""
    found = []
    control = next((row["label"] for row in rows if row["group"] == CONTROL), None)
    for row in rows:
        if row["group"] != "methods" or row["mean"] is None:
            continue
        spread_of = f" ± {row['sd']:.2f}" if row["sd"] is not None else ""
        sentences = [f"{row['label']}: {row['mean']:.2f}{spread_of} % over {_counted(row)}.", _of_luck(row, control)]
        sentences += [
            verdict(row[f"over_{name}"], f"the {title}")
            for name, title in REFERENCES.items()
            if name in references and row[f"over_{name}"]
        ]
        found.append(" ".join(sentences))
    return found


def _counted(row: Numbers) -> str:
    searches = f"{row['searches']} search{'es' if row['searches'] != 1 else ''}"
    cells = f"{row['n']} different cell{'s' if row['n'] != 1 else ''}"
    return searches if row["n"] == row["searches"] else f"{cells} of {searches}"


def _of_luck(row: Numbers, control: str | None) -> str:
    if control is None:
        return "Not held against luck: the study has no control."
    return verdict(row["over_control"], f"luck ({control})") if row["over_control"] else "Not held against luck yet."


def verdict(against: Numbers, title: str) -> str:
    """Return what a difference says, in a sentence; better or worse only where the corrected p is below LEVEL."""
    mean, low, high = against["mean"], against["low"], against["high"]
    if against["p"] is None:
        return f"{mean:+.2f} points against {title}, with no spread to judge that by."
    interval = f"{mean:+.2f} points (95 %: {low:+.2f} to {high:+.2f}; corrected p = {against['adjusted']:.2g})"
    told = against["adjusted"] < LEVEL
    word = ("Better than" if mean > 0 else "Worse than") if told else "Not told apart from"
    return f"{word} {title}: {interval}."
