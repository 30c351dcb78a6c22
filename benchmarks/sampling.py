"""Which way of spending a search's trainings finds the best cells? Simulated, on what was measured.

    python benchmarks/sampling.py MEASURED [REPEATS]

MEASURED holds the cells of `benchmarks/rungs.py`. A repeat draws a truth: what every operation adds to the accuracy
after 1,250 steps, from the posterior of the model that these cells were fitted to, and for each cell what a sum cannot
say. What a training shows at each step is drawn around it as the measured cells show it: linear in the truth, with the
covariance of what is left. The search's own code (`Halving`, `Proposer`) then chooses a cell, or a simple rule does.
Prints one JSON object: for each way its compute, in whole trainings, and the mean true accuracy of the chosen cell with
its standard error, above the mean of evenly drawn cells. About ten minutes on one core with 100 repeats (default).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasvit.api.recipe import make_config
from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.search.comparable import comparable_cells
from dasvit.search.cost import make_budget
from dasvit.search.expected import make_features
from dasvit.search.halving import Candidate, Halving, Rung
from dasvit.search.proposal import Proposer
from dasvit.search.surrogate import Features, LinearModel

STEPS_AN_EPOCH = 312.5
WHOLE = 4.0
"""Epochs of half of the images, as many steps as a training of the study."""
TEST_NOISE = 0.7
"""Points by which trainings of one network with other seeds differ (docs/results.md)."""
Array = NDArray[np.float64]


@dataclass
class Measured:
    """What trainings show, and how it follows from the truth.

    Attributes:
        features: How cells become rows.
        model: Of minus the accuracy at the end, in points.
        steps: Where trainings were looked at.
        slope: Of the loss at each step by the truth, [S]; with `offset` [S].
        spread: Lower triangle of the covariance of what is left, [S, S].
    """

    features: Features
    model: LinearModel
    steps: list[int]
    slope: Array
    offset: Array
    spread: Array

    @classmethod
    def read(cls, folder: Path, config: Config) -> Measured:
        """Return what the cells in a folder say."""
        records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("cell*.json"))]
        space, features = Space.from_config(config.space), make_features(config, 10, None)
        cells = [Genotype.from_ops(space.nodes, record["ops"]) for record in records]
        truth = np.array([record["test_top1"] for record in records])
        losses = np.array([[row["val_loss"] for row in record["rows"]] for record in records])
        x = np.column_stack([truth, np.ones(len(truth))])
        fit = np.linalg.lstsq(x, losses, rcond=None)[0]
        left = np.cov(losses - x @ fit, rowvar=False) + 1e-8 * np.eye(losses.shape[1])
        spread = np.linalg.cholesky(left).astype(np.float64)
        steps = [int(row["step"]) for row in records[0]["rows"]]
        return cls(features, LinearModel(features, cells, -truth), steps, fit[0], fit[1], spread)


@dataclass
class World:
    """A truth, and trainings that show it with noise.

    Attributes:
        measured: How it is drawn.
        seed: Of everything.
    """

    measured: Measured
    seed: int
    spent: float = 0.0
    _seen: dict[Genotype, tuple[float, Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.measured.model
        chance = np.random.default_rng(self.seed)
        self.table = model.table(chance.multivariate_normal(*model.posterior, method="eigh"))
        left = model.scales[-1] * float(model.losses.std())
        self.apart = float(np.sqrt(max(left**2 - TEST_NOISE**2, 0.0)))

    def truth(self, cell: Genotype) -> float:
        """Return what a cell reaches, in points above an arbitrary zero."""
        return self._of(cell)[0]

    def loss(self, cell: Genotype, epochs: float) -> float:
        """Return the validation loss after some epochs."""
        place = int(np.argmin(np.abs(np.array(self.measured.steps) - epochs * STEPS_AN_EPOCH)))
        return float(self._of(cell)[1][place])

    def train(self, cell: Genotype, before: float, after: float) -> float:
        """Return the loss, and note what the training took."""
        self.spent += (after - before) / WHOLE
        return self.loss(cell, after)

    def _of(self, cell: Genotype) -> tuple[float, Array]:
        if cell not in self._seen:
            measured, chance = self.measured, np.random.default_rng([self.seed, *"".join(cell.ops).encode()])
            places = [measured.features.space.operations.index(op) for op in cell.ops]
            truth = -float(self.table[np.arange(len(places)), places].sum()) + self.apart * chance.normal()
            about = measured.offset + measured.slope * (truth - measured.model.losses.mean())
            self._seen[cell] = truth, about + measured.spread @ chance.normal(size=len(about))
        return self._seen[cell]


def race(rungs: Sequence[float], cells: int, learn: bool, keep: float = 0.5) -> Callable[[World, Config], Genotype]:
    """Return the search's own way: successive halving, with or without its model."""

    def choose(world: World, config: Config) -> Genotype:
        finals = replace(
            config.search.finals, cells=cells, rungs=list(rungs), learn=learn, keep=keep, shipped=False, min_share=0
        )
        search, runtime = replace(config.search, finals=finals), replace(config.runtime, seed=world.seed)
        config = replace(config, search=search, runtime=runtime)

        def train(cell: Genotype, rung: int) -> Future[Rung]:
            future: Future[Rung] = Future()
            loss = world.train(cell, rungs[rung - 1] if rung else 0.0, rungs[rung])
            future.set_result(Rung(rungs[rung], loss, 0.0))
            return future

        budget, propose = make_budget(config, 10), Proposer(config, 10, None, [])

        def cost(cell: Genotype) -> float:
            return float(budget.cost(cell)[1])

        found: list[Candidate] = Halving(rungs, cells, keep, propose, train, cost).run()
        return found[0].cell

    return choose


def evenly(count: int) -> Callable[[World, Config], Genotype]:
    """Return the way of the control: the best of so many evenly drawn cells, each trained to the end."""

    def choose(world: World, config: Config) -> Genotype:
        pool, chance = comparable_cells(config, 10), random.Random(world.seed)
        drawn = [pool.draw(chance) for _ in range(count)]
        return min(drawn, key=lambda cell: world.train(cell, 0.0, WHOLE))

    return choose


def local(count: int, epochs: float, rate: float = 0.15) -> Callable[[World, Config], Genotype]:
    """Return the way of local search: half drawn evenly, then changes of the best so far."""

    def choose(world: World, config: Config) -> Genotype:
        pool, chance = comparable_cells(config, 10), random.Random(world.seed)
        seen: dict[Genotype, float] = {}
        while len(seen) < count:
            few = len(seen) < count // 2
            cell = pool.draw(chance) if few else pool.mutate(min(seen, key=seen.__getitem__), rate, chance)
            if cell not in seen:
                seen[cell] = world.train(cell, 0.0, epochs)
        return min(seen, key=seen.__getitem__)

    return choose


LONG = (0.32, 0.64, 1.0, 2.0, 4.0)
WAYS: dict[str, Callable[[World, Config], Genotype]] = {
    **{f"even draws, {n} whole trainings": evenly(n) for n in (1, 5, 12, 24)},
    **{f"local search, {n} whole trainings": local(n, WHOLE) for n in (12, 24)},
    "local search, 48 trainings of 1 epoch": local(48, 1.0),
    **{f"model, {n} whole trainings": race((WHOLE,), n, learn=True) for n in (5, 12, 24)},
    **{f"rungs of {n} cells, drawn evenly": race(LONG, n, learn=False) for n in (24, 48, 96)},
    **{f"rungs of {n} cells, model": race(LONG, n, learn=True) for n in (24, 48, 96)},
    **{f"rungs 1, 4 of {n} cells, model": race((1.0, 4.0), n, learn=True, keep=0.25) for n in (12, 24, 36)},
    **{f"rungs 1, 2, 4 of {n} cells, model": race((1.0, 2.0, 4.0), n, learn=True) for n in (12, 24)},
    **{f"rungs 0.64, 1, 2, 4 of {n} cells, model": race((0.64, 1.0, 2.0, 4.0), n, learn=True) for n in (24, 48)},
}


def main(folder: str, repeats: str = "100") -> None:
    """Simulate every way, and print what it reached."""
    config = make_config("cifar10-study")
    measured, found = Measured.read(Path(folder), config), {}
    pool, count = comparable_cells(config, 10), int(repeats)
    means = [
        float(np.mean([World(measured, seed).truth(pool.draw(random.Random(n))) for n in range(200)]))
        for seed in range(count)
    ]
    for name, way in WAYS.items():
        gains, spent = [], []
        for seed in range(count):
            world = World(measured, seed)
            gains.append(world.truth(way(world, config)) - means[seed])
            spent.append(world.spent)
        error = float(np.std(gains, ddof=1) / np.sqrt(count))
        row: dict[str, Any] = {"trainings": round(float(np.mean(spent)), 1), "points": round(float(np.mean(gains)), 2)}
        found[name] = {**row, "standard_error": round(error, 2)}
        print(name, found[name], file=sys.stderr, flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
