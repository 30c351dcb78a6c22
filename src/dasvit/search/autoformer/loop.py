"""The method autoformer from images to a network: the supernet's training, then the evolution, in one run.

AutoFormer: Searching Transformers for Visual Recognition (Chen, Peng, Fu, Ling; 2021; arXiv:2107.00651).
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from dasvit.cell.subnet import Subnet, subnet_cost
from dasvit.config import Config, SearchConfig, TrainConfig
from dasvit.config.marks import training_loss
from dasvit.data import Preprocess
from dasvit.errors import UserError
from dasvit.models.subnet import make_subnet
from dasvit.runtime.saver import Saver
from dasvit.search.autoformer.evolution import Evolution
from dasvit.search.autoformer.space import SPACES
from dasvit.search.autoformer.supernet import EntangledSupernet
from dasvit.search.metric import judged_by_of, score_of
from dasvit.search.state import SearchBatches
from dasvit.session import Probe, Session
from dasvit.training.evaluation import evaluate
from dasvit.training.loop import TrainState, loss_of, run_epoch
from dasvit.training.metrics import check_steps
from dasvit.training.pipeline import network_probe
from dasvit.training.steps import Steps

LOGS = ("metrics.jsonl",)
GENERATIONS = "evolution.jsonl"
"""The file that has a line for every generation."""
ADVICE = "search.weights.lr"


@dataclass(frozen=True)
class EvolvedNetwork:
    """What the method finds.

    Attributes:
        subnet: The network.
        top1: Of the supernet, computing as it, on the validation images; in percent.
        judged: Networks that the supernet was evaluated as.
    """

    subnet: Subnet
    top1: float
    judged: int


def evolve_network(session: Session) -> EvolvedNetwork:
    """Train a supernet a drawn network a step, and evolve its networks; goes on from the run's newest checkpoint.

    Both see the training set alone: the one the images for weights, the other those for alpha.

    Args:
        session: What the run is made of; the space's smallest network fits its budget (`check_budget`).

    Raises:
        Stopped: By a signal or the deadline; the state is saved.
    """
    config, runtime = session.config, session.runtime
    options = supernet_training(config.search)
    training = replace(session, config=replace(config, train=options))
    batches = SearchBatches(session.data, config, runtime)
    runtime.share_of(options.batch_size, "search.batch_size")
    preprocess = Preprocess(config.model.image_size, erasing=options.augment.erasing).to(runtime.device)
    space, seed = SPACES[config.search.autoformer.space], config.runtime.seed
    supernet = EntangledSupernet(space, config.model, session.classes, seed)
    state = TrainState(supernet, options, len(batches), runtime, Steps(runtime, session.reporter))
    state.begin_step, state.advice = supernet.draw, ADVICE
    _, criterion = loss_of(session.data, options)
    with Saver(session.run, LOGS, runtime, session.reporter, session.deadline) as saver:
        before = saver.load()
        state.load(before)
        while state.epoch < options.epochs:
            run_epoch(state, training, batches.train, preprocess, None, criterion, saver, math.inf)
            end_epoch(state, session)
        judged = Judged(supernet, state, before.get("scores", {}) if before else {})
        evolution = judged.evolve(session, batches, preprocess, saver)
        saver.finish(judged.number, judged.state)
    return evolution


def check_budget(config: Config, classes: int) -> None:
    """Check that the space's smallest network fits the budget, and so that something can be found.

    Raises:
        UserError: It does not.
    """
    options = config.search.autoformer
    smallest = SPACES[options.space].smallest
    if not fits(smallest, config, classes):
        cost = subnet_cost(smallest, config.model, classes)
        raise UserError(
            f"the smallest network of the space {options.space} has {cost.params:,} parameters and {cost.macs:,} "
            "multiply-adds, more than search.autoformer.max_params and max_macs allow: raise them, or take another "
            "search.autoformer.space."
        )


def fits(subnet: Subnet, config: Config, classes: int) -> bool:
    """Tell whether a network is within the budget."""
    options, cost = config.search.autoformer, subnet_cost(subnet, config.model, classes)
    limits = ((cost.params, options.max_params), (cost.macs, options.max_macs))
    return all(value <= limit for value, limit in limits if limit)


def supernet_training(search: SearchConfig) -> TrainConfig:
    """Return the training of the supernet: the fields of the section search that train a supernet of cells."""
    return TrainConfig(
        epochs=sum(search.stages.epochs),
        batch_size=search.batch_size,
        smoothing=search.smoothing,
        optim=search.weights,
        augment=search.augment,
    )


def end_epoch(state: TrainState, session: Session) -> None:
    """Log an epoch, and go on to the next."""
    where = state.where
    check_steps(state.metrics, where, ADVICE)
    row = state.metrics.row(session.runtime, stage=1, epoch=state.epoch + 1, lr=state.lr)
    state.epoch, state.step = state.epoch + 1, 0
    loss = f"{training_loss(session.config.search)} {row['train_loss']:.3f}"
    said = f"{where}: {loss}, {row['images_per_second']:.0f} images/s, {row['seconds']:.0f} s"
    session.log(said, {"metrics.jsonl": row})


class Judged:
    """A trained supernet, and what it reached as the networks that it was evaluated as.

    Args:
        supernet: The supernet.
        training: Its training, which has ended.
        scores: Top-1 on the validation images in percent by a network's JSON, from an earlier call.
    """

    def __init__(self, supernet: EntangledSupernet, training: TrainState, scores: dict[str, float]) -> None:
        self.supernet, self.training, self.scores = supernet, training, dict(scores)

    @property
    def number(self) -> int:
        """Steps and evaluations that are done."""
        return self.training.done + len(self.scores)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; the rest of the evolution follows from it and the seed."""
        return {**self.training.state(), "scores": dict(self.scores)}

    def evolve(self, session: Session, batches: SearchBatches, preprocess: nn.Module, saver: Saver) -> EvolvedNetwork:
        """Evolve networks, each evaluated once, and write a line a generation."""
        config, runtime, options = session.config, session.runtime, session.config.search.autoformer
        loader, lines = batches.evaluation_batches(options.images), list[str]()
        evolution = Evolution(
            SPACES[options.space],
            lambda subnet: fits(subnet, config, session.classes),
            options,
            random.Random(config.runtime.seed),
        )

        def score(subnet: Subnet) -> float:
            key = subnet.to_json()
            if key not in self.scores:
                saver.step(self.number, self.state, f"the evolution, {len(self.scores)} networks judged")
                self.supernet.subnet = subnet
                found = evaluate(self.supernet, preprocess, loader, runtime, session.classes)
                self.scores[key] = score_of(found, config.search.metric)
            return self.scores[key]

        def ended(generation: int) -> None:
            best = evolution.best(1)[0]
            top1, judged = evolution.known[best], len(evolution.known)
            judged_by = judged_by_of(config.search.metric, session.data.multilabel)
            row = {"generation": generation, "judged": judged, "top1": top1, "network": best.to_dict()}
            lines.append(json.dumps(row))
            if runtime.is_main:
                session.run.write_text(GENERATIONS, "\n".join(lines) + "\n")
            session.reporter.say(
                f"generation {generation}/{options.generations}: best val {judged_by} {top1:.2f} % of {judged} networks"
            )

        best = evolution.run(score, ended)
        return EvolvedNetwork(best, evolution.known[best], len(evolution.known))


def supernet_probe(config: Config, classes: int) -> Probe:
    """Return what the precision of a search is timed with: a step of the space's largest network."""
    largest = SPACES[config.search.autoformer.space].largest
    training = replace(config, train=supernet_training(config.search))
    return network_probe(lambda: make_subnet(largest, config.model, classes), training, classes)


def supernet_params(config: Config, classes: int) -> int:
    """Return the parameters of a search's supernet: its largest network's."""
    return subnet_cost(SPACES[config.search.autoformer.space].largest, config.model, classes).params
