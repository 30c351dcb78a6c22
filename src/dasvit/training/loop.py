"""Training of a fixed network from scratch (method, section 10), from top to bottom.

Shapes: B images, S side of the model's image, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.data.mixup import Mixup
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.config import Config, TrainConfig
from dasvit.data import Data, Loader, Preprocess, train_transform
from dasvit.errors import UserError
from dasvit.report import refresh_report
from dasvit.training.checkpoint import load_checkpoint, save_checkpoint, set_rng_state
from dasvit.training.distributed import Runtime
from dasvit.training.evaluation import Evaluation, evaluate
from dasvit.training.metrics import EpochMetrics, check_finite
from dasvit.training.optim import make_optimizer, make_schedule
from dasvit.training.progress import Reporter
from dasvit.training.run_folder import RunFolder


@dataclass
class Trained:
    """What a training gives: the network that was judged (the average, with EMA) and its judgement."""

    model: nn.Module
    evaluation: Evaluation


def train(
    model: nn.Module, data: Data, config: Config, run: RunFolder, runtime: Runtime, reporter: Reporter
) -> Trained:
    """Train a network and judge it on the test set; goes on from the run's newest checkpoint.

    Args:
        model: Maps images [B, 3, S, S] to logits [B, C]; moved to the device and trained in place.
        data: Training and test images.
        config: The recipe; its section train is used.
        run: Where metrics and checkpoints go.
        runtime: Device, precision, processes.
        reporter: Where progress goes.
    """
    options = config.train
    classes = len(data.classes)
    model.to(runtime.device)
    loader = training_loader(data, config, runtime)
    preprocess = Preprocess(config.model.image_size, erasing=options.augment.erasing).to(runtime.device)
    optimizer = make_optimizer(model, options.optim)
    schedule = make_schedule(optimizer, options.optim, options.epochs, len(loader))
    ema = ModelEmaV3(model, decay=options.ema, use_warmup=True) if options.ema else None
    judged = ema.module if ema else model
    mixup, criterion = make_loss(options, classes)
    network = runtime.prepare(model)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, **({"ema": ema} if ema else {})}
    start = resume(run, parts)

    evaluation = None
    for epoch in range(start, options.epochs):
        network.train()
        preprocess.train()
        loader.set_epoch(epoch)
        metrics = EpochMetrics(runtime.device)
        for step, (images, labels) in enumerate(reporter.track(loader, f"epoch {epoch + 1}/{options.epochs}")):
            inputs, targets = preprocess(images.to(runtime.device)), labels.to(runtime.device)
            if mixup:
                inputs, targets = mixup(inputs, targets)
            with runtime.autocast():
                loss = criterion(network(inputs).float(), targets)
            loss.backward()
            if options.optim.clip_grad:
                nn.utils.clip_grad_norm_(network.parameters(), options.optim.clip_grad)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done = epoch * len(loader) + step + 1
            schedule.step_update(done)
            if ema:
                ema.update(model, step=done)
            metrics.add("train_loss", loss, len(images))
            metrics.images += len(images)
        row = metrics.row(runtime, stage="train", epoch=epoch + 1, lr=optimizer.param_groups[0]["lr"])
        check_finite(row, "train_loss", "train.optim.lr, or raise train.optim.warmup_epochs")
        if (epoch + 1) % options.eval_every == 0 or epoch + 1 == options.epochs:
            evaluation = evaluate(judged, preprocess, test_batches(data, config, runtime), runtime, classes)
            row |= {"test_loss": evaluation.loss, "test_top1": evaluation.top1, "test_top5": evaluation.top5}
        if runtime.is_main:
            run.append("metrics.jsonl", row)
            save_checkpoint(run.checkpoints, epoch + 1, {"epoch": epoch + 1, **states(parts)})
            refresh_report(run.path, reporter.say)
            reporter.say(describe_epoch(row, options.epochs))
    if evaluation is None:  # the run had ended before
        evaluation = evaluate(judged, preprocess, test_batches(data, config, runtime), runtime, classes)
    return Trained(judged, evaluation)


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


def make_loss(options: TrainConfig, classes: int) -> tuple[Mixup | None, Any]:
    """Return timm's mixup/cutmix, where the recipe asks for it, and the loss that fits its targets."""
    augment = options.augment
    if augment.mixup or augment.cutmix:
        if options.batch_size % 2:
            raise UserError(f"mixup pairs images: train.batch_size must be even, not {options.batch_size}.")
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


def states(parts: dict[str, Any]) -> dict[str, Any]:
    """Return the state dictionaries of modules and optimisers by name."""
    return {name: part.state_dict() for name, part in parts.items()}


def resume(run: RunFolder, parts: dict[str, Any]) -> int:
    """Load the newest checkpoint into the parts, and the generators; return the epochs that are done."""
    state = load_checkpoint(run.checkpoints)
    if state is None:
        run.truncate("metrics.jsonl", 0)
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    set_rng_state(state["rng"])
    run.truncate("metrics.jsonl", state["epoch"])
    return int(state["epoch"])


def describe_epoch(row: dict[str, Any], epochs: int) -> str:
    """Return an epoch's line for the terminal."""
    test = f", test top-1 {row['test_top1']:.2f} %" if "test_top1" in row else ""
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.4f}{test}, {row['images_per_second']:.0f} images/s, "
        f"{row['seconds']:.0f} s"
    )


def probe_step(model: nn.Module, side: int, batch: int, classes: int, device: torch.device) -> Callable[[], None]:
    """Return a function that does one forward and backward pass on noise, to time a precision with.

    Args:
        model: Maps images [B, 3, S, S] to logits [B, C].
        side: S.
        batch: B.
        classes: C.
        device: Where the model is.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, generator=generator).to(device)
    labels = (torch.arange(batch) % classes).to(device)

    def step() -> None:
        F.cross_entropy(model(images).float(), labels).backward()
        model.zero_grad(set_to_none=True)

    return step
