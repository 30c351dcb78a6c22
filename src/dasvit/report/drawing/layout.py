"""Where a cell's nodes and edges are drawn: from the inputs on top down to the output, with nothing on top of anything.

The picture has rows: the inputs, then for every node a row of boxes, one for each edge into it, and the node itself,
then the output. An edge that passes a row has a lane of its own in it. The order within rows is settled by sweeps that
put everything near what it is joined to (Sugiyama's method), the places by least squares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import NamedTuple

from dasvit.cell.genotype import INPUTS

OUTPUT = "output"
Point = tuple[float, float]


@dataclass(frozen=True)
class Sizes:
    """What the drawing is made of, in pixels; pairs are widths and heights."""

    box: Point  # what stands on an edge
    lane: float  # an edge that passes a row
    port: float  # between two edges at a node
    sum: float = 12.0  # a line to the output
    node: Point = (64.0, 40.0)  # at least
    gap: Point = (14.0, 30.0)  # between neighbours in a row, and between rows


class Drawing(NamedTuple):
    """Where things are.

    Attributes:
        nodes: Name → centre and width.
        edges: For every edge the points it runs through, and the centre of its box.
        sums: For every node the points of its line to the output.
        size: Width and height.
    """

    nodes: dict[str, tuple[float, float, float]]
    edges: list[tuple[list[Point], Point]]
    sums: list[list[Point]]
    size: Point


@dataclass(eq=False)
class _Item:
    """Something with a place in a row: a node, the box of an edge, or the lane of one (heavy: not of a thin sum)."""

    row: int
    width: float
    height: float
    heavy: bool = False
    x: float = 0.0
    above: list[_Item] = field(default_factory=list)
    below: list[_Item] = field(default_factory=list)


@lru_cache
def lay_out(nodes: int, edges: tuple[tuple[str, str], ...], sizes: Sizes) -> Drawing:
    """Place a cell of so many own nodes, with those (source, target) of its edges; always in the same places."""
    own = [f"x{i + 1}" for i in range(nodes)]
    rows = {**dict.fromkeys(INPUTS, 0), **{name: 2 * (i + 1) for i, name in enumerate(own)}, OUTPUT: 2 * nodes + 2}
    lines = [*edges, *((name, OUTPUT) for name in own)]
    boxes = {name: _Item(row, _node_width(name, edges, sizes), sizes.node[1]) for name, row in rows.items()}
    items: list[list[_Item]] = [[box for box in boxes.values() if box.row == row] for row in range(2 * nodes + 3)]
    chains = []
    for source, target in lines:
        chain = [boxes[source]]
        for row in range(rows[source] + 1, rows[target]):
            is_box = row == rows[target] - 1 and target != OUTPUT
            width, height = sizes.box if is_box else (sizes.lane if target != OUTPUT else sizes.sum, 0.0)
            chain.append(_Item(row, width, height, heavy=target != OUTPUT))
            items[row].append(chain[-1])
        chain.append(boxes[target])
        chains.append(chain)
        for upper, lower in pairwise(chain):
            upper.below.append(lower)
            lower.above.append(upper)
    items = [row for row in items if row]
    _order(items)
    _place(items, sizes.gap[0])
    spans, y = {}, 0.0
    for row_ in items:
        bottom = y + max(item.height for item in row_)
        spans[row_[0].row] = (y, bottom)
        y = bottom + sizes.gap[1]
    everything = [item for row_ in items for item in row_]
    left = min(item.x - item.width / 2 for item in everything)
    for item in everything:
        item.x -= left
    paths = [_path(chain, spans, sizes) for chain in chains]
    middles = {row: (top + bottom) / 2 for row, (top, bottom) in spans.items()}
    centres = [(chain[-2].x, middles[chain[-2].row]) for chain in chains]
    return Drawing(
        nodes={name: (item.x, middles[item.row], item.width) for name, item in boxes.items()},
        edges=list(zip(paths, centres, strict=True))[: len(edges)],
        sums=paths[len(edges) :],
        size=(max(item.x + item.width / 2 for item in everything), y - sizes.gap[1]),
    )


def _node_width(name: str, edges: Sequence[tuple[str, str]], sizes: Sizes) -> float:
    ports = max(sum(source == name for source, _ in edges), sum(target == name for _, target in edges))
    return max(sizes.node[0], (ports + 1) * sizes.port)


def _order(rows: list[list[_Item]], sweeps: int = 8, most: int = 3000) -> None:
    """Settle the order within every row: the best of sweeps from several beginnings, by what crosses."""
    random, count = Random(0), sum(map(len, rows))
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for beginning in range(max(1, min(60, most // count))):
        if beginning:
            for row in rows[1:]:  # the inputs keep their order
                random.shuffle(row)
        for sweep in range(sweeps):
            _sweep(rows, down=sweep % 2 == 0)
            crossings = _crossings(rows)
            if crossings < fewest:
                best, fewest = [list(row) for row in rows], crossings
    for row, order in zip(rows, best, strict=True):
        row[:] = order


def _sweep(rows: list[list[_Item]], down: bool) -> None:
    """Sort every row by the mean place of what its items are joined to in the row before."""
    places = {item: i / max(1, len(row) - 1) for row in rows for i, item in enumerate(row)}
    for row in rows[1:] if down else rows[-2:0:-1]:
        before = {item: [places[other] for other in (item.above if down else item.below)] for item in row}
        means = {item: _mean(values, places[item]) for item, values in before.items()}
        row.sort(key=means.__getitem__)
        places |= {item: i / max(1, len(row) - 1) for i, item in enumerate(row)}


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _crossings(rows: list[list[_Item]]) -> int:
    """Return how much crosses: two edges count ten times what an edge and a sum do."""
    total = 0
    for row, lower in pairwise(rows):
        place = {item: i for i, item in enumerate(lower)}
        seen: list[tuple[int, bool]] = []
        for item in row:
            ends = [(place[other], item.heavy or other.heavy) for other in item.below]
            total += sum(
                10 if earlier_heavy and heavy else 1
                for earlier, earlier_heavy in seen
                for end, heavy in ends
                if earlier > end
            )
            seen += ends
    return total


def _place(rows: list[list[_Item]], gap: float, rounds: int = 24) -> None:
    """Give every item its x: as near to the mean of what it is joined to as its neighbours let it."""
    for row in rows:
        _spread(row, [0.0] * len(row), gap)
    for turn in range(rounds):
        for row in rows if turn % 2 else rows[::-1]:
            _spread(row, [_wish(item) for item in row], gap)


def _wish(item: _Item) -> float:
    """Return where an item wants to be; two lanes of one edge pull hardest, so that it runs straight."""
    others = [(other.x, 4.0 if not item.height and not other.height else 1.0) for other in (*item.above, *item.below)]
    return sum(x * pull for x, pull in others) / sum(pull for _, pull in others) if others else item.x


def _spread(row: list[_Item], wanted: list[float], gap: float) -> None:
    """Put a row's items as near to where they want to be as their widths allow (least squares, pooled)."""
    offsets, offset = [], 0.0
    for i, item in enumerate(row):
        if i:
            offset += (row[i - 1].width + item.width) / 2 + gap
        offsets.append(offset)
    blocks: list[list[float]] = []  # of wishes with the items' own widths taken out, which must not fall
    for wish, offset in zip(wanted, offsets, strict=True):
        blocks.append([wish - offset])
        while len(blocks) > 1 and _mean(blocks[-2], 0) > _mean(blocks[-1], 0):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    flat = [_mean(block, 0) for block in blocks for _ in block]
    for item, place, offset in zip(row, flat, offsets, strict=True):
        item.x = place + offset


def _path(chain: list[_Item], spans: Mapping[int, Point], sizes: Sizes) -> list[Point]:
    """Return the points of an edge: straight through every row it passes, so that it touches nothing there."""
    source, *passed, target = chain
    first = (source.x + _port(source, source.below, chain[1], sizes), spans[source.row][1])
    last = (target.x + _port(target, target.above, chain[-2], sizes), spans[target.row][0])
    return [first, *((item.x, y) for item in passed for y in spans[item.row]), last]


def _port(node: _Item, others: list[_Item], other: _Item, sizes: Sizes) -> float:
    """Return how far from a node's middle its line to another item begins, in the order of those items."""
    order = sorted(others, key=lambda item: item.x)
    step = min(sizes.port, node.width / (len(order) + 1))
    return (order.index(other) - (len(order) - 1) / 2) * step
