"""The candidates of a search on its page: what they reached at each rung, and what a model of them says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dasvit.config.units import time_text
from dasvit.report.drawing.cells import edge_name
from dasvit.report.drawing.charts import Chart, Series
from dasvit.report.drawing.dot_plots import Scatter
from dasvit.report.drawing.palette import line_style
from dasvit.report.run.reading import Candidate, Run
from dasvit.report.tables import number
from dasvit.report.words import percent, plain

MOST_LINES = 64
"""Candidates that the chart of rungs shows, the best."""


def candidate_section(run: Run) -> dict[str, Any] | None:
    """Return what the page shows of candidates; None where there were none."""
    if not run.candidates:
        return None
    return {
        "edges": [edge_name(edge.source, edge.target) for edge in run.candidates[0].cell.edges],
        "rows": [row_of(candidate) for candidate in run.candidates],
        "figure": "mAP" if (several := any("map" in one.numbers for one in run.candidates)) else "top-1",
        "constant": "a constant's" if several else "majority",
        "rungs": rung_chart(run),
        "front": front_plot(run),
        "expected": expectation_plot(run),
        "spreads": [(name, f"{spread:.4f}") for name, spread in run.spreads.items()],
        "has_prior": "other data" in run.spreads,
        "effects": [
            ("operation", "operations", effect_rows(sorted(run.effects, key=lambda row: row[1]))),
            ("size", "sizes", effect_rows(run.size_effects)),
        ],
    }


def effect_rows(effects: Iterable[tuple[str, float, float]]) -> list[tuple[str, str, str]]:
    """Return rows of a table of effects on the loss, with their standard deviations."""
    return [(name, f"{loss:+.4f}", f"{sd:.4f}") for name, loss, sd in effects]


def row_of(candidate: Candidate) -> list[str]:
    """Return a candidate's operations, accuracy, loss, epochs, what was expected of it, and cost."""
    numbers: Mapping[str, float] = candidate.numbers
    expected = "–" if candidate.expected is None else f"{candidate.expected:.3f} ± {candidate.deviation or 0:.3f}"
    return [
        in_words(candidate) + (" (tie)" if candidate.tied else ""),
        percent(numbers["map"] if "map" in numbers else numbers["top1"]),
        next((percent(numbers[key]) for key in ("majority", "prevalence") if key in numbers), "–"),
        percent(numbers["macro_f1"]) if "macro_f1" in numbers else "–",
        f"{numbers['loss']:.4f}" if "loss" in numbers else "diverged",
        f"{numbers['epochs']:g}" if "epochs" in numbers else "–",
        expected,
        *(number(numbers[key]) if key in numbers else "–" for key in ("params", "macs")),
    ]


def in_words(candidate: Candidate) -> str:
    """Return a candidate's operations, and its sizes where it has its own."""
    sizes = candidate.cell.sizes
    return " · ".join(candidate.cell.ops) + (f" at {sizes.brief}" if sizes else "")


def front_plot(run: Run) -> Scatter | None:
    """Return what candidates reached against what they cost; None where that is not known of three."""
    axis = "latency" if any("latency" in one.numbers for one in run.candidates) else "macs"
    clouds: dict[str, list[tuple[str, float, float]]] = {"line-rest": [], "line-1": [], "line-0": []}
    for place, one in enumerate(run.candidates, start=1):
        if axis not in one.numbers or not one.losses:
            continue
        css = "line-0" if one.cell == run.genotype else "line-1" if one.front else "line-rest"
        clouds[css].append((f"candidate {place}, {in_words(one)}", one.numbers[axis], one.losses[-1][1]))
    if sum(map(len, clouds.values())) < 3 or not any(one.front for one in run.candidates):
        return None
    note = (
        "What decides (less is better), each after as many epochs as it was trained. In colour: the found network, and "
        "the candidates that none beats at no more cost, compared at the last rung that both reached."
    )
    name, show = ("time of an inference", time_text) if axis == "latency" else ("multiply-adds", number)
    shown = [(css, cloud) for css, cloud in clouds.items() if cloud]
    return Scatter("Reached against cost", shown, (name, "reached"), (show, plain), note)


def rung_chart(run: Run) -> Chart | None:
    """Return the losses at the rungs as lines; None where there is one rung alone."""
    shown = [candidate for candidate in run.candidates if candidate.losses][:MOST_LINES]
    longest = max((candidate.losses for candidate in shown), key=len, default=())
    if len(longest) < 2:
        return None
    lines = []
    for place, candidate in enumerate(shown):
        points = [(rung, loss) for rung, (_, loss) in enumerate(candidate.losses, start=1)]
        style = line_style(0) if place == 0 else ("line-rest", "")
        lines.append(Series(f"{place + 1}", points, *style, pruned=len(points) < len(longest)))
    epochs = ", ".join(f"{epochs:g}" for epochs, _ in longest)
    what = f"Loss, or what search.metric says (less is better), on the validation images, after {epochs} epochs."
    note = f"{what} A cross marks who did not go on; the first is in colour."
    return Chart("What decides, at each rung", lines[::-1], plain, len(longest), axis="rung", labels=False, note=note)


def expectation_plot(run: Run) -> Scatter | None:
    """Return losses at the first rung against what was expected of them; None where there are fewer than three."""
    dots = [
        (f"candidate {place}", candidate.expected, candidate.losses[0][1])
        for place, candidate in enumerate(run.candidates, start=1)
        if candidate.expected is not None and candidate.losses
    ]
    if len(dots) < 3:
        return None
    note = "What decides, at the first rung. Candidates of which nothing was expected, the first ones, are not shown."
    return Scatter("Expected and reached", [("line-0", dots)], ("expected", "reached"), (plain, plain), note)
