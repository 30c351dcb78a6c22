"""Layout, colours, axes: nothing on top of anything, every colour told apart, every number where it belongs."""

import itertools
import math
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasvit.cell.genotype import PUBLISHED, Genotype, edge_list
from dasvit.report.drawing import palette
from dasvit.report.drawing.cells import (
    FOUND,
    MIXED,
    RIBBON,
    describe_cell,
    found_cell,
    mixed_cell,
    nodes_of,
    warnings_of,
)
from dasvit.report.drawing.charts import Chart, Series, epoch_ticks, thin
from dasvit.report.drawing.dot_plots import Row, Scatter, strips
from dasvit.report.drawing.layout import Drawing, Sizes, lay_out
from dasvit.report.drawing.svg import nice_ticks, tag
from dasvit.report.words import duration, interval, memory, percent, plain, weight
from run_folders import OPERATIONS

INDEX = {name: i for i, name in enumerate(OPERATIONS)}
Box = tuple[float, float, float, float]


def boxes_of(drawing: Drawing, sizes: Sizes) -> list[Box]:
    """Return (left, top, right, bottom) of all that stands in a drawing."""
    places = [(x, y, width, sizes.node[1]) for x, y, width in drawing.nodes.values()]
    places += [(x, y, *sizes.box) for _, (x, y) in drawing.edges]
    return [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in places]


@pytest.mark.parametrize("sizes", [FOUND, MIXED], ids=["found", "mixed"])
@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 6, 16])
def test_nothing_stands_on_anything(nodes: int, sizes: Sizes) -> None:
    drawing = lay_out(nodes, tuple(edge_list(nodes)), sizes)
    boxes = boxes_of(drawing, sizes)
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)
    width, height = drawing.size
    assert all(left >= -0.01 and right <= width + 0.01 for left, _, right, _ in boxes)
    assert all(top >= -0.01 and bottom <= height + 0.01 for _, top, _, bottom in boxes)


@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_edges_pass_everything_by(nodes: int) -> None:
    """Straight pieces, the only ones inside rows, touch no box but the edge's own."""
    edges = edge_list(nodes)
    drawing = lay_out(nodes, tuple(edges), MIXED)
    boxes = boxes_of(drawing, MIXED)
    own = {i: len(drawing.nodes) + i for i in range(len(edges))}
    for i, points in enumerate([*(points for points, _ in drawing.edges), *drawing.sums]):
        half = RIBBON / 2 if i < len(edges) else 1.0
        for (x, y), (next_x, next_y) in itertools.pairwise(points):
            assert next_y >= y
            if abs(x - next_x) > 0.01:
                continue
            for j, (left, top, right, bottom) in enumerate(boxes):
                inside = x + half > left and x - half < right and next_y > top + 0.01 and y < bottom - 0.01
                assert not inside or own.get(i) == j, (i, j)


def test_edges_run_from_their_source_to_their_target() -> None:
    edges = edge_list(3)
    drawing = lay_out(3, tuple(edges), FOUND)
    for (source, target), (points, (box_x, box_y)) in zip(edges, drawing.edges, strict=True):
        (x, y, width), (end_x, end_y, end_width) = drawing.nodes[source], drawing.nodes[target]
        assert abs(points[0][0] - x) < width / 2 and points[0][1] == pytest.approx(y + FOUND.node[1] / 2)
        assert abs(points[-1][0] - end_x) < end_width / 2 and points[-1][1] == pytest.approx(end_y - FOUND.node[1] / 2)
        assert any(p[0] == pytest.approx(box_x) for p in points) and points[0][1] < box_y < points[-1][1]


def test_the_papers_space_is_drawn_with_one_crossing() -> None:
    """Two nodes, five edges: only the line from x1 to the output has to cross an edge."""
    drawing = lay_out(2, tuple(edge_list(2)), MIXED)
    order = sorted(range(5), key=lambda i: drawing.edges[i][0][0][0])
    assert {order[0], order[-1]} == {2, 3}  # the long edges run outside


def parse(markup: str) -> ET.Element:
    return ET.fromstring(markup)


def test_a_cell_is_drawn_as_it_is() -> None:
    cell = PUBLISHED["dasvit_cifar10"]
    drawing = parse(found_cell(cell, {}, INDEX))
    groups = [g for g in drawing.iter("g") if (g.get("class") or "").startswith("operation")]
    shown = sorted((g.get("class"), " ".join(t.text or "" for t in g.iter("text"))) for g in groups)
    assert shown == [("operation op-4", "MSA 8 heads")] + 3 * [("operation op-5", "MLP ratio 0.5")]
    assert drawing.get("aria-label") == f"Cell: {describe_cell(cell)}"
    first, second, output = describe_cell(cell).split("; ")
    assert first == "x1 is mlp_0.5 of prev2 plus mlp_0.5 of prev1"
    assert second == "x2 is mlp_0.5 of prev1 plus msa_8 of x1" and output == "the output is x1 plus x2."


def test_edges_are_as_wide_as_they_weigh() -> None:
    cell = PUBLISHED["dasvit_cifar10"]
    weights = {"prev2→x1": {"mlp_0.5": 0.25}, "prev1→x1": {"mlp_0.5": 0.75}}
    edges = [g for g in parse(found_cell(cell, weights, INDEX)).iter("g") if (g.get("class") or "").startswith("edge")]
    widths = [float(g[0].get("stroke-width") or 0) for g in edges]
    assert widths[1] - widths[0] == pytest.approx(0.5 * 0.5 * RIBBON) and widths[2] == widths[3] == 3


def test_what_nothing_feeds_is_drawn_as_such() -> None:
    cell = Genotype.from_ops(2, ["zero", "zero", "msa_4", "zero", "mlp_1"])
    drawing = parse(found_cell(cell, {}, INDEX))
    assert sum("unfed" in (g.get("class") or "") for g in drawing.iter("g")) == 1
    assert sum((g.get("class") or "").startswith("operation") for g in drawing.iter("g")) == 1


def test_a_mixture_is_split_by_weight() -> None:
    weights = {f"{s}→{t}": {"identity": 0.25, "msa_2": 0.75} for s, t in edge_list(2)}
    drawing = parse(mixed_cell(weights, INDEX, 7))
    groups = [g for g in drawing.iter("g") if g.get("class") == "mixture"]
    assert len(groups) == 5
    for group in groups:
        paths = {p.get("data-op"): p.get("d") or "" for p in group.iter("path")}
        assert [name for name, d in paths.items() if d] == ["identity", "msa_2"]
        lefts = [float(paths[name][1:].split(" ")[0]) for name in ("identity", "msa_2")]
        assert lefts[1] - lefts[0] == pytest.approx(0.25 * RIBBON, abs=0.11)
        assert [t.text for t in group.iter("text")] == ["msa_2 0.75"]


def test_weights_of_no_cell() -> None:
    assert nodes_of({"prev2→x1": {}, "prev1→x1": {}}) == 1
    assert nodes_of({"prev2→x1": {}}) == 0 and nodes_of({}) == 0


def test_warnings() -> None:
    edges = [f"{s}→{t}" for s, t in edge_list(2)]
    assert warnings_of({edge: {"msa_2": 0.6, "identity": 0.4} for edge in edges}) == []
    said = warnings_of({edge: {"msa_2": 0.1, "zero": 0.9} for edge in edges})
    assert [text.split(" ")[0] for text in said] == ["zero", "The"]
    dead = {edge: {"zero": 1.0} for edge in edges} | {"x1→x2": {"msa_2": 1.0}}
    assert "without attention" in warnings_of(dead)[-1]  # the attention reads nothing


# What people with protanopia, deuteranopia and tritanopia see (Machado, Oliveira and Fernandes 2009, severity 1).
SEEN: dict[str, list[list[float]]] = {
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def oklab(colour: str, eye: str) -> tuple[float, ...]:
    """Return a colour as an eye sees it, in a space where distances are those seen (Ottosson's)."""
    shares = [value / 255 for value in palette.channels(colour)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    r, g, b = (min(1.0, max(0.0, sum(f * c for f, c in zip(row, linear, strict=True)))) for row in SEEN[eye])
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    middle = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.793617785 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.428592205 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.808675766 * short,
    )


@pytest.mark.parametrize("eye", SEEN)
@pytest.mark.parametrize("theme", palette.THEMES)
def test_operations_are_told_apart(theme: str, eye: str) -> None:
    found = palette.colours(OPERATIONS, theme)
    for one, other in itertools.combinations(OPERATIONS, 2):
        assert math.dist(oklab(found[one], eye), oklab(found[other], eye)) > 0.09, (one, other)


@pytest.mark.parametrize("theme", palette.THEMES)
@pytest.mark.parametrize("heads", [1, 3, 6])
def test_colours_are_legible(theme: str, heads: int) -> None:
    names = [
        "zero",
        "identity",
        "another",
        *(f"msa_{2**i}" for i in range(heads)),
        *(f"mlp_{i + 1}" for i in range(heads)),
    ]
    for colour in [*palette.colours(names, theme).values(), *palette.LINES[theme]]:
        assert palette.contrast(colour, palette.BACKGROUNDS[theme]) >= 3
        assert palette.contrast(palette.ink(colour), colour) >= 4.5


def test_contrast_is_the_known_one() -> None:
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_operations_have_an_order() -> None:
    mixed = ["mlp_2", "odd", "msa_12", "zero", "mlp_0.5", "msa_4", "identity"]
    assert palette.in_order(mixed) == ["zero", "identity", "msa_4", "msa_12", "mlp_0.5", "mlp_2", "odd"]
    assert palette.shade(("#000000", "#ff0000", "#ffffff"), 0.25) == "#800000"


FLOATS = st.floats(-1e9, 1e9, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(FLOATS, FLOATS)
def test_ticks_span_the_values(one: float, other: float) -> None:
    low, high = sorted((one, other))
    ticks = nice_ticks(low, high)
    spread = ticks[-1] - ticks[0]
    assert 2 <= len(ticks) <= 8 and ticks == sorted(set(ticks))
    assert ticks[0] <= low + 1e-6 * spread and ticks[-1] >= high - 1e-6 * spread


def test_ticks() -> None:
    assert nice_ticks(0, 0.58) == [0, 0.2, 0.4, 0.6]
    assert epoch_ticks(6) == [1, 2, 3, 4, 5, 6] and epoch_ticks(90)[-1] == 80 and epoch_ticks(1) == [1]


@pytest.mark.parametrize("values", [[97.0], [100.0], [100.0, 100.0], [0.0], [3.0], [12.0, 99.9], [99.2, 100.0]])
def test_axes_of_percent_end_at_a_hundred(values: list[float]) -> None:
    points = list(enumerate(values, start=1))
    ticks = Chart("t", [Series("a", points, "x")], percent, epochs=2).ticks
    assert 0 <= ticks[0] <= min(values) and max(values) <= ticks[-1] <= 100 and len(ticks) > 1
    drawn = [
        strips([Row("a", [("s", value) for value in values], "x", "")], "t", percent),
        Scatter("t", [("x", [("c", value, value) for value in values])], ("x", "y"), (percent, percent), "").svg,
    ]
    for picture in drawn:
        texts = [
            text.text or "" for text in parse(picture).iter("text") if (text.get("class") or "").startswith("tick")
        ]
        written = [float(text.removesuffix(" %")) for text in texts if text.endswith(" %")]
        assert written and min(written) >= 0 and max(written) <= 100
    assert nice_ticks(97.0, 97.0)[-1] > 100  # of what is no percent


def points_of(chart: Chart, name: str) -> list[tuple[float, float]]:
    svg = parse(chart.svg)
    group = next(g for g in svg.iter("g") if (g.get("class") or "").startswith("series") and g[0].text == name)
    return [(float(c.get("cx") or 0), float(c.get("cy") or 0)) for c in group.iter("circle")]


def test_points_stand_where_their_values_say() -> None:
    chart = Chart("t", [Series("a", [(1, 0.0), (2, 0.5), (5, 1.0)], "x")], weight, epochs=5, zero=True)
    places = points_of(chart, "a")
    epochs, values = ticks_of(chart, "tick-x", "x"), ticks_of(chart, "tick-y", "y")
    for (x, y), (epoch, value) in zip(places, [("1", "0"), ("2", "0.5"), ("5", "1")], strict=True):
        assert x == pytest.approx(epochs[epoch], abs=0.02)
        middle = values.get(value, (values["0"] + values["1"]) / 2)
        assert y == pytest.approx(middle - 4, abs=0.02)  # text stands four pixels below its tick


def ticks_of(chart: Chart, css: str, axis: str) -> dict[str, float]:
    texts = (text for text in parse(chart.svg).iter("text") if text.get("class") == css)
    return {text.text or "": float(text.get(axis) or 0) for text in texts}


def test_lines_break_at_borders() -> None:
    series = Series("a", [(i, i / 10) for i in range(1, 7)], "x")
    chart = Chart("t", [series], weight, epochs=6, borders=[(1, "stage 1"), (4, "stage 2")])
    path = next(p for p in parse(chart.svg).iter("path") if p.get("class") == "line").get("d") or ""
    assert path.count("M") == 2 and path.count("L") == 4


def test_names_at_lines_do_not_touch() -> None:
    series = [Series(f"s{i}", [(1, 0.5), (2, 0.5 + i / 1000)], "x") for i in range(8)]
    chart = Chart("t", series, weight, epochs=2, zero=True)
    places = sorted(float(t.get("y") or 0) for t in parse(chart.svg).iter("text") if "label" in (t.get("class") or ""))
    assert len(places) == 8 and all(b - a >= 12.4 for a, b in itertools.pairwise(places))
    assert places[0] > 0 and places[-1] < 216


def test_thinning_keeps_ends_and_borders() -> None:
    kept = thin(list(range(1, 1001)), 50, {400})
    assert len(kept) < 60 and {1, 399, 400, 1000} <= set(kept) and kept == sorted(kept)


def test_text_in_drawings_is_escaped() -> None:
    markup = tag("text", '<b>&"', class_='a"b', x=1.0)
    assert markup == '<text class="a&#34;b" x="1">&lt;b&gt;&amp;&#34;</text>'


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (duration, 42, "42 s"),
        (duration, 1200, "20 min"),
        (duration, 11100, "3 h 05 min"),
        (memory, 1330.9, "1331 MiB"),
        (memory, 7475.2, "7.3 GiB"),
        (percent, 56.2, "56.2 %"),
        (percent, 60, "60 %"),
        (weight, 0.125, "0.125"),
        (weight, 0.0, "0"),
        (plain, 0.00015, "0.00015"),
    ],
)
def test_numbers_for_readers(write: Any, value: float, text: str) -> None:
    assert write(value) == text


def test_the_interval_is_wilsons() -> None:
    """Against scipy's, which the page does without."""
    from scipy.stats import binomtest

    for top1, images in ((56.23, 10000), (0.0, 50), (100.0, 7), (3.0, 100)):
        expected = binomtest(round(top1 * images / 100), images).proportion_ci(method="wilson")
        assert interval(top1, images) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-6)
