"""How a search's own supernet ranks cells, to be held against how they do when they are trained alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.data import Data
from dasvit.errors import UserError
from dasvit.runtime.distributed import Runtime
from dasvit.search.evaluation import SupernetEvaluator
from dasvit.search.monitor import evaluate_cell, kept_supernet
from dasvit.search.stages import Stages, with_pruned
from dasvit.search.state import SearchBatches, make_supernet


def supernet_scores(
    config: Config, data: Data, folder: Path, cells: Sequence[Genotype], runtime: Runtime, images: int = 0
) -> tuple[int, int, list[float]] | None:
    """Evaluate cells on the shared weights of a search's supernet, on the images that its alphas were trained on.

    Args:
        config: The search's recipe.
        data: Its images; only the training set is looked at.
        folder: The search's run folder.
        cells: The cells.
        runtime: Device and precision.
        images: Validation images that they are evaluated on. 0: all.

    Returns:
        The stage and depth of the supernet (see `kept_supernet`) and each cell's top-1 in percent; None where the run
        kept no supernet.

    Raises:
        UserError: A kept supernet is damaged.
    """
    space = Space.from_config(config.space)
    kept = kept_supernet(folder, space)
    if kept is None:
        return None
    supernet = make_supernet(config, space, kept.alive, kept.layers, len(data.classes))
    try:
        supernet.load_state_dict(kept.state)
    except RuntimeError:
        raise UserError(f"the supernet kept in {folder} does not fit its config.yaml.") from None
    supernet.to(runtime.device)
    evaluator = SupernetEvaluator(SearchBatches(data, config, runtime), config, runtime, images)
    return kept.stage, kept.layers, [evaluate_cell(supernet, cell, evaluator.top1) for cell in cells]


def weight_scores(stages: Stages, space: Space, rule: str, cells: Sequence[Genotype]) -> list[float]:
    """Return what a search's edge weights say of cells: the logarithm of the product that derivation ranks by.

    Pruned operations weigh what they weighed when they were pruned (`with_pruned`).

    Args:
        stages: Edge weights `[E][O]` and operations alive at the end of every stage.
        space: The search space.
        rule: The rule of derivation: under all but `strongest`, edges left out do not count.
        cells: The cells.
    """
    weights = with_pruned(stages)
    scores = []
    for cell in cells:
        pairs = zip(weights, cell.ops, strict=True)
        chosen = [row[space.operations.index(op)] for row, op in pairs if op != "zero" or rule == "strongest"]
        scores.append(sum(math.log(max(weight, 1e-300)) for weight in chosen))
    return scores
