"""The search (sections 2 to 9), from top to bottom: stages, bilevel steps, pruning, derivation.

Shapes: B images, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.space import Space, as_mask
from dasvit.config import Config
from dasvit.data import Preprocess
from dasvit.io.run_folder import RunFolder
from dasvit.runtime.distributed import Runtime, generator, reseed
from dasvit.runtime.saver import Saver
from dasvit.search.architecture import Architecture, entropy
from dasvit.search.bilevel import first_order, second_order
from dasvit.search.cost import CostPenalty
from dasvit.search.evaluation import make_judge, make_monitor, mixture_of
from dasvit.search.fairness import fairness
from dasvit.search.monitor import Monitor
from dasvit.search.stages import Stages, StageWeights, prune, read_stages
from dasvit.search.state import SearchBatches, StageState
from dasvit.search.strategies import make_strategy
from dasvit.search.token_maps import MAPS, TokenMaps
from dasvit.session import Session
from dasvit.training.metrics import EpochMetrics, check_steps
from dasvit.training.steps import BatchLoss, Steps, at_least_float32

LOGS = ("metrics.jsonl", "architecture.jsonl")
STAGES, STEPS, NOISE = 1, 2, 3
"""What random numbers are for: a stage's first weights, a step's images, or a step's Gumbel noise."""


class TrainedSupernet(NamedTuple):
    """What the training of a supernet ends with.

    Attributes:
        stages: Edge weights and operations alive at the end of every stage.
        last: The last stage.
    """

    stages: Stages
    last: StageState


def search(session: Session) -> TrainedSupernet:
    """Train a supernet and its alphas, stage by stage; goes on from the run's newest checkpoint.

    Args:
        session: What the run is made of. It learns from the training set alone (of a few test images the token maps are
            kept).

    Raises:
        Stopped: By a signal or the deadline; the state is saved.
    """
    config, runtime, classes = session.config, session.runtime, session.classes
    space = Space.from_config(config.space)
    strategy = make_strategy(config, space, classes)
    batches = SearchBatches(session.data, config, runtime)
    preprocess = Preprocess(config.model.image_size, erasing=config.search.augment.erasing).to(runtime.device)
    runtime.share_of(config.search.batch_size, "search.batch_size")
    steps = Steps(runtime, session.reporter)
    monitor = make_monitor(config, classes, batches, preprocess, runtime)
    maps = TokenMaps(session.data, config, runtime)
    ended: list[StageWeights] = []
    with Saver(session.run, LOGS, runtime, session.reporter, session.deadline) as saver:
        state = saver.load()
        if runtime.is_main:
            maps.begin(session.run, state["rows"] if state else 0)
        alive = space.everything()
        if state is not None:
            alive = as_mask(state["alive"])
            ended = ended_stages(state, session.run, space)
        part: StageState | None = None
        for number, stage in enumerate(config.search.stages):
            if state is not None and number < state["stage"]:
                continue
            if part is not None:
                if strategy.stopped:
                    break
                alive = prune(*ended[-1], stage.keep, space)
            if number:
                reseed(config.runtime.seed, STAGES, number)
            part = StageState(
                config, space, alive, number, classes, len(batches), runtime, steps, strategy, part, ended
            )
            if state is not None:
                part.load(state)
                state = None
            while part.epoch < stage.epochs and not strategy.stopped:
                part.architecture.temperature = temperature(config, part.done)
                run_epoch(part, session, batches, preprocess, saver)
                judge = make_judge(part, config, batches, preprocess, runtime, saver)
                strategy.end_epoch(part.architecture, part.moves_alphas, part.done + 1 == part.total, judge)
                end_epoch(part, session, monitor, maps)
            if runtime.is_main:
                monitor.keep(session.run, number + 1, part.supernet, alive)
            ended = [*ended, StageWeights(part.architecture.strengths().tolist(), alive)]
        assert part is not None, "a search without a stage"
        saver.finish(part.done * len(batches) + strategy.judged, part.state)
    return TrainedSupernet(ended, part)


def ended_stages(state: dict[str, Any], run: RunFolder, space: Space) -> list[StageWeights]:
    """Return the stages that had ended when a checkpoint was written; those of 0.1 leave them to the log."""
    if "ended_stages" not in state:
        return read_stages(run, space)[: state["stage"]]
    return [StageWeights(table, as_mask(mask)) for table, mask in state["ended_stages"]]


def run_epoch(part: StageState, session: Session, batches: SearchBatches, preprocess: nn.Module, saver: Saver) -> None:
    """Do what is left of an epoch: alpha steps (after the weights-only epochs) and weight steps."""
    config, runtime = session.config, session.runtime
    if part.step == 0:
        part.metrics = EpochMetrics(runtime.device)
    before = part.done * len(batches)
    batches.train.set_epoch(part.done)
    batches.train.skip(part.step)
    val = batches.endless_val(before + part.step)
    for images, labels in session.reporter.track(batches.train, part.where, part.step, part.live):
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
        part.schedule.step_update(part.scheduled)
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
            logits = at_least_float32(part.supernet(inputs[rows], weights(), part.strategy.mode()))
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
            logits = at_least_float32(part.supernet(val_inputs[rows], weights, part.strategy.mode()))
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


def end_epoch(part: StageState, session: Session, monitor: Monitor, maps: TokenMaps) -> None:
    """Log an epoch, and go on to the next."""
    config, where = session.config, part.where
    check_steps(part.metrics, where, "search.weights.lr")
    part.epoch, part.step = part.epoch + 1, 0
    place = {"stage": part.number + 1, "epoch": part.epoch}
    row = part.metrics.row(session.runtime, **place, lr=part.weight_optimizer.param_groups[0]["lr"])
    mixture = mixture_of(part) if part.strategy.moves_alphas else None  # without alphas there is none to look at
    seen = monitor.look(part.supernet, *mixture) if mixture and config.search.monitor else {}
    kept = maps.look(part.supernet, mixture[0]) if mixture else {}
    space, layers = part.supernet.space, part.stage.layers
    line = describe_architecture(part.architecture, space, config, part.cost, layers=layers, **place)
    line |= {"method": notes} if (notes := part.strategy.notes()) else {}
    line |= {"monitor": seen} if seen else {}
    rows = {"metrics.jsonl": row, "architecture.jsonl": line, **({MAPS: {**place, **kept}} if kept else {})}
    session.log(f"{where}: {describe_epoch(row, line)}", rows)


def alpha_loss(part: StageState, weights: Tensor, config: Config) -> Tensor:
    """Return what alpha minimises beside L_val: L_fair, the cost's penalty and the search method's own, a scalar."""
    fair = fairness(weights, part.architecture.alive, part.supernet.space, config.search.fairness).total
    return fair + part.cost(weights) + part.strategy.alpha_loss(part.architecture, weights)


def temperature(config: Config, done: int) -> float:
    """Return the relaxation's temperature after so many epochs, from the first epoch's to the last one's."""
    total = sum(stage.epochs for stage in config.search.stages)
    start, end = config.search.temperature, config.search.final_temperature
    share = done / max(1, total - 1)
    if config.search.annealing == "linear":
        return float(start + (end - start) * share)
    return float(start * (end / start) ** share)


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
