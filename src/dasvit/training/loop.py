"""Training of a fixed network from scratch (method, section 10), from top to bottom.

Shapes: B images, S side of the model's image, C classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.mixup import Mixup
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.config import Config, TrainConfig
from dasvit.config.marks import training_loss
from dasvit.data import Data, ImageSet, Loader, Preprocess, split_indices, train_transform
from dasvit.data.loader import check_batch
from dasvit.errors import UserError
from dasvit.runtime.distributed import Runtime, reseed
from dasvit.runtime.saver import Saver
from dasvit.session import Session
from dasvit.training.distillation import Distillation, load_distillation
from dasvit.training.evaluation import Evaluation, evaluate, fit_temperature
from dasvit.training.metrics import EpochMetrics, check_steps
from dasvit.training.multilabel import make_label_loss, positive_weights, weights_line
from dasvit.training.optim import make_optimizer, make_schedule, warmup_remark
from dasvit.training.start import normalisation_of
from dasvit.training.steps import BatchLoss, Steps, at_least_float32

LOGS = ("metrics.jsonl",)
UNBALANCED = 10
"""How many times the smallest class's training images the largest has where that is said."""
ADVICE = "train.optim.lr, or raise train.optim.warmup_epochs"


@dataclass
class Trained:
    """What a training gives.

    Attributes:
        model: The network that was evaluated (the average, with EMA).
        evaluation: What it reached on the test images.
        epoch: The epoch whose weights were kept. 0: the last one's, of a training that monitors nothing.
    """

    model: nn.Module
    evaluation: Evaluation
    epoch: int = 0


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
    config, runtime, options = session.config, session.runtime, session.config.train
    data, held_out = hold_out(session)
    check_sizes(len(data.train), options, runtime.world)
    loader = training_loader(data, config, runtime)
    preprocess = Preprocess(config.model.image_size, *normalisation_of(model), erasing=options.augment.erasing)
    preprocess.to(runtime.device)
    runtime.share_of(options.batch_size, "train.batch_size")
    state = TrainState(model, options, len(loader), runtime, Steps(runtime, session.reporter))
    if runtime.shards:
        params = sum(param.numel() for param in state.params)
        session.reporter.say(f"weights: {params:,}, of which this process keeps {runtime.kept(model):,}")
    mixup, criterion = loss_of(data, options)
    state.distillation = load_distillation(session, model)
    if remark := warmup_remark(options.optim, options.epochs, "train.optim"):
        session.reporter.say(remark)  # a candidate's warm-up is scaled: its numbers are not the recipe's
    evaluation = None
    with Saver(session.run, LOGS, runtime, session.reporter, session.deadline) as saver:
        state.load(saver.load())
        if state.epoch < options.epochs:  # also where it had ended, with fewer epochs
            saver.reopen()
        end = min(options.epochs * len(loader), max(1, round(until * len(loader)))) if until < math.inf else math.inf
        while not state.is_over and state.done < end:
            evaluation = None
            run_epoch(state, session, loader, preprocess, mixup, criterion, saver, end)
            if state.step < len(loader):
                break
            check_steps(state.metrics, state.where, ADVICE)
            epoch = state.epoch + 1
            row = state.metrics.row(runtime, stage="train", epoch=epoch, lr=state.lr)
            if epoch % options.eval_every == 0 or epoch == options.epochs:
                batches = test_batches(data, config, runtime)
                watched = saver.watch(batches, state.done, state.state, f"{state.where}, evaluation")
                evaluation = evaluate(state.current, preprocess, watched, runtime, session.classes)
                row |= prefixed("test", evaluation)
            if held_out is not None and options.monitor != "last":
                batches = in_order(held_out, config, runtime)
                watched = saver.watch(batches, state.done, state.state, f"{state.where}, validation")
                seen = evaluate(state.current, preprocess, watched, runtime, session.classes)
                row |= prefixed("val", seen)
                state.keep_best(epoch, seen)
            state.epoch, state.step = epoch, 0
            session.log(describe_epoch(row, options, evaluated_on), {"metrics.jsonl": row})
        saver.finish(state.done, state.state, ended=state.is_over)

    def on(images: ImageSet) -> Evaluation:
        return evaluate(state.evaluated, preprocess, in_order(images, config, runtime), runtime, session.classes)

    if evaluation is None or state.best is not None:  # the run had ended before, or pauses; or keeps another epoch
        evaluation = on(data.test)
    if held_out is not None:
        evaluation = evaluation.calibrated(fit_temperature(on(held_out)))
    return Trained(state.evaluated, evaluation, state.best_epoch)


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
        distillation: What a teacher adds to the loss, where there is one.
    """

    def __init__(self, model: nn.Module, options: TrainConfig, length: int, runtime: Runtime, steps: Steps) -> None:
        self.model, self.length, self.epochs, self.options = model, length, options.epochs, options
        self.best_epoch, self.best_value = 0, math.inf
        self.epoch = self.step = 0
        self.metrics = EpochMetrics(runtime.device)
        self.steps, self.runtime = steps, runtime
        self.begin_step: Callable[[int], None] | None = None
        self.advice = ADVICE
        self.distillation: Distillation | None = None
        runtime.broadcast(model)
        # Copied before it is shared, which it could not be afterwards.
        several = not runtime.shards  # shares and whole tensors, as statistics are, do not go into one call
        self.ema = ModelEmaV3(model, decay=options.ema, use_warmup=True, foreach=several) if options.ema else None
        self.best = copy.deepcopy(model) if options.monitor != "last" else None
        for network in (model, self.ema and self.ema.module, self.best):
            if network is not None:
                runtime.place(network)
        self.params = list(model.parameters())
        self.optimizer = make_optimizer(model, options.optim)
        self.schedule = make_schedule(self.optimizer, options.optim, options.epochs, length)

    @property
    def current(self) -> nn.Module:
        """The network as it is after the last step: the average, with EMA."""
        average: nn.Module | None = self.ema and self.ema.module
        return average or self.model

    @property
    def evaluated(self) -> nn.Module:
        """The network that the training ends with: that of the best epoch so far, where one is monitored."""
        return self.best if self.best is not None and self.best_epoch else self.current

    def keep_best(self, epoch: int, seen: Evaluation) -> None:
        """Keep an epoch's weights where it is better on the images held out than all before."""
        value = getattr(seen, self.options.monitor) * (1 if self.options.monitor == "loss" else -1)
        if self.best is not None and value < self.best_value:
            self.best_epoch, self.best_value = epoch, value
            self.best.load_state_dict(self.current.state_dict())

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or nothing became better for too long."""
        patience = self.options.patience
        return self.epoch >= self.epochs or bool(patience and self.epoch - self.best_epoch >= patience)

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
        position: dict[str, float] = {
            "epoch": self.epoch,
            "step": self.step,
            "rows": self.epoch,
            "parts": self.steps.micro_batches,
        }
        if self.best is not None:
            position |= {"best_epoch": self.best_epoch, "best_value": self.best_value}
        parts = {name: item.state_dict() for name, item in self.stateful().items()}
        return {**position, **self.runtime.full_state(parts)}

    def load(self, state: dict[str, Any] | None) -> None:
        """Take over a checkpoint, where there is one."""
        if state is not None:
            self.epoch, self.step, self.steps.micro_batches = state["epoch"], state["step"], state["parts"]
            if self.best is not None:
                self.best_epoch, self.best_value = state["best_epoch"], state["best_value"]
            for name, item in self.stateful().items():
                self.runtime.load(item, state[name])

    def stateful(self) -> dict[str, Any]:
        """Return everything that has a state dictionary."""
        parts: dict[str, Any] = {"metrics": self.metrics, "model": self.model, "optimizer": self.optimizer}
        more = {"ema": self.ema, "best": self.best}
        return {**parts, **{name: part for name, part in more.items() if part is not None}}


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
            outputs = state.model(inputs[rows])
            if state.distillation:
                loss = state.distillation(outputs, inputs[rows], targets[rows], criterion)
            else:
                loss = criterion(at_least_float32(outputs), targets[rows])
        return loss, {"loss": loss}

    loss, clip = BatchLoss(len(inputs), config.train.batch_size, of), config.train.optim.clip_grad
    is_good = state.steps.descend(loss, state.params, state.optimizer, clip, state.metrics)
    if is_good:
        runtime.average_statistics(state.model)
        if state.ema:
            state.ema.update(state.model, step=state.done + 1)
    return is_good


def training_loader(data: Data, config: Config, runtime: Runtime) -> Loader:
    """Return the shuffled, augmented batches of the whole training set; balanced ones where the recipe asks for it."""
    options = config.train
    return Loader(
        data.train,
        np.arange(len(data.train)),
        batch_size=options.batch_size,
        transform=train_transform(options.augment, config.model.image_size, data.train.size),
        seed=config.runtime.seed,
        shuffle=True,
        drop_last=True,
        balance=options.balance == "sampler",
        workers=config.runtime.workers,
        rank=runtime.rank,
        world=runtime.world,
    )


def hold_out(session: Session) -> tuple[Data, ImageSet | None]:
    """Return the data without the training images that are held out, and these; None where none are.

    Raises:
        UserError: A class has too few images to be in both.
    """
    data, options = session.data, session.config.train
    if not options.held_out:
        return data, None
    seed, groups = session.config.runtime.seed, data.train.groups
    rest, held_out = split_indices(data.train.labels, options.held_out, seed, data.classes, groups)
    return replace(data, train=data.train.select(rest)), data.train.select(held_out)


def prefixed(part: str, seen: Evaluation) -> dict[str, float]:
    """Return an evaluation's figures as an epoch's line of metrics holds them, as val_loss."""
    return {f"{part}_{name}": value for name, value in seen.summary().items() if name != "images"}


def test_batches(data: Data, config: Config, runtime: Runtime) -> Loader:
    """Return the test set in order, as it is."""
    return in_order(data.test, config, runtime)


def in_order(images: ImageSet, config: Config, runtime: Runtime) -> Loader:
    """Return images in order, as they are."""
    return Loader(
        images,
        np.arange(len(images)),
        batch_size=4 * config.train.batch_size,
        transform=None,
        seed=config.runtime.seed,
        shuffle=False,
        drop_last=False,
        rank=runtime.rank,
        world=runtime.world,
    )


def class_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """Return the weights that make all classes of a set count alike, float32 [C]; 1 on the average of the images.

    N images of C' classes that have some: N / (C' n_c) for the n_c images of class c, and 0 of a class without any.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = len(labels) / ((counts > 0).sum() * np.maximum(counts, 1)) * (counts > 0)
    return torch.from_numpy(weights.astype(np.float32))


def say_unbalanced(session: Session) -> None:
    """Say it where the largest class has ten times as many training images as the smallest, and nothing is done."""
    if session.data.multilabel:
        is_weighed = session.config.train.balance == "weights"
        if line := weights_line(session.data.train.labels, session.data.classes, is_weighed, UNBALANCED):
            session.reporter.say(line)
        return
    counts = np.bincount(session.data.train.labels, minlength=session.classes)
    counts, most = counts[counts > 0], int(counts.max(initial=0))
    if session.config.train.balance == "none" and len(counts) and most >= UNBALANCED * counts.min():
        session.reporter.say(
            f"the largest class has {most:,} training images, the smallest {int(counts.min()):,}: look at balanced "
            "accuracy and macro-F1, and try --train.balance sampler or weights (docs/tasks.md)"
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


def loss_of(data: Data, options: TrainConfig) -> tuple[Mixup | None, Any]:
    """Return mixup/cutmix, where the recipe asks for it, and the loss that fits the labels of the training images."""
    labels, is_weighed = data.train.labels, options.balance == "weights"
    if data.multilabel:
        return make_label_loss(options, positive_weights(labels) if is_weighed else None)
    classes = len(data.classes)
    return make_loss(options, classes, class_weights(labels, classes) if is_weighed else None)


def make_loss(options: TrainConfig, classes: int, weights: Tensor | None = None) -> tuple[Mixup | None, Any]:
    """Return timm's mixup/cutmix, where the recipe asks for it, and the loss that fits its targets.

    Args:
        options: The recipe's section.
        classes: Classes.
        weights: Of the classes, [C], their mean over the images 1. None: none.
    """

    def weighted(logits: Tensor, targets: Tensor) -> Tensor:
        # Divided by the rows, not by their weights: micro-batches and processes then add up to the whole batch's loss.
        scale = None if weights is None else weights.to(logits)
        smoothing = options.smoothing if targets.ndim == 1 else 0.0  # mixup has smoothed its own
        return F.cross_entropy(logits, targets, scale, reduction="sum", label_smoothing=smoothing) / len(logits)

    augment = options.augment
    if augment.mixup or augment.cutmix:
        mixup = Mixup(
            mixup_alpha=augment.mixup,
            cutmix_alpha=augment.cutmix,
            label_smoothing=options.smoothing,
            num_classes=classes,
        )
        return mixup, SoftTargetCrossEntropy() if weights is None else weighted

    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=options.smoothing)

    return None, criterion if weights is None else weighted


def describe_epoch(row: dict[str, Any], options: TrainConfig, evaluated_on: str = "test") -> str:
    """Return an epoch's line for the terminal."""
    test = ""
    if "test_top1" in row:
        test = f", {evaluated_on} loss {row['test_loss']:.4f}, {evaluated_on} top-1 {row['test_top1']:.2f} %"
        test += f" (majority {row['test_majority']:.2f} %)"
    if "test_map" in row:
        test = f", {evaluated_on} loss {row['test_loss']:.4f}, {evaluated_on} mAP {row['test_map']:.2f} %"
        test += f" (a constant's {row['test_prevalence']:.2f} %)"
    if "val_map" in row:
        test += f", val mAP {row['val_map']:.2f} %, macro-F1 {row['val_macro_f1']:.2f} %"
    elif "val_macro_f1" in row:
        test += f", val top-1 {row['val_top1']:.2f} % (majority {row['val_majority']:.2f} %)"
        test += f", macro-F1 {row['val_macro_f1']:.2f} %"
    return (
        f"epoch {row['epoch']}/{options.epochs}: {training_loss(options)} {row['train_loss']:.4f}{test}, "
        f"{row['images_per_second']:.0f} images/s, {row['seconds']:.0f} s"
    )
