"""Progressive stages (section 8): depth grows while operations are pruned."""

from __future__ import annotations

from collections.abc import Sequence

from dasvit.cell.space import Alive, Space


def prune(weights: Sequence[Sequence[float]], alive: Alive, keep: int, space: Space) -> Alive:
    """Keep the strongest operations of every edge.

    An edge keeps an operation besides `zero` whenever it has one, and the cell keeps an attention on a path from its
    inputs (its strongest), because without either no cell that sees the image could be derived. Ties go to the
    operation named first.

    Args:
        weights: Edge weights [E][O].
        alive: The candidates so far.
        keep: Operations kept on every edge. 0: all.
        space: The search space.

    Returns:
        The candidates that survive.
    """
    if keep == 0:
        return alive
    kinds = space.kinds()
    chosen = []
    for row, mask in zip(weights, alive, strict=True):
        ranked = sorted((o for o, is_alive in enumerate(mask) if is_alive), key=lambda o: -row[o])
        kept = ranked[:keep]
        others = [o for o in ranked if kinds[o] != "zero"]
        if others and all(kinds[o] == "zero" for o in kept):
            kept[-1] = others[0]
        chosen.append(kept)
    if not any(kinds[o] == "msa" for kept in chosen for o in kept):
        _restore_attention(chosen, weights, alive, kinds)
    return tuple(tuple(o in kept for o in range(len(kinds))) for kept in chosen)


def _restore_attention(
    chosen: list[list[int]], weights: Sequence[Sequence[float]], alive: Alive, kinds: list[str]
) -> None:
    """Put the strongest attention of all edges in place of the weakest survivor of its edge."""
    attentions = [
        (weights[e][o], -e, -o)
        for e, mask in enumerate(alive)
        for o, is_alive in enumerate(mask)
        if is_alive and kinds[o] == "msa"
    ]
    if attentions:
        _, e, o = max(attentions)
        chosen[-e][-1] = -o
