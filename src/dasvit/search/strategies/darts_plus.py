"""DARTS+: stop before skips take over."""

from typing import Any

from torch import Tensor

from dasvit.cell.genotype import NUMBERED
from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.search.architecture import Architecture
from dasvit.search.derive import skips, strongest_edges
from dasvit.search.strategies.base import Evaluator, Strategy


class DartsPlus(Strategy):
    """DARTS+: Improved Differentiable Architecture Search with Early Stopping.

    Liang, Zhang, Sun, He, Huang, Zhuang, Li; 2019; arXiv:1909.06035. The search ends with the first epoch after which
    DARTS's rule would derive a cell with `search.darts_plus.skips` skips, or after which the order of the operations
    with parameters has not changed on any edge for `search.darts_plus.patience` epochs.
    """

    remembers = ("ranking", "stable", "stopped")

    def __init__(self, config: Config, space: Space, classes: int) -> None:
        super().__init__(config, space, classes)
        self.ranking: list[list[int]] = []
        self.stable = 0

    def end_epoch(self, architecture: Architecture, moved: bool, is_last: bool, evaluate: Evaluator) -> None:
        """Stop where either criterion holds; epochs that train weights alone do not count."""
        if not moved:
            return
        options, strengths = self.config.search.darts_plus, architecture.strengths()
        ranking = self.rank(strengths)
        self.stable = self.stable + 1 if ranking == self.ranking else 0
        self.ranking = ranking
        self.stopped = self.count_skips(strengths, architecture.alive) >= options.skips or (
            0 < options.patience <= self.stable
        )

    def rank(self, strengths: Tensor) -> list[list[int]]:
        """Return for every edge its operations with parameters, the strongest first."""
        learnable = [o for o, kind in enumerate(self.space.kinds()) if kind in NUMBERED]
        return [sorted(learnable, key=row.__getitem__, reverse=True) for row in strengths.tolist()]

    def count_skips(self, strengths: Tensor, alive: Tensor) -> int:
        """Return the skips in the cell that DARTS's rule would derive now."""
        scores = [
            {op: w for op, w, is_alive in zip(self.space.operations, row, mask, strict=True) if is_alive}
            for row, mask in zip(strengths.tolist(), alive.tolist(), strict=True)
        ]
        cell = strongest_edges(scores, self.space, self.config.search.derive.edges_per_node)
        return skips(cell)

    def notes(self) -> dict[str, Any]:
        """Return how long the order has been stable, and whether the search ends here."""
        return {"stable_epochs": self.stable, "stopped": self.stopped}
