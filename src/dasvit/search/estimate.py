"""How long a search will take, phase by phase: a few timed steps of each, and what is counted.

What may stop before its time (methods that watch for a collapse) is counted in full.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from dasvit.cell.cost import operation_cost, skeleton_cost, token_count
from dasvit.cell.size_space import at, sizes_of_space
from dasvit.cell.space import OperationMask, Space
from dasvit.cell.subnet import subnet_cost
from dasvit.config import Config, FinalsConfig, Stage
from dasvit.config.methods import find_method
from dasvit.errors import UserError
from dasvit.models.subnet import make_subnet
from dasvit.report.words import duration
from dasvit.runtime.distributed import seed_everything
from dasvit.runtime.estimate import NOTHING, Estimate, describe, mean, time_steps, total
from dasvit.search.autoformer.loop import supernet_training
from dasvit.search.autoformer.space import SPACES
from dasvit.search.candidates import candidate_training, halved
from dasvit.search.expected import mean_macs
from dasvit.search.probe import LoneRuntime, SearchStep
from dasvit.search.sized import draw_network, pools_within
from dasvit.search.state import SearchBatches
from dasvit.session import Session
from dasvit.training.estimate import estimate_training, measure_pace
from dasvit.training.pipeline import network_maker

FORWARD = 1 / 3
"""Share of a step's time that is its forward pass."""
CELLS = 3
"""Evenly drawn cells whose trainings are timed."""
FEWEST, MOST = 6, 500
"""Candidates that a number of hours chooses."""
SHORTEST = 0.1
"""Share of the recipe's rungs below which a candidate's training is not shortened to fit."""


@dataclass(frozen=True)
class SearchEstimate:
    """What a search takes.

    Attributes:
        supernet: The supernet's training, and what is chosen by it.
        epoch: An epoch of a candidate's training.
        look: An evaluation of the images that candidates are judged by.
        training: The training of the found network afterwards, by another command.
    """

    supernet: Estimate = NOTHING
    epoch: Estimate = NOTHING
    look: Estimate = NOTHING
    training: Estimate = NOTHING

    def candidates(self, finals: FinalsConfig, jobs: int) -> Estimate:
        """Return what candidates take, so many beside each other."""
        return (self.epoch * finals.trained_epochs() + self.look * sum(finals.sizes())) * (1 / jobs)

    def phases(self, finals: FinalsConfig, jobs: int) -> dict[str, Estimate]:
        """Return the time of every phase that there is."""
        named = {"supernet": self.supernet, candidates_phase(finals): self.candidates(finals, jobs)}
        return {name: phase for name, phase in named.items() if phase.seconds}


def candidates_phase(finals: FinalsConfig) -> str:
    """Return the name of the phase in which candidates are trained."""
    return f"{finals.cells} candidates"


def counted_macs(session: Session) -> float:
    """Return about how many multiply-adds a search does: three times those of all forward passes."""
    config, classes = session.config, session.classes
    method, images = find_method(config.search.method), len(session.data.train)
    if method.finds == "network":
        network = subnet_cost(SPACES[config.search.autoformer.space].largest, config.model, classes).macs
        return 3.0 * network * images * sum(config.search.stages.epochs) / 2
    model = replace(config.model, width=config.search.width or config.model.width)
    space, skeleton = Space.from_config(config.space), skeleton_cost(model, classes).macs
    edge = sum(operation_cost(op, model.width, token_count(model)).macs for op in space.operations)
    layer = len(space.edges) * edge
    passes = sum((skeleton + stage.layers * layer) * stage.epochs for stage in config.search.stages)
    supernet = passes if method.trains_supernet else 0
    skeleton = skeleton_cost(config.model, classes).macs
    # A candidate has about one operation in two edges, of half the mean cost: as much as a node's two heaviest edges.
    cell = skeleton + config.model.layers * layer / len(space.operations)
    if found := [mean_macs(at(config, sizes), classes) for sizes in sizes_of_space(config)]:
        cell = sum(found) / len(found)
    return 3.0 * images / 2 * (2 * supernet + cell * config.search.finals.trained_epochs())


def estimate_search(session: Session, jobs: int = 1) -> SearchEstimate:
    """Time a few steps of every phase of a search, and count the rest.

    The run's folder is not touched; random numbers start anew behind it.

    Args:
        session: The search's, its precision settled.
        jobs: Candidates that are trained beside each other.
    """
    method = find_method(session.config.search.method)
    found = estimate_autoformer(session) if method.finds == "network" else estimate_cell_search(session, jobs)
    seed_everything(session.config.runtime.seed)
    return found


def estimate_autoformer(session: Session) -> SearchEstimate:
    """Return what an entangled supernet and its evolution take, by the space's largest network."""
    config, options = session.config, session.config.search.autoformer
    largest, training = SPACES[options.space].largest, supernet_training(config.search)
    own = halved(replace(session, config=replace(config, train=training)))
    pace = measure_pace(lambda: make_subnet(largest, config.model, session.classes), own)
    judged = options.population * (options.generations + 1) * (options.images or len(own.data.test))
    supernet = pace.epoch(training, own.data) * training.epochs + pace.image * judged
    whole = estimate_training(lambda: make_subnet(largest, config.model, session.classes), session)
    return SearchEstimate(supernet, training=whole)


def estimate_cell_search(session: Session, jobs: int) -> SearchEstimate:
    """Return what a supernet of cells and candidates take, as far as the method has them."""
    config, method, finals = session.config, find_method(session.config.search.method), session.config.search.finals
    supernet = supernet_time(session) if method.trains_supernet else NOTHING
    chance, pools = random.Random(config.runtime.seed), pools_within(config, session.classes)
    cells = [draw_network(pools, chance) for _ in range(CELLS)]
    whole = estimate_training(network_maker(cells[0], session), session)
    if not finals.cells:
        return SearchEstimate(supernet, training=whole)
    own = halved(session)
    own = replace(own, config=replace(config, train=candidate_training(own)))
    with threads_of(jobs):
        paces = [measure_pace(network_maker(cell, own), own) for cell in cells]
    epoch = mean([pace.epoch(own.config.train, own.data) for pace in paces])
    return SearchEstimate(supernet, epoch, mean([pace.look(own.data) for pace in paces]), whole)


@contextmanager
def threads_of(jobs: int) -> Iterator[None]:
    """Have as many threads as each of so many processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def supernet_time(session: Session) -> Estimate:
    """Return what a supernet of cells takes, stage by stage, and what is measured with it."""
    config, space = session.config, Space.from_config(session.config.space)
    batches = SearchBatches(session.data, config, session.runtime)
    feed, step = iter(batches.train), NOTHING
    load = time_steps(lambda: next(feed, None))
    parts: list[Estimate] = []
    for number, stage in enumerate(config.search.stages):
        one = SearchStep(
            config,
            session.classes,
            config.search.batch_size,
            LoneRuntime(session.runtime.device, session.runtime.autocast),
            number,
            mask_of(stage, space),
        )
        one.stage.begin_step()
        step, alphas = time_steps(one.weight_step), NOTHING
        if one.stage.strategy.moves_alphas and stage.weight_epochs < stage.epochs:
            alphas = (time_steps(one.alpha_step) + load) * (stage.epochs - stage.weight_epochs)
        parts.append(((step + load) * stage.epochs + alphas) * len(batches))
        parts.append(step * (FORWARD / config.search.batch_size * 2 * config.search.monitor * stage.epochs))
    images = judged_images(config, len(batches.upper))
    return total([*parts, step * (FORWARD / config.search.batch_size * images)])


def mask_of(stage: Stage, space: Space) -> OperationMask:
    """Return as many candidates on every edge as a stage has; which ones is not known before."""
    least = len(space.operations) - stage.keep if stage.keep else 0
    return tuple(tuple(place >= least for place in range(len(space.operations))) for _ in space.edges)


def judged_images(config: Config, images: int) -> int:
    """Return how many images the last supernet evaluates, to choose a cell: by perturbation or evolution."""
    search, space = config.search, Space.from_config(config.space)
    if search.method == "evolution":
        cells = search.evolution.population * (search.evolution.generations + 1)
        return cells * (search.evolution.images or images)
    if search.derive.rule == "perturbation":
        return len(space.edges) * len(space.operations) * (search.derive.images or images)
    return 0


def fit_hours(finals: FinalsConfig, found: SearchEstimate, hours: float, jobs: int) -> FinalsConfig:
    """Return as many candidates as fit into a time, and shorter ones where it is for few.

    Args:
        finals: The recipe's.
        found: What the parts take.
        hours: All that the search may take.
        jobs: Candidates that are trained beside each other.

    Raises:
        UserError: The search has no candidates, or the time does not suffice for any.
    """
    if not finals.cells:
        raise UserError(
            "--hours chooses how many candidates are trained, and this search trains none: --max-minutes stops it, and "
            "--search.finals.cells 12 or --method finals trains some."
        )
    left = 3600 * hours - found.supernet.high
    for cells in range(MOST, FEWEST - 1, -1):
        chosen = replace(finals, cells=cells)
        if found.candidates(chosen, jobs).high <= left:
            return chosen
    few = replace(finals, cells=FEWEST)
    looks = (found.look * sum(few.sizes()) * (1 / jobs)).high
    share = (left - looks) / max(1e-9, found.candidates(few, jobs).high - looks)
    if share < SHORTEST:
        needed = found.supernet.high + looks + SHORTEST * (found.candidates(few, jobs).high - looks)
        parts = describe(found.phases(few, jobs))
        raise UserError(
            f"--hours {hours:g} is too little here: {FEWEST} candidates with a tenth of their training take up to "
            f"{duration(needed)} with what goes before them (with all of it: {parts})."
        )
    last = max(1, int(finals.rungs[-1] * share))
    return replace(few, rungs=[*(rung * last / finals.rungs[-1] for rung in finals.rungs[:-1]), float(last)])
