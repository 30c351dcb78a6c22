"""Evolution over the cells of a supernet that was trained a path at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dasvit.cell.genotype import Genotype
from dasvit.cell.space import OperationMask, Space
from dasvit.config import Config
from dasvit.search.architecture import Architecture
from dasvit.search.cost import make_budget
from dasvit.search.sampling import Cells
from dasvit.search.strategies.base import Evaluator, StepProgress
from dasvit.search.strategies.single_path import SinglePath

FAR = 1000.0
"""How far below the chosen operation's alpha the others are put: a softmax of them is exactly 0."""


class Evolution(SinglePath):
    """A one-shot supernet trained by single paths drawn uniformly, then an evolution over its cells.

    Single Path One-Shot NAS with Uniform Sampling (Guo, Zhang, Mu, Heng, Liu, Wei, Sun; 2019; arXiv:1904.00420); for
    vision transformers AutoFormer (Chen, Peng, Fu, Ling; 2021; arXiv:2107.00651). Every weight step trains one viable
    cell. After the last epoch a population of cells within the budget (`search.derive`) evolves: the best so far are
    parents, half of a generation are mutations of theirs and half are crosses; what counts is the supernet's top-1 on
    the validation half. The alphas never move by gradients: in the end they are set to the best cell.
    """

    def __init__(self, config: Config, space: Space, classes: int) -> None:
        super().__init__(config, space, classes)
        derive = config.search.derive
        keep = derive.edges_per_node if derive.rule == "darts" else 0
        self.paths = Cells(space, keep, make_budget(config, classes))
        self.cells = Cells(space, keep, make_budget(config, classes, derive))
        self.cells.draw(random.Random(0))  # a budget that nothing fits is told before the training
        self.path = torch.zeros(0)
        self.scores: dict[str, float] = {}
        self.best: list[float] = []

    def begin_step(self, moment: StepProgress, architecture: Architecture) -> None:
        """Draw the step's path."""
        cell = self.paths.draw(random.Random(self.generator(moment.step).initial_seed()))
        self.choose([self.space.operations.index(op) for op in cell.ops], architecture)

    def choose(self, active: Sequence[int], architecture: Architecture) -> None:
        """Evaluate this path, at weight 1, until another is chosen."""
        super().choose(active, architecture)
        rows = [[float(o == one) for o in range(len(self.space.operations))] for one in active]
        self.path = torch.tensor(rows, device=architecture.alpha.device)

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
        return self.path

    def end_epoch(self, architecture: Architecture, moved: bool, is_last: bool, evaluate: Evaluator) -> None:
        """Evolve after the last epoch, and set the alphas to the best cell."""
        if is_last:
            best = torch.tensor(self.space.one_hot(self.evolve(evaluate)), device=architecture.alpha.device)
            with torch.no_grad():
                architecture.alpha.copy_(FAR * (best - 1))

    def evolve(self, evaluate: Evaluator) -> Genotype:
        """Return the best cell that the evolution finds; what it judged before is not judged again."""
        options = self.config.search.evolution
        chance = random.Random(self.config.runtime.seed)
        population = [self.cells.draw(chance) for _ in range(options.population)]
        known: dict[Genotype, float] = {}
        parents: list[Genotype] = []
        self.best = []
        for generation in range(options.generations + 1):
            if generation:
                population = self.children(parents, chance)
            for cell in population:
                known[cell] = self.score(cell, evaluate)
            parents = sorted(known, key=known.__getitem__, reverse=True)[: options.parents]
            self.best.append(known[parents[0]])
        return parents[0]

    def children(self, parents: list[Genotype], chance: random.Random) -> list[Genotype]:
        """Return the next population: mutations of parents, and crosses of two."""
        options = self.config.search.evolution
        mutants = [
            self.cells.mutate(chance.choice(parents), options.mutation, chance) for _ in range(options.population // 2)
        ]
        crosses = [
            self.cells.cross(chance.choice(parents), chance.choice(parents), chance)
            for _ in range(options.population - len(mutants))
        ]
        return [*mutants, *crosses]

    def score(self, cell: Genotype, evaluate: Evaluator) -> float:
        """Return a cell's top-1 in percent, judged once."""
        name = " ".join(cell.ops)
        if name not in self.scores:
            self.scores[name] = evaluate(torch.tensor(self.space.one_hot(cell)))
            self.evaluations = len(self.scores)
        return self.scores[name]

    def notes(self) -> dict[str, Any]:
        """Return the best top-1 after each generation, and how many cells were judged; nothing before the end."""
        return {"best_top1": self.best, "judged": len(self.scores)} if self.best else {}

    def state_dict(self) -> dict[str, Any]:
        """Return what was judged; the rest of an evolution follows from it and the seed."""
        return {"scores": dict(self.scores)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.scores = dict(state["scores"])
        self.evaluations = len(self.scores)
