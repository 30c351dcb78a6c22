"""Line charts as SVG: small ones, sized for a phone and set side by side on a desktop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from markupsafe import Markup

from dasvit.report.drawing.svg import nice_ticks, tag
from dasvit.report.words import bounds_of

WIDTH, HEIGHT = 360.0, 216.0
TOP, BOTTOM, LEFT = 16.0, 30.0, 46.0
LETTER = 6.2
"""Width of a letter of a label."""
MOST_POINTS = 60_000
MOST_CELLS = 40_000
"""Of all charts of a page together, and of the tables behind them: what keeps it under 2 MB."""
Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Series:
    """A line: (epoch, value) in order, drawn in a class's colour and with dashes as 6 3.

    Attributes:
        pruned: Whether its end is a decision: marked with a cross.
        breaks: Epochs before which it breaks, beside the chart's own borders.
    """

    name: str
    points: Points
    css: str
    dash: str = ""
    pruned: bool = False
    breaks: Sequence[int] = ()


@dataclass(frozen=True)
class Chart:
    """A chart of lines over the epochs.

    Attributes:
        show: Writes a value for readers.
        epochs: Length of the axis.
        axis: Its name.
        borders: (epoch, label) before which a stage begins; lines break there.
        shaded: (first, last) epochs that train weights alone.
        bounds: (value, label) of horizontal lines.
        top: The axis reaches at least to here.
        zero: Whether it begins at zero.
        labels: Whether lines carry their names.
        note: A sentence below.
    """

    title: str
    series: Sequence[Series]
    show: Callable[[float], str]
    epochs: int
    axis: str = "epoch"
    borders: Sequence[tuple[int, str]] = ()
    shaded: Sequence[tuple[int, int]] = ()
    bounds: Sequence[tuple[float, str]] = ()
    top: float | None = None
    zero: bool = False
    labels: bool = True
    note: str = ""
    most_points: int = 400  # of each line
    most_rows: int = 200  # of the table behind

    @cached_property
    def ticks(self) -> list[float]:
        """Values at the axis: it reaches from the first to the last."""
        values = [value for series in self.series for _, value in series.points] or [0.0, 1.0]
        values += [value for value, _ in self.bounds]
        low = min([*values, 0.0] if self.zero else values)
        high = max(values if self.top is None else [*values, self.top])
        return nice_ticks(low, high, within=bounds_of(self.show))

    @cached_property
    def right(self) -> float:
        """Where the axis of epochs ends: names of several lines stand behind it."""
        named = self.labels and len(self.series) > 1
        letters = max(len(series.name) for series in self.series) if named else 0
        return WIDTH - (10 + letters * LETTER if letters else 8)

    @property
    def last(self) -> int:
        """The epoch at which the axis ends."""
        return max(self.epochs, 2)

    def x(self, epoch: float) -> float:
        """Return where an epoch lies."""
        return LEFT + (epoch - 1) / (self.last - 1) * (self.right - LEFT)

    def y(self, value: float) -> float:
        """Return where a value lies."""
        low, high = self.ticks[0], self.ticks[-1]
        return TOP + (high - value) / (high - low) * (HEIGHT - BOTTOM - TOP)

    @property
    def svg(self) -> Markup:
        """The picture."""
        parts = [
            *(_shade(self, *span) for span in self.shaded),
            *_grid(self),
            *(_border(self, *border) for border in self.borders),
            *(_line(self, series) for series in self.series if series.points),
            *(_bound(self, *bound) for bound in self.bounds),
            *(_names(self) if self.labels else []),
        ]
        return tag(
            "svg", *parts, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=self.summary, class_="plot"
        )

    @property
    def summary(self) -> str:
        """The picture in words."""
        ends = [
            f"{s.name} from {self.show(s.points[0][1])} to {self.show(s.points[-1][1])}"
            + (f", pruned after epoch {s.points[-1][0]}" if s.pruned else "")
            for s in self.series
            if s.points
        ]
        return f"{self.title}. {'; '.join(ends)}."

    @property
    def table(self) -> tuple[list[str], list[tuple[int, list[str]]], bool]:
        """The numbers behind the picture: heads, (epoch, values) and whether epochs were left out."""
        columns = [dict(series.points) for series in self.series]
        epochs = sorted({epoch for column in columns for epoch in column})
        kept = thin(epochs, max(12, self.most_rows), {first for first, _ in self.borders})
        rows = [(epoch, [self.show(c[epoch]) if epoch in c else "" for c in columns]) for epoch in kept]
        return [series.name for series in self.series], rows, len(kept) < len(epochs)


def limited(charts: Sequence[Chart], lines: int = 0) -> list[Chart]:
    """Return charts whose lines and tables are thinned so that a page with so many lines (0: theirs) stays small."""
    lines = lines or sum(len(chart.series) for chart in charts)
    points, rows = max(12, min(400, MOST_POINTS // max(1, lines))), max(12, min(200, MOST_CELLS // max(1, lines)))
    return [replace(chart, most_points=points, most_rows=rows) for chart in charts]


def overlaid(
    title: str, lines: Sequence[Series], show: Callable[[float], str], zero: bool, note: str = ""
) -> list[Chart]:
    """Return the chart of several runs' lines, whose colours a legend explains; none where all are empty."""
    lines = [series for series in lines if series.points]
    epochs = max((epoch for series in lines for epoch, _ in series.points), default=0)
    return [Chart(title, lines, show, epochs, zero=zero, labels=False, note=note)] if lines else []


def thin(epochs: Sequence[int], most: int, keep: set[int]) -> list[int]:
    """Return at most about `most` of the epochs, evenly, with the first, the last and those before and at a border."""
    if len(epochs) <= most:
        return list(epochs)
    step = -(-len(epochs) // most)
    borders = keep | {epoch - 1 for epoch in keep} | {epochs[0], epochs[-1]}
    return [epoch for i, epoch in enumerate(epochs) if i % step == 0 or epoch in borders]


def _shade(chart: Chart, first: int, last: int) -> Markup:
    left, right = chart.x(max(1, first - 0.5)), chart.x(min(chart.last, last + 0.5))
    return tag("rect", x=left, y=TOP, width=right - left, height=HEIGHT - BOTTOM - TOP, class_="alone")


def _grid(chart: Chart) -> list[Markup]:
    lines, texts = [], []
    for tick in chart.ticks:
        y = chart.y(tick)
        lines.append(tag("path", d=f"M{LEFT:g} {y:.1f}H{chart.right:.1f}", class_="grid"))
        texts.append(tag("text", chart.show(tick), x=LEFT - 6, y=y + 4, class_="tick-y"))
    for epoch in epoch_ticks(chart.last):
        x = chart.x(epoch)
        texts.append(tag("text", f"{epoch}", x=x, y=HEIGHT - BOTTOM + 15, class_="tick-x"))
        lines.append(tag("path", d=f"M{x:.1f} {HEIGHT - BOTTOM:g}v4", class_="axis"))
    lines.append(tag("path", d=f"M{LEFT:g} {HEIGHT - BOTTOM:g}H{chart.right:.1f}", class_="axis"))
    texts.append(tag("text", chart.axis, x=(LEFT + chart.right) / 2, y=HEIGHT - 3, class_="tick-x"))
    return [*lines, *texts]


def epoch_ticks(epochs: int) -> list[int]:
    """Return whole epochs to write at the axis: the first, round ones, at most about eight."""
    steps = [int(tick) for tick in nice_ticks(0, epochs, 8) if tick == int(tick) and 1 < tick <= epochs]
    step = steps[1] - steps[0] if len(steps) > 1 else epochs
    return [1, *(tick for tick in steps if tick - 1 >= 0.6 * step or step == 1)]


def _border(chart: Chart, epoch: int, label: str) -> Markup:
    x = chart.x(epoch - 0.5)
    line = tag("path", d=f"M{x:.1f} {TOP:g}V{HEIGHT - BOTTOM:g}", class_="border") if epoch > 1 else Markup("")
    at = x + 3 if epoch > 1 else LEFT + 3
    return tag("g", line, tag("text", label, x=at, y=TOP - 5, class_="stage"))


def _bound(chart: Chart, value: float, label: str) -> Markup:
    y = chart.y(value)
    line = tag("path", d=f"M{LEFT:g} {y:.1f}H{chart.right:.1f}", class_="bound")
    return tag("g", line, tag("text", label, x=LEFT + 4, y=y - 3, class_="stage"))


def _line(chart: Chart, series: Series) -> Markup:
    """Draw a line in pieces: between stages everything begins anew."""
    firsts = {*(first for first, _ in chart.borders), *series.breaks}
    values = dict(series.points)
    epochs = thin(list(values), chart.most_points, firsts)
    pieces: list[list[int]] = [[]]
    for epoch in epochs:
        if pieces[-1] and any(pieces[-1][-1] < first <= epoch for first in firsts):
            pieces.append([])
        pieces[-1].append(epoch)
    path = "".join(
        "".join(f"{'L' if i else 'M'}{chart.x(e):.1f} {chart.y(values[e]):.1f}" for i, e in enumerate(piece))
        for piece in pieces
        if len(piece) > 1
    )
    parts = [tag("title", series.name)]
    if path:
        parts.append(tag("path", d=path, stroke_dasharray=series.dash or None, class_="line"))
    dots = epochs if len(epochs) <= 40 else [piece[0] for piece in pieces if len(piece) == 1]
    parts += [tag("circle", cx=chart.x(e), cy=chart.y(values[e]), r=2.2) for e in dots]
    if series.pruned:
        x, y = chart.x(epochs[-1]), chart.y(values[epochs[-1]])
        parts.append(tag("path", d=f"M{x - 4.5:.1f} {y - 4.5:.1f}l9 9m0 -9l-9 9", class_="pruned"))
    return tag("g", *parts, class_=f"series {series.css}")


def _names(chart: Chart) -> list[Markup]:
    """Write every line's name at its end, pushed apart where lines end close together."""
    if len(chart.series) < 2:
        return []
    named = [series for series in chart.series if series.points and not series.pruned]
    ends = sorted(((*series.points[-1], series) for series in named), key=lambda end: chart.y(end[1]))
    low, high, step = TOP + 4, HEIGHT - BOTTOM + 2, 12.5
    places = [chart.y(value) + 4 for _, value, _ in ends]
    for i in range(len(places)):
        places[i] = max(places[i], low if i == 0 else places[i - 1] + step)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], high if i == len(places) - 1 else places[i + 1] - step)
    return [
        tag("text", series.name, x=min(chart.x(epoch), chart.right) + 6, y=y, class_=f"label {series.css}")
        for (epoch, _, series), y in zip(ends, places, strict=True)
    ]


def bars(rows: Sequence[tuple[str, str, Sequence[tuple[str, str, float]]]], title: str) -> Markup:
    """Draw bars against the longest: of each its name, its total in words, and its pieces' names, classes and sizes."""
    longest = max((sum(size for _, _, size in pieces) for _, _, pieces in rows), default=0.0) or 1.0
    parts: list[Markup] = []
    for i, (name, total, pieces) in enumerate(rows):
        y, x = 4.0 + 46.0 * i, 0.0
        parts.append(tag("text", name, x=0.0, y=y + 11, class_="bar-name"))
        parts.append(tag("text", total, x=WIDTH, y=y + 11, class_="bar-total"))
        for piece, css, size in pieces:
            width = WIDTH * size / longest
            shape = tag("rect", tag("title", piece), x=x, y=y + 17, width=max(0.0, width - 0.6), height=17.0)
            parts.append(tag("g", shape, class_=f"piece {css}"))
            x += width
    height = 46 * len(rows) + 4
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH:g} {height}", role="img", aria_label=title, class_="bars")
