"""Values as dots: rows of them on one axis, and two rankings against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from dasvit.report.drawing.charts import WIDTH
from dasvit.report.drawing.svg import nice_ticks, tag
from dasvit.report.words import bounds_of

SIDE, ROW, RADIUS = 12.0, 46.0, 4.0
"""Space at the sides, height of a row, and of a dot."""


class Row(NamedTuple):
    """A row of dots, each with a name and a value, in a class's colour; `remark` stands at the right, as their mean."""

    name: str
    values: Sequence[tuple[str, float]]
    css: str
    remark: str


def strips(rows: Sequence[Row], title: str, show: Callable[[float], str]) -> Markup:
    """Draw rows of dots, a value or more each, above one axis, with strokes at means; `title` says it in words."""
    values = [value for row in rows for _, value in row.values]
    ticks = nice_ticks(min(values), max(values), within=bounds_of(show))
    left, right, bottom = SIDE, WIDTH - SIDE, 4 + ROW * len(rows)

    def at(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (right - left)

    parts = []
    for tick in ticks:
        parts.append(tag("path", d=f"M{at(tick):.1f} 4V{bottom:g}", class_="grid"))
        parts.append(tag("text", show(tick), x=at(tick), y=bottom + 15, class_="tick-x"))
    for i, row in enumerate(rows):
        y = 4 + ROW * i
        middle = y + 31
        mean = at(sum(value for _, value in row.values) / len(row.values))
        dots = [
            tag("circle", tag("title", f"{name}: {show(value)}"), cx=x, cy=middle + shift, r=RADIUS)
            for (name, value), (x, shift) in zip(row.values, _swarm([at(v) for _, v in row.values]), strict=True)
        ]
        stroke = tag("path", d=f"M{mean:.1f} {middle - 13:.1f}v26", class_="mean")
        parts += [
            tag("text", row.name, x=0.0, y=y + 12, class_="bar-name"),
            tag("text", row.remark, x=WIDTH, y=y + 12, class_="bar-total"),
            tag("g", *dots, stroke, class_=f"dots {row.css}"),
        ]
    return _svg(parts, bottom + 22, title, "strips")


def _swarm(places: Sequence[float]) -> list[tuple[float, float]]:
    """Return each dot's x and its shift up or down, so that dots lie on each other as little as may be."""
    placed: list[tuple[float, float]] = []
    for x in places:
        free = [s for s in (0.0, -5.0, 5.0, -9.0, 9.0) if all(abs(x - a) + abs(s - b) > RADIUS for a, b in placed)]
        placed.append((x, free[0] if free else 0.0))
    return placed


@dataclass(frozen=True)
class Scatter:
    """Two measures of the same things against each other.

    Attributes:
        clouds: A class that colours them, and dots: name, x and y of each; all together one or more.
        axes: Names of x and y.
        show: Write values of x and of y.
        note: A sentence below.
    """

    title: str
    clouds: Sequence[tuple[str, Sequence[tuple[str, float, float]]]]
    axes: tuple[str, str]
    show: tuple[Callable[[float], str], Callable[[float], str]]
    note: str

    @property
    def svg(self) -> Markup:
        """The picture."""
        height = 240.0
        left, right, top, bottom = 46.0, WIDTH - 14, 28.0, height - 40
        points = [point for _, cloud in self.clouds for point in cloud]
        xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
        x_ticks, y_ticks = (
            nice_ticks(min(values), max(values), within=bounds_of(show))
            for values, show in zip((xs, ys), self.show, strict=True)
        )

        def at(x: float, y: float) -> tuple[float, float]:
            across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
            up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
            return left + across * (right - left), bottom - up * (bottom - top)

        parts = [tag("text", self.axes[1], x=0.0, y=11.0, class_="axis-name")]
        for tick in y_ticks:
            y = at(x_ticks[0], tick)[1]
            parts.append(tag("path", d=f"M{left:g} {y:.1f}H{right:.1f}", class_="grid"))
            parts.append(tag("text", self.show[1](tick), x=left - 6, y=y + 4, class_="tick-y"))
        for tick in x_ticks:
            x = at(tick, y_ticks[0])[0]
            parts.append(tag("path", d=f"M{x:.1f} {bottom:g}v4", class_="axis"))
            parts.append(tag("text", self.show[0](tick), x=x, y=bottom + 16, class_="tick-x"))
        parts.append(tag("path", d=f"M{left:g} {bottom:g}H{right:.1f}", class_="axis"))
        parts.append(tag("text", self.axes[0], x=(left + right) / 2, y=height - 5, class_="tick-x"))
        for css, cloud in self.clouds:
            dots = []
            for name, x, y in cloud:
                told = f"{name}: {self.show[0](x)}, {self.show[1](y)}"
                dots.append(tag("circle", tag("title", told), cx=at(x, y)[0], cy=at(x, y)[1], r=RADIUS))
            parts.append(tag("g", *dots, class_=f"dots {css}"))
        words = f"{self.title}: {self.axes[1]} against {self.axes[0]} of {len(points)} cells."
        return _svg(parts, height, words, "plot")


def _svg(parts: Sequence[Markup], height: float, title: str, css: str) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=title, class_=css)
