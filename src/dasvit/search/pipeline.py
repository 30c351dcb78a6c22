"""The method from images to a cell, from top to bottom: supernet, perturbation, candidates, derivation, files.

The method autoformer goes another way, to a network (`dasvit.search.autoformer.loop`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasvit.cell.cost import operation_cost, skeleton_cost, token_count
from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.cell.size_space import at_cell
from dasvit.cell.space import Space
from dasvit.cell.subnet import FILE, Found
from dasvit.config import Config
from dasvit.config.methods import find_method
from dasvit.config.units import parse_time
from dasvit.config.validation import has_sizes
from dasvit.data.splits import balanced_subset
from dasvit.errors import UserError
from dasvit.extras import need
from dasvit.latency.table import find_table, own_table
from dasvit.models.cost import cost_of
from dasvit.runtime.cluster import Cluster, open_cluster
from dasvit.runtime.distributed import Runtime, seed_everything
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import NEVER, Deadline
from dasvit.search.autoformer import loop as autoformer
from dasvit.search.candidates import choose_best, short_training, train_candidates
from dasvit.search.comparable import comparable_cells
from dasvit.search.confirm import Trial, confirm
from dasvit.search.cost import make_budget
from dasvit.search.derivation import derive_found
from dasvit.search.derive import Derivation
from dasvit.search.evaluation import perturbed
from dasvit.search.expected import make_features
from dasvit.search.front import axis_of, budget_use, front_of
from dasvit.search.halving import Candidate, converged
from dasvit.search.loop import TrainedSupernet, search
from dasvit.search.past_run import candidate_stages
from dasvit.search.prior import check_prior, describe_prior, own_prior
from dasvit.search.proposal import SHIPPED, TEACHERS, check_share
from dasvit.search.sized import cost_counter, derive_sized, measure_tables, pools_within, with_choice
from dasvit.search.stages import Stages
from dasvit.search.state import halves
from dasvit.search.surrogate import LinearModel, common_losses
from dasvit.search.time_budget import expect_search, note_hours, search_probe, within_hours
from dasvit.session import Session, check_memory, load_session
from dasvit.training.distillation import check_teacher
from dasvit.training.multilabel import check_ranking, check_training


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        derivation: The cell, and why it is this one; or the network, and what it was chosen by.
        stages: Edge weights and operations alive at the end of every stage. None: no supernet of cells was trained.
        candidates: The cells that were trained, best first. Empty: the weights alone decided.
        session: What the search was made of; its run folder holds all of this.
        trials: The networks that were measured, under a latency budget.
    """

    derivation: Derivation | autoformer.EvolvedNetwork
    stages: Stages | None
    candidates: Sequence[Candidate]
    session: Session
    trials: Sequence[Trial] = ()

    @property
    def found(self) -> Found:
        """The cell or network."""
        return self.derivation.genotype if isinstance(self.derivation, Derivation) else self.derivation.subnet

    @property
    def shipped(self) -> Candidate | None:
        """The cell that the package ships, where it was a candidate."""
        return next((one for one in self.candidates if one.cell.alone == load_genotype(SHIPPED)), None)

    def to_dict(self) -> dict[str, Any]:
        """Return what `derivation.json` holds: what was found, its cost, and what it was chosen against."""
        config, classes = self.session.config, self.session.classes
        if not isinstance(self.derivation, Derivation):
            cost = cost_of(self.derivation.subnet, config.model, classes).to_dict()
            judged = {"val_top1": self.derivation.top1, "judged": self.derivation.judged}
            return {"network": self.derivation.subnet.to_dict(), **judged, **cost}
        content = describe_derivation(self.derivation, config, classes)
        if self.trials:
            content["measured"] = [trial.to_dict() for trial in self.trials]
        if self.shipped:
            content["shipped"] = self.shipped.last.reached()
        if self.candidates:
            content["finals"] = describe_candidates(self.candidates, config, classes)
            model = model_of(self.candidates, config, classes, self.stages)
            content["effects"] = describe_effects(model) if model else []
            sizes = model.size_effects() if model else {}
            content["size_effects"] = [{"size": name, "loss": loss, "sd": sd} for name, (loss, sd) in sizes.items()]
            content["spreads"] = model.spreads() if model else {}
        return content


def run_search(
    config: Config,
    folder: str,
    reporter: Reporter,
    *,
    resume: bool = False,
    deadline: Deadline = NEVER,
    track: Sequence[str] = (),
    warn: Callable[[Session], None] | None = None,
    jobs: int = 1,
    hours: float = 0.0,
    cluster: str = "",
    cluster_config: str = "",
    expected: bool = False,
) -> SearchResult:
    """Search in a run folder, and write the cell or network.

    Args:
        config: The recipe.
        folder: The run folder.
        reporter: Where progress goes.
        resume: There must be a run to go on with.
        deadline: When to stop.
        track: Trackers that are sent every epoch's numbers.
        warn: Told of the session before a supernet is trained, as to say that its memory will not do.
        jobs: Candidates that are trained at the same time.
        hours: What the search may take: so many candidates are trained. 0: as many as the recipe says.
        cluster: slurm or local: candidates are jobs, `jobs` at a time.
        cluster_config: File of what a job asks for.
        expected: Whether somebody has said already how long it takes.

    Raises:
        UserError: A user's mistake.
        Stopped: By a signal or the deadline; the same call goes on.
    """
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {jobs}.")
    if hours < 0:
        raise UserError(f"--hours must not be negative, but is {hours:g}.")
    place = place_of(config, cluster, cluster_config, folder, jobs)
    check_prior(config, Path(folder))
    session = load_session(config, folder, "search", reporter, deadline, partial(check_search, config))
    method = find_method(config.search.method)
    with session.locked():
        known = None
        if hours:
            session, known = within_hours(session, hours, jobs)
        session.claim(method.name, resume)
        if hours and session.runtime.is_main:
            note_hours(session, hours)
        own = session.runtime.from_main(lambda: own_table(session.config, session.classes, session.run, reporter))
        own = session.runtime.from_main(lambda: own_prior(own, session.run))
        if prior := describe_prior(own):
            reporter.say(prior)
        session = replace(session, config=own)
        if has_sizes(config.space) and config.search.derive.max_latency:
            session.runtime.from_main(lambda: measure_tables(own, session.classes, reporter))
        if method.trains_supernet and warn and session.runtime.is_main:
            warn(session)
        seed_everything(config.runtime.seed)
        session.settle_precision(search_probe(session))
        session = session if expected else expect_search(session, jobs, known)
        seed_everything(config.runtime.seed)
        with session.timed(), session.followed(track) as session:
            return find_cell(session, jobs, place) if method.finds == "cell" else find_network(session)


def place_of(config: Config, cluster: str, asked: str, folder: str, jobs: int) -> Cluster | None:
    """Return where candidates are jobs; None: here.

    Raises:
        UserError: The cluster, or what sends jobs to it, is not there; or nothing of the search can be sent.
    """
    if not cluster:
        if asked:
            raise UserError("--cluster-config is for candidates that are jobs: say where, as --cluster slurm.")
        return None
    if not config.search.finals.cells:
        raise UserError("--cluster trains candidates, and this search has none: --search.finals.cells 24, say.")
    if config.data.name == "given":
        raise UserError("images in memory cannot be sent to a cluster: write them into a folder.")
    need("cluster", "submitit")
    return open_cluster(cluster, asked, folder, jobs, config.runtime.precision)


def check_search(config: Config, labels: NDArray[np.int64], classes: Sequence[str], runtime: Runtime) -> None:
    """Refuse what cannot be searched, before an image is decoded and a folder is made.

    Args:
        config: The recipe.
        labels: Classes of the training images, int64 [N], or [N, C].
        classes: Names of the classes.
        runtime: This process among its peers.

    Raises:
        UserError: Batches cannot be filled, memory is too small, no network fits the budget, or the trainings to come
            have a teacher that is not there or knows other classes.
    """
    check_teacher(config.train, classes)
    method, finals = find_method(config.search.method), config.search.finals
    check_ranking(config.search, labels)
    if config.train.teacher:
        check_training(config.train, labels)
    if finals.cells:
        check_training(short_training(config.train, 1), labels)
        check_share(config, len(classes))
    trains = method.trains_supernet or method.finds == "network"
    if trains or finals.cells:
        _, upper = halves(labels, config, classes, filled=trains)
        if finals.cells:
            balanced_subset(labels[upper], finals.images, config.runtime.seed, "search.finals.images")
    if has_sizes(config.space):
        pools_within(with_choice(config, replace(config.search.derive, max_latency="")), len(classes))
    if method.finds == "network":
        autoformer.check_budget(config, len(classes))
        check_memory(autoformer.supernet_params(config, len(classes)))
    elif method.trains_supernet:
        check_memory(supernet_params(config, len(classes)))


def find_network(session: Session) -> SearchResult:
    """Search a network and write it: `network.json` and `derivation.json` in the run's folder.

    Raises:
        Stopped: By a signal or the deadline; the state is saved.
    """
    result = SearchResult(autoformer.evolve_network(session), None, (), session)
    if session.runtime.is_main:
        session.run.write_text(FILE, result.found.to_json())
        session.run.write_json("derivation.json", result.to_dict())
    return result


def find_cell(session: Session, jobs: int = 1, place: Cluster | None = None) -> SearchResult:
    """Search a cell and write it: `genotype.json` and `derivation.json` in the run's folder.

    Args:
        session: What the search is made of.
        jobs: Candidates that are trained at the same time.
        place: Where they are jobs of a cluster.

    Raises:
        UserError: No cell of the space fits the budget.
        Stopped: By a signal or the deadline; the state is saved.
    """
    config, runtime = session.config, session.runtime
    stages = (
        None if not find_method(config.search.method).trains_supernet else supernet_stages(search(session), session)
    )
    candidates: list[Candidate] = []
    if stages is not None or not config.search.finals.cells:
        derivation = runtime.from_main(lambda: first_cell(stages, session))
    if config.search.finals.cells:
        derived = None if stages is None else derivation
        candidates = train_candidates([derived.genotype] if derived else [], stages, session, jobs, place)
        derivation = choose_best(derived, candidates)

    def faster(config: Config) -> Genotype:
        if has_sizes(config.space):
            return derive_sized(candidates, stages, config, session.classes, config.search.derive).genotype
        if not candidates:
            return first_cell(stages, replace(session, config=config)).genotype
        known = candidate_stages(candidates, config, session.classes, stages)
        return derive_found(known, config, session.classes, config.search.derive).genotype

    others = [candidate.cell for candidate in candidates]
    derivation, trials = runtime.from_main(lambda: confirm(derivation, others, faster, session))
    result = SearchResult(derivation, stages, candidates, session, trials)
    if runtime.is_main:
        session.run.write_text("genotype.json", derivation.genotype.to_json())
        session.run.write_json("derivation.json", result.to_dict())
    return result


def supernet_stages(trained: TrainedSupernet, session: Session) -> Stages:
    """Return the stages of a supernet, the last one's weights measured by perturbation where the rule asks for that."""
    if session.config.search.derive.rule != "perturbation":
        return trained.stages
    return [*trained.stages[:-1], perturbed(trained.last, session.data, session.config, session.runtime)]


def first_cell(stages: Stages | None, session: Session) -> Derivation:
    """Return what the weights say; without any, a cell drawn at random."""
    if stages is None:
        return draw_cell(session)
    config = session.config
    if has_sizes(config.space):
        return derive_sized([], stages, config, session.classes, config.search.derive)
    return derive_found(stages, config, session.classes, config.search.derive)


def draw_cell(session: Session) -> Derivation:
    """Return a viable cell drawn uniformly within the budget, by the seed (Li, Talwalkar; 2019; arXiv:1902.07638)."""
    cell = comparable_cells(session.config, session.classes).draw(random.Random(session.config.runtime.seed))
    return Derivation(cell, cell, "")


def describe_derivation(derivation: Derivation, config: Config, classes: int) -> dict[str, Any]:
    """Return the chosen cell, its network's cost, and what was chosen against."""
    content = {
        "genotype": derivation.genotype.to_dict(),
        "unconstrained": derivation.unconstrained.to_dict(),
        "reason": derivation.reason,
        **cost_of(derivation.genotype, config.model, classes).to_dict(),
    }
    own = at_cell(config, derivation.genotype)
    budget = make_budget(own, classes, config.search.derive)
    if used := budget_use(budget.cost(derivation.genotype), budget):
        content["budget"] = used
    if config.search.derive.max_latency:
        table = find_table(own, classes)
        predicted = table.predict(derivation.genotype, own.model.layers)
        limit = parse_time(config.search.derive.max_latency, "max_latency")
        content["latency"] = {"limit": limit, "predicted": predicted, "machine": asdict(table.machine)}
    return content


def describe_candidates(candidates: Sequence[Candidate], config: Config, classes: int) -> list[dict[str, Any]]:
    """Return every candidate (see `describe_candidate`); those that none beats at no more cost are marked."""
    choice = config.search.derive
    count, axis = cost_counter(config, classes, choice), axis_of(choice)
    costs = [count(candidate.cell) for candidate in candidates]
    front = set(front_of(candidates, [cost[axis] for cost in costs]))
    rows = [describe_candidate(candidate, config, classes) for candidate in candidates]
    for place, (row, cost) in enumerate(zip(rows, costs, strict=True)):
        row |= {"latency": cost[2] / 1e6} if len(cost) > 2 else {}
        row |= {"front": True} if place in front else {}
    return rows


def describe_candidate(candidate: Candidate, config: Config, classes: int) -> dict[str, Any]:
    """Return a candidate, what it reached, and what its network costs."""
    cost = cost_of(candidate.cell, config.model, classes).to_dict()
    reached = candidate.last.reached()
    expected = candidate.expected and {"loss": candidate.expected.loss, "sd": candidate.expected.sd}
    rungs = [rung.reached() for rung in candidate.rungs]
    tied = {"tied": True} if candidate.tied else {}
    return {"genotype": candidate.cell.to_dict(), **reached, **cost, "expected": expected, "rungs": rungs, **tied}


def model_of(
    candidates: Sequence[Candidate], config: Config, classes: int, stages: Stages | None
) -> LinearModel | None:
    """Return the model of what candidates reached; None of a few."""
    candidates = converged(candidates)
    if len(candidates) < TEACHERS:
        return None
    features = make_features(config, classes, stages)
    return LinearModel(features, [candidate.cell for candidate in candidates], common_losses(candidates))


def describe_effects(model: LinearModel) -> list[dict[str, Any]]:
    """Return what a model of the candidates says that each operation adds to the loss, and how surely."""
    rows = zip(model.features.space.operations, *model.effects(), strict=True)
    return [{"op": op, "loss": float(loss), "sd": float(sd)} for op, loss, sd in rows]


def supernet_params(config: Config, classes: int) -> int:
    """Return about how many parameters the largest supernet of a search has: its skeleton and all its operations."""
    space, layers = Space.from_config(config.space), max(config.search.stages.layers)
    model = replace(config.model, width=config.search.width or config.model.width)
    edge = sum(operation_cost(op, model.width, token_count(model)).params for op in space.operations)
    return skeleton_cost(model, classes).params + edge * len(space.edges) * layers
