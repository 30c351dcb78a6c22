"""The cell as a graph, in the manner of the paper's figures 4 to 6: the mixture of a search, and the cell it found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from dasvit.cell.genotype import INPUTS, Edge, Genotype, edge_list, is_viable
from dasvit.cell.graph import live_edges
from dasvit.errors import UserError
from dasvit.report.drawing.layout import OUTPUT, Drawing, Point, Sizes, lay_out
from dasvit.report.drawing.palette import dash, in_order, kind_of
from dasvit.report.drawing.svg import curve, ribbon, tag
from dasvit.report.run.reading import Weights

FOUND = Sizes(box=(100.0, 42.0), lane=16.0, port=18.0)
MIXED = Sizes(box=(92.0, 34.0), lane=24.0, port=30.0, gap=(8.0, 34.0))
RIBBON = 24.0
"""Width of an edge of weight 1."""
MARGIN = 4.0
WORDS = {
    "msa": ("MSA", "{} heads"),
    "mlp": ("MLP", "ratio {}"),
    "shift": ("Shift", "ratio {}"),
    "conv": ("Conv", "ratio {}"),
}
"""Kinds of operation and their numbers, in readers' words."""
LAYERS = {"prev2": "E(i−2)", "prev1": "E(i−1)", OUTPUT: "E(i)"}
"""What the paper calls them."""


def edge_name(source: str, target: str) -> str:
    """Return an edge as files write it."""
    return f"{source}→{target}"


def strongest(weights: Weights) -> dict[str, str]:
    """Return the operation of the largest weight of every edge; ties go to the one named first."""
    return {edge: max(operations, key=lambda name: operations[name]) for edge, operations in weights.items()}


def leading_cell(weights: Weights) -> Genotype | None:
    """Return the cell of the strongest operations, or None where the weights are no whole cell's, or not all known."""
    nodes, chosen = nodes_of(weights), strongest(weights)
    try:
        return Genotype.from_ops(nodes, [chosen[edge] for edge in edges_of(nodes)]) if nodes else None
    except UserError:  # an operation of a kind that is not registered here
        return None


def edges_of(nodes: int) -> list[str]:
    """Return the edges of a cell as files write them, in the order of computation."""
    return [edge_name(*edge) for edge in edge_list(nodes)]


def nodes_of(weights: Weights) -> int:
    """Return the nodes of the cell whose edges these are, 0 where they are no cell's."""
    return next((nodes for nodes in range(1, 17) if set(edges_of(nodes)) == set(weights)), 0)


def built(genotype: Genotype) -> tuple[Drawing, list[tuple[Edge, list[Point], Point]]]:
    """Return a found cell's places, and its edges with the points they run through and the centres of their boxes."""
    edges = [genotype.edges[i] for i in live_edges(genotype)]
    drawing = lay_out(genotype.nodes, tuple((edge.source, edge.target) for edge in edges), FOUND)
    return drawing, [(edge, *place) for edge, place in zip(edges, drawing.edges, strict=True)]


def weight_of(edge: Edge, weights: Weights) -> tuple[float | None, float]:
    """Return what an edge's operation weighed, where that is known, and how wide its line is."""
    weight = weights.get(edge_name(edge.source, edge.target), {}).get(edge.op)
    return weight, 3.0 if weight is None else 1.5 + weight * 0.5 * RIBBON


def box_words(op: str, weight: float | None) -> tuple[str, str]:
    """Return the two lines of an edge's box."""
    kind, unit = WORDS.get(kind_of(op), (op, ""))
    number = unit.format(op.partition("_")[2])
    return kind, " · ".join(filter(None, [number, "" if weight is None else f"{weight:.2f}"]))


def found_cell(genotype: Genotype, weights: Weights, index: Mapping[str, int], label: str = "Cell") -> Markup:
    """Draw a cell with one operation an edge; the wider the edge, the more it weighed.

    Args:
        genotype: The cell.
        weights: Of the search's last epoch; empty where they are not known.
        index: Operation → number of its colour class.
        label: What the drawing is called for those who do not see it.
    """
    drawing, edges = built(genotype)
    lines, boxes = [], []
    for edge, points, centre in edges:
        weight, width = weight_of(edge, weights)
        css = f"op-{index[edge.op]}"
        lines.append(_arrow(points, width, f"edge {css}"))
        boxes.append(_box(edge.op, centre, weight, css))
    title = f"{label}: {describe_cell(genotype)}"
    return _svg(drawing, [*lines, *boxes, *_nodes(drawing, fed_nodes(genotype))], title)


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
    return _svg(drawing, [*groups, *nodes], title, class_="cell mixed")


def _ribbons(
    name: str, operations: Mapping[str, float], points: Sequence[Point], centre: Point, index: Mapping[str, int]
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
    sums = [_arrow(points, 1.5, "sum") for points in drawing.sums]
    inner = tag("g", *sums, *parts, transform=f"translate({MARGIN:g} {MARGIN:g})")
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


def arrow(points: Sequence[Point], width: float) -> tuple[list[Point], list[Point]]:
    """Return the points of a line that ends in a head, and the head's corners, its tip the last."""
    *before, (x, y) = points
    head, half = 6 + width * 0.6, 3.5 + width * 0.55
    return [*before, (x, y - head + 1)], [(x - half, y - head), (x + half, y - head), (x, y)]


def _arrow(points: Sequence[Point], width: float, css: str) -> Markup:
    line, ((left, top), (right, _), (x, y)) = arrow(points, width)
    head = tag("path", d=f"M{left:.1f} {top:.1f}H{right:.1f}L{x:.1f} {y:.1f}Z")
    return tag("g", tag("path", d=curve(line), stroke_width=width, class_="line"), head, class_=css)


def _box(op: str, centre: Point, weight: float | None, css: str) -> Markup:
    shape = _plate(*centre, *FOUND.box, 9.0, stroke_dasharray=dash(op) or None)
    return tag(
        "g", shape, *_texts(*centre, box_words(op, weight), (3, 13), ("kind", "number")), class_=f"operation {css}"
    )


def _plate(x: float, y: float, width: float, height: float, radius: float, **attributes: object) -> Markup:
    return tag("rect", x=x - width / 2, y=y - height / 2, width=width, height=height, rx=radius, **attributes)


def _texts(
    x: float, y: float, words: tuple[str, str], shifts: tuple[float, float], classes: tuple[str, str]
) -> list[Markup]:
    first, second = words
    texts = [tag("text", first, x=x, y=y - shifts[0] if second else y + 5, class_=classes[0])]
    return [*texts, tag("text", second, x=x, y=y + shifts[1], class_=classes[1])] if second else texts


def _nodes(drawing: Drawing, fed: set[str]) -> list[Markup]:
    height = MIXED.node[1]
    return [
        tag(
            "g",
            _plate(x, y, width, height, height / 2),
            *_texts(x, y, node_words(name, fed), (2, 12), ("name", "layer")),
            class_="node" if name in fed else "node unfed",
        )
        for name, (x, y, width) in drawing.nodes.items()
    ]


def node_words(name: str, fed: set[str]) -> tuple[str, str]:
    """Return the two lines of a node."""
    return name, LAYERS.get(name, "" if name in fed else "nothing")


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
