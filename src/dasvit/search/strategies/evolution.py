"""Evolution over the cells of a supernet that was trained a path at a time."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dasvit.cell.genotype import Genotype
from dasvit.cell.space import OperationMask, Space
from dasvit.config import Config
from dasvit.search.architecture import Architecture
from dasvit.search.cost import make_budget
from dasvit.search.derivation import cells_within
from dasvit.search.stages import EvaluatedCell
from dasvit.search.strategies.base import Evaluator, StepProgress
from dasvit.search.strategies.single_path import SinglePath
from dasvit.search.surrogate import Features, LinearModel


class Evolution(SinglePath):
    """A one-shot supernet trained by single paths drawn uniformly, then an evolution over its cells.

    Single Path One-Shot NAS with Uniform Sampling (Guo, Zhang, Mu, Heng, Liu, Wei, Sun; 2019; arXiv:1904.00420); for
    vision transformers AutoFormer (Chen, Peng, Fu, Ling; 2021; arXiv:2107.00651). Every weight step trains one viable
    cell. After the last epoch a population of cells within the budget (`search.derive`) evolves: the best so far are
    parents, half of a generation are mutations of theirs and half are crosses; what counts is the supernet's top-1 on
    the validation half, and the best cell is the search's. The alphas never move by gradients: in the end each is set
    to what a linear model of the evaluated cells says of its operation (`surrogate.LinearModel`).
    """

    remembers = ("scores",)  # the rest of an evolution follows from them and the seed

    def __init__(self, config: Config, space: Space, classes: int) -> None:
        super().__init__(config, space, classes)
        self.cells = cells_within(config, classes, config.search.derive)
        self.paths = replace(self.cells, budget=make_budget(config, classes))
        self.cells.draw(random.Random(0))  # a budget that nothing fits is told before the training
        self.scores: dict[str, float] = {}
        self.best: list[float] = []

    @property
    def evaluations(self) -> int:
        """How many cells were evaluated."""
        return len(self.scores)

    def begin_step(self, progress: StepProgress, architecture: Architecture) -> None:
        """Draw the step's path."""
        cell = self.paths.draw(random.Random(self.generator(progress.step).initial_seed()))
        self.choose([self.space.operations.index(op) for op in cell.ops])

    def extreme_paths(self, alive: OperationMask) -> list[list[int]]:
        """Return for every operation the path that has it on as many edges into each node as the rule keeps."""
        found, keep = super().extreme_paths(alive), self.paths.edges_per_node
        if not keep:
            return found
        zero, targets = self.space.operations.index("zero"), [target for _, target in self.space.edges]
        kept = [targets[:place].count(target) < keep for place, target in enumerate(targets)]
        return [[o if is_kept else zero for o, is_kept in zip(path, kept, strict=True)] for path in found]

    def weights(self, architecture: Architecture) -> Tensor:
        """Return the one-hot weights of the step's path, [E, O]."""
        return self.one_hot(architecture.alpha)

    def end_epoch(self, architecture: Architecture, moved: bool, is_last: bool, evaluate: Evaluator) -> None:
        """Evolve after the last epoch, and set the alphas to what the cells say of their operations."""
        if is_last:
            self.evolve(evaluate)
            with torch.no_grad():
                architecture.alpha.copy_(torch.from_numpy(self.effects()))

    def effects(self) -> NDArray[np.float64]:
        """Return what each operation on each edge adds to the top-1 of a cell, in standard deviations, [E, O]."""
        cells, top1 = zip(*self.ranked(), strict=True)
        macs = {op: float(cost[1]) for op, cost in self.paths.budget.operations.items()}
        losses = -np.array(top1)
        model = LinearModel(Features(self.space, macs), cells, losses)
        effects: NDArray[np.float64] = -model.table(model.posterior[0]) / (losses.std() or 1.0)
        return effects

    def ranked(self) -> list[tuple[Genotype, float]]:
        """Return the cells evaluated so far and their top-1 in percent, best first; of equal ones the earlier drawn."""
        scores = sorted(self.scores.items(), key=lambda score: -score[1])
        return [(Genotype.from_ops(self.space.nodes, name.split()), top1) for name, top1 in scores]

    def evaluated_cells(self) -> tuple[EvaluatedCell, ...]:
        """Return the cells that the evolution evaluated, best first."""
        return tuple(EvaluatedCell.in_supernet(cell, top1) for cell, top1 in self.ranked())

    def evolve(self, evaluate: Evaluator) -> Genotype:
        """Return the best cell that the evolution finds; what it evaluated before is not evaluated again."""
        options = self.config.search.evolution
        chance = random.Random(self.config.runtime.seed)
        known: dict[Genotype, float] = {}
        parents: list[Genotype] = []
        self.best = []
        for generation in range(options.generations + 1):
            for place in range(options.population):
                if not generation:
                    cell = self.cells.draw(chance)
                elif place < options.population // 2:
                    cell = self.cells.mutate(chance.choice(parents), options.mutation, chance)
                else:
                    cell = self.cells.cross(chance.choice(parents), chance.choice(parents), chance)
                known[cell] = self.score(cell, evaluate)
            parents = sorted(known, key=known.__getitem__, reverse=True)[: options.parents]
            self.best.append(known[parents[0]])
        return parents[0]

    def score(self, cell: Genotype, evaluate: Evaluator) -> float:
        """Return a cell's top-1 in percent, evaluated once."""
        name = " ".join(cell.ops)
        if name not in self.scores:
            self.scores[name] = evaluate(torch.tensor(self.space.one_hot(cell)))
        return self.scores[name]

    def notes(self) -> dict[str, Any]:
        """Return the best top-1 after each generation, and the cells evaluated, best first; nothing before the end."""
        if not self.best:
            return {}
        cells = [{"ops": cell.ops, "top1": top1} for cell, top1 in self.ranked()]
        return {"best_top1": self.best, "judged": len(cells), "cells": cells}
