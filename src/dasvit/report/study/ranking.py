"""How a study's rankings of cells agree with their accuracy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dasvit.report.drawing.dot_plots import Scatter
from dasvit.report.study.words import (
    FIRST,
    MISSING,
    Colours,
    Study,
    Table,
    cell_words,
    figure,
    search_name,
    with_interval,
)
from dasvit.report.tables import number
from dasvit.report.words import percent


def scatters(study: Study, colours: Colours) -> list[Scatter]:
    """Return, for every search of a method, its supernet's accuracy of each cell against the cell's own."""
    lucky, drawn = set(study["random"]["cells"]), []
    methods = {variant["key"] for variant in study["variants"] if variant["group"] in FIRST}
    tables = {row["run"]: row for row in study["summary"]["ranking"]}
    for search in study["searches"]:
        if search["run"] not in tables or search["variant"] not in methods:
            continue
        of = tables[search["run"]]
        points: dict[bool, list[tuple[str, float, float]]] = {True: [], False: []}
        for key, score in search["ranking"]["supernet_top1"].items():
            alone = (study["cells"].get(key) or {}).get("top1")
            if alone is not None:
                points[key in lucky].append((cell_words(study["cells"][key]), score, alone))
        if points[True] or points[False]:
            clouds = [("luck", points[True]), (colours[search["variant"]][0], points[False])]
            tau = with_interval(of["supernet"]["tau"], of["supernet"]["low"], of["supernet"]["high"])
            note = f"τ = {tau}."
            axes = ("on the supernet's weights, validation top-1", "trained alone, test top-1")
            drawn.append(Scatter(search_name(search), clouds, axes, (percent, percent), note))
    return drawn


RANKED = {"supernet": "supernet", "weights": "weights", "macs": "multiply-adds", "ratios": "sum of ratios"}
"""Rankings of cells, and what they are called; the last two only count."""


def ranking_tables(study: Study) -> tuple[Table, Table]:
    """Return how each search's rankings agree: over all cells, and among those of about one cost."""
    agreement = [*(head for title in RANKED.values() for head in (f"τ, {title}", "top 5")), "top 5 by luck"]
    every = Table(["search", "cells", "supernet", *agreement], [])
    band = Table(["search", "cells of about one cost", "that cost", *agreement], [])
    for row in study["summary"]["ranking"]:
        search, within = [(search_name(row), row["run"])], row["within"]
        depth = f"stage {row['stage']}, {row['layers']} layer{'s' if row['layers'] > 1 else ''}"
        cost = MISSING if within["macs_at"] is None else f"{number(round(within['macs_at']))} ± 10 %"
        every.rows.append([search, str(row["cells"]), depth, *_agreement(row)])
        band.rows.append([search, str(within["cells"]), cost, *_agreement(within)])
    return every, band


def _agreement(row: Mapping[str, Any]) -> list[str]:
    """Return tau and precision of all rankings, and the precision of luck."""
    texts = []
    for name in RANKED:
        of = row[name]
        texts += [with_interval(of["tau"], of["low"], of["high"]), figure(of["precision"], ".2f")]
    return [*texts, figure(row["chance"], ".2f")]


def taus_words(study: Study) -> str:
    """Return how many rankings were looked at, in a sentence."""
    taus = study["summary"]["taus"]
    return (
        f"{taus} τ's of supernets and weights were looked at: of so many the highest is high by luck, too. What "
        "multiply-adds and ratios reach without a search stands beside them."
    )
