"""The supernet, evaluated on the images for alpha: in the loop, and afterwards by perturbation (docs/methods.md).

Shapes: B images, E edges, O operations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dasvit.cell.space import Space, as_mask
from dasvit.config import Config
from dasvit.data import Data, Loader, Preprocess
from dasvit.errors import UserError
from dasvit.io.run_folder import RunFolder
from dasvit.runtime.checkpoint import load_checkpoint
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Saver
from dasvit.search.monitor import Monitor
from dasvit.search.perturbation import perturbation_scores
from dasvit.search.stages import StageWeights
from dasvit.search.state import SearchBatches, StageState
from dasvit.search.strategies import make_strategy
from dasvit.search.strategies.base import Evaluator
from dasvit.search.supernet import EVERYTHING, ForwardMode, Supernet
from dasvit.training.evaluation import Evaluation, evaluate
from dasvit.training.steps import Steps

TIE = 1e-3
"""What a nat of loss counts for, in percent of accuracy: it decides between cells that are equally accurate."""


def make_evaluator(
    stage: StageState,
    config: Config,
    batches: SearchBatches,
    preprocess: nn.Module,
    runtime: Runtime,
    saver: Saver,
) -> Evaluator:
    """Return what evaluates the supernet at an epoch's end; it saves before each evaluation where it is time to."""
    loader = batches.evaluation_batches(config.search.evolution.images)

    def evaluate_one(weights: Tensor) -> float:
        number = stage.done * len(batches) + stage.step + stage.strategy.evaluations
        saver.step(number, stage.state, f"{stage.where}, {stage.strategy.evaluations} cells evaluated")
        mode = ForwardMode(active=weights.argmax(dim=1).tolist())
        return evaluate_supernet(stage.supernet, weights, preprocess, loader, runtime, mode).top1

    return evaluate_one


def evaluate_supernet(
    supernet: Supernet,
    weights: Tensor,
    preprocess: nn.Module,
    loader: Loader,
    runtime: Runtime,
    mode: ForwardMode = EVERYTHING,
) -> Evaluation:
    """Evaluate a supernet under edge weights [E, O] or [E, O + 1]."""
    network = WithWeights(supernet, weights.to(runtime.device), mode)
    return evaluate(network, preprocess, loader, runtime, supernet.head.out_features)


def perturbed(stage: StageState, data: Data, config: Config, runtime: Runtime) -> StageWeights:
    """Return a stage's edge weights `[E][O]` by perturbation, measured on the images for alpha, and what is alive."""
    architecture, space = stage.architecture, stage.supernet.space
    loader = SearchBatches(data, config, runtime).evaluation_batches(config.search.derive.images)
    preprocess = Preprocess(config.model.image_size).to(runtime.device)
    mixture, _ = mixture_of(stage)
    alive = as_mask(architecture.alive.tolist())

    def measure(weights: Tensor) -> float:
        found = evaluate_supernet(stage.supernet, weights, preprocess, loader, runtime)
        return found.top1 - TIE * found.loss

    scores = perturbation_scores(mixture, alive, space, measure, config.runtime.seed)
    return StageWeights.of_scores(scores, alive, space)


def restore(config: Config, classes: int, run: RunFolder, runtime: Runtime, reporter: Reporter) -> StageState:
    """Return the stage that a search's newest checkpoint holds.

    Raises:
        UserError: There is none.
    """
    state = load_checkpoint(run.checkpoints, reporter.say)
    if state is None:
        raise UserError(f"{run.path} holds no checkpoint, and so no supernet to perturb: take --rule darts.")
    space = Space.from_config(config.space)
    alive = as_mask(state["alive"])
    strategy = make_strategy(config, space, classes)
    stage = StageState(config, space, alive, state["stage"], classes, 1, runtime, Steps(runtime, reporter), strategy)
    stage.load(state)
    return stage


def mixture_of(stage: StageState) -> tuple[Tensor, Tensor]:
    """Return a stage's edge weights free of noise: [E, O], with a bypass [E, O + 1] where there is one; and [E, O]."""
    strengths = stage.architecture.strengths()
    bypass = stage.edge_weights().detach()[:, strengths.shape[1] :]
    return torch.cat([strengths, bypass], dim=1), strengths


def make_monitor(
    config: Config, classes: int, batches: SearchBatches, preprocess: nn.Module, runtime: Runtime
) -> Monitor:
    """Return what looks at the supernet at every epoch's end, on `search.monitor` of the images for alpha."""
    loader = batches.evaluation_batches(config.search.monitor)

    def top1(supernet: Supernet, weights: Tensor, mode: ForwardMode) -> float:
        return evaluate_supernet(supernet, weights, preprocess, loader, runtime, mode).top1

    return Monitor(config, classes, top1)


class WithWeights(nn.Module):
    """A supernet under fixed edge weights and a mode, as a network of images alone."""

    def __init__(self, supernet: Supernet, weights: Tensor, mode: ForwardMode = EVERYTHING) -> None:
        super().__init__()
        self.supernet, self.weights, self.mode = supernet, weights, mode

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] for images [B, 3, S, S]."""
        logits: Tensor = self.supernet(images, self.weights, self.mode)
        return logits
