"""Which charts a run's page has, from what its folder says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dasvit.config.marks import loss_marks
from dasvit.report.drawing.cells import strongest
from dasvit.report.drawing.charts import Chart, Points, Series, limited
from dasvit.report.drawing.palette import dash, in_order, kind_of, line_style
from dasvit.report.run.reading import Run, finite
from dasvit.report.words import percent, plain, weight

KINDS = {
    "msa": "attention",
    "mlp": "MLP",
    "shift": "shift",
    "conv": "convolution",
    "identity": "identity",
    "zero": "zero",
    "other": "other",
}
TYPES = ("msa", "mlp", "shift", "conv")
"""Of these, the package's own types of eq. 17."""


def all_charts(run: Run, index: Mapping[str, int]) -> dict[str, list[Chart]]:
    """Return the charts of every section of a run's page, those without data left out.

    `index` has the number of every operation's colour class.
    """
    groups = {
        "weights": edge_charts(run, index),
        "collapse": collapse_charts(run, index),
        "learning": learning_charts(run),
        "resources": resource_charts(run),
    }
    shown = {name: [one for one in charts if any(s.points for s in one.series)] for name, charts in groups.items()}
    lines = sum(len(chart.series) for charts in shown.values() for chart in charts)
    return {name: limited(charts, lines) for name, charts in shown.items()}


def frame(run: Run) -> dict[str, Any]:
    """Return what all charts of a run share: its epochs, and its stages if it has several."""
    stages = [stage for stage in run.stages if stage.epochs]
    several = run.kind == "search" and len(stages) > 1
    alone = [(s.start + 1, s.start + min(s.weight_epochs, s.epochs)) for s in stages if s.weight_epochs]
    return {
        "epochs": max(run.planned, run.done),
        "borders": [(s.start + 1, f"stage {s.number}") for s in stages] if several else [],
        "shaded": alone if run.kind == "search" else [],
    }


def edge_charts(run: Run, index: Mapping[str, int]) -> list[Chart]:
    """Return how the weights moved: averaged over the edges, and edge by edge on one scale."""
    top = max((w for s in run.snapshots for edge in s.weights.values() for w in edge.values()), default=1.0)
    common = {**frame(run), "show": weight, "zero": True}
    charts = []
    for edge in dict.fromkeys(edge for s in run.snapshots for edge in s.weights):
        found = {s.epoch: s.weights.get(edge, {}) for s in run.snapshots}
        charts.append(Chart(edge, _operations(found, index), top=top, **common))
    alive = {s.epoch: {op for edge in s.weights.values() for op in edge} for s in run.snapshots}
    means = {s.epoch: {op: w for op, w in s.mean.items() if op in alive[s.epoch]} for s in run.snapshots}
    return [Chart("all edges, averaged", _operations(means, index), **common), *charts]


def _operations(found: Mapping[int, Mapping[str, float]], index: Mapping[str, int]) -> list[Series]:
    """Return a line for every operation; it ends where the operation was pruned."""
    last = max(found, default=0)
    lines = []
    for op in in_order({op for row in found.values() for op in row}):
        points = [(epoch, row[op]) for epoch, row in found.items() if op in row]
        lines.append(Series(op, points, f"op-{index[op]}", dash(op), pruned=points[-1][0] < last))
    return lines


def collapse_charts(run: Run, index: Mapping[str, int]) -> list[Chart]:
    """Return what tells a collapse: fairness terms, weights of types and of skips, leading operations, entropy."""
    kinds = {kind: next((f"op-{i}" for op, i in index.items() if kind_of(op) == kind), "line-0") for kind in KINDS}
    share = 2 / max(2, len({op.partition("_")[0] for op in space_of(run)} - {"zero", "identity"}))
    bounds = [(finite(run.option(f"search.fairness.{name}")), name) for name in ("lower", "upper")]
    skips = [Series(name, run.track("mean", name), kinds[name], dash(name)) for name in ("identity", "zero")]
    types = [Series(KINDS[name], run.track("types", name), kinds[name]) for name in TYPES]
    terms = {"total": "L_fair", "skip": "L_skip", "types": "L_type"}
    fairness = _lines([(word, run.track("fairness", name)) for name, word in terms.items()])
    common = {**frame(run), "zero": True}
    within = [(share * value, f"{name} {share * value:.2g}") for value, name in bounds if value is not None]
    led = "How many edges have an operation of that kind as their strongest."
    typed = "Eq. 17, with the bounds between which nothing is penalised."
    undecided = "In nats, averaged over the edges; undecided is the entropy of equal weights."
    return [
        Chart("Weight of identity and zero", skips, weight, note="Averaged over the edges.", **common),
        Chart("Edges led by each kind", _leaders(run, kinds), plain, note=led, **common),
        Chart("Total weight of each type", types, weight, bounds=within, note=typed, **common),
        Chart("Fairness terms", fairness, plain, note="Eq. 16, 18 and 19.", **common),
        Chart("Entropy of an edge's weights", _entropies(run), weight, note=undecided, **common),
    ]


def _lines(columns: Iterable[tuple[str, Points]]) -> list[Series]:
    """Return lines that are no operations, each with a colour and dashes of its own."""
    there = [(name, points) for name, points in columns if points]
    return [Series(name, points, *line_style(i)) for i, (name, points) in enumerate(there)]


def _leaders(run: Run, kinds: Mapping[str, str]) -> list[Series]:
    leading = [(s.epoch, [kind_of(op) for op in strongest(s.weights).values()]) for s in run.snapshots]
    counts = {kind: [(epoch, float(led.count(kind))) for epoch, led in leading] for kind in KINDS}
    return [
        Series(KINDS[kind], points, kinds[kind], dash(kind))
        for kind, points in counts.items()
        if any(count for _, count in points)
    ]


def _entropies(run: Run) -> list[Series]:
    most = [
        (s.epoch, sum(math.log(len(ops)) for ops in s.weights.values()) / len(s.weights))
        for s in run.snapshots
        if s.weights and s.entropy is not None
    ]
    return _lines([("entropy", run.entropies()), ("undecided", most)])


def learning_charts(run: Run) -> list[Chart]:
    """Return losses, accuracies and the learning rate."""
    common = frame(run)
    section = run.option("search" if run.kind == "search" else "train")
    marks = loss_marks(section) if isinstance(section, Mapping) else ""
    name = f"training ({marks})" if marks else "training"
    judged = "validation" if run.rungs else "test"
    losses = {"train_loss": name, "val_loss": "validation", "test_loss": judged}
    note = "The training loss is the mean over the epoch, while the weights move"
    note += f", of images and labels that are {marks.replace(', ', ' or ')}" if marks else ""
    note += ": it is no measure of the same thing as the others." if marks else "."
    accuracies = {"val_top1": "validation", "test_top1": "top-1", "test_top5": "top-5", "test_macro_f1": "macro-F1"}
    accuracies |= {"val_exact_match": "all labels right", "val_map": "validation mAP", "test_map": "mAP"}
    majority = [(share, "majority") for _, share in run.column("test_majority")[-1:]]
    majority += [(share, "a constant's mAP") for _, share in run.column("test_prevalence")[-1:]]
    where = "supernet, validation half" if run.kind == "search" else f"{judged} images"
    return [
        Chart("Loss", _metrics(run, losses), plain, note=note, **common),
        Chart(f"Accuracy ({where})", _metrics(run, accuracies), percent, bounds=majority, **common),
        Chart("Learning rate", _metrics(run, {"lr": "learning rate"}), plain, zero=True, **common),
    ]


def _metrics(run: Run, names: Mapping[str, str]) -> list[Series]:
    return _lines((word, run.column(name)) for name, word in names.items())


def resource_charts(run: Run) -> list[Chart]:
    """Return time, speed and memory."""
    common = {**frame(run), "zero": True}
    return [
        _in_unit(run, "seconds", "Time of an epoch", {"seconds": 1, "minutes": 60, "hours": 3600}, common),
        Chart("Training images a second", _metrics(run, {"images_per_second": "images/s"}), plain, **common),
        _in_unit(run, "peak_memory_mib", "Peak memory", {"MiB": 1, "GiB": 1024}, common),
    ]


def _in_unit(run: Run, name: str, title: str, units: Mapping[str, float], common: Mapping[str, Any]) -> Chart:
    """Return the chart of a metric in the largest unit of which it reaches two."""
    points = run.column(name)
    most = max((value for _, value in points), default=0.0)
    unit = max((u for u, size in units.items() if most >= 2 * size), key=units.__getitem__, default=next(iter(units)))
    series = [Series(unit, [(epoch, value / units[unit]) for epoch, value in points], "line-0")]
    return Chart(f"{title}, {unit}", series, plain, **common)


def operations_of(runs: Sequence[Run]) -> dict[str, int]:
    """Return every operation that runs speak of → the number of its colour class."""
    names: set[str] = set()
    for run in runs:
        names |= {*space_of(run), *weighed(run), *(op for s in run.snapshots for op in s.mean)}
        for genotype in (run.genotype, run.unconstrained, run.trained.genotype if run.trained else None):
            names |= set(genotype.ops) if genotype else set()
    return {name: i for i, name in enumerate(in_order(names))}


def weighed(run: Run) -> set[str]:
    """Return the operations that weights are known of."""
    return {op for s in run.snapshots for edge in s.weights.values() for op in edge}


def space_of(run: Run) -> list[str]:
    """Return the operations that a configuration lets compete: with them a colour means the same on all pages."""
    found = ["zero", "identity"]
    for kind, key in {"msa": "heads", "mlp": "ratios", "shift": "shifts", "conv": "convs"}.items():
        values = run.option(f"space.{key}")
        for value in values if isinstance(values, list) else []:
            name = f"{kind}_{value:g}" if finite(value) is not None else ""
            found += [name] if kind_of(name) == kind else []
    extra = run.option("space.extra")
    return found + [name for name in extra if isinstance(name, str)] if isinstance(extra, list) else found


def shown_in(run: Run) -> list[str]:
    """Return the operations that a run's page shows somewhere."""
    cells = [genotype for genotype in (run.genotype, run.unconstrained) if genotype]
    return in_order(weighed(run) | {op for cell in cells for op in cell.ops if op != "zero"})
