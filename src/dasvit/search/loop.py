"""The search (sections 2 to 9), from top to bottom: stages, bilevel steps, pruning, derivation.

Shapes: B images, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.space import Alive, Space
from dasvit.config import Config
from dasvit.data import Data, Loader, Preprocess, split_indices, train_transform
from dasvit.errors import UserError
from dasvit.report import refresh_report
from dasvit.search.architecture import Architecture, entropy
from dasvit.search.bilevel import first_order, second_order
from dasvit.search.cost import CostPenalty
from dasvit.search.fairness import fairness
from dasvit.search.monitor import Monitor
from dasvit.search.perturbation import perturbation_weights
from dasvit.search.stages import prune
from dasvit.search.strategies import STRATEGIES, make_strategy
from dasvit.search.strategies.base import Judge, Moment, Strategy
from dasvit.search.strategies.random_cell import RandomCell
from dasvit.search.supernet import Supernet
from dasvit.search.token_maps import MAPS, TokenMaps
from dasvit.training.checkpoint import load_checkpoint
from dasvit.training.distributed import Runtime, generator, reseed
from dasvit.training.evaluation import Evaluation, evaluate
from dasvit.training.metrics import EpochMetrics, check_steps
from dasvit.training.optim import make_optimizer, make_schedule
from dasvit.training.progress import Reporter
from dasvit.training.run_folder import RunFolder
from dasvit.training.saver import NEVER, Deadline, Saver
from dasvit.training.steps import BatchLoss, Steps, at_least_float32
from dasvit.training.tracking import Tracking

LOGS = ("metrics.jsonl", "architecture.jsonl")
STAGES, STEPS, NOISE = 1, 2, 3
"""What random numbers are for: a stage's first weights, a step's images, or a step's Gumbel noise."""
TIE = 1e-3
"""What a nat of loss counts for, in percent of accuracy: it decides between cells that are equally accurate."""


@dataclass
class Found:
    """What a search ends with: edge weights `[E][O]`, the operations alive, and the last stage (random: none)."""

    weights: list[list[float]]
    alive: Alive
    part: StageState | None = field(default=None, compare=False, repr=False)


def search(
    config: Config,
    data: Data,
    run: RunFolder,
    runtime: Runtime,
    reporter: Reporter,
    deadline: Deadline = NEVER,
    tracking: Tracking | None = None,
) -> Found:
    """Search a cell; goes on from the run's newest checkpoint.

    Args:
        config: The recipe.
        data: Images; it learns from the training set alone (of a few test images the token maps are kept).
        run: Where metrics, weights of edges and checkpoints go.
        runtime: Device, precision, processes.
        reporter: Where progress goes.
        deadline: When to stop.
        tracking: Told of every epoch's end.

    Raises:
        Stopped: By a signal or the deadline; the state is saved.
    """
    space = Space.from_config(config.space)
    strategy = make_strategy(config, space, len(data.classes))
    if isinstance(strategy, RandomCell):
        return drawn(strategy, space, config, run, runtime)
    batches = SearchBatches(data, config, runtime)
    preprocess = Preprocess(config.model.image_size, erasing=config.search.augment.erasing).to(runtime.device)
    stages = list(config.search.stages)
    runtime.share_of(config.search.batch_size, "search.batch_size")
    steps = Steps(runtime, reporter)
    monitor = make_monitor(config, len(data.classes), batches, preprocess, runtime)
    maps = TokenMaps(data, config, runtime)
    with Saver(run, LOGS, runtime, reporter, deadline) as saver:
        state = saver.load()
        if runtime.is_main:
            maps.begin(run, state["rows"] if state else 0)
        alive = space.everything() if state is None else tuple(tuple(row) for row in state["alive"])
        part: StageState | None = None
        for number, stage in enumerate(stages):
            if state is not None and number < state["stage"]:
                continue
            if part is not None:
                if strategy.stopped:
                    break
                alive = prune(part.architecture.strengths().tolist(), alive, stage.keep, space)
            if number:
                reseed(config.runtime.seed, STAGES, number)
            part = StageState(
                config, space, alive, number, len(data.classes), len(batches), runtime, steps, strategy, part
            )
            if state is not None:
                part.load(state)
                state = None
            while part.epoch < stage.epochs and not strategy.stopped:
                part.architecture.temperature = temperature(config, part.done)
                run_epoch(part, config, batches, preprocess, runtime, reporter, saver)
                judge = make_judge(part, config, batches, preprocess, runtime, saver)
                strategy.end_epoch(part.architecture, part.moves_alphas, part.done + 1 == part.total, judge)
                end_epoch(part, config, run, runtime, reporter, monitor, maps, tracking)
            if runtime.is_main:
                monitor.keep(run, number + 1, part.supernet, alive)
        assert part is not None, "a search without a stage"
        saver.finish(part.done * len(batches) + strategy.judged, part.state)
    return Found(part.architecture.strengths().tolist(), alive, part)


def drawn(strategy: RandomCell, space: Space, config: Config, run: RunFolder, runtime: Runtime) -> Found:
    """Return a cell drawn at random, as the weights of a search that had found it."""
    architecture = strategy.draw()
    if runtime.is_main:
        run.truncate("architecture.jsonl", 0)
        cost = CostPenalty(config, space, strategy.classes)
        row = describe_architecture(architecture, space, config, cost, stage=1, epoch=1, layers=config.model.layers)
        run.append("architecture.jsonl", row)
    return Found(architecture.strengths().tolist(), space.everything())


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
        self.upper, self.common = upper, common
        self.train = Loader(data.train, lower, transform=transform, seed=config.runtime.seed, **common)
        self.val = Loader(data.train, upper, transform=None, seed=config.runtime.seed + 1, **common)

    def __len__(self) -> int:
        return len(self.train)

    def judging(self, images: int) -> Loader:
        """Return the loader of the images for alpha, each once an epoch: all (0), or so many of them."""
        some = np.random.default_rng(self.val.batches.seed).permutation(self.upper)[: images or None]
        options = {**self.common, "shuffle": False, "drop_last": False, "workers": 0}
        return Loader(self.val.batches.images, some, transform=None, seed=0, **options)

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
        strategy: Strategy,
        inherit_from: StageState | None = None,
    ) -> None:
        options = config.search
        stages = list(options.stages)
        self.steps, self.strategy, self.length = steps, strategy, length
        self.cost = CostPenalty(config, space, classes)
        self.number, self.stage, self.stages = number, stages[number], len(stages)
        self.before = sum(stage.epochs for stage in stages[:number])
        self.total = sum(stage.epochs for stage in stages)
        self.epoch = self.step = 0
        self.metrics = EpochMetrics(runtime.device)
        self.supernet = make_supernet(config, space, alive, self.stage.layers, classes).to(runtime.device)
        self.architecture = make_architecture(config, space, alive).to(runtime.device)
        if inherit_from is not None:
            if options.stages.inherit in ("weights", "both"):
                self.supernet.inherit(inherit_from.supernet)
            if options.stages.inherit in ("alphas", "both"):
                with torch.no_grad():
                    pairs = zip(self.architecture.parameters(), inherit_from.architecture.parameters(), strict=True)
                    for mine, theirs in pairs:
                        mine.copy_(theirs)
        runtime.equalise(self.supernet)
        runtime.equalise(self.architecture)
        self.weights: list[nn.Parameter] = list(self.supernet.parameters())
        self.weight_optimizer = make_optimizer(self.supernet, options.weights)
        self.schedule = make_schedule(self.weight_optimizer, options.weights, self.stage.epochs, length)
        alphas = options.alphas
        self.alpha_optimizer = torch.optim.Adam(
            self.architecture.parameters(), lr=alphas.lr, betas=alphas.betas, weight_decay=alphas.weight_decay
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

    @property
    def moves_alphas(self) -> bool:
        """Whether the epoch that goes on has alpha steps."""
        return self.strategy.moves_alphas and self.epoch >= self.stage.weight_epochs

    def begin_step(self) -> None:
        """Let the search method prepare the step that comes."""
        step, here = self.done * self.length + self.step, self.epoch * self.length + self.step
        progress = step / max(1, self.total * self.length - 1)
        stage_progress = here / max(1, self.stage.epochs * self.length - 1)
        moment = Moment(step, progress, self.number, stage_progress)
        self.strategy.begin_step(moment, self.supernet, self.architecture)

    def edge_weights(self) -> Tensor:
        """Return the edge weights of a forward pass, as the search method has them."""
        return self.strategy.weights(self.architecture)

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
            "strategy": self.strategy,
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
        share=STRATEGIES[config.search.method].channel_share(config),
    )


def make_architecture(config: Config, space: Space, alive: Alive) -> Architecture:
    """Build a stage's alphas, as the search method has them."""
    options = config.search
    normalise_edges = STRATEGIES[options.method].normalises_edges
    return Architecture(space, alive, options.relaxation, options.alphas.init_std, normalise_edges)


def make_judge(
    part: StageState,
    config: Config,
    batches: SearchBatches,
    preprocess: nn.Module,
    runtime: Runtime,
    saver: Saver,
) -> Judge:
    """Return what judges the supernet at an epoch's end; it saves before each judgement where it is time to."""
    loader = batches.judging(config.search.evolution.images)

    def judge(weights: Tensor) -> float:
        number = part.done * len(batches) + part.step + part.strategy.judged
        saver.step(number, part.state, f"{part.where}, {part.strategy.judged} cells judged")
        part.supernet.variation.chosen = weights.argmax(dim=1).tolist()
        return judge_supernet(part.supernet, weights, preprocess, loader, runtime).top1

    return judge


def judge_supernet(
    supernet: Supernet, weights: Tensor, preprocess: nn.Module, loader: Loader, runtime: Runtime
) -> Evaluation:
    """Judge a supernet under edge weights [E, O] or [E, O + 1]."""
    network = WithWeights(supernet, weights.to(runtime.device))
    return evaluate(network, preprocess, loader, runtime, supernet.head.out_features)


def perturbed(part: StageState, data: Data, config: Config, runtime: Runtime) -> tuple[list[list[float]], Alive]:
    """Return a stage's edge weights `[E][O]` by perturbation, measured on the images for alpha, and what is alive."""
    architecture, space = part.architecture, part.supernet.space
    loader = SearchBatches(data, config, runtime).judging(config.search.derive.images)
    preprocess = Preprocess(config.model.image_size).to(runtime.device)
    mixture, _ = mixture_of(part)
    alive = tuple(tuple(row) for row in architecture.alive.tolist())
    part.supernet.variation.chosen = None

    def measure(weights: Tensor) -> float:
        found = judge_supernet(part.supernet, weights, preprocess, loader, runtime)
        return found.top1 - TIE * found.loss

    return perturbation_weights(mixture, alive, space, measure, config.runtime.seed), alive


def restore(config: Config, classes: int, run: RunFolder, runtime: Runtime, reporter: Reporter) -> StageState:
    """Return the stage that a search's newest checkpoint holds.

    Raises:
        UserError: There is none.
    """
    state = load_checkpoint(run.checkpoints, reporter.say)
    if state is None:
        raise UserError(f"{run.path} holds no checkpoint, and so no supernet to perturb: take --rule darts.")
    space = Space.from_config(config.space)
    alive = tuple(tuple(row) for row in state["alive"])
    strategy = make_strategy(config, space, classes)
    part = StageState(config, space, alive, state["stage"], classes, 1, runtime, Steps(runtime, reporter), strategy)
    part.load(state)
    return part


def mixture_of(part: StageState) -> tuple[Tensor, Tensor]:
    """Return a stage's edge weights free of noise: [E, O], with a bypass [E, O + 1] where there is one; and [E, O]."""
    strengths = part.architecture.strengths()
    bypass = part.edge_weights().detach()[:, strengths.shape[1] :]
    return torch.cat([strengths, bypass], dim=1), strengths


def make_monitor(
    config: Config, classes: int, batches: SearchBatches, preprocess: nn.Module, runtime: Runtime
) -> Monitor:
    """Return what looks at the supernet at every epoch's end, on `search.monitor` of the images for alpha."""
    loader = batches.judging(config.search.monitor)

    def judge(supernet: Supernet, weights: Tensor) -> float:
        return judge_supernet(supernet, weights, preprocess, loader, runtime).top1

    return Monitor(config, classes, judge)


class WithWeights(nn.Module):
    """A supernet under fixed edge weights, as a network of images alone."""

    def __init__(self, supernet: Supernet, weights: Tensor) -> None:
        super().__init__()
        self.supernet, self.weights = supernet, weights

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] for images [B, 3, S, S]."""
        logits: Tensor = self.supernet(images, self.weights)
        return logits


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
        reseed(config.runtime.seed, NOISE, before + part.step)  # what a search method draws, all processes share
        part.begin_step()
        reseed(config.runtime.seed, STEPS, before + part.step, runtime.rank)
        preprocess.train()
        inputs, targets = preprocess(images.to(runtime.device)), labels.to(runtime.device)
        is_good = True
        if part.moves_alphas:
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
    weights = part.edge_weights().detach()
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
    options = config.search

    def of(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        weights = part.edge_weights()
        with runtime.autocast():
            logits = at_least_float32(part.supernet(val_inputs[rows], weights))
        loss = F.cross_entropy(logits, val_targets[rows])
        hits = (logits.detach().argmax(1) == val_targets[rows]).double().mean()
        more = alpha_loss(part, weights[:, : len(part.supernet.space.operations)], config)
        return loss + more, {"val_loss": loss, "val_top1": 100 * hits}

    alphas, found = list(part.architecture.parameters()), list[Tensor]()
    val_loss = BatchLoss(len(val_inputs), options.batch_size, of)

    def differentiate() -> None:
        if options.order == 1:
            found[:] = first_order(val_loss, alphas, part.weights, part.steps.differentiate)
            return
        rate = part.weight_optimizer.param_groups[0]["lr"]
        below = train_loss(part, inputs, targets, config, runtime, part.edge_weights)
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


def end_epoch(
    part: StageState,
    config: Config,
    run: RunFolder,
    runtime: Runtime,
    reporter: Reporter,
    monitor: Monitor,
    maps: TokenMaps,
    tracking: Tracking | None,
) -> None:
    """Log an epoch, and go on to the next."""
    where = part.where
    check_steps(part.metrics, where, "search.weights.lr")
    part.epoch, part.step = part.epoch + 1, 0
    place = {"stage": part.number + 1, "epoch": part.epoch}
    row = part.metrics.row(runtime, **place, lr=part.weight_optimizer.param_groups[0]["lr"])
    looks = config.search.monitor and part.strategy.moves_alphas
    seen = monitor.look(part.supernet, *mixture_of(part)) if looks else {}
    kept = maps.look(part.supernet, mixture_of(part)[0])
    if runtime.is_main:
        space, layers = part.supernet.space, part.stage.layers
        line = describe_architecture(part.architecture, space, config, part.cost, layers=layers, **place)
        line |= {"method": notes} if (notes := part.strategy.notes()) else {}
        line |= {"monitor": seen} if seen else {}
        run.append("metrics.jsonl", row)
        run.append("architecture.jsonl", line)
        if kept:
            run.append(MAPS, {**place, **kept})
        refresh_report(run.path, reporter.say)
        if tracking:
            tracking.follow()
        reporter.say(f"{where}: {describe_epoch(row, line)}")


def alpha_loss(part: StageState, weights: Tensor, config: Config) -> Tensor:
    """Return what alpha minimises beside L_val: L_fair, the cost's penalty and the search method's own, a scalar."""
    fair = fairness(weights, part.architecture.alive, part.supernet.space, config.search.fairness).total
    return fair + part.cost(weights) + part.strategy.alpha_loss(part.architecture, weights)


def temperature(config: Config, done: int) -> float:
    """Return the relaxation's temperature after so many epochs: geometric from the first to the last epoch."""
    total = sum(stage.epochs for stage in config.search.stages)
    start, end = config.search.temperature, config.search.final_temperature
    return float(start * (end / start) ** (done / max(1, total - 1)))


def describe_architecture(
    architecture: Architecture, space: Space, config: Config, cost: CostPenalty, *, stage: int, epoch: int, layers: int
) -> dict[str, Any]:
    """Return an epoch's line of `architecture.jsonl`."""
    weights = architecture.strengths()
    params, macs = cost.expected(weights).tolist()
    terms = fairness(weights, architecture.alive, space, config.search.fairness)
    mean = dict(zip(space.operations, weights.mean(dim=0).tolist(), strict=True))
    alive = architecture.alive.tolist()
    return {
        "stage": stage,
        "epoch": epoch,
        "layers": layers,
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
        "expected_params": round(params),
        "expected_macs": round(macs),
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
