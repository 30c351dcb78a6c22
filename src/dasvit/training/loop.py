"""Training of a fixed network from scratch (method, section 10), from top to bottom.

Shapes: B images, S side of the model's image, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from timm.data.mixup import Mixup
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.config import Config, TrainConfig
from dasvit.config.marks import training_loss
from dasvit.data import Data, Loader, Preprocess, train_transform
from dasvit.data.loader import check_batch
from dasvit.errors import UserError
from dasvit.runtime.distributed import Runtime, reseed
from dasvit.runtime.saver import Saver
from dasvit.session import Session
from dasvit.training.evaluation import Evaluation, evaluate
from dasvit.training.metrics import EpochMetrics, check_steps
from dasvit.training.optim import make_optimizer, make_schedule, warmup_remark
from dasvit.training.steps import BatchLoss, Steps, at_least_float32

LOGS = ("metrics.jsonl",)
ADVICE = "train.optim.lr, or raise train.optim.warmup_epochs"


@dataclass
class Trained:
    """What a training gives: the network that was evaluated (the average, with EMA) and what it reached."""

    model: nn.Module
    evaluation: Evaluation


def train(model: nn.Module, session: Session, evaluated_on: str = "test", until: float = math.inf) -> Trained:
    """Train a network and evaluate it on the test set; goes on from the run's newest checkpoint.

    Args:
        model: Maps images [B, 3, S, S] to logits [B, C]; moved to the device, or devices, and trained in place.
        session: What the run is made of; of its recipe the section train is used.
        evaluated_on: What the terminal calls the test images; candidates' trainings put others in their place.
        until: Epochs, of which the last may be a part, after which the training pauses; a later call goes on. Schedule
            and batches are those of the whole training.

    Raises:
        Stopped: By a signal or the deadline; the state is saved.
    """
    config, data, runtime, options = session.config, session.data, session.runtime, session.config.train
    check_sizes(len(data.train), options, runtime.world)
    loader = training_loader(data, config, runtime)
    preprocess = Preprocess(config.model.image_size, erasing=options.augment.erasing).to(runtime.device)
    runtime.share_of(options.batch_size, "train.batch_size")
    state = TrainState(model, options, len(loader), runtime, Steps(runtime, session.reporter))
    if runtime.shards:
        params = sum(param.numel() for param in state.params)
        session.reporter.say(f"weights: {params:,}, of which this process keeps {runtime.kept(model):,}")
    mixup, criterion = make_loss(options, session.classes, runtime.world)
    if remark := warmup_remark(options.optim, options.epochs, "train.optim"):
        session.reporter.say(remark)
    evaluation = None
    with Saver(session.run, LOGS, runtime, session.reporter, session.deadline) as saver:
        state.load(saver.load())
        if state.epoch < options.epochs:  # also where it had ended, with fewer epochs
            saver.reopen()
        end = min(options.epochs * len(loader), max(1, round(until * len(loader)))) if until < math.inf else math.inf
        while state.epoch < options.epochs and state.done < end:
            run_epoch(state, session, loader, preprocess, mixup, criterion, saver, end)
            if state.step < len(loader):
                break
            check_steps(state.metrics, state.where, ADVICE)
            epoch = state.epoch + 1
            row = state.metrics.row(runtime, stage="train", epoch=epoch, lr=state.lr)
            if epoch % options.eval_every == 0 or epoch == options.epochs:
                batches = test_batches(data, config, runtime)
                watched = saver.watch(batches, state.done, state.state, f"{state.where}, evaluation")
                evaluation = evaluate(state.evaluated, preprocess, watched, runtime, session.classes)
                row |= {"test_loss": evaluation.loss, "test_top1": evaluation.top1, "test_top5": evaluation.top5}
            state.epoch, state.step = epoch, 0
            session.log(describe_epoch(row, options, evaluated_on), {"metrics.jsonl": row})
        saver.finish(state.done, state.state, ended=state.epoch == options.epochs)
    if evaluation is None:  # the run had ended before, or pauses
        batches = test_batches(data, config, runtime)
        evaluation = evaluate(state.evaluated, preprocess, batches, runtime, session.classes)
    return Trained(state.evaluated, evaluation)


class TrainState:
    """What is trained, and how far it has come.

    Attributes:
        model: The network.
        optimizer: Of its weights.
        ema: The average of its weights, where the recipe asks for one.
        epoch: Epochs that have ended.
        step: Steps of the epoch that goes on.
        metrics: What that epoch has added up.
        steps: How batches are differentiated.
        begin_step: Told of the number of each step before it.
        advice: What to lower where steps give no finite numbers.
    """

    def __init__(self, model: nn.Module, options: TrainConfig, length: int, runtime: Runtime, steps: Steps) -> None:
        self.model, self.length, self.epochs = model, length, options.epochs
        self.epoch = self.step = 0
        self.metrics = EpochMetrics(runtime.device)
        self.steps, self.runtime = steps, runtime
        self.begin_step: Callable[[int], None] | None = None
        self.advice = ADVICE
        runtime.broadcast(model)
        # Copied before it is shared, which it could not be afterwards.
        several = not runtime.shards  # shares and whole tensors, as statistics are, do not go into one call
        self.ema = ModelEmaV3(model, decay=options.ema, use_warmup=True, foreach=several) if options.ema else None
        for network in [model, self.ema.module] if self.ema else [model]:
            runtime.place(network)
        self.params = list(model.parameters())
        self.optimizer = make_optimizer(model, options.optim)
        self.schedule = make_schedule(self.optimizer, options.optim, options.epochs, length)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated."""
        average: nn.Module | None = self.ema and self.ema.module
        return average or self.model

    @property
    def done(self) -> int:
        """Steps of the whole training that are done."""
        return self.epoch * self.length + self.step

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    @property
    def where(self) -> str:
        """The epoch, as the terminal shows it."""
        return f"epoch {min(self.epoch + 1, self.epochs)}/{self.epochs}"

    def live(self) -> list[str]:
        """Return what the terminal shows below the bar."""
        return [self.metrics.live(self.step, self.epochs * self.length - self.done)]

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint holds: position and the parts' states.

        Batches, rates and random numbers are functions of the position.
        """
        position = {"epoch": self.epoch, "step": self.step, "rows": self.epoch, "parts": self.steps.micro_batches}
        parts = {name: item.state_dict() for name, item in self.stateful().items()}
        return {**position, **self.runtime.full_state(parts)}

    def load(self, state: dict[str, Any] | None) -> None:
        """Take over a checkpoint, where there is one."""
        if state is not None:
            self.epoch, self.step, self.steps.micro_batches = state["epoch"], state["step"], state["parts"]
            for name, item in self.stateful().items():
                self.runtime.load(item, state[name])

    def stateful(self) -> dict[str, Any]:
        """Return everything that has a state dictionary."""
        parts: dict[str, Any] = {"metrics": self.metrics, "model": self.model, "optimizer": self.optimizer}
        return {**parts, "ema": self.ema} if self.ema else parts


def run_epoch(
    state: TrainState,
    session: Session,
    loader: Loader,
    preprocess: nn.Module,
    mixup: Mixup | None,
    criterion: Any,
    saver: Saver,
    end: float,
) -> None:
    """Do what is left of an epoch, or of the steps until end (of the whole training)."""
    config, runtime = session.config, session.runtime
    if state.step == 0:
        state.metrics = EpochMetrics(runtime.device)
    state.model.train()
    preprocess.train()
    loader.set_epoch(state.epoch)
    loader.skip(state.step)
    for images, labels in session.reporter.track(loader, state.where, state.step, state.live):
        reseed(config.runtime.seed, state.done, runtime.rank)
        if state.begin_step:
            state.begin_step(state.done)
        inputs, targets = preprocess(images.to(runtime.device)), labels.to(runtime.device)
        if mixup:
            inputs, targets = mixup(inputs, targets)
        is_good = weight_step(state, inputs, targets, criterion, config, runtime)
        state.metrics.skipped += not is_good
        state.step += 1
        where = f"{state.where}, step {state.step}/{len(loader)}"
        state.steps.count(is_good, where, state.lr, state.advice)
        state.schedule.step_update(state.done)
        saver.step(state.done, state.state, where, is_good)
        if state.done >= end:
            break


def weight_step(
    state: TrainState, inputs: Tensor, targets: Tensor, criterion: Any, config: Config, runtime: Runtime
) -> bool:
    """Move the weights one step; return False where its numbers were not finite, and it was left out."""

    def of(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        with runtime.autocast():
            loss = criterion(at_least_float32(state.model(inputs[rows])), targets[rows])
        return loss, {"loss": loss}

    loss, clip = BatchLoss(len(inputs), config.train.batch_size, of), config.train.optim.clip_grad
    is_good = state.steps.descend(loss, state.params, state.optimizer, clip, state.metrics)
    if is_good:
        runtime.average_statistics(state.model)
        if state.ema:
            state.ema.update(state.model, step=state.done + 1)
    return is_good


def training_loader(data: Data, config: Config, runtime: Runtime) -> Loader:
    """Return the shuffled, augmented batches of the whole training set."""
    options = config.train
    return Loader(
        data.train,
        np.arange(len(data.train)),
        batch_size=options.batch_size,
        transform=train_transform(options.augment, config.model.image_size, data.train.size),
        seed=config.runtime.seed,
        shuffle=True,
        drop_last=True,
        workers=config.runtime.workers,
        rank=runtime.rank,
        world=runtime.world,
    )


def test_batches(data: Data, config: Config, runtime: Runtime) -> Loader:
    """Return the test set in order, as it is."""
    return Loader(
        data.test,
        np.arange(len(data.test)),
        batch_size=4 * config.train.batch_size,
        transform=None,
        seed=config.runtime.seed,
        shuffle=False,
        drop_last=False,
        rank=runtime.rank,
        world=runtime.world,
    )


def check_sizes(images: int, options: TrainConfig, world: int) -> None:
    """Check that the batches of a training can be filled, and mixed where the recipe asks for that.

    Args:
        images: Training images.
        options: The recipe's section.
        world: Processes that share a batch.

    Raises:
        UserError: They cannot.
    """
    check_batch(options.batch_size, images, "train.batch_size", "training images")
    if (options.augment.mixup or options.augment.cutmix) and options.batch_size % (2 * world):
        raise UserError(
            f"mixup pairs images: train.batch_size must be a multiple of {2 * world} (two for each process), not "
            f"{options.batch_size}."
        )


def make_loss(options: TrainConfig, classes: int, world: int) -> tuple[Mixup | None, Any]:
    """Return timm's mixup/cutmix, where the recipe asks for it, and the loss that fits its targets.

    Args:
        options: The recipe's section.
        classes: Classes.
        world: Processes that share a batch.
    """
    augment = options.augment
    if augment.mixup or augment.cutmix:
        mixup = Mixup(
            mixup_alpha=augment.mixup,
            cutmix_alpha=augment.cutmix,
            label_smoothing=options.smoothing,
            num_classes=classes,
        )
        return mixup, SoftTargetCrossEntropy()

    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=options.smoothing)

    return None, criterion


def describe_epoch(row: dict[str, Any], options: TrainConfig, evaluated_on: str = "test") -> str:
    """Return an epoch's line for the terminal."""
    test = ""
    if "test_top1" in row:
        test = f", {evaluated_on} loss {row['test_loss']:.4f}, {evaluated_on} top-1 {row['test_top1']:.2f} %"
    return (
        f"epoch {row['epoch']}/{options.epochs}: {training_loss(options)} {row['train_loss']:.4f}{test}, "
        f"{row['images_per_second']:.0f} images/s, {row['seconds']:.0f} s"
    )
