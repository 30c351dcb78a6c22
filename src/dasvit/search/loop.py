"""The search (sections 2 to 9), from top to bottom: stages, bilevel steps, pruning, derivation.

Shapes: B images, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from dasvit.cell.space import as_mask
from dasvit.config import Config
from dasvit.config.marks import training_loss
from dasvit.data import Preprocess
from dasvit.io.run_folder import RunFolder
from dasvit.runtime.distributed import generator, reseed
from dasvit.runtime.saver import Saver
from dasvit.search.architecture import entropy
from dasvit.search.bilevel import first_order, second_order
from dasvit.search.evaluation import SupernetEvaluator, cell_evaluator, mixture_of
from dasvit.search.fairness import fairness
from dasvit.search.monitor import Monitor
from dasvit.search.stages import Stages, StageWeights, prune, read_stages
from dasvit.search.state import Batch, SearchBatches, SearchParts, StageState
from dasvit.search.token_maps import MAPS, TokenMaps
from dasvit.session import Session
from dasvit.training.metrics import EpochMetrics, check_steps
from dasvit.training.multilabel import hits_name, label_hits, label_loss
from dasvit.training.optim import warmup_remark
from dasvit.training.steps import BatchLoss

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
    config, runtime = session.config, session.runtime
    batches = SearchBatches(session.data, config, runtime)
    preprocess = Preprocess(config.model.image_size, erasing=config.search.augment.erasing).to(runtime.device)
    runtime.share_of(config.search.batch_size, "search.batch_size")
    spans = [sum(config.search.stages.epochs)] if config.search.schedule == "search" else config.search.stages.epochs
    if remark := warmup_remark(config.search.weights, min(spans), "search.weights"):
        session.reporter.say(remark)
    parts = SearchParts(config, session.classes, len(batches), runtime, session.reporter)
    monitor = Monitor(config, session.classes, SupernetEvaluator(batches, config, runtime, config.search.monitor).top1)
    cells = SupernetEvaluator(batches, config, runtime, config.search.evolution.images)
    maps = TokenMaps(session.data, config, runtime)
    with Saver(session.run, LOGS, runtime, session.reporter, session.deadline) as saver:
        state = saver.load()
        if runtime.is_main:
            maps.begin(session.run, state["rows"] if state else 0)
        for stage in stages_left(parts, state, session.run):
            while stage.epoch < stage.plan.epochs and not parts.strategy.stopped:
                stage.architecture.temperature = temperature(config, stage.done)
                run_epoch(stage, session, batches, preprocess, saver)
                evaluate, is_last = cell_evaluator(stage, cells, saver), stage.done + 1 == stage.total
                parts.strategy.end_epoch(stage.architecture, stage.moves_alphas, is_last, evaluate)
                end_epoch(stage, session, monitor, maps)
            if runtime.is_main:
                monitor.keep(session.run, stage.number + 1, stage.supernet, stage.alive)
        saver.finish(stage.done * len(batches) + parts.strategy.evaluations, stage.state)
    return TrainedSupernet([*stage.ended, stage.outcome()], stage)


def stages_left(parts: SearchParts, state: dict[str, Any] | None, run: RunFolder) -> Iterator[StageState]:
    """Yield the stages that are still to be trained, each made from what the one before it ended with.

    Args:
        parts: What all stages share.
        state: The checkpoint to go on from. None: the search begins.
        run: Its folder.
    """
    seed, plans = parts.config.runtime.seed, list(parts.config.search.stages)
    stage = StageState(parts, 0, parts.space.everything()) if state is None else resumed_stage(parts, state, run)
    yield stage
    while stage.number + 1 < len(plans) and not parts.strategy.stopped:
        number, ended = stage.number + 1, stage.outcome()
        alive = prune(ended.weights, stage.alive, plans[number].keep, parts.space, seed)
        reseed(seed, STAGES, number)
        stage = StageState(parts, number, alive, [*stage.ended, ended], inherit_from=stage)
        yield stage


def resumed_stage(parts: SearchParts, state: dict[str, Any], run: RunFolder) -> StageState:
    """Return the stage that a checkpoint holds; one of version 0.1 leaves the stages that had ended to the log."""
    if "ended_stages" in state:
        ended = [StageWeights(table, as_mask(mask)) for table, mask in state["ended_stages"]]
    else:
        ended = read_stages(run, parts.space)[: state["stage"]]
    stage = StageState(parts, state["stage"], as_mask(state["alive"]), ended)
    stage.load(state)
    return stage


def run_epoch(stage: StageState, session: Session, batches: SearchBatches, preprocess: nn.Module, saver: Saver) -> None:
    """Do what is left of an epoch: alpha steps (after the weights-only epochs) and weight steps."""
    config, runtime = session.config, session.runtime
    if stage.step == 0:
        stage.metrics = EpochMetrics(runtime.device)
    before = stage.done * len(batches)
    batches.train.set_epoch(stage.done)
    batches.train.skip(stage.step)
    val = batches.endless_val(before + stage.step)
    for images, labels in session.reporter.track(
        batches.train, stage.where, stage.step, lambda: stage.live(session.later)
    ):
        reseed(config.runtime.seed, NOISE, before + stage.step)  # what a search method draws, all processes share
        stage.begin_step()
        reseed(config.runtime.seed, STEPS, before + stage.step, runtime.rank)
        preprocess.train()
        train = preprocess(images.to(runtime.device)), labels.to(runtime.device)
        is_good = True
        if stage.moves_alphas:
            stage.architecture.sample(generator(config.runtime.seed, NOISE, before + stage.step))
            preprocess.eval()
            images, labels = next(val)
            is_good = alpha_step(stage, train, (preprocess(images.to(runtime.device)), labels.to(runtime.device)))
        is_good &= weight_step(stage, train)
        stage.metrics.skipped += not is_good
        stage.step += 1
        where = f"{stage.where}, step {stage.step}/{len(batches)}"
        stage.steps.count(is_good, where, stage.lr, "search.weights.lr")
        stage.schedule.step_update(stage.scheduled)
        saver.step(before + stage.step, stage.state, where, is_good)


def weight_step(stage: StageState, batch: Batch) -> bool:
    """Move the weights one step down L_train; return False where its numbers were not finite, and it was left out."""
    weights = stage.edge_weights().detach()
    loss, clip = train_loss(stage, batch, lambda: weights), stage.config.search.weights.clip_grad
    return stage.steps.descend(loss, stage.params, stage.weight_optimizer, clip, stage.metrics)


def train_loss(stage: StageState, batch: Batch, weights: Callable[[], Tensor]) -> BatchLoss:
    """Return L_train of a batch under edge weights."""
    inputs, targets = batch

    def of(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        logits = stage.logits(inputs[rows], weights())
        loss = label_loss(logits, targets[rows], stage.config.search.smoothing)
        return loss, {"loss": loss}

    return BatchLoss(len(inputs), stage.config.search.batch_size, of)


def alpha_step(stage: StageState, train: Batch, val: Batch) -> bool:
    """Move alpha one step down L_val + L_fair (section 7); return False where its numbers were not finite: left out."""
    alphas, found = list(stage.architecture.parameters()), list[Tensor]()
    above = val_loss(stage, val)

    def differentiate() -> None:
        if stage.config.search.order == 1:
            found[:] = first_order(above, alphas, stage.params, stage.steps.differentiate)
        else:
            below = train_loss(stage, train, stage.edge_weights)
            found[:] = second_order(below, above, alphas, stage.params, stage.lr, stage.steps.differentiate)

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


def val_loss(stage: StageState, batch: Batch) -> BatchLoss:
    """Return what alpha minimises on a batch: L_val, L_fair, the cost's penalty and the search method's own loss."""
    inputs, targets = batch

    def of(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        weights = stage.edge_weights()
        logits = stage.logits(inputs[rows], weights)
        loss, hits = label_loss(logits, targets[rows]), label_hits(logits.detach(), targets[rows])
        weights = weights[:, : len(stage.space.operations)]
        fair = fairness(weights, stage.architecture.alive, stage.space, stage.config.search.fairness).total
        more = fair + stage.cost(weights) + stage.strategy.alpha_loss(stage.architecture, weights)
        return loss + more, {"val_loss": loss, f"val_{hits_name(targets)}": 100 * hits}

    return BatchLoss(len(inputs), stage.config.search.batch_size, of)


def end_epoch(stage: StageState, session: Session, monitor: Monitor, maps: TokenMaps) -> None:
    """Log an epoch, and go on to the next."""
    where = stage.where
    check_steps(stage.metrics, where, "search.weights.lr")
    stage.epoch, stage.step = stage.epoch + 1, 0
    place = {"stage": stage.number + 1, "epoch": stage.epoch}
    row = stage.metrics.row(session.runtime, **place, lr=stage.lr)
    line = {**place, **describe_architecture(stage)}
    rows = {"metrics.jsonl": row, "architecture.jsonl": line}
    if notes := stage.strategy.notes():
        line["method"] = notes
    if stage.strategy.moves_alphas:  # without alphas there is no mixture to look at
        mixture, strengths = mixture_of(stage)
        if session.config.search.monitor:
            line["monitor"] = monitor.look(stage.supernet, mixture, strengths)
        if kept := maps.look(stage.supernet, mixture):
            rows[MAPS] = {**place, **kept}
    session.log(f"{where}: {describe_epoch(row, line, session.config)}", rows)


def temperature(config: Config, done: int) -> float:
    """Return the relaxation's temperature after so many epochs, from the first epoch's to the last one's."""
    total = sum(stage.epochs for stage in config.search.stages)
    start, end = config.search.temperature, config.search.final_temperature
    share = done / max(1, total - 1)
    if config.search.annealing == "linear":
        return float(start + (end - start) * share)
    return float(start * (end / start) ** share)


def describe_architecture(stage: StageState) -> dict[str, Any]:
    """Return what an epoch's line of `architecture.jsonl` says of the alphas."""
    space, alive, weights = stage.space, stage.architecture.alive, stage.architecture.strengths()
    params, macs = stage.cost.expected(weights).tolist()
    terms = fairness(weights, alive, space, stage.config.search.fairness)
    return {
        "layers": stage.plan.layers,
        "temperature": stage.architecture.temperature,
        "weights": {
            edge: {op: w for op, w, is_alive in zip(space.operations, row, mask, strict=True) if is_alive}
            for edge, row, mask in zip(space.edge_names, weights.tolist(), alive.tolist(), strict=True)
        },
        "mean_weights": dict(zip(space.operations, weights.mean(dim=0).tolist(), strict=True)),
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


def describe_epoch(row: dict[str, Any], line: dict[str, Any], config: Config) -> str:
    """Return an epoch's line for the terminal."""
    val = f", val top-1 {row['val_top1']:.1f} %" if "val_top1" in row else " (weights alone)"
    if "val_exact_match" in row:
        val = f", val all labels right {row['val_exact_match']:.1f} %"
    mean = line["mean_weights"]
    types = ", ".join(f"{name} {value:.2f}" for name, value in line["fairness"]["type_weights"].items())
    return (
        f"{training_loss(config.search)} {row['train_loss']:.3f}{val}; identity {mean['identity']:.2f}, {types}; "
        f"{row['images_per_second']:.0f} images/s, {row['seconds']:.0f} s"
    )
