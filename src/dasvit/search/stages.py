"""Progressive stages (section 8): depth grows while operations are pruned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dasvit.cell.genotype import Genotype, attends
from dasvit.cell.space import OperationMask, Space, as_mask
from dasvit.errors import UserError
from dasvit.io.files import read_object
from dasvit.io.run_folder import RunFolder
from dasvit.search.derive import draw_lots
from dasvit.search.halving import Candidate, Rung


class EvaluatedCell(NamedTuple):
    """A cell that was itself evaluated.

    Attributes:
        cell: The cell.
        reached: What it reached, in words, as `71.20 % after epoch 3`.
    """

    cell: Genotype
    reached: str

    @classmethod
    def in_supernet(cls, cell: Genotype, top1: float) -> EvaluatedCell:
        """Return a cell that was evaluated on a supernet's weights, top-1 in percent."""
        return cls(cell, f"{top1:.2f} % in the supernet")


class StageWeights(NamedTuple):
    """What a stage of a search ends with.

    Attributes:
        weights: Edge weights `[E][O]`.
        alive: Which operations were candidates.
        cells: Cells that were themselves evaluated, best first: they decide before the weights do.
    """

    weights: list[list[float]]
    alive: OperationMask
    cells: tuple[EvaluatedCell, ...] = ()

    @classmethod
    def of_scores(cls, scores: Sequence[Mapping[str, float]], alive: OperationMask, space: Space) -> StageWeights:
        """Return the weights whose logarithms are these scores; operations without a score weigh nothing."""
        weights = [[math.exp(row[op]) if op in row else 0.0 for op in space.operations] for row in scores]
        return cls(weights, alive)


Stages = Sequence[StageWeights]
"""Every stage of a search, in order."""


def prune(
    weights: Sequence[Sequence[float]], alive: OperationMask, keep: int, space: Space, seed: int = 0
) -> OperationMask:
    """Keep the strongest operations of every edge.

    An edge keeps an operation besides `zero` whenever it has one, and the cell keeps an attention on a path from its
    inputs (its strongest), because without either no cell that sees the image could be derived.

    Args:
        weights: Edge weights `[E][O]`.
        alive: The candidates so far.
        keep: Operations kept on every edge. 0: all.
        space: The search space.
        seed: Decides between weights that are equal, as in `dasvit.search.derive.derive`.

    Returns:
        The candidates that survive.
    """
    if keep == 0:
        return alive
    operations, chosen = space.operations, []
    strengths = [list(zip(*rows, strict=True)) for rows in zip(weights, draw_lots(weights, seed), strict=True)]
    for row, mask in zip(strengths, alive, strict=True):
        ranked = sorted((o for o, is_alive in enumerate(mask) if is_alive), key=row.__getitem__, reverse=True)
        kept, others = ranked[:keep], [o for o in ranked if operations[o] != "zero"]
        if others and others[0] not in kept:
            kept[-1] = others[0]
        chosen.append(kept)
    if not any(attends(operations[o]) for kept in chosen for o in kept):
        candidates = [(e, o) for e, mask in enumerate(alive) for o, is_alive in enumerate(mask) if is_alive]
        attentions = [(strengths[e][o], e, o) for e, o in candidates if attends(operations[o])]
        if attentions:
            _, e, o = max(attentions)
            chosen[e][-1] = o
    return tuple(tuple(o in kept for o in range(len(operations))) for kept in chosen)


def with_pruned(stages: Stages) -> list[list[float]]:
    """Return edge weights for pruned operations as well, for a budget that no survivor fits.

    A pruned operation weighs less than every survivor of its edge: as much less than the least of them, as it weighed
    less than the weakest survivor when it was pruned.

    Args:
        stages: Edge weights `[E][O]` at the end of every stage, and which operations were alive in it.
    """
    full = [list(row) for row in stages[-1].weights]
    known = [list(row) for row in stages[-1].alive]
    for weights, alive, _ in reversed(stages[:-1]):
        for e, row in enumerate(weights):
            survivors = [o for o, is_known in enumerate(known[e]) if is_known]
            weakest = min(row[o] for o in survivors)
            least = min(full[e][o] for o in survivors)
            for o, is_alive in enumerate(alive[e]):
                if is_alive and not known[e][o]:
                    full[e][o] = least * min(1.0, row[o] / max(weakest, 1e-300))
                    known[e][o] = True
    return full


def read_stages(run: RunFolder, space: Space) -> list[StageWeights]:
    """Return edge weights `[E][O]`, operations alive and cells evaluated at the end of every stage so far.

    Raises:
        UserError: There is no epoch yet, or the file does not fit the space.
    """
    try:
        rows = run.rows("architecture.jsonl")
    except (UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{run.path}/architecture.jsonl is damaged ({error}).") from None
    if not rows:
        raise UserError(f"{run.path} holds no architecture.jsonl: its search has not ended an epoch.")
    try:
        last = {row["stage"]: row for row in rows}
        return [_stage_of(last[stage], space) for stage in sorted(last)]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(f"{run.path}/architecture.jsonl does not fit the run's config.yaml.") from None


def _stage_of(row: dict[str, Any], space: Space) -> StageWeights:
    """Return what a stage's last line says; raises an error of its content's where that does not fit the space."""
    edges = [row["weights"][edge] for edge in space.edge_names]
    weights = [[float(edge.get(op, 0.0)) for op in space.operations] for edge in edges]
    alive = as_mask([op in edge for op in space.operations] for edge in edges)
    cells = row.get("method", {}).get("cells", [])
    fits = all(len(cell["ops"]) == len(edges) and set(cell["ops"]) <= set(space.operations) for cell in cells)
    if not fits or not all(map(any, alive)) or not all(math.isfinite(w) for edge in weights for w in edge):
        raise ValueError(row)
    found = (EvaluatedCell.in_supernet(Genotype.from_ops(space.nodes, c["ops"]), float(c["top1"])) for c in cells)
    return StageWeights(weights, alive, tuple(found))


def read_candidates(run: RunFolder) -> list[Candidate]:
    """Return the candidates that a search's `derivation.json` lists, best first.

    Raises:
        UserError: They are not as a search writes them.
    """
    rows = read_object(run.path / "derivation.json").get("finals", [])
    try:
        found = [Candidate(Genotype.from_dict(row["genotype"]), _rungs(row)) for row in rows]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{run.path}/derivation.json is damaged: its finals are not as a search writes them.") from None
    return found


def _rungs(row: dict[str, Any]) -> list[Rung]:
    """Return what a candidate had reached at each rung; at its end alone, where an older version wrote it."""
    rows = row.get("rungs") or [{key: row[key] for key in ("epochs", "loss", "top1")}]
    return [Rung.read(rung) for rung in rows]
