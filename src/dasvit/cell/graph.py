"""The walk over a cell's graph, shared by the supernet and the derived network.

Shapes: B images, N tokens (class token included), D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dasvit.cell.genotype import INPUTS, Genotype, edge_list

if TYPE_CHECKING:
    from torch import Tensor


def walk(nodes: int, prev2: Tensor, prev1: Tensor, apply: Callable[[int, Tensor], Tensor | None]) -> Tensor | None:
    """Compute a cell: every node sums its edges, the output sums the cell's own nodes (eq. 10 to 12).

    Args:
        nodes: The cell's own nodes.
        prev2: Output of the layer before the previous one, [B, N, D].
        prev1: Output of the previous layer, [B, N, D].
        apply: Gives the output of the edge with that index (in the order of `edge_list`) for its source,
            [B, N, D] -> [B, N, D], or None for a zero tensor, which is then neither made nor added.

    Returns:
        The output [B, N, D], or None where every edge gave None.
    """
    values: dict[str, Tensor | None] = {"prev2": prev2, "prev1": prev1}
    for index, (source, target) in enumerate(edge_list(nodes)):
        value = values[source]
        values[target] = add(values.get(target), None if value is None else apply(index, value))
    output = None
    for node in range(nodes):
        output = add(output, values[f"x{node + 1}"])
    return output


def add(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    """Return left + right, where None stands for a zero tensor."""
    if left is None or right is None:
        return left if right is None else right
    return left + right


def live_edges(genotype: Genotype) -> list[int]:
    """Return the indices of the edges that carry something, in the order of `edge_list`.

    An edge is dead where its operation is `zero`, or where nothing feeds the node that it leaves: its
    operation would hold parameters that no gradient reaches.
    """
    fed, live = set(INPUTS), []
    for index, edge in enumerate(genotype.edges):
        if edge.op != "zero" and edge.source in fed:
            fed.add(edge.target)
            live.append(index)
    return live
