"""From edge weights to one cell: derivation, and finals, where trained networks have the last word.

A weight says how much the mixture uses an operation, not what a network of it alone would reach. In the finals a few
cells, drawn by their weights, are trained for a short while, one after the other, each as the network that it would
become. What one reaches makes its operations likelier or less likely in those that follow. The best few may be trained
again, for longer, and the best on the validation images is the search's cell.

Shapes: E edges, O operations.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Alive, Space
from dasvit.config import Config, DeriveConfig, TrainConfig
from dasvit.data import Data, split_indices
from dasvit.errors import UserError
from dasvit.io.files import read_object
from dasvit.io.run_folder import RunFolder
from dasvit.methods import find_method
from dasvit.models.baselines import make_network, prefer_fast_attention
from dasvit.runtime.distributed import Runtime, seed_everything
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import NEVER, Deadline
from dasvit.search.cost import make_budget
from dasvit.search.derive import Derivation, derive
from dasvit.search.stages import with_pruned
from dasvit.training.loop import train

Stages = list[tuple[list[list[float]], Alive]]
"""Edge weights `[E][O]` and operations alive, at the end of every stage."""
FOLDER = "finals"
"""Where a run keeps the finalists' trainings."""
DRAWS = 5
"""What random numbers of the finals are for, beside those of the search loop and of the strategies."""
ENOUGH = 200
"""Draws without a new cell, after which there are no more finalists."""
TEACHERS = 3
"""Finalists below which their results teach nothing."""


def derive_found(stages: Stages, config: Config, classes: int, choice: DeriveConfig) -> Derivation:
    """Derive the best viable cell of a search's edge weights under a choice's rule and budget.

    The survivors of the last stage compete; only where none of their cells fits do pruned operations come back.

    Args:
        stages: Edge weights and operations alive at the end of every stage.
        config: The search's configuration.
        classes: Classes of the data.
        choice: Rule and budget.

    Raises:
        UserError: No cell of the space fits.
    """
    space = Space.from_config(config.space)
    how: dict[str, Any] = {
        "rule": "strongest" if choice.rule == "strongest" else "darts",
        "edges_per_node": choice.edges_per_node,
        "budget": make_budget(config, classes, choice.max_params, choice.max_macs),
        "max_skips": choice.max_skips,
    }
    weights, alive = stages[-1]
    try:
        return derive(weights, alive, space, **how)
    except UserError:
        if len(stages) == 1:
            raise
    found = derive(with_pruned(stages), stages[0][1], space, **how)
    return replace(found, reason=f"{found.reason} Operations pruned in earlier stages were taken back.")


@dataclass(frozen=True)
class Final:
    """What a finalist reached.

    Attributes:
        cell: The cell.
        top1: Of its network, on the validation images, in percent.
        loss: Likewise, the mean cross-entropy.
        seconds: What its training took.
        epochs: How long it was trained.
    """

    cell: Genotype
    top1: float
    loss: float
    seconds: float
    epochs: int = 1


def ranked(finals: Sequence[Final]) -> list[Final]:
    """Return finals best first; those trained longer stand before the others, of equal ones the one drawn earlier."""
    return sorted(finals, key=lambda final: (-final.epochs, -final.top1, final.loss))


def next_finalist(stages: Stages, config: Config, classes: int, finals: Sequence[Final]) -> Genotype | None:
    """Return the cell to be tried next: first what derivation chooses, then cells drawn by their weights.

    Gumbel noise on the logarithms of all edge weights makes derivation's choice a draw (perturb and MAP: Papandreou and
    Yuille, 2011): an operation that weighs twice as much is drawn twice as often, within rule and budget. Pruned
    operations may come back, below the survivors of their edges: what pruned them were weights, too. What earlier
    finalists reached is added to the logarithms (`learned`). The method `finals` has no weights: all operations are as
    likely at first.

    Args:
        stages: Edge weights and operations alive at the end of every stage.
        config: The search's configuration.
        classes: Classes of the data.
        finals: The finalists so far.

    Returns:
        A cell that is none of them; None where draws find no other.

    Raises:
        UserError: No cell of the space fits.
    """
    choice, known = config.search.derive, {final.cell for final in finals}
    if not finals:
        return derive_found(stages, config, classes, choice).genotype
    gains = learned(finals, Space.from_config(config.space), config.search.finals.gain)
    weights = np.array(with_pruned(stages))
    if not find_method(config.search.method).trains_supernet:  # its weights are those of the one cell that it drew
        weights = np.ones_like(weights)
    noise = np.random.default_rng([config.runtime.seed, DRAWS, len(finals)])
    for _ in range(ENOUGH):
        factors = np.exp(np.clip(gains + noise.gumbel(size=gains.shape), -200, 200))
        cell = derive_found([((weights * factors).tolist(), stages[0][1])], config, classes, choice).genotype
        if cell not in known:
            return cell
    return None


def learned(finals: Sequence[Final], space: Space, gain: float) -> NDArray[np.float64]:
    """Return what is added to the logarithms of the edge weights, [E, O]: what finalists with an operation reached.

    A finalist's top-1, less the mean of all and over their standard deviation, counts for its operations: half on their
    own edges, half on all edges. Each is a sum over n finalists divided by n + 1: one result alone counts half.

    Args:
        finals: The finalists so far; fewer than three teach nothing.
        space: The search space.
        gain: What a standard deviation is worth.
    """
    here = np.zeros((len(space.edges), len(space.operations)))
    count = np.zeros_like(here)
    scores = np.array([final.top1 for final in finals])
    if len(finals) < TEACHERS or not scores.std():
        return here
    for final, score in zip(finals, (scores - scores.mean()) / scores.std(), strict=True):
        for edge, op in enumerate(final.cell.ops):
            if op != "zero":
                here[edge, space.operations.index(op)] += score
                count[edge, space.operations.index(op)] += 1
    everywhere = here.sum(axis=0) / (count.sum(axis=0) + 1)
    found: NDArray[np.float64] = gain * (here / (count + 1) + everywhere) / 2
    return found


def play(
    stages: Stages,
    config: Config,
    data: Data,
    run: RunFolder,
    runtime: Runtime,
    reporter: Reporter,
    deadline: Deadline = NEVER,
) -> list[Final]:
    """Train finalists on the images that the supernet's weights were trained on, and judge them on those for alpha.

    All have the same seed. The call goes on where an earlier one stopped.

    Args:
        stages: Edge weights and operations alive at the end of every stage.
        config: The search's recipe.
        data: Its images; the test set is not looked at.
        run: The search's folder; each finalist has one of its own in it.
        runtime: Device, precision, processes.
        reporter: Where progress goes.
        deadline: When to stop.

    Returns:
        The finals, each cell's longest training, best first (`ranked`).

    Raises:
        Stopped: By a signal or the deadline; the state is saved.
    """
    options = config.search.finals
    lower, upper = split_indices(data.train.labels, config.search.val_fraction, config.runtime.seed)
    halves = replace(data, train=data.train.select(lower), test=data.train.select(upper))
    finals: list[Final] = []

    def play_one(cell: Genotype, epochs: int, name: str) -> Final:
        brief = short_training(config.train, epochs)
        # The halves of few images can be smaller than a batch that all of them would fill.
        short = replace(config, train=replace(brief, batch_size=min(brief.batch_size, len(halves.train))))
        final = _final(cell, short, halves, run, runtime, reporter, deadline)
        what = f"val top-1 {final.top1:.2f} %, {final.seconds:.0f} s"
        reporter.say(f"{name}: {what}: {' '.join(cell.ops)}")
        return final

    while len(finals) < options.cells:
        cell = runtime.from_main(lambda: next_finalist(stages, config, len(data.classes), finals))
        if cell is None:
            reporter.say(f"{len(finals)} finalists, not {options.cells}: no other cell that fits was drawn")
            break
        finals.append(play_one(cell, options.epochs, f"finalist {len(finals) + 1}/{options.cells}"))
    finals = ranked(finals)
    best = finals[: options.last]
    last = [
        play_one(final.cell, options.last_epochs, f"last round {number}/{len(best)}")
        for number, final in enumerate(best, start=1)
    ]
    return ranked([*last, *finals[len(best) :]])


def _final(
    cell: Genotype,
    config: Config,
    data: Data,
    search: RunFolder,
    runtime: Runtime,
    reporter: Reporter,
    deadline: Deadline,
) -> Final:
    """Train and judge one finalist, or read what it reached before."""
    key = hashlib.sha256(cell.to_json().encode()).hexdigest()[:10]
    epochs = config.train.epochs
    run = RunFolder(search.path / FOLDER / f"cell-{key}-{epochs}", "train")
    if runtime.is_main:
        run.open(config, cell.to_json())
        run.write_text("genotype.json", cell.to_json())
    known: dict[str, Any] = runtime.from_main(lambda: read_object(run.path / "result.json"))
    if not known:
        seed_everything(config.runtime.seed)
        network = make_network(cell, config.model, len(data.classes), drop_path=config.train.drop_path)
        dtype = torch.bfloat16 if runtime.precision == "bfloat16" else torch.float32
        prefer_fast_attention(network, runtime.device, dtype)
        judged = train(network, data, config, run, runtime, reporter, deadline, judged_on="val").evaluation
        known = runtime.from_main(lambda: _write(run, judged.top1, judged.loss))
    return Final(cell, known["top1"], known["loss"], known["seconds"], epochs)


def _write(run: RunFolder, top1: float, loss: float) -> dict[str, float]:
    """Write what a finalist reached, drop its weights, and return what was written."""
    seconds = sum(row["seconds"] for row in run.rows("metrics.jsonl"))
    found = {"top1": top1, "loss": loss, "seconds": seconds}
    run.write_json("result.json", found)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return found


def short_training(options: TrainConfig, epochs: int) -> TrainConfig:
    """Return a training of so many epochs, its warm-up as large a share of them as it was."""
    warmup = options.optim.warmup_epochs * epochs / options.epochs
    optim = replace(options.optim, warmup_epochs=warmup)
    return replace(options, epochs=epochs, eval_every=epochs, optim=optim)


def decide(derivation: Derivation, finals: Sequence[Final]) -> Derivation:
    """Return the derivation as the finals decided it.

    Args:
        derivation: What derivation chose, which is among the finalists.
        finals: What they reached, best first.
    """
    best = finals[0]
    if best.cell == derivation.genotype:
        return derivation
    before = next(final for final in finals if final.cell == derivation.genotype)
    epochs = f"{best.epochs} epoch{'s' if best.epochs > 1 else ''}"
    reason = (
        f"Of {len(finals)} finalists this cell was the best on the validation images ({best.top1:.2f} % in {epochs}); "
        f"the one that derivation chose reached {before.top1:.2f} % in {before.epochs}."
    )
    return Derivation(best.cell, derivation.genotype, f"{derivation.reason} {reason}".strip())
