"""The cell as a graph, in the manner of the paper's figures 4 to 6: the mixture of a search, and the cell it found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from dasvit.cell.genotype import INPUTS, Edge, Genotype, edge_list, is_viable
from dasvit.cell.graph import live_edges
from dasvit.errors import UserError
from dasvit.report.drawing.layout import OUTPUT, Drawing, Sizes, lay_out
from dasvit.report.drawing.palette import dash, in_order, kind_of
from dasvit.report.drawing.svg import curve, ribbon, tag
from dasvit.report.run.reading import Weights

FOUND = Sizes(box=(100.0, 42.0), lane=16.0, port=18.0)
MIXED = Sizes(box=(92.0, 34.0), lane=24.0, port=30.0, gap=(8.0, 34.0))
RIBBON = 24.0
"""Width of an edge of weight 1."""
MARGIN = 4.0
WORDS = {"msa": ("MSA", "{} heads"), "mlp": ("MLP", "ratio {}"), "shift": ("Shift", "ratio {}")}
"""Kinds of operation and their numbers, in readers' words."""
LAYERS = {"prev2": "E(i−2)", "prev1": "E(i−1)", OUTPUT: "E(i)"}
"""What the paper calls them."""


def describe_operation(name: str) -> tuple[str, str]:
    """Return an operation's kind and its number, each in readers' words."""
    kind = kind_of(name)
    if kind in WORDS:
        word, unit = WORDS[kind]
        return word, unit.format(name.split("_")[1])
    return name, ""


def edge_name(source: str, target: str) -> str:
    """Return an edge as files write it."""
    return f"{source}→{target}"


def strongest(weights: Weights) -> dict[str, str]:
    """Return the operation of the largest weight of every edge; ties go to the one named first."""
    return {edge: max(operations, key=lambda name: operations[name]) for edge, operations in weights.items()}


def leading_cell(weights: Weights) -> Genotype | None:
    """Return the cell of the strongest operations, or None where the weights are no whole cell's, or not all known."""
    nodes = nodes_of(weights)
    if not nodes:
        return None
    chosen = strongest(weights)
    ops = [chosen[edge_name(*edge)] for edge in edge_list(nodes)]
    try:
        return Genotype.from_ops(nodes, ops)
    except UserError:  # an operation of a kind that is not registered here
        return None


def nodes_of(weights: Weights) -> int:
    """Return the nodes of the cell whose edges these are, 0 where they are no cell's."""
    for nodes in range(1, 17):
        names = {edge_name(*edge) for edge in edge_list(nodes)}
        if names == set(weights):
            return nodes
    return 0


def found_cell(genotype: Genotype, weights: Weights, index: Mapping[str, int], label: str = "") -> Markup:
    """Draw a cell with one operation an edge; the wider the edge, the more it weighed.

    Args:
        genotype: The cell.
        weights: Of the search's last epoch; empty where they are not known.
        index: Operation → number of its colour class.
        label: What the drawing is called for those who do not see it.
    """
    edges = [genotype.edges[i] for i in live_edges(genotype)]
    drawing = lay_out(genotype.nodes, tuple((edge.source, edge.target) for edge in edges), FOUND)
    lines, boxes = [], []
    for edge, (points, centre) in zip(edges, drawing.edges, strict=True):
        weight = weights.get(edge_name(edge.source, edge.target), {}).get(edge.op)
        css = f"op-{index[edge.op]}"
        width = 3.0 if weight is None else 1.5 + weight * 0.5 * RIBBON
        lines.append(_arrow(points, width, f"edge {css}"))
        boxes.append(_box(edge.op, centre, weight, css))
    title = f"{label or 'Cell'}: {describe_cell(genotype)}"
    return _svg(drawing, [*_sums(drawing), *lines, *boxes, *_nodes(drawing, fed_nodes(genotype))], title)


def sums_of(genotype: Genotype) -> dict[str, list[Edge]]:
    """Return the nodes that something reaches, each with the edges that it sums."""
    sums: dict[str, list[Edge]] = {}
    for i in live_edges(genotype):
        sums.setdefault(genotype.edges[i].target, []).append(genotype.edges[i])
    return sums


def fed_nodes(genotype: Genotype) -> set[str]:
    """Return the nodes that are not empty."""
    return {*INPUTS, OUTPUT, *sums_of(genotype)}


def describe_cell(genotype: Genotype) -> str:
    """Return a cell in words."""
    nodes = sums_of(genotype)
    sums = [f"{target} is {' plus '.join(f'{e.op} of {e.source}' for e in edges)}" for target, edges in nodes.items()]
    own = " plus ".join(f"x{i + 1}" for i in range(genotype.nodes) if f"x{i + 1}" in nodes)
    return "; ".join([*sums, f"the output is {own or 'nothing'}"]) + "."


def mixed_cell(weights: Weights, index: Mapping[str, int], epoch: int) -> Markup:
    """Draw the mixture: every edge a ribbon, in which every operation has the share that it weighs.

    The page's slider redraws it from `data-points`; the edges are groups in the order of the weights' frames.

    Args:
        weights: Of a whole cell.
        index: Operation → number of its colour class.
        epoch: That these weights are of.
    """
    edges = edge_list(nodes_of(weights))
    drawing = lay_out(nodes_of(weights), tuple(edges), MIXED)
    groups = []
    for edge, (points, centre) in zip(edges, drawing.edges, strict=True):
        name = edge_name(*edge)
        groups.append(_ribbons(name, weights[name], points, centre, index))
    title = f"The mixture after epoch {epoch}: every edge split among its operations by weight"
    nodes = _nodes(drawing, set(drawing.nodes))
    return _svg(drawing, [*_sums(drawing), *groups, *nodes], title, class_="cell mixed")


def _ribbons(
    name: str,
    operations: Mapping[str, float],
    points: Sequence[tuple[float, float]],
    centre: tuple[float, float],
    index: Mapping[str, int],
) -> Markup:
    total = sum(operations.values()) or 1.0
    left, parts = -RIBBON / 2, []
    for op in in_order(index):
        width = RIBBON * max(0.0, operations.get(op, 0.0)) / total
        path = ribbon(list(points), left, left + width) if width else ""
        parts.append(tag("path", d=path, class_=f"ribbon op-{index[op]}", data_op=op))
        left += width
    best = max(operations, key=lambda op: operations[op])
    text = f"{best} {operations[best]:.2f}"
    x, y = centre
    label = [
        tag("rect", x=x - MIXED.box[0] / 2, y=y - 11, width=MIXED.box[0], height=22.0, rx=5.0, class_="plate"),
        tag("text", text, x=x, y=y + 4, class_="leader"),
    ]
    data = json.dumps([[round(px, 1), round(py, 1)] for px, py in points])
    return tag("g", tag("title", name), *parts, *label, data_points=data, class_="mixture")


def _svg(drawing: Drawing, parts: Sequence[Markup], title: str, class_: str = "cell") -> Markup:
    width, height = drawing.size[0] + 2 * MARGIN, drawing.size[1] + 2 * MARGIN
    inner = tag("g", *parts, transform=f"translate({MARGIN:g} {MARGIN:g})")
    return tag(
        "svg",
        tag("title", title),
        inner,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="img",
        aria_label=title,
        class_=class_,
        style=f"--width:{width:.0f}px",
    )


def _sums(drawing: Drawing) -> list[Markup]:
    return [_arrow(points, 1.5, "sum") for points in drawing.sums]


def _arrow(points: Sequence[tuple[float, float]], width: float, css: str) -> Markup:
    """Return a line with a head, which ends where the line should."""
    x, y = points[-1]
    head = 6 + width * 0.6
    line = tag("path", d=curve([*points[:-1], (x, y - head + 1)]), stroke_width=width, class_="line")
    half = 3.5 + width * 0.55
    return tag("g", line, tag("path", d=f"M{x - half:.1f} {y - head:.1f}H{x + half:.1f}L{x:.1f} {y:.1f}Z"), class_=css)


def _box(op: str, centre: tuple[float, float], weight: float | None, css: str) -> Markup:
    (x, y), (width, height) = centre, FOUND.box
    kind, number = describe_operation(op)
    second = " · ".join(filter(None, [number, "" if weight is None else f"{weight:.2f}"]))
    texts = [tag("text", kind, x=x, y=y - 3 if second else y + 5, class_="kind")]
    if second:
        texts.append(tag("text", second, x=x, y=y + 13, class_="number"))
    shape = tag(
        "rect", x=x - width / 2, y=y - height / 2, width=width, height=height, rx=9.0, stroke_dasharray=dash(op) or None
    )
    return tag("g", shape, *texts, class_=f"operation {css}")


def _nodes(drawing: Drawing, fed: set[str]) -> list[Markup]:
    parts = []
    for name, (x, y, width) in drawing.nodes.items():
        height = MIXED.node[1]
        shape = tag("rect", x=x - width / 2, y=y - height / 2, width=width, height=height, rx=height / 2)
        second = LAYERS.get(name, "" if name in fed else "nothing")
        texts = [tag("text", name, x=x, y=y - 2 if second else y + 5, class_="name")]
        if second:
            texts.append(tag("text", second, x=x, y=y + 12, class_="layer"))
        parts.append(tag("g", shape, *texts, class_="node" if name in fed else "node unfed"))
    return parts


def warnings_of(weights: Weights) -> list[str]:
    """Return what the weights say about a collapse, a sentence each (none where all is well)."""
    chosen = strongest(weights)
    found = []
    for name, word in {"identity": "skips", "zero": "nothing"}.items():
        count = sum(op == name for op in chosen.values())
        if 2 * count > len(chosen):
            found.append(
                f"{name} is the strongest operation of {count} of {len(chosen)} edges: the mixture tends to {word}."
            )
    cell = leading_cell(weights)
    if cell is not None and not is_viable(cell):
        found.append("The strongest operations make a cell without attention on any path from input to output.")
    return found
