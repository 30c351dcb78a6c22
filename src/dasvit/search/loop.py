"""The search (sections 2 to 9), from top to bottom: stages, bilevel steps, pruning, derivation.

Shapes: B images, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.space import Alive, Space
from dasvit.config import Config
from dasvit.data import Data, Loader, Preprocess, split_indices, train_transform
from dasvit.search.architecture import Architecture, entropy
from dasvit.search.bilevel import first_order, second_order
from dasvit.search.fairness import fairness
from dasvit.search.stages import prune
from dasvit.search.supernet import Supernet
from dasvit.training.distributed import Runtime, generator, reseed
from dasvit.training.metrics import EpochMetrics, check_steps
from dasvit.training.optim import make_optimizer, make_schedule
from dasvit.training.progress import Reporter
from dasvit.training.run_folder import RunFolder
from dasvit.training.saver import NEVER, Deadline, Saver
from dasvit.training.steps import BatchLoss, Steps, at_least_float32

LOGS = ("metrics.jsonl", "architecture.jsonl")
STAGES, STEPS, NOISE = 1, 2, 3
"""What random numbers are for: a stage's first weights, a step's images, or a step's Gumbel noise."""


@dataclass
class Found:
    """What a search ends with: edge weights [E][O] and the operations that survived."""

    weights: list[list[float]]
    alive: Alive


def search(
    config: Config,
    data: Data,
    run: RunFolder,
    runtime: Runtime,
    reporter: Reporter,
    deadline: Deadline = NEVER,
) -> Found:
    """Search a cell; goes on from the run's newest checkpoint.

    Args:
        config: The recipe.
        data: Images; only the training set is looked at.
        run: Where metrics, weights of edges and checkpoints go.
        runtime: Device, precision, processes.
        reporter: Where progress goes.
        deadline: When to stop.

    Raises:
        Stopped: By a signal or the deadline; the state is saved.
    """
    space = Space.from_config(config.space)
    batches = SearchBatches(data, config, runtime)
    preprocess = Preprocess(config.model.image_size, erasing=config.search.augment.erasing).to(runtime.device)
    stages = list(config.search.stages)
    runtime.share_of(config.search.batch_size, "search.batch_size")
    steps = Steps(runtime, reporter)
    with Saver(run, LOGS, runtime, reporter, deadline) as saver:
        state = saver.load()
        alive = space.everything() if state is None else tuple(tuple(row) for row in state["alive"])
        part: StageState | None = None
        for number, stage in enumerate(stages):
            if state is not None and number < state["stage"]:
                continue
            if part is not None:
                alive = prune(part.architecture.strengths().tolist(), alive, stage.keep, space)
            if number:
                reseed(config.runtime.seed, STAGES, number)
            part = StageState(config, space, alive, number, len(data.classes), len(batches), runtime, steps, part)
            if state is not None:
                part.load(state)
                state = None
            while part.epoch < stage.epochs:
                part.architecture.temperature = temperature(config, part.done)
                run_epoch(part, config, batches, preprocess, runtime, reporter, saver)
                end_epoch(part, config, run, runtime, reporter)
        assert part is not None, "a search without a stage"
        saver.finish(part.done * len(batches), part.state)
    return Found(part.architecture.strengths().tolist(), alive)


class SearchBatches:
    """The training set, halved into batches for the weights and batches for alpha (section 7).

    Its length is the number of steps of an epoch.
    """

    def __init__(self, data: Data, config: Config, runtime: Runtime) -> None:
        options = config.search
        lower, upper = split_indices(data.train.labels, options.val_fraction, config.runtime.seed)
        common: dict[str, Any] = {
            "batch_size": options.batch_size,
            "shuffle": True,
            "drop_last": True,
            "workers": config.runtime.workers,
            "rank": runtime.rank,
            "world": runtime.world,
        }
        transform = train_transform(options.augment, config.model.image_size, data.train.size)
        self.train = Loader(data.train, lower, transform=transform, seed=config.runtime.seed, **common)
        self.val = Loader(data.train, upper, transform=None, seed=config.runtime.seed + 1, **common)

    def __len__(self) -> int:
        return len(self.train)

    def endless_val(self, done: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches for alpha without end, from the one that follows so many earlier ones."""
        while True:
            self.val.set_epoch(done // len(self.val))
            self.val.skip(done % len(self.val))
            for batch in self.val:
                yield batch
                done += 1


class StageState:
    """What one stage trains, and how far it has come.

    Attributes:
        number: Which stage it is, from 0.
        epoch: Epochs of the stage that have ended.
        done: Epochs of the whole search that have ended.
        step: Steps of the epoch that goes on.
        metrics: What that epoch has added up.
        steps: How batches are differentiated.
        supernet: The network of weights.
        architecture: The alphas.
        weight_optimizer: Of the weights.
        alpha_optimizer: Of the alphas.
    """

    def __init__(
        self,
        config: Config,
        space: Space,
        alive: Alive,
        number: int,
        classes: int,
        length: int,
        runtime: Runtime,
        steps: Steps,
        inherit_from: StageState | None = None,
    ) -> None:
        options = config.search
        stages = list(options.stages)
        self.steps = steps
        self.number, self.stage, self.stages = number, stages[number], len(stages)
        self.before = sum(stage.epochs for stage in stages[:number])
        self.epoch = self.step = 0
        self.metrics = EpochMetrics(runtime.device)
        self.supernet = make_supernet(config, space, alive, self.stage.layers, classes).to(runtime.device)
        self.architecture = Architecture(space, alive, options.relaxation, options.alphas.init_std).to(runtime.device)
        if inherit_from is not None:
            if options.stages.inherit in ("weights", "both"):
                self.supernet.inherit(inherit_from.supernet)
            if options.stages.inherit in ("alphas", "both"):
                with torch.no_grad():
                    self.architecture.alpha.copy_(inherit_from.architecture.alpha)
        runtime.equalise(self.supernet)
        runtime.equalise(self.architecture)
        self.weights: list[nn.Parameter] = list(self.supernet.parameters())
        self.weight_optimizer = make_optimizer(self.supernet, options.weights)
        self.schedule = make_schedule(self.weight_optimizer, options.weights, self.stage.epochs, length)
        alphas = options.alphas
        self.alpha_optimizer = torch.optim.Adam(
            [self.architecture.alpha], lr=alphas.lr, betas=alphas.betas, weight_decay=alphas.weight_decay
        )

    @property
    def done(self) -> int:
        """Epochs of the whole search that have ended."""
        return self.before + self.epoch

    @property
    def where(self) -> str:
        """Stage and epoch, as the terminal shows them."""
        epoch = min(self.epoch + 1, self.stage.epochs)
        return f"stage {self.number + 1}/{self.stages}, epoch {epoch}/{self.stage.epochs}"

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint holds: position, surviving operations, and the parts' states.

        Batches, rates, temperature and random numbers are functions of the position.
        """
        return {
            "stage": self.number,
            "epoch": self.epoch,
            "step": self.step,
            "rows": self.done,
            "parts": self.steps.parts,
            "alive": self.architecture.alive.tolist(),
            **{name: part.state_dict() for name, part in self.parts().items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint of this stage."""
        self.epoch, self.step, self.steps.parts = state["epoch"], state["step"], state["parts"]
        for name, part in self.parts().items():
            part.load_state_dict(state[name])

    def parts(self) -> dict[str, Any]:
        """Return everything that has a state dictionary."""
        return {
            "metrics": self.metrics,
            "supernet": self.supernet,
            "architecture": self.architecture,
            "weight_optimizer": self.weight_optimizer,
            "alpha_optimizer": self.alpha_optimizer,
        }


def make_supernet(config: Config, space: Space, alive: Alive, layers: int, classes: int) -> Supernet:
    """Build a stage's supernet; its width may be narrower than the derived network's."""
    return Supernet(
        space,
        alive,
        image_size=config.model.image_size,
        patch_size=config.model.patch_size,
        dim=config.search.width or config.model.width,
        layers=layers,
        num_classes=classes,
        tokens=config.search.tokens,
    )


def run_epoch(
    part: StageState,
    config: Config,
    batches: SearchBatches,
    preprocess: nn.Module,
    runtime: Runtime,
    reporter: Reporter,
    saver: Saver,
) -> None:
    """Do what is left of an epoch: alpha steps (after the weights-only epochs) and weight steps."""
    if part.step == 0:
        part.metrics = EpochMetrics(runtime.device)
    before = part.done * len(batches)
    batches.train.set_epoch(part.done)
    batches.train.skip(part.step)
    val = batches.endless_val(before + part.step)
    for images, labels in reporter.track(batches.train, part.where, part.step):
        reseed(config.runtime.seed, STEPS, before + part.step, runtime.rank)
        preprocess.train()
        inputs, targets = preprocess(images.to(runtime.device)), labels.to(runtime.device)
        is_good = True
        if part.epoch >= part.stage.weight_epochs:
            part.architecture.sample(generator(config.runtime.seed, NOISE, before + part.step))
            preprocess.eval()
            val_images, val_labels = next(val)
            val_inputs = preprocess(val_images.to(runtime.device))
            is_good = alpha_step(part, inputs, targets, val_inputs, val_labels.to(runtime.device), config, runtime)
        is_good &= weight_step(part, inputs, targets, config, runtime)
        part.metrics.skipped += not is_good
        part.step += 1
        where = f"{part.where}, step {part.step}/{len(batches)}"
        part.steps.count(is_good, where, part.weight_optimizer.param_groups[0]["lr"], "search.weights.lr")
        part.schedule.step_update(part.epoch * len(batches) + part.step)
        saver.step(before + part.step, part.state, where, is_good)


def weight_step(part: StageState, inputs: Tensor, targets: Tensor, config: Config, runtime: Runtime) -> bool:
    """Move the weights one step down L_train; return False where its numbers were not finite, and it was left out."""
    weights = part.architecture().detach()
    loss = train_loss(part, inputs, targets, config, runtime, lambda: weights)
    part.steps.within_memory(lambda: part.steps.backward(loss, part.weights), part.weights, loss)
    norm = part.steps.norm(loss, [weight.grad for weight in part.weights])
    if norm is not None:
        if config.search.weights.clip_grad:
            nn.utils.clip_grads_with_norm_(part.weights, config.search.weights.clip_grad, norm)
        part.weight_optimizer.step()
        part.metrics.add("train_loss", loss.means["loss"], loss.total)
        part.metrics.images += loss.total
    part.weight_optimizer.zero_grad(set_to_none=True)
    return norm is not None


def train_loss(
    part: StageState,
    inputs: Tensor,
    targets: Tensor,
    config: Config,
    runtime: Runtime,
    weights: Callable[[], Tensor],
) -> BatchLoss:
    """Return L_train of a batch under edge weights."""

    def of(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        with runtime.autocast():
            logits = at_least_float32(part.supernet(inputs[rows], weights()))
        loss = F.cross_entropy(logits, targets[rows], label_smoothing=config.search.smoothing)
        return loss, {"loss": loss}

    return BatchLoss(len(inputs), config.search.batch_size, of)


def alpha_step(
    part: StageState,
    inputs: Tensor,
    targets: Tensor,
    val_inputs: Tensor,
    val_targets: Tensor,
    config: Config,
    runtime: Runtime,
) -> bool:
    """Move alpha one step down L_val + L_fair (section 7); return False where its numbers were not finite: left out."""
    architecture, options = part.architecture, config.search

    def of(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        weights = architecture()
        with runtime.autocast():
            logits = at_least_float32(part.supernet(val_inputs[rows], weights))
        loss = F.cross_entropy(logits, val_targets[rows])
        hits = (logits.detach().argmax(1) == val_targets[rows]).double().mean()
        fair = fairness(weights, architecture.alive, part.supernet.space, options.fairness).total
        return loss + fair, {"val_loss": loss, "val_top1": 100 * hits}

    alphas, found = [architecture.alpha], list[Tensor]()
    val_loss = BatchLoss(len(val_inputs), options.batch_size, of)

    def differentiate() -> None:
        if options.order == 1:
            found[:] = first_order(val_loss, alphas, part.weights, part.steps.differentiate)
            return
        rate = part.weight_optimizer.param_groups[0]["lr"]
        below = train_loss(part, inputs, targets, config, runtime, architecture)
        found[:] = second_order(below, val_loss, alphas, part.weights, rate, part.steps.differentiate)

    part.steps.within_memory(differentiate, part.weights, val_loss)
    if part.steps.norm(val_loss, found) is None:
        return False
    for alpha, gradient in zip(alphas, found, strict=True):
        alpha.grad = gradient
    part.alpha_optimizer.step()
    part.alpha_optimizer.zero_grad(set_to_none=True)
    for name, mean in val_loss.means.items():
        part.metrics.add(name, mean, val_loss.total)
    return True


def end_epoch(part: StageState, config: Config, run: RunFolder, runtime: Runtime, reporter: Reporter) -> None:
    """Log an epoch, and go on to the next."""
    where = part.where
    check_steps(part.metrics, where, "search.weights.lr")
    part.epoch, part.step = part.epoch + 1, 0
    place = {"stage": part.number + 1, "epoch": part.epoch}
    row = part.metrics.row(runtime, **place, lr=part.weight_optimizer.param_groups[0]["lr"])
    if runtime.is_main:
        line = describe_architecture(part, config, **place)
        run.append("metrics.jsonl", row)
        run.append("architecture.jsonl", line)
        reporter.say(f"{where}: {describe_epoch(row, line)}")


def temperature(config: Config, done: int) -> float:
    """Return the relaxation's temperature after so many epochs: geometric from the first to the last epoch."""
    total = sum(stage.epochs for stage in config.search.stages)
    start, end = config.search.temperature, config.search.final_temperature
    return float(start * (end / start) ** (done / max(1, total - 1)))


def describe_architecture(part: StageState, config: Config, stage: int, epoch: int) -> dict[str, Any]:
    """Return an epoch's line of `architecture.jsonl`."""
    architecture, space = part.architecture, part.supernet.space
    weights = architecture.strengths()
    terms = fairness(weights, architecture.alive, space, config.search.fairness)
    mean = dict(zip(space.operations, weights.mean(dim=0).tolist(), strict=True))
    alive = architecture.alive.tolist()
    return {
        "stage": stage,
        "epoch": epoch,
        "layers": part.stage.layers,
        "temperature": architecture.temperature,
        "weights": {
            edge: {op: w for op, w, is_alive in zip(space.operations, row, mask, strict=True) if is_alive}
            for edge, row, mask in zip(space.edge_names, weights.tolist(), alive, strict=True)
        },
        "mean_weights": mean,
        "fairness": {
            "total": float(terms.total),
            "skip": float(terms.skip),
            "types": float(terms.types),
            "type_weights": {name: float(value) for name, value in terms.type_weights.items()},
        },
        "entropy": float(entropy(weights)),
    }


def describe_epoch(row: dict[str, Any], line: dict[str, Any]) -> str:
    """Return an epoch's line for the terminal."""
    val = f", val top-1 {row['val_top1']:.1f} %" if "val_top1" in row else " (weights alone)"
    mean = line["mean_weights"]
    types = ", ".join(f"{name} {value:.2f}" for name, value in line["fairness"]["type_weights"].items())
    return (
        f"loss {row['train_loss']:.3f}{val}; identity {mean['identity']:.2f}, {types}; "
        f"{row['images_per_second']:.0f} images/s, {row['seconds']:.0f} s"
    )
