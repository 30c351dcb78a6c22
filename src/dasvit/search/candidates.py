"""Candidates: trainings in rungs decide which cell a search ends with (docs/method.md).

A weight says how much the mixture uses an operation, not what a network of it alone would reach. So cells are trained,
each as the network that it would become, with the recipe's own training: many of them briefly, the best of these for
longer (`halving`). What they reach says which cells to try next (`proposal`), and the best on the validation images is
the search's cell. A recipe calls this its finals.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import cell_key
from dasvit.config import FinalsConfig, TrainConfig
from dasvit.data.splits import balanced_subset
from dasvit.errors import Diverged, UserError
from dasvit.io.files import read_object
from dasvit.io.run_folder import RunFolder
from dasvit.models.baselines import make_network, prefer_fast_attention
from dasvit.report.words import duration
from dasvit.runtime.cluster import Cluster
from dasvit.runtime.distributed import seed_everything
from dasvit.search.derive import Derivation
from dasvit.search.halving import Candidate, Halving, Rung, Train, converged
from dasvit.search.metric import Metric, cheapest, keep, kept, ranking_of, ties, value_of
from dasvit.search.proposal import Proposer
from dasvit.search.remote import RemotePool
from dasvit.search.sized import cost_counter
from dasvit.search.stages import Stages
from dasvit.search.state import halves
from dasvit.search.workers import Later, Pool
from dasvit.session import Session
from dasvit.training.evaluation import Evaluation
from dasvit.training.loop import train
from dasvit.training.pipeline import at_sizes

FOLDER = "finals"
"""Where a run keeps the candidates' trainings."""
RUNGS = "rungs.json"
"""What a candidate had reached at each rung, in its folder."""


def train_candidates(
    first: Sequence[Genotype], stages: Stages | None, session: Session, jobs: int = 1, place: Cluster | None = None
) -> list[Candidate]:
    """Train candidates on the images that train a supernet's weights, and evaluate them on those for alpha.

    All have the same seed; the test set is not looked at. The call goes on where an earlier one stopped.

    Args:
        first: The candidates that enter first.
        stages: Edge weights and operations alive at the end of every stage. None: there was no supernet.
        session: The search's session; each candidate has a folder of its own in the run's.
        jobs: Candidates at the same time, each in a process of its own.
        place: Where they are jobs of a cluster, so many at a time.

    Returns:
        The candidates, best first.

    Raises:
        Stopped: By a signal or the deadline; the state is saved.
    """
    config, runtime = session.config, session.runtime
    options, cost = config.search.finals, cost_counter(config, session.classes)
    propose = Proposer(config, session.classes, stages, first)

    def follow(candidate: Candidate, entered: Sequence[Candidate]) -> None:
        left = duration(seconds_left(entered, options) / jobs)
        session.reporter.say(f"{describe(candidate, 1 + entered.index(candidate), options.cells)}; about {left} left")

    with make_workers(session, jobs, place) as train_to:
        found = Halving(
            epochs=options.rungs,
            cells=options.cells,
            keep=options.keep,
            propose=lambda entered: runtime.from_main(lambda: propose(entered)),
            train=train_to,
            cost=lambda cell: float(cost(cell)[1]),
            workers=jobs,
            pinned=propose.shipped,
            follow=follow,
        ).run()
    if found and not converged(found):
        raise UserError(
            f"the trainings of all {len(found)} candidates diverged: lower train.optim.lr, or raise "
            "train.optim.warmup_epochs, and give --run another folder."
        )
    if len(found) < options.cells:
        session.reporter.say(f"{len(found)} candidates, not {options.cells}: no other cell that fits was found")
    found = runtime.from_main(lambda: settle(found, session))
    if runtime.is_main:
        for candidate in found:
            shutil.rmtree(folder_of(candidate.cell, session) / "checkpoints", ignore_errors=True)
    return found


def seconds_left(entered: Sequence[Candidate], options: FinalsConfig) -> float:
    """Return how long the rest of the candidates' trainings take one after the other, at the pace so far."""
    seen = [candidate.last for candidate in entered if candidate.rungs]
    done, seconds = sum(rung.epochs for rung in seen), sum(rung.seconds for rung in seen)
    return max(0.0, options.trained_epochs() - done) * seconds / done


def settle(candidates: Sequence[Candidate], session: Session) -> list[Candidate]:
    """Return candidates with the search's first: of those that the validation images cannot tell apart, the cheapest.

    Args:
        candidates: Best first.
        session: The search's session.
    """
    config, cost = session.config, cost_counter(session.config, session.classes)
    first = candidates[0]
    last = [one for one in converged(candidates) if one.last.epochs == first.last.epochs]
    if all(one.last.is_constant for one in last):
        session.reporter.say(
            "on the validation images no candidate is better than a constant: make search.finals.rungs longer, or try "
            "--train.balance sampler (docs/tasks.md)"
        )
    found = {i: seen for i, one in enumerate(last) if (seen := kept(folder_of(one.cell, session))) is not None}
    tied = ties(found, 0, config.search.metric, config.runtime.seed) if 0 in found else [0]
    if len(tied) == 1:
        return list(candidates)
    for number in tied:
        last[number].tied = True
    chosen = last[cheapest(tied, {number: float(cost(last[number].cell)[1]) for number in tied})]
    session.reporter.say(
        f"{len(tied)} candidates are within the noise of {len(found[0].labels):,} validation images: the cheapest of "
        f"them is taken ({chosen.last})"
    )
    return [chosen, *(one for one in candidates if one is not chosen)]


@contextmanager
def make_workers(session: Session, jobs: int, place: Cluster | None) -> Iterator[Train]:
    """Yield what trains candidates: this process, one after the other, several processes beside it, or a cluster.

    Args:
        session: The search's.
        jobs: Candidates at the same time.
        place: The cluster.

    Raises:
        UserError: Several processes train each candidate already.
    """
    if place:
        with RemotePool(session, place, lambda cell: read_rungs(folder_of(cell, session))) as remote:
            yield remote.submit
        return
    session = halved(session)
    if jobs == 1:

        def here(cell: Genotype, rung: int) -> Future[Rung]:
            reached = train_to_rung(cell, rung, session)
            return Later(lambda: reached)

        yield here
        return
    if session.runtime.world > 1:
        raise UserError("--jobs trains candidates beside each other, torchrun each one on several: choose one of them.")
    with Pool(session, jobs, train_to_rung) as pool:
        yield pool.submit


def halved(session: Session) -> Session:
    """Return a session that trains on the images for weights, and has those for alpha as its test images."""
    config, data = session.config, session.data
    lower, upper = halves(data.train.labels, config, data.classes, data.train.groups, filled=False)
    labels = data.train.labels[upper]
    some = balanced_subset(labels, config.search.finals.images, config.runtime.seed, "search.finals.images")
    return replace(session, data=replace(data, train=data.train.select(lower), test=data.train.select(upper[some])))


def folder_of(cell: Genotype, session: Session) -> Path:
    """Return the folder of a candidate in a search's run folder."""
    return session.run.path / FOLDER / cell_key(cell)


def train_to_rung(cell: Genotype, rung: int, session: Session) -> Rung:
    """Train a candidate from where it stands until a rung and evaluate it, or read what it reached there before.

    Args:
        cell: The cell.
        rung: Place in `search.finals.rungs`.
        session: See `halved`.
    """
    config, runtime, epochs = session.config, session.runtime, session.config.search.finals.rungs
    brief = candidate_training(session)
    run = RunFolder(folder_of(cell, session), "train")
    reporter = session.reporter.part(f"candidate {in_words(cell)}")
    own = replace(session.inner(run, at_sizes(replace(config, train=brief), cell)), reporter=reporter)
    if runtime.is_main:
        run.open(own.config, cell.to_json())
        run.write_text("genotype.json", cell.to_json())
    reached: list[Rung] = runtime.from_main(lambda: read_rungs(run.path))
    if len(reached) > rung:
        return reached[rung]
    start = time.perf_counter()
    seed_everything(config.runtime.seed)
    network = make_network(cell, config.model, session.classes, drop_path=brief.drop_path)
    dtype = torch.bfloat16 if runtime.precision == "bfloat16" else torch.float32
    prefer_fast_attention(network, runtime.device, dtype)
    seen = None
    try:
        seen = train(network, own, evaluated_on="val", until=epochs[rung]).evaluation
    except Diverged as error:  # the others go on
        own.reporter.warn(str(error))
    seconds = round(time.perf_counter() - start + (reached[-1].seconds if reached else 0.0), 3)
    found = rung_of(seen, epochs[rung], seconds, config.search.metric)
    if runtime.is_main:
        if seen is not None:
            keep(run.path, seen)
        write_rungs(run, [*reached, found])
    return found


def rung_of(seen: Evaluation | None, epochs: float, seconds: float, metric: Metric) -> Rung:
    """Return what a candidate reached.

    Args:
        seen: What it did on the validation images. None: its training diverged.
        epochs: How long it had been trained.
        seconds: What its training took.
        metric: `search.metric`.
    """
    if seen is None or not math.isfinite(seen.loss):
        return Rung(epochs, math.inf, 0.0, seconds, value=math.inf)
    value = value_of(seen, ranking_of(metric, seen, "loss"))
    names = ("top1", "majority", "balanced_accuracy", "macro_f1", "map", "prevalence")
    shares = {name: share for name, share in seen.summary().items() if name in names}
    return Rung(epochs, seen.loss, shares.pop("top1", math.nan), seconds, value=value, **shares)


def candidate_training(session: Session) -> TrainConfig:
    """Return how a candidate is trained.

    Args:
        session: See `halved`.
    """
    options = session.config.train
    brief = short_training(options, int(session.config.search.finals.rungs[-1]))
    # The halves of few images can be smaller than a batch that all of them would fill.
    return replace(brief, batch_size=min(brief.batch_size, len(session.data.train)))


def write_rungs(run: RunFolder, rungs: Sequence[Rung]) -> None:
    """Write what a candidate had reached at each rung so far."""
    run.write_json(RUNGS, {"rungs": [{**rung.reached(), "seconds": rung.seconds} for rung in rungs]})


def read_rungs(folder: Path) -> list[Rung]:
    """Return what a candidate had reached at each rung so far, from its folder."""
    return [Rung.read(row) for row in read_object(folder / RUNGS).get("rungs", [])]


def short_training(options: TrainConfig, epochs: int) -> TrainConfig:
    """Return a training of so many epochs, its warm-up as large a share of them as it was."""
    warmup = options.optim.warmup_epochs * epochs / options.epochs
    optim = replace(options.optim, warmup_epochs=warmup)
    # The rungs look at validation images of their own; a teacher would have seen these.
    options = replace(options, val_fraction=0.0, monitor="last", patience=0, teacher="")
    return replace(options, epochs=epochs, eval_every=epochs, optim=optim)


def describe(candidate: Candidate, number: int, cells: int) -> str:
    """Return the line of a result for the terminal."""
    rung = candidate.last
    reached = f"{epochs_text(rung.epochs)}: val {rung}, {rung.seconds:.0f} s"
    return f"candidate {number}/{cells}, {reached}: {in_words(candidate.cell)}"


def in_words(cell: Genotype) -> str:
    """Return a cell's operations, and where it has some its sizes, in a line."""
    sizes = f" ({cell.sizes.brief})" if cell.sizes else ""
    return f"{' '.join(cell.ops)}{sizes}"


def epochs_text(epochs: float) -> str:
    """Return a number of epochs in words."""
    return f"{epochs:g} epoch{'' if epochs == 1 else 's'}"


def choose_best(derivation: Derivation | None, candidates: Sequence[Candidate]) -> Derivation:
    """Return the best candidate, and why it is not what the weights derive.

    Args:
        derivation: What a supernet's weights derive, which is among the candidates. None: there was no supernet.
        candidates: What they reached, best first.
    """
    best = candidates[0]
    if derivation is None or best.cell == derivation.genotype:
        return derivation or Derivation(best.cell, best.cell, "")
    before = next(candidate for candidate in candidates if candidate.cell == derivation.genotype)
    after = f" after {epochs_text(before.last.epochs)}"
    reached = "diverged" if before.diverged else f"reached {before.last}{after}"
    reason = (
        f"Of {len(candidates)} candidates this cell was the best on the validation images ({best.last} "
        f"after {epochs_text(best.last.epochs)}); the one that derivation chose {reached}."
    )
    if best.tied:
        count = sum(candidate.tied for candidate in candidates)
        reason += f" {count} candidates are within the noise of these images, and this is the cheapest of them."
    return Derivation(best.cell, derivation.genotype, f"{derivation.reason} {reason}".strip())
