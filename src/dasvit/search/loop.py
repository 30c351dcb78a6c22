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
from dasvit.search.evaluation import make_evaluator, make_monitor, mixture_of
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
        stage: StageState | None = None
        for number, plan in enumerate(config.search.stages):
            if state is not None and number < state["stage"]:
                continue
            if stage is not None:
                if strategy.stopped:
                    break
                alive = prune(ended[-1].weights, alive, plan.keep, space, config.runtime.seed)
            if number:
                reseed(config.runtime.seed, STAGES, number)
            stage = StageState(
                config, space, alive, number, classes, len(batches), runtime, steps, strategy, stage, ended
            )
            if state is not None:
                stage.load(state)
                state = None
            while stage.epoch < plan.epochs and not strategy.stopped:
                stage.architecture.temperature = temperature(config, stage.done)
                run_epoch(stage, session, batches, preprocess, saver)
                evaluate = make_evaluator(stage, config, batches, preprocess, runtime, saver)
                strategy.end_epoch(stage.architecture, stage.moves_alphas, stage.done + 1 == stage.total, evaluate)
                end_epoch(stage, session, monitor, maps)
            if runtime.is_main:
                monitor.keep(session.run, number + 1, stage.supernet, alive)
            weights = stage.architecture.strengths().tolist()
            ended = [*ended, StageWeights(weights, alive, strategy.evaluated_cells())]
        assert stage is not None, "a search without a stage"
        saver.finish(stage.done * len(batches) + strategy.evaluations, stage.state)
    return TrainedSupernet(ended, stage)


def ended_stages(state: dict[str, Any], run: RunFolder, space: Space) -> list[StageWeights]:
    """Return the stages that had ended when a checkpoint was written; those of 0.1 leave them to the log."""
    if "ended_stages" not in state:
        return read_stages(run, space)[: state["stage"]]
    return [StageWeights(table, as_mask(mask)) for table, mask in state["ended_stages"]]


def run_epoch(stage: StageState, session: Session, batches: SearchBatches, preprocess: nn.Module, saver: Saver) -> None:
    """Do what is left of an epoch: alpha steps (after the weights-only epochs) and weight steps."""
    config, runtime = session.config, session.runtime
    if stage.step == 0:
        stage.metrics = EpochMetrics(runtime.device)
    before = stage.done * len(batches)
    batches.train.set_epoch(stage.done)
    batches.train.skip(stage.step)
    val = batches.endless_val(before + stage.step)
    for images, labels in session.reporter.track(batches.train, stage.where, stage.step, stage.live):
        reseed(config.runtime.seed, NOISE, before + stage.step)  # what a search method draws, all processes share
        stage.begin_step()
        reseed(config.runtime.seed, STEPS, before + stage.step, runtime.rank)
        preprocess.train()
        inputs, targets = preprocess(images.to(runtime.device)), labels.to(runtime.device)
        is_good = True
        if stage.moves_alphas:
            stage.architecture.sample(generator(config.runtime.seed, NOISE, before + stage.step))
            preprocess.eval()
            val_images, val_labels = next(val)
            val_inputs = preprocess(val_images.to(runtime.device))
            is_good = alpha_step(stage, inputs, targets, val_inputs, val_labels.to(runtime.device), config, runtime)
        is_good &= weight_step(stage, inputs, targets, config, runtime)
        stage.metrics.skipped += not is_good
        stage.step += 1
        where = f"{stage.where}, step {stage.step}/{len(batches)}"
        stage.steps.count(is_good, where, stage.weight_optimizer.param_groups[0]["lr"], "search.weights.lr")
        stage.schedule.step_update(stage.scheduled)
        saver.step(before + stage.step, stage.state, where, is_good)


def weight_step(stage: StageState, inputs: Tensor, targets: Tensor, config: Config, runtime: Runtime) -> bool:
    """Move the weights one step down L_train; return False where its numbers were not finite, and it was left out."""
    weights = stage.edge_weights().detach()
    loss = train_loss(stage, inputs, targets, config, runtime, lambda: weights)
    stage.steps.within_memory(lambda: stage.steps.backward(loss, stage.params), stage.params, loss)
    norm = stage.steps.norm(loss, [weight.grad for weight in stage.params])
    if norm is not None:
        if config.search.weights.clip_grad:
            nn.utils.clip_grads_with_norm_(stage.params, config.search.weights.clip_grad, norm)
        stage.weight_optimizer.step()
        stage.metrics.add("train_loss", loss.means["loss"], loss.total)
        stage.metrics.images += loss.total
    stage.weight_optimizer.zero_grad(set_to_none=True)
    return norm is not None


def train_loss(
    stage: StageState,
    inputs: Tensor,
    targets: Tensor,
    config: Config,
    runtime: Runtime,
    weights: Callable[[], Tensor],
) -> BatchLoss:
    """Return L_train of a batch under edge weights."""

    def of(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        with runtime.autocast():
            logits = at_least_float32(stage.supernet(inputs[rows], weights(), stage.strategy.mode()))
        loss = F.cross_entropy(logits, targets[rows], label_smoothing=config.search.smoothing)
        return loss, {"loss": loss}

    return BatchLoss(len(inputs), config.search.batch_size, of)


def alpha_step(
    stage: StageState,
    inputs: Tensor,
    targets: Tensor,
    val_inputs: Tensor,
    val_targets: Tensor,
    config: Config,
    runtime: Runtime,
) -> bool:
    """Move alpha one step down L_val + L_fair (section 7); return False where its numbers were not finite: left out."""
    alphas, found = list(stage.architecture.parameters()), list[Tensor]()
    above = val_loss(stage, val_inputs, val_targets, config, runtime)

    def differentiate() -> None:
        if config.search.order == 1:
            found[:] = first_order(above, alphas, stage.params, stage.steps.differentiate)
            return
        rate = stage.weight_optimizer.param_groups[0]["lr"]
        below = train_loss(stage, inputs, targets, config, runtime, stage.edge_weights)
        found[:] = second_order(below, above, alphas, stage.params, rate, stage.steps.differentiate)

    stage.steps.within_memory(differentiate, stage.params, above)
    if stage.steps.norm(above, found) is None:
        return False
    for alpha, gradient in zip(alphas, found, strict=True):
        alpha.grad = gradient
    stage.alpha_optimizer.step()
    stage.alpha_optimizer.zero_grad(set_to_none=True)
    for name, mean in above.means.items():
        stage.metrics.add(name, mean, above.total)
    return True


def val_loss(stage: StageState, inputs: Tensor, targets: Tensor, config: Config, runtime: Runtime) -> BatchLoss:
    """Return L_val + L_fair of a batch under the edge weights as they are, with what else alpha minimises."""

    def of(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        weights = stage.edge_weights()
        with runtime.autocast():
            logits = at_least_float32(stage.supernet(inputs[rows], weights, stage.strategy.mode()))
        loss = F.cross_entropy(logits, targets[rows])
        hits = (logits.detach().argmax(1) == targets[rows]).double().mean()
        more = alpha_loss(stage, weights[:, : len(stage.supernet.space.operations)], config)
        return loss + more, {"val_loss": loss, "val_top1": 100 * hits}

    return BatchLoss(len(inputs), config.search.batch_size, of)


def end_epoch(stage: StageState, session: Session, monitor: Monitor, maps: TokenMaps) -> None:
    """Log an epoch, and go on to the next."""
    config, where = session.config, stage.where
    check_steps(stage.metrics, where, "search.weights.lr")
    stage.epoch, stage.step = stage.epoch + 1, 0
    place = {"stage": stage.number + 1, "epoch": stage.epoch}
    row = stage.metrics.row(session.runtime, **place, lr=stage.weight_optimizer.param_groups[0]["lr"])
    mixture = mixture_of(stage) if stage.strategy.moves_alphas else None  # without alphas there is none to look at
    seen = monitor.look(stage.supernet, *mixture) if mixture and config.search.monitor else {}
    kept = maps.look(stage.supernet, mixture[0]) if mixture else {}
    space, layers = stage.supernet.space, stage.stage.layers
    line = describe_architecture(stage.architecture, space, config, stage.cost, layers=layers, **place)
    line |= {"method": notes} if (notes := stage.strategy.notes()) else {}
    line |= {"monitor": seen} if seen else {}
    rows = {"metrics.jsonl": row, "architecture.jsonl": line, **({MAPS: {**place, **kept}} if kept else {})}
    session.log(f"{where}: {describe_epoch(row, line)}", rows)


def alpha_loss(stage: StageState, weights: Tensor, config: Config) -> Tensor:
    """Return what alpha minimises beside L_val: L_fair, the cost's penalty and the search method's own, a scalar."""
    fair = fairness(weights, stage.architecture.alive, stage.supernet.space, config.search.fairness).total
    return fair + stage.cost(weights) + stage.strategy.alpha_loss(stage.architecture, weights)


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
