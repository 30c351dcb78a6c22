"""Figures for a paper, as PDF and SVG: skip weights, weights of every edge, accuracies, the cells; a table for LaTeX.

matplotlib is imported by this module alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Outline
from matplotlib.ticker import MaxNLocator

from dasvit.cell.genotype import Genotype
from dasvit.report.compare.page import distinct_names
from dasvit.report.drawing.cells import FOUND, arrow, box_words, built, fed_nodes, node_words, weight_of
from dasvit.report.drawing.layout import Point
from dasvit.report.drawing.palette import LINES, colours, dash, ink, line_style
from dasvit.report.markup import latex_table
from dasvit.report.run.plots import edge_charts, frame, operations_of, shown_in
from dasvit.report.run.reading import Run, Weights, read_run
from dasvit.report.tables import SHARES, number

COLUMN, PAGE = 3.5, 7.2
"""Width of a column and of a page, in inches."""
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "dasvit",  # the same figure is the same file
}


def write_figures(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write the figures of one run or several.

    Args:
        folders: Run folders.
        out: Where the figures go; files of the same names are replaced.

    Returns:
        The files: skip_weights, accuracy, weights_RUN and cell_RUN as .pdf and .svg, and networks.tex.

    Raises:
        UserError: A folder holds no run.
    """
    runs = [read_run(folder) for folder in folders]
    names = distinct_names(runs)
    index = operations_of(runs)
    out.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(STYLE):
        figures = {"skip_weights": skip_weights(runs, names), "accuracy": accuracies(runs, names)}
        for run, name in zip(runs, names, strict=True):
            figures[f"weights_{slug(name)}"] = edge_weights(run, list(index))
            figures[f"cell_{slug(name)}"] = draw_cell(run.genotype, run.weights, list(index)) if run.genotype else None
        for name, figure in figures.items():
            if figure:
                files += save(figure, out / name)
    table = out / "networks.tex"
    table.write_text(network_table(runs, names), encoding="utf-8")
    return [*files, table]


def slug(name: str) -> str:
    """Return a run's name as part of a file's."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-") or "run"


def save(figure: Figure, path: Path) -> list[Path]:
    """Save a figure as PDF and SVG, without the date."""
    dates = {path.with_name(f"{path.name}.pdf"): "CreationDate", path.with_name(f"{path.name}.svg"): "Date"}
    for file, date in dates.items():
        figure.savefig(file, bbox_inches="tight", pad_inches=0.02, metadata={date: None})
    return list(dates)


def save_cell(genotype: Genotype, path: Path) -> None:
    """Draw a cell into a PNG file, for readers that show no SVG."""
    with mpl.rc_context(STYLE):
        figure = draw_cell(genotype, {}, [edge.op for edge in genotype.edges])
        figure.savefig(path, bbox_inches="tight", pad_inches=0.02, dpi=192)


def skip_weights(runs: Sequence[Run], names: Sequence[str]) -> Figure | None:
    """Draw the weight of identity, averaged over the edges, of every search (the paper's figures 2 and 3)."""
    figure, axes = _axes()
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        _curve(axes, run, run.track("mean", "identity"), **_of_run(i), label=name)
    axes.set(xlabel="epoch", ylabel="mean weight of identity")
    axes.set_ylim(bottom=0)
    return _finished(figure, axes)


def accuracies(runs: Sequence[Run], names: Sequence[str]) -> Figure | None:
    """Draw the test accuracy of every training."""
    figure, axes = _axes()
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        if run.training:
            points = run.training.column("test_top1") or run.training.column("test_map")
            _curve(axes, run.training, points, **_of_run(i), label=name)
    several = any(run.training and run.training.column("test_map") for run in runs)
    axes.set(xlabel="epoch", ylabel="test mAP (%)" if several else "test top-1 (%)")
    low, high = axes.get_ylim()  # with a margin around the curves
    axes.set_ylim(max(0.0, low), min(100.0, high))
    return _finished(figure, axes)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure((COLUMN, 2.2), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="y", color="#e4e7ea", linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _curve(axes: Axes, run: Run, points: Sequence[tuple[int, float]], **style: Any) -> None:
    """Draw a run's line, in pieces where stages begin; only the first is called by its label."""
    starts = [*(stage.start for stage in run.stages), max((epoch for epoch, _ in points), default=0)]
    for start, end in pairwise(starts if run.stages else [0, *starts]):
        piece = [(epoch, value) for epoch, value in points if start < epoch <= end]
        if piece:
            axes.plot(*zip(*piece, strict=True), **style)
            style = {**style, "label": None}


def _of_run(i: int) -> dict[str, Any]:
    return {"color": LINES["light"][i % 6], "linestyle": _style(line_style(i)[1])}


def _style(pattern: str) -> str | tuple[int, tuple[float, ...]]:
    return (0, tuple(float(part) / 1.8 for part in pattern.split())) if pattern else "-"


def _finished(figure: Figure, axes: Axes) -> Figure | None:
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend()
    return figure if axes.lines else None


def edge_weights(run: Run, operations: Sequence[str]) -> Figure | None:
    """Draw how the weights of every edge moved, with the borders of stages and crosses where operations were pruned."""
    charts = edge_charts(run, {name: i for i, name in enumerate(operations)})[1:]
    if not charts:
        return None
    columns = min(3, len(charts))
    rows = -(-(len(charts) + 1) // columns)  # one place is the legend's
    figure = Figure((PAGE, 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    palette, borders = colours(operations), frame(run)["borders"]
    for axes, chart in zip(grid, charts, strict=False):
        axes.set_title(chart.title, fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_tick_params(labelbottom=True)
        for first, _ in borders[1:]:
            axes.axvline(first - 0.5, color="#8a8f96", linewidth=0.7, linestyle=(0, (3, 3)))
        for series in chart.series:
            _curve(axes, run, series.points, color=palette[series.name], linestyle=_style(dash(series.name)))
            if series.pruned:
                axes.plot(*series.points[-1], marker="x", markersize=4, color=palette[series.name])
    grid[0].set_ylim(bottom=0)
    for axes in grid[len(charts) :]:
        axes.set_axis_off()
    for name in shown_in(run):
        grid[-1].plot([], [], color=palette[name], linestyle=_style(dash(name)), label=name)
    grid[-1].legend(loc="center", ncols=2)
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("weight", fontsize=8)
    return figure


def draw_cell(genotype: Genotype, weights: Weights, operations: Sequence[str]) -> Figure:
    """Draw a cell as its page does (the paper's figures 5 and 6)."""
    drawing, edges = built(genotype)
    width, height = drawing.size
    figure = Figure((width / 96, height / 96))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-3, width + 3), ylim=(height + 3, -3))
    axes.set_axis_off()
    palette = colours(operations)
    for points in drawing.sums:
        _arrow(axes, points, 1.5, "#565d66")
    for edge, points, centre in edges:
        weight, line = weight_of(edge, weights)
        colour = palette[edge.op]
        _arrow(axes, points, line, colour)
        _plate(axes, centre, FOUND.box, 9, facecolor=colour, edgecolor="white", linewidth=1.5)
        _write(axes, centre, box_words(edge.op, weight), ink(colour), (10, 8))
    for name, (x, y, wide) in drawing.nodes.items():
        size = (wide, FOUND.node[1])
        _plate(axes, (x, y), size, size[1] / 2, facecolor="white", edgecolor="#16191d", linewidth=1.2)
        _write(axes, (x, y), node_words(name, fed_nodes(genotype)), "#16191d", (9, 7.5))
    return figure


def _arrow(axes: Axes, points: Sequence[Point], width: float, colour: str) -> None:
    line, corners = arrow(points, width)
    axes.add_patch(PathPatch(_outline(line), fill=False, edgecolor=colour, linewidth=width * 0.75))
    axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor="none"))


def _outline(points: Sequence[Point]) -> Outline:
    """Return a curve that leaves and reaches each of its points vertically."""
    (x, y), *rest = points
    vertices, codes = [(x, y)], [Outline.MOVETO]
    for next_x, next_y in rest:
        middle = (y + next_y) / 2
        vertices += [(x, middle), (next_x, middle), (next_x, next_y)]
        codes += [Outline.CURVE4] * 3
        x, y = next_x, next_y
    return Outline(vertices, codes)


def _plate(axes: Axes, centre: Point, size: Point, radius: float, **style: Any) -> None:
    (x, y), (width, height) = centre, size
    box = f"round,pad=0,rounding_size={radius}"
    axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=box, zorder=3, **style))


def _write(axes: Axes, centre: Point, words: tuple[str, str], colour: str, sizes: tuple[float, float]) -> None:
    (x, y), (first, second) = centre, words
    shift = 7 if second else 0
    common: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "zorder": 4}
    axes.text(x, y - shift, first, fontsize=sizes[0], fontweight="bold", **common)
    axes.text(x, y + shift + 2, second, fontsize=sizes[1], **common)


def network_table(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Return the results as a table for LaTeX, in the manner of the paper's Table I."""
    rows, shown = [], [key for key in SHARES if any(key in run.outcome for run in runs)]
    for run, name in zip(runs, names, strict=True):
        outcome = run.outcome
        shares = [f"{outcome[key]:.1f}" if key in outcome else "–" for key in shown]
        costs = [number(outcome[key]) if key in outcome else "–" for key in ("params", "macs")]
        rows.append([name, *shares, *costs])
    heads = ["network", *(f"{SHARES[key]} (%)" for key in shown), "parameters", "multiply-adds"]
    return latex_table(heads, rows, "l" + "r" * (len(heads) - 1))
