"""The supernet, evaluated on the images for alpha: in the loop, and afterwards by perturbation (docs/methods.md).

Shapes: B images, E edges, O operations.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from dasvit.cell.space import as_mask
from dasvit.config import Config
from dasvit.config.methods import find_method
from dasvit.data import Data, Preprocess, load_data
from dasvit.errors import UserError
from dasvit.io.run_folder import RunFolder
from dasvit.runtime.checkpoint import load_checkpoint
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Saver
from dasvit.search.metric import score_of
from dasvit.search.perturbation import perturbation_scores
from dasvit.search.stages import Stages, StageWeights
from dasvit.search.state import SearchBatches, SearchParts, StageState
from dasvit.search.strategies.base import Evaluator
from dasvit.search.supernet import EVERYTHING, ForwardMode, Supernet
from dasvit.session import as_begun, say_data
from dasvit.training.evaluation import Evaluation, evaluate

TIE = 1e-3
"""What a nat of loss counts for, in percent of accuracy: it decides between cells that are equally accurate."""


class SupernetEvaluator:
    """Evaluates supernets on the images for alpha.

    Args:
        batches: Where the images are from.
        config: The recipe.
        runtime: Devices and processes.
        images: How many of the images. 0: all.
    """

    def __init__(self, batches: SearchBatches, config: Config, runtime: Runtime, images: int) -> None:
        self.runtime, self.loader, self.metric = runtime, batches.evaluation_batches(images), config.search.metric
        self.preprocess = Preprocess(config.model.image_size).to(runtime.device)

    def __call__(self, supernet: Supernet, weights: Tensor, mode: ForwardMode = EVERYTHING) -> Evaluation:
        """Evaluate a supernet under edge weights [E, O] or [E, O + 1]."""
        network = WithWeights(supernet, weights.to(self.runtime.device), mode)
        return evaluate(network, self.preprocess, self.loader, self.runtime, supernet.head.out_features)

    def top1(self, supernet: Supernet, weights: Tensor, mode: ForwardMode) -> float:
        """Return a supernet's top-1 in percent; of several labels an image its mAP."""
        return self(supernet, weights, mode).score

    def score(self, supernet: Supernet, weights: Tensor, mode: ForwardMode) -> float:
        """Return what an evolution ranks a cell by (`search.metric`), in percent."""
        return score_of(self(supernet, weights, mode), self.metric)


def cell_evaluator(stage: StageState, evaluator: SupernetEvaluator, saver: Saver) -> Evaluator:
    """Return what evaluates cells at an epoch's end; it saves before each where it is time to."""

    def score(weights: Tensor) -> float:
        evaluations = stage.strategy.evaluations
        number = stage.done * stage.length + stage.step + evaluations
        saver.step(number, stage.state, f"{stage.where}, {evaluations} cells evaluated")
        return evaluator.score(stage.supernet, weights, ForwardMode(active=weights.argmax(dim=1).tolist()))

    return score


def perturbed(stage: StageState, data: Data, config: Config, runtime: Runtime) -> StageWeights:
    """Return a stage's edge weights `[E][O]` by perturbation, measured on the images for alpha, and what is alive."""
    evaluator = SupernetEvaluator(SearchBatches(data, config, runtime), config, runtime, config.search.derive.images)
    mixture, _ = mixture_of(stage)

    def measure(weights: Tensor) -> float:
        found = evaluator(stage.supernet, weights)
        return found.score - TIE * found.loss

    scores = perturbation_scores(mixture, stage.alive, stage.space, measure, config.runtime.seed)
    return StageWeights.of_scores(scores, stage.alive, stage.space)


def perturbed_again(config: Config, classes: int, folder: Path, stages: Stages | None, reporter: Reporter) -> Stages:
    """Return a past search's stages, the last one's weights by perturbation of the supernet in its newest checkpoint.

    Args:
        config: The search's recipe, under the choice that is derived with.
        classes: Classes of the data.
        folder: The search's run folder.
        stages: What it noted of its stages.
        reporter: Where is said what the data are.

    Raises:
        UserError: The method trains no mixture, or there is no checkpoint, or it is damaged.
    """
    if not find_method(config.search.method).learns_alphas or stages is None:
        raise UserError(f"the method {config.search.method} trains no mixture that could be perturbed.")
    run = RunFolder(folder, "search")
    runtime = Runtime(config.runtime, "bfloat16" if run.notes().get("precision") == "bfloat16" else "float32")
    state = load_checkpoint(run.checkpoints, reporter.say)
    if state is None:
        raise UserError(f"{run.path} holds no checkpoint, and so no supernet to perturb: take --rule darts.")
    last = StageState(SearchParts(config, classes, 1, runtime, reporter), state["stage"], as_mask(state["alive"]))
    last.load(state)
    data = load_data(as_begun(config.data, folder), config.model.image_size, config.runtime.seed)
    say_data(data, reporter)
    return [*stages[:-1], perturbed(last, data, config, runtime)]


def mixture_of(stage: StageState) -> tuple[Tensor, Tensor]:
    """Return a stage's edge weights free of noise: [E, O], with a bypass [E, O + 1] where there is one; and [E, O]."""
    strengths = stage.architecture.strengths()
    bypass = stage.edge_weights().detach()[:, strengths.shape[1] :]
    return torch.cat([strengths, bypass], dim=1), strengths


class WithWeights(nn.Module):
    """A supernet under fixed edge weights and a mode, as a network of images alone."""

    def __init__(self, supernet: Supernet, weights: Tensor, mode: ForwardMode = EVERYTHING) -> None:
        super().__init__()
        self.supernet, self.weights, self.mode = supernet, weights, mode

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] for images [B, 3, S, S]."""
        logits: Tensor = self.supernet(images, self.weights, self.mode)
        return logits
