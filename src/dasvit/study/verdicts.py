"""A study's outcome: its statistics, as `study.json`, `study.md` and one HTML page (definitions: docs/study.md)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dasvit.io.files import write_whole
from dasvit.report.rendering import render, write_page
from dasvit.report.study.page import as_markdown, page_of
from dasvit.study.statistics import (
    Numbers,
    difference,
    percentile,
    permutation,
    precision_at,
    rank_correlation,
    rate,
    relative_improvement,
    spread,
)

Study = Mapping[str, Any]
"""What `dasvit study` gathered: see `study/study.py`, and docs/study.md for `study.json`."""
TOP = 5
LEVEL = 0.05
"""The p under which a difference is called one."""


def write_study(folder: Path, study: Study) -> dict[str, Any]:
    """Write a study's `study.json`, `study.md` and `report.html`, each whole or not at all.

    Args:
        folder: The study's folder.
        study: What was gathered.

    Returns:
        What `study.json` holds: the same, and `summary`.

    Raises:
        UserError: A file that is no page of ours stands in the page's place.
        OSError: A file cannot be written.
    """
    content = {**study, "summary": summarise(study)}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    for name, written in {"study.json": text, "study.md": as_markdown(content)}.items():
        write_whole(folder / name, lambda file, written=written: file.write(written.encode()))
    write_page(folder / "report.html", render("study.html.j2", page_of(content)))
    return content


def summarise(study: Study) -> dict[str, Any]:
    """Return all that the study's numbers say."""
    luck = [accuracy for key in study["random"]["cells"] if (accuracy := study["cells"][key]["top1"]) is not None]
    rows = [summarise_variant(study, variant, luck) for variant in study["variants"]]
    references = {name: describe_reference(study, name) for name in ("vit", "published") if study[name]}
    return {
        "variants": rows,
        "random": {**spread(luck), "macs": mean_cost(study, study["random"]["cells"])},
        **references,
        "ranking": rankings(study),
        "verdicts": verdicts(rows, references, spread(luck)),
    }


def mean_cost(study: Study, keys: Sequence[str]) -> float | None:
    """Return the mean multiply-adds of cells."""
    return statistics.fmean(study["cells"][key]["macs"] for key in keys) if keys else None


def summarise_variant(study: Study, variant: Mapping[str, Any], luck: Sequence[float]) -> Numbers:
    """Return what one method's searches found, and how that stands to luck, ViT and the published cell."""
    searches = [search for search in study["searches"] if search["variant"] == variant["key"]]
    cells = [study["cells"][search["cell"]] for search in searches]
    found = [cell["top1"] for cell in cells if cell["top1"] is not None]
    last = [search["epochs"][-1]["collapsed"] for search in searches if search["epochs"]]
    gaps = [search["epochs"][-1]["gap"] for search in searches if search["epochs"]]
    row: Numbers = {
        **variant,
        **spread(found),
        "searches": len(searches),
        "training_sd": _within(cells),
        "macs": mean_cost(study, [search["cell"] for search in searches]),
        "params": statistics.fmean(cell["params"] for cell in cells) if cells else None,
        "cells": len({search["cell"] for search in searches}),
        "collapse": rate(sum(map(bool, last)), len(last)),
        "reasons": {why: sum(why in row for row in last) for why in ("no attention", "skips")},
        "gap": spread([gap for gap in gaps if gap is not None]),
        "seconds": statistics.fmean(search["seconds"] for search in searches) if searches else None,
        "peak_memory_mib": max((search["peak_memory_mib"] or 0 for search in searches), default=0) or None,
        "percentile": None,
        "improvement": None,
        "test": None,
    }
    if found and luck:
        row["percentile"] = statistics.fmean(percentile(value, luck) for value in found)
        row["improvement"] = relative_improvement(found, luck)
        row["test"] = permutation(found, luck)
    for name in ("vit", "published"):
        row[f"over_{name}"] = compare(study, cells, study[name])
    return row


def _within(cells: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the standard deviation over the trainings of a cell, pooled over cells."""
    found = [[t["top1"] for t in cell["trainings"]] for cell in cells]
    variances = [statistics.variance(row) for row in found if len(row) > 1]
    return statistics.fmean(variances) ** 0.5 if variances else None


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
    """Return what ViT or the published cell reaches, mean and standard deviation over its trainings."""
    cell = study["cells"][study[name]]
    top1 = spread([training["top1"] for training in cell["trainings"]])
    return {"cell": study[name], "macs": cell["macs"], "params": cell["params"], **top1}


def rankings(study: Study) -> list[Numbers]:
    """Return for every search how its own two rankings of cells agree with their accuracy alone.

    `supernet`: each cell by itself on the shared weights. `weights`: the product of its operations' weights.
    """
    rows = []
    for search in study["searches"]:
        ranking = search["ranking"]
        if not ranking:
            continue
        keys = [key for key in ranking["supernet_top1"] if (study["cells"].get(key) or {}).get("top1") is not None]
        alone = [study["cells"][key]["top1"] for key in keys]
        row: Numbers = {"run": search["run"], "variant": search["variant"], "seed": search["seed"]}
        row |= {"stage": ranking["stage"], "layers": ranking["layers"], "cells": len(keys)}
        for name, key in {"supernet": "supernet_top1", "weights": "log_weight"}.items():
            scores = [ranking[key][cell] for cell in keys]
            row[name] = {**rank_correlation(scores, alone), "precision": precision_at(scores, alone, TOP)}
        row["chance"] = TOP / len(keys) if len(keys) > TOP else None
        rows.append(row)
    return rows


def verdicts(rows: Sequence[Numbers], references: Mapping[str, Numbers], luck: Numbers) -> list[str]:
    """Return the answers in sentences: better than luck, and than what is there already?"""
    found = []
    for row in rows:
        if row["group"] != "methods" or row["mean"] is None:
            continue
        many = f"{row['n']} searches" if row["n"] > 1 else "1 search"
        spread_of = f" ± {row['sd']:.2f}" if row["sd"] is not None else ""
        found.append(f"{row['label']}: {row['mean']:.2f}{spread_of} % over {many}. {_of_luck(row, luck)}")
        for name, title in {"vit": "the ViT", "published": "the published cell"}.items():
            against = row[f"over_{name}"]
            if name in references and against:
                found[-1] += f" {_of_reference(against, title)}"
    return found


def _of_luck(row: Numbers, luck: Numbers) -> str:
    if row["test"] is None or luck["mean"] is None:
        return "Not held against luck yet."
    p, least = row["test"]["p"], row["test"]["least"]
    ri = row["improvement"]["ri"]
    of = f"random cells ({luck['mean']:.2f} %, {'' if ri is None else f'RI {ri:+.2f} %, '}p = {p:.3g}"
    of += f"; so few runs cannot give less than {least:.2g})" if least > LEVEL else ")"
    if p < LEVEL:
        return f"Better than {of}."
    return f"Not shown to be better than {of}."


def _of_reference(against: Numbers, title: str) -> str:
    mean, low, high = against["mean"], against["low"], against["high"]
    if low is None:
        return f"{mean:+.2f} points against {title}, with no spread to judge that by."
    interval = f"{mean:+.2f} points (95 %: {low:+.2f} to {high:+.2f})"
    word = "Better than" if low > 0 else "Worse than" if high < 0 else "Not told apart from"
    return f"{word} {title}: {interval}."
