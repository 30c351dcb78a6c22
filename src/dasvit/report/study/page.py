"""A study's page; every number stands beside the run folder that it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dasvit.report.drawing.charts import Chart, Series, limited, overlaid
from dasvit.report.drawing.palette import line_style
from dasvit.report.study.ranking import ranking_tables, scatters, taus_words
from dasvit.report.study.results import (
    accuracy_strips,
    against_table,
    among_random,
    compute_scatter,
    control_words,
    result_table,
    space_table,
    space_words,
    tolerance,
)
from dasvit.report.study.runs import dot_words, luck_table, reference_table, search_table
from dasvit.report.study.words import (
    FIRST,
    MISSING,
    Colours,
    Study,
    Table,
    count,
    mean_sd,
    rows_of,
    search_name,
    with_interval,
)
from dasvit.report.words import Tile, duration, memory, percent, weight

MONITORED: list[tuple[str, str, Callable[[float], str], str]] = [
    ("identity", "Weight of identity", weight, "Averaged over the edges."),
    ("zero", "Weight of zero", weight, "Averaged over the edges."),
    ("entropy", "Entropy of an edge's weights, of the largest", weight, "1: undecided. Averaged over the edges."),
    ("mixture_top1", "Supernet as a mixture, top-1", percent, "On validation images, after the epoch."),
    ("derived_top1", "Supernet as the derived cell alone, top-1", percent, "Shared weights, one operation an edge."),
    ("gap", "Gap between the two, points", weight, "What is lost where the mixture becomes a cell."),
]
"""Key in an epoch's row, title, how values are written, note."""


def page_of(study: Study) -> dict[str, Any]:
    """Return what the templates of the page and of `study.md` are given."""
    summary = study["summary"]
    colours = {key: line_style(i) for i, key in enumerate(unique_keys(study))}
    methods, first = rows_of(study, "methods"), rows_of(study, *FIRST)
    keys = list(dict.fromkeys(row["key"] for row in first))
    ranking, band = ranking_tables(study)
    return {
        "title": study["name"],
        "study": study,
        "operations": {},
        "verdicts": summary["verdicts"],
        "tiles": tiles(study, methods),
        "status": status_of(study),
        "accuracy": accuracy_strips(study, first, colours),
        "dots": dot_words(study),
        "compute": compute_scatter(study, first, colours),
        "control": control_words(study),
        "space_words": space_words(study),
        "tolerance": tolerance(study),
        "scatters": scatters(study, colours),
        "taus": taus_words(study),
        "legend": [(key, *colours[key]) for key in keys],
        "charts": collapse_charts(study, [row["key"] for row in methods], colours),
        "changed": [(title, table) for group, title in CHANGED.items() if (table := ablation_table(study, group)).rows],
        "tables": {
            "results": result_table(study, first),
            "against": against_table(methods),
            "space": space_table(first),
            "searches": search_table(study, [row["key"] for row in first]),
            "others": search_table(study, other_keys(study)),
            "references": reference_table(study),
            "luck": luck_table(study),
            "ranking": ranking,
            "band": band,
            "collapse": collapse_table(methods),
        },
    }


CHANGED = {"ablation": "Without one of its parts", "lambda": "Sweep of λ (both alike)", "rho": "Sweep of ρ"}
"""Groups of variants that change something of DASViT."""


def unique_keys(study: Study) -> list[str]:
    """Return the keys of everything that was searched with."""
    return list(dict.fromkeys(variant["key"] for variant in study["variants"]))


def other_keys(study: Study) -> list[str]:
    """Return the keys of ablations and sweeps that no method has."""
    first = {variant["key"] for variant in study["variants"] if variant["group"] in FIRST}
    return [key for key in unique_keys(study) if key not in first]


def status_of(study: Study) -> str:
    """Return how much of the study is there, in a sentence."""
    options = study["options"]
    searches, keys = len(study["searches"]), unique_keys(study)
    wanted = sum(options["control" if key == "control" else "searches"] for key in keys)
    trained = sum(len(cell["trainings"]) for cell in study["cells"].values())
    of = len(study["cells"]) * options["trainings"]
    if searches == wanted and trained == of and study["random"]["cells"]:
        return f"Complete: {searches} searches, {trained} trainings of {len(study['cells'])} networks."
    more = "" if study["random"]["cells"] else " known so far"
    return f"So far {searches} of {wanted} searches, {trained} of {of} trainings{more}."


def tiles(study: Study, methods: Sequence[Mapping[str, Any]]) -> list[Tile]:
    """Return the figures at the top, all of the first method."""
    first, luck = methods[0], study["summary"]["random"]
    found = []
    if first["mean"] is not None:
        found.append(Tile(f"{first['label']}, test top-1", percent(first["mean"]), _over(first, "cells found")))
    for row in rows_of(study, "control"):
        if row["mean"] is not None:
            found.append(Tile(f"control: {row['label']}", percent(row["mean"]), _over(row, "cells found")))
    if over := first["over_control"]:
        interval = "" if over["low"] is None else f"95 %: {over['low']:+.2f} to {over['high']:+.2f}"
        found.append(Tile("over the control, points", f"{over['mean']:+.2f}", interval))
    if luck["mean"] is not None:
        found.append(Tile("random cells, not chosen", percent(luck["mean"]), _over(luck, "cells")))
    taus = [row["supernet"]["tau"] for row in study["summary"]["ranking"] if row["variant"] == first["key"]]
    known = [tau for tau in taus if tau is not None]
    if known:
        found.append(Tile("Kendall's τ", f"{sum(known) / len(known):.2f}", f"mean of {len(known)} supernets"))
    return found


def _over(numbers: Mapping[str, Any], what: str) -> str:
    spread = f"± {numbers['sd']:.2f} over" if numbers["sd"] is not None else "from"
    return f"{spread} {numbers['n']} {what}"


def collapse_charts(study: Study, keys: Sequence[str], colours: Colours) -> list[Chart]:
    """Return the monitor's charts, a line a search."""
    searches = [search for key in keys for search in study["searches"] if search["variant"] == key and search["epochs"]]
    charts = []
    for name, title, show, note in MONITORED:
        series = []
        for search in searches:
            points = [(row["epoch"], row[name]) for row in search["epochs"] if row[name] is not None]
            stages = {row["stage"]: row["epoch"] for row in reversed(search["epochs"])}
            style, breaks = colours[search["variant"]], list(stages.values())
            series.append(Series(search_name(search), points, *style, breaks=breaks))
        charts += overlaid(title, series, show, name != "gap", note)
    return limited(charts)


def collapse_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return how many searches of every method ended collapsed."""
    heads = ["method", "searches", "collapsed", "rate, %", "no attention", "skips", "gap at the end, points"]
    table = Table(heads, [])
    for row in rows:
        of, gap = row["collapse"], row["gap"]
        share, low, high = (None if of[name] is None else 100 * of[name] for name in ("share", "low", "high"))
        reasons = [str(row["reasons"][why]) for why in ("no attention", "skips")]
        spread = f" ± {gap['sd']:.1f}" if gap["sd"] is not None else ""
        lost = MISSING if gap["mean"] is None else f"{gap['mean']:.1f}{spread}"
        rate = with_interval(share, low, high, ".0f")
        table.rows.append([row["label"], str(of["n"]), str(of["count"]), rate, *reasons, lost])
    return table


def ablation_table(study: Study, group: str) -> Table:
    """Return the rows of an ablation or a sweep, behind that of DASViT as it is."""
    heads = ["variant", "top-1", "multiply-adds", "different cells", "percentile", "RI, %", "p"]
    table = Table([*heads, "collapsed", "a search", "memory"], [])
    rows = rows_of(study, group)
    whole = [row for row in rows_of(study, "methods") if row["key"] == "dasvit"]
    for row in [*whole, *rows] if rows else []:
        collapsed = f"{row['collapse']['count']} of {row['collapse']['n']}"
        took = duration(row["seconds"]) if row["seconds"] else MISSING
        held = memory(row["peak_memory_mib"]) if row["peak_memory_mib"] else MISSING
        texts = [row["label"], mean_sd(row), count(row["macs"]), str(row["cells"]), *among_random(row)]
        table.rows.append([*texts, collapsed, took, held])
    return table
