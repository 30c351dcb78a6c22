"""Candidates: short trainings decide which cell a search ends with (docs/method.md).

A weight says how much the mixture uses an operation, not what a network of it alone would reach. So a few cells, drawn
by their weights, are trained for a short while, one after the other, each as the network that it would become. What one
reaches makes its operations likelier or less likely in those that follow. The best few may be trained again, for
longer, and the best on the validation images is the search's cell. A recipe calls this its finals.

Shapes: E edges, O operations.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Space
from dasvit.config import Config, TrainConfig
from dasvit.config.methods import find_method
from dasvit.data import split_indices
from dasvit.io.files import read_object
from dasvit.io.run_folder import RunFolder
from dasvit.models.baselines import make_network, prefer_fast_attention
from dasvit.runtime.distributed import seed_everything
from dasvit.search.comparable import comparable_cells
from dasvit.search.derivation import derive_found
from dasvit.search.derive import Derivation, skips
from dasvit.search.stages import Stages, StageWeights, with_pruned
from dasvit.session import Session
from dasvit.training.loop import train

FOLDER = "finals"
"""Where a run keeps the candidates' trainings."""
DRAWS = 5
"""What random numbers of the candidates are for, beside those of the search loop and of the strategies."""
ENOUGH = 200
"""Draws without a new cell, after which there are no more candidates."""
TEACHERS = 3
"""Candidates below which their results teach nothing."""


@dataclass(frozen=True)
class Candidate:
    """A cell that was trained, and what it reached.

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


def best_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates best first; those trained longer stand before others, of equal ones the one drawn earlier."""
    return sorted(candidates, key=lambda candidate: (-candidate.epochs, -candidate.top1, candidate.loss))


def next_candidate(stages: Stages, config: Config, classes: int, trained: Sequence[Candidate]) -> Genotype | None:
    """Return the cell to be trained next, drawn by its weights.

    Gumbel noise on the logarithms of all edge weights makes derivation's choice a draw (perturb and MAP: Papandreou and
    Yuille, 2011): an operation that weighs twice as much is drawn twice as often, within rule and budget. Pruned
    operations may come back, below the survivors of their edges: what pruned them were weights, too. What earlier
    candidates reached is added to the logarithms (`operation_effects`). Without a supernet all operations are as likely
    at first; where its candidates learn nothing from one another (`search.finals.gain` 0) all cells are.

    Args:
        stages: Edge weights and operations alive at the end of every stage.
        config: The search's recipe.
        classes: Classes of the data.
        trained: The candidates so far.

    Returns:
        A cell that is none of them; None where draws find no other.

    Raises:
        UserError: No cell of the space fits.
    """
    if not find_method(config.search.method).trains_supernet and not config.search.finals.gain:
        return even_candidate(config, classes, trained)
    known = {candidate.cell for candidate in trained}
    effects = operation_effects(trained, Space.from_config(config.space), config.search.finals.gain)
    weights = np.array(with_pruned(stages))
    noise = np.random.default_rng([config.runtime.seed, DRAWS, len(trained)])
    for _ in range(ENOUGH):
        factors = np.exp(np.clip(effects + noise.gumbel(size=effects.shape), -200, 200))
        drawn = [StageWeights((weights * factors).tolist(), stages[0].alive)]
        cell = derive_found(drawn, config, classes, config.search.derive).genotype
        if cell not in known:
            return cell
    return None


def even_candidate(config: Config, classes: int, trained: Sequence[Candidate]) -> Genotype | None:
    """Return a cell drawn with the same probability as every other that fits and was not trained yet.

    Perturbed weights would not do: under a budget their best cell is a dear one more often than not.
    """
    known = {candidate.cell for candidate in trained}
    cells, most = comparable_cells(config, classes), config.search.derive.max_skips
    chance = random.Random(f"{config.runtime.seed} {DRAWS} {len(trained)}")
    for _ in range(ENOUGH):
        cell = cells.draw(chance)
        if cell not in known and (most < 0 or skips(cell) <= most):
            return cell
    return None


def operation_effects(candidates: Sequence[Candidate], space: Space, gain: float) -> NDArray[np.float64]:
    """Return what is added to the logarithms of the edge weights, [E, O]: what candidates with an operation reached.

    A candidate's top-1, less the mean of all and over their standard deviation, counts for its operations: half on
    their own edges, half on all edges. Each is a sum over n candidates divided by n + 1: one result alone counts half.

    Args:
        candidates: The candidates so far; fewer than three teach nothing.
        space: The search space.
        gain: What a standard deviation is worth.
    """
    here = np.zeros((len(space.edges), len(space.operations)))
    count = np.zeros_like(here)
    scores = np.array([candidate.top1 for candidate in candidates])
    if len(candidates) < TEACHERS or not scores.std():
        return here
    for candidate, score in zip(candidates, (scores - scores.mean()) / scores.std(), strict=True):
        for edge, op in enumerate(candidate.cell.ops):
            if op != "zero":
                here[edge, space.operations.index(op)] += score
                count[edge, space.operations.index(op)] += 1
    everywhere = here.sum(axis=0) / (count.sum(axis=0) + 1)
    effects: NDArray[np.float64] = gain * (here / (count + 1) + everywhere) / 2
    return effects


def train_candidates(first: Genotype, stages: Stages, session: Session) -> list[Candidate]:
    """Train candidates on the images that train a supernet's weights, and evaluate them on those for alpha.

    All have the same seed; the test set is not looked at. The call goes on where an earlier one stopped.

    Args:
        first: The first candidate.
        stages: Edge weights and operations alive at the end of every stage; the others are drawn by them.
        session: The search's session; each candidate has a folder of its own in the run's.

    Returns:
        The candidates, each cell's longest training, best first (`best_first`).

    Raises:
        Stopped: By a signal or the deadline; the state is saved.
    """
    options, runtime, trained = session.config.search.finals, session.runtime, list[Candidate]()
    halves = halved(session)
    cell: Genotype | None = first
    while cell is not None:
        trained.append(train_candidate(cell, options.epochs, f"finalist {len(trained) + 1}/{options.cells}", halves))
        if len(trained) == options.cells:
            break
        cell = runtime.from_main(lambda: next_candidate(stages, session.config, session.classes, trained))
        if cell is None:
            text = f"{len(trained)} finalists, not {options.cells}: no other cell that fits was drawn"
            session.reporter.say(text)
    trained = best_first(trained)
    best = trained[: options.last]
    longer = [
        train_candidate(candidate.cell, options.last_epochs, f"last round {number}/{len(best)}", halves)
        for number, candidate in enumerate(best, start=1)
    ]
    return best_first([*longer, *trained[len(best) :]])


def halved(session: Session) -> Session:
    """Return a session that trains on the images for weights, and has those for alpha as its test images."""
    config, data = session.config, session.data
    lower, upper = split_indices(data.train.labels, config.search.val_fraction, config.runtime.seed, data.classes)
    return replace(session, data=replace(data, train=data.train.select(lower), test=data.train.select(upper)))


def train_candidate(cell: Genotype, epochs: int, name: str, session: Session) -> Candidate:
    """Train and evaluate one candidate, or read what it reached before; say it.

    Args:
        cell: The cell.
        epochs: How long it is trained.
        name: What the terminal calls it.
        session: The search's session with the candidates' images.
    """
    config, runtime = session.config, session.runtime
    brief = short_training(config.train, epochs)
    # The halves of few images can be smaller than a batch that all of them would fill.
    brief = replace(brief, batch_size=min(brief.batch_size, len(session.data.train)))
    key = hashlib.sha256(cell.to_json().encode()).hexdigest()[:10]
    run = RunFolder(session.run.path / FOLDER / f"cell-{key}-{epochs}", "train")
    own = session.inner(run, replace(config, train=brief))
    if runtime.is_main:
        run.open(own.config, cell.to_json())
        run.write_text("genotype.json", cell.to_json())
    known: dict[str, Any] = runtime.from_main(lambda: read_object(run.path / "result.json"))
    if not known:
        seed_everything(config.runtime.seed)
        network = make_network(cell, config.model, session.classes, drop_path=brief.drop_path)
        dtype = torch.bfloat16 if runtime.precision == "bfloat16" else torch.float32
        prefer_fast_attention(network, runtime.device, dtype)
        reached = train(network, own, evaluated_on="val").evaluation
        known = runtime.from_main(lambda: write_candidate(run, reached.top1, reached.loss))
    candidate = Candidate(cell, known["top1"], known["loss"], known["seconds"], epochs)
    what = f"val top-1 {candidate.top1:.2f} %, {candidate.seconds:.0f} s"
    session.reporter.say(f"{name}: {what}: {' '.join(cell.ops)}")
    return candidate


def write_candidate(run: RunFolder, top1: float, loss: float) -> dict[str, float]:
    """Write what a candidate reached, drop its weights, and return what was written."""
    seconds = sum(row["seconds"] for row in run.rows("metrics.jsonl"))
    result = {"top1": top1, "loss": loss, "seconds": seconds}
    run.write_json("result.json", result)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return result


def short_training(options: TrainConfig, epochs: int) -> TrainConfig:
    """Return a training of so many epochs, its warm-up as large a share of them as it was."""
    warmup = options.optim.warmup_epochs * epochs / options.epochs
    optim = replace(options.optim, warmup_epochs=warmup)
    return replace(options, epochs=epochs, eval_every=epochs, optim=optim)


def choose_best(derivation: Derivation, candidates: Sequence[Candidate]) -> Derivation:
    """Return the derivation as the candidates decided it.

    Args:
        derivation: What derivation chose, which is among the candidates.
        candidates: What they reached, best first.
    """
    best = candidates[0]
    if best.cell == derivation.genotype:
        return derivation
    before = next(candidate for candidate in candidates if candidate.cell == derivation.genotype)
    epochs = f"{best.epochs} epoch{'s' if best.epochs > 1 else ''}"
    reason = (
        f"Of {len(candidates)} finalists this cell was the best on the validation images ({best.top1:.2f} % in "
        f"{epochs}); the one that derivation chose reached {before.top1:.2f} % in {before.epochs}."
    )
    return Derivation(best.cell, derivation.genotype, f"{derivation.reason} {reason}".strip())
