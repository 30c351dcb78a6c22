"""What tells whether a search can be trusted: the supernet as a mixture and as one cell (docs/study.md).

Nothing here draws random numbers or moves a weight: a search that is looked at ends as one that is not.
Shapes: E edges, O operations.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dasvit.cell.genotype import Genotype
from dasvit.cell.space import OperationMask, Space
from dasvit.config import Config
from dasvit.errors import UserError
from dasvit.io.files import write_whole
from dasvit.io.run_folder import RunFolder
from dasvit.search.derivation import derive_found
from dasvit.search.stages import StageWeights
from dasvit.search.supernet import EVERYTHING, ForwardMode, MixedCell, Supernet

SupernetEvaluator = Callable[[Supernet, Tensor, ForwardMode], float]
"""Gives a supernet's top-1 in percent under edge weights, [E, O] or [E, O + 1], and a mode."""
FOLDER = "supernets"
"""Where a run keeps each stage's supernet, as stage1.safetensors."""


class Monitor:
    """Looks at a supernet at an epoch's end, and keeps it at a stage's end.

    Args:
        config: The recipe.
        classes: Classes of the data.
        evaluate: Gives a supernet's top-1 in percent under edge weights [E, O] or [E, O + 1].
    """

    def __init__(self, config: Config, classes: int, evaluate: SupernetEvaluator) -> None:
        self.config, self.classes, self.evaluate = config, classes, evaluate

    def look(self, supernet: Supernet, mixture: Tensor, strengths: Tensor) -> dict[str, float]:
        """Return `mixture_top1` and, where a cell can be derived, `derived_top1`, in percent.

        Args:
            supernet: The supernet.
            mixture: Edge weights of a forward pass, [E, O] or [E, O + 1] with a bypass.
            strengths: What derivation sees, [E, O].
        """
        found = {"mixture_top1": self.evaluate(supernet, mixture, EVERYTHING)}
        cell = self.derived(strengths)
        if cell is not None:
            found["derived_top1"] = evaluate_cell(supernet, cell, self.evaluate)
        return found

    def derived(self, strengths: Tensor) -> Genotype | None:
        """Return the cell that the search would end with now, or None where no cell fits."""
        weights = strengths.tolist()
        stage = StageWeights(weights, tuple(tuple(weight > 0 for weight in row) for row in weights))
        try:
            return derive_found([stage], self.config, self.classes, self.config.search.derive).genotype
        except UserError:
            return None

    def keep(self, run: RunFolder, stage: int, supernet: Supernet, alive: OperationMask) -> None:
        """Write a stage's supernet, its depth and candidates into the run's folder, unless `search.monitor` is 0."""
        if not self.config.search.monitor:
            return
        (run.path / FOLDER).mkdir(exist_ok=True)
        about = {"layers": json.dumps(len(supernet.blocks)), "alive": json.dumps(alive)}
        state = {name: value.detach().cpu().contiguous() for name, value in supernet.state_dict().items()}
        content = save(state, about)
        write_whole(run.path / FOLDER / f"stage{stage}.safetensors", content)


def evaluate_cell(supernet: Supernet, cell: Genotype, evaluate: SupernetEvaluator) -> float:
    """Return the supernet's top-1 in percent where every edge has the cell's operation alone, at weight 1.

    Where channels bypass the operations (pc-darts), they do so on the cell's edges with weight 1.
    """
    weights = torch.tensor(supernet.space.one_hot(cell))
    block = supernet.blocks[0]
    assert isinstance(block, MixedCell)
    if block.share > 1:
        carries = torch.tensor([[float(op != "zero")] for op in cell.ops])
        weights = torch.cat([weights, carries], dim=1)
    return evaluate(supernet, weights, ForwardMode(active=[supernet.space.operations.index(op) for op in cell.ops]))


@dataclass(frozen=True)
class Kept:
    """A stage's supernet as a run keeps it.

    Attributes:
        stage: The stage's number, from 1.
        layers: Its depth.
        alive: Its candidates.
        state: Its weights.
    """

    stage: int
    layers: int
    alive: OperationMask
    state: dict[str, Tensor]


def kept_supernet(folder: Path, space: Space) -> Kept | None:
    """Return the deepest supernet of a run that still holds every candidate on every edge; None where none was kept.

    Only such a one can rank any cell of the space. Of a search in stages it is the first stage's, of others the last.

    Raises:
        UserError: A file is damaged.
    """
    best: Kept | None = None
    paths = sorted((folder / FOLDER).glob("stage*.safetensors"), key=lambda path: int(path.stem.removeprefix("stage")))
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                alive = tuple(tuple(map(bool, row)) for row in json.loads(about["alive"]))
                if alive != space.everything():
                    continue
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                best = Kept(int(path.stem.removeprefix("stage")), int(json.loads(about["layers"])), alive, state)
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(
                f"{path} is damaged ({type(error).__name__}): delete the run {folder}, and repeat it."
            ) from None
    return best
