"""A training from images to a written model: from a cell, a network, a baseline's name or a trained model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from dasvit.cell.cost import Cost
from dasvit.cell.genotype import Genotype
from dasvit.cell.sizes import Sizes
from dasvit.cell.subnet import FILE, Found, Subnet
from dasvit.config import Config, ModelConfig
from dasvit.config import recipe as recipes
from dasvit.data import test_names
from dasvit.data.view import CROP_MODES
from dasvit.models.baselines import prefer_fast_attention
from dasvit.models.build import build_network
from dasvit.models.cost import cost_of, count_cost, sized
from dasvit.models.folder import save_model
from dasvit.runtime.distributed import Runtime, seed_everything
from dasvit.runtime.estimate import LONG, Estimate
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import NEVER, Deadline
from dasvit.session import Probe, Session, check_memory, load_session
from dasvit.training.distillation import check_teacher, claim_teacher
from dasvit.training.estimate import estimate_training
from dasvit.training.evaluation import Evaluation
from dasvit.training.loop import Trained, check_sizes, say_unbalanced, test_batches, train
from dasvit.training.multilabel import check_training
from dasvit.training.predictions import write_predictions
from dasvit.training.start import FirstWeights, normalisation_of

Subject = Found | str
"""What is trained: a cell's network, a network that was found, `vit`, or a model of timm's by its name."""


@dataclass(frozen=True)
class TrainResult:
    """What a training ended with.

    Attributes:
        subject: What was trained.
        cost: Of its network.
        evaluation: On the test images.
        model: The network that was evaluated (the average, with EMA), on this process's device.
        session: What the training was made of; its run folder holds the model.
        epoch: The epoch whose weights were kept, where `train.monitor` chose one; else 0.
    """

    subject: Subject
    cost: Cost
    evaluation: Evaluation
    model: nn.Module
    session: Session
    epoch: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the run's folder, the network's cost and the summary of its evaluation."""
        kept = {"epoch": self.epoch} if self.epoch else {}
        return {"run": str(self.session.run.path), **self.cost.to_dict(), **self.evaluation.summary(), **kept}


def run_training(
    config: Config,
    subject: Subject | FirstWeights,
    folder: str,
    reporter: Reporter,
    *,
    resume: bool = False,
    deadline: Deadline = NEVER,
    track: Sequence[str] = (),
    expected: bool = False,
) -> TrainResult:
    """Train a network in a run folder, evaluate it, and write its model.

    Args:
        config: The recipe.
        subject: A cell, a network, a baseline's name, or the trained model to begin with.
        folder: The run folder.
        reporter: Where progress goes.
        resume: There must be a run to go on with.
        deadline: When to stop.
        track: Trackers that are sent every epoch's numbers.
        expected: Whether somebody has said already how long it takes.

    Raises:
        UserError: A user's mistake.
        Stopped: By a signal or the deadline; the same call goes on.
    """
    config = at_sizes(config, subject)

    def check(labels: NDArray[np.int64], classes: Sequence[str], runtime: Runtime) -> None:
        check_sizes(len(labels), config.train, runtime.world)
        check_training(config.train, labels)
        check_teacher(config.train, classes)
        if not isinstance(subject, FirstWeights):
            check_memory(cost_of(subject, config.model, len(classes)).params)

    session = load_session(config, folder, "train", reporter, deadline, check)
    with session.locked():
        config, runtime = session.config, session.runtime
        if config.runtime.shard and not runtime.shards:
            reporter.say("runtime.shard: this one process keeps all weights; torchrun starts several (docs/scale.md).")
        make = network_maker(subject, session)
        seed_everything(config.runtime.seed)
        model = make()
        named = subject.subject(model) if isinstance(subject, FirstWeights) else subject
        text = named if isinstance(named, str) else named.to_json()
        digest = subject.digest if isinstance(subject, FirstWeights) else ""
        session.claim(text, resume, digest, may_be_longer=True)
        if isinstance(subject, FirstWeights) and runtime.is_main:
            subject.say(session)
        session.settle_precision(network_probe(make, config, session.classes))
        prefer_fast_attention(
            model, runtime.device, torch.bfloat16 if runtime.precision == "bfloat16" else torch.float32
        )
        cost = count_cost(model, config.model.image_size)
        taught = claim_teacher(session, test_batches(session.data, config, runtime))
        passes = (3 * cost.macs + taught) * len(session.data.train) * config.train.epochs
        if not expected and passes > LONG and "estimate" not in runtime.from_main(session.run.notes):
            session.expect({"training": estimate_training(make, session)})
        say_unbalanced(session)
        seed_everything(config.runtime.seed)
        with session.timed(), session.followed(track) as session:
            trained = train(model, session)
            return write_model(trained, named, cost, session, make)


def expect_training(config: Config, subject: Subject | FirstWeights, folder: str, reporter: Reporter) -> Estimate:
    """Return how long a training would take; nothing is written.

    Args:
        config: The recipe.
        subject: As for `run_training`.
        folder: The run folder that the training would have.
        reporter: Where progress goes.

    Raises:
        UserError: A user's mistake.
    """
    config = at_sizes(config, subject)
    session = load_session(config, folder, "train", reporter)
    make = network_maker(subject, session)
    session.settle_precision(network_probe(make, config, session.classes), keep=False)
    return estimate_training(make, session)


def at_sizes(config: Config, subject: Subject | FirstWeights) -> Config:
    """Return a recipe with the sizes that a cell's file has of its own; of all else as it is."""
    return config if isinstance(subject, FirstWeights) else replace(config, model=sized(subject, config.model))


def resized(subject: Subject, model: ModelConfig, say: Callable[[str], None]) -> Subject:
    """Return what is trained with the sizes that a command line asks for, where a file has others of its own.

    Args:
        subject: What is trained; without sizes of its own it stays as it is.
        model: The file's sizes with what the command line changes of them.
        say: Told what is changed.
    """
    if not isinstance(subject, Genotype) or subject.sizes is None:
        return subject
    wanted = Sizes.of(model) if subject.sizes.image_size else replace(Sizes.of(model), image_size=0)
    own = subject.sizes.to_dict()
    changed = [f"{name} {size}, not {own[name]}" for name, size in wanted.to_dict().items() if own[name] != size]
    if changed:
        say(f"the network has model.{' and model.'.join(changed)} as its file says: the command line's word counts")
    return subject.sized(wanted)


def say_taken_over(config: Config, run: Path | None, reporter: Reporter) -> None:
    """Say which limits on the images a training takes over from the run that it is about.

    Args:
        config: The training's recipe.
        run: The run's folder, where there is one.
        reporter: Where it is said.
    """
    kept = recipes.load(run / "config.yaml", searching=False).data if run else config.data
    for name, what in (("limit", "trains on all images"), ("eval_limit", "tests on all images")):
        value = getattr(config.data, name)
        if run and value and value == getattr(kept, name):
            reporter.say(f"data.{name} {value:,} is taken over from {run}: --data.{name} 0 {what}")


def network_maker(subject: Subject | FirstWeights, session: Session) -> Callable[[], nn.Module]:
    """Return what builds the network: with fresh weights, or with those of a trained model."""
    config, classes, rate = session.config, session.classes, session.config.train.drop_path
    if isinstance(subject, FirstWeights):
        return lambda: subject.load(config, session.data)
    return lambda: build_network(subject, config.model, classes, rate, config.train.adds_token)


def write_model(
    trained: Trained, subject: Subject, cost: Cost, session: Session, make: Callable[[], nn.Module]
) -> TrainResult:
    """Write what a training ended with: the genotype or the network's sizes, `result.json` and `model/`; return it."""
    run, runtime, config = session.run, session.runtime, session.config
    result = TrainResult(subject, cost, trained.evaluation, trained.model, session, trained.epoch)
    state = runtime.full_state(trained.model.state_dict())
    if not runtime.is_main:
        return result
    model = trained.model
    if runtime.shards:
        model = make()
        model.load_state_dict(state)
    if not isinstance(subject, str):
        run.write_text(FILE if isinstance(subject, Subnet) else "genotype.json", subject.to_json())
    run.write_json("result.json", {**result.to_dict(), **trained.evaluation.record(session.data.classes)})
    data = session.data
    names = test_names(config.data, data, config.runtime.seed)
    write_predictions(run.path, trained.evaluation, data.classes, names, data.test)
    fitted, view = trained.evaluation.temperature, data.view
    noted = {"temperature": fitted, "window": None if isinstance(view.window, str) else list(view.window)}
    noted |= {"multilabel": data.multilabel or None}
    side, (mean, std) = config.model.image_size, normalisation_of(model)
    save_model(
        model,
        run.path / "model",
        class_names=session.data.classes,
        input_size=(3, side, side),
        mean=mean,
        std=std,
        crop_pct=session.data.crop_pct,
        crop_mode=CROP_MODES[view.fit],
        interpolation="bilinear" if data.enlarged else "bicubic",
        extra={
            "result": result.to_dict(),
            "data": config.data.name,
            **{name: value for name, value in noted.items() if value is not None},
        },
    )
    return result


def network_probe(make: Callable[[], nn.Module], config: Config, classes: int) -> Probe:
    """Return what the precision of a training is timed with: a step on noise of the network that `make` builds."""
    side, batch = config.model.image_size, config.train.batch_size

    def probe(device: torch.device) -> Callable[[], None]:
        model = make().to(device)
        images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
        labels = (torch.arange(batch) % classes).to(device)

        def step() -> None:
            short = torch.is_autocast_enabled(device.type)
            prefer_fast_attention(model, device, torch.bfloat16 if short else torch.float32)
            F.cross_entropy(model(images).float(), labels).backward()
            model.zero_grad(set_to_none=True)

        return step

    return probe
