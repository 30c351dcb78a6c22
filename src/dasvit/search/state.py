"""What a search trains: its batches (section 7), and the state of a stage, which is what its checkpoints hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dasvit.cell.space import OperationMask, Space
from dasvit.config import Config
from dasvit.config.methods import find_method
from dasvit.data import Data, Loader, split_indices, train_transform
from dasvit.data.loader import check_batch
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.search.architecture import Architecture
from dasvit.search.cost import CostPenalty
from dasvit.search.stages import Stages, StageWeights
from dasvit.search.strategies import make_strategy
from dasvit.search.strategies.base import StepProgress
from dasvit.search.supernet import Supernet
from dasvit.training.metrics import EpochMetrics
from dasvit.training.optim import make_optimizer, make_schedule
from dasvit.training.steps import Steps, at_least_float32

Rows = NDArray[np.int64]
Batch = tuple[Tensor, Tensor]
"""Images [B, 3, S, S] and labels, [B] or [B, C]."""


def halves(
    labels: Rows, config: Config, classes: Sequence[str], groups: Rows | None = None, filled: bool = True
) -> tuple[Rows, Rows]:
    """Return the training images for the weights and those for alpha.

    Args:
        labels: Class of every training image, int64 [N]; or its labels, int64 [N, C].
        config: The recipe.
        classes: Names of the classes.
        groups: Images of one number are not to be split, int64 [N]. None: each is by itself.
        filled: Whether each has to fill a batch.

    Raises:
        UserError: A class, or a batch, cannot be filled.
    """
    lower, upper = split_indices(labels, config.search.val_fraction, config.runtime.seed, classes, groups)
    for rows, what in ((lower, "weights"), (upper, "alphas")) if filled else ():
        which = f"images for the {what} (search.val_fraction {config.search.val_fraction:g})"
        check_batch(config.search.batch_size, len(rows), "search.batch_size", which)
    return lower, upper


class SearchBatches:
    """The training set, halved into batches for the weights and batches for alpha (section 7).

    Its length is the number of steps of an epoch.
    """

    def __init__(self, data: Data, config: Config, runtime: Runtime) -> None:
        options = config.search
        lower, upper = halves(data.train.labels, config, data.classes, data.train.groups)
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

    def evaluation_batches(self, images: int) -> Loader:
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


class SearchParts:
    """What all stages of a search share.

    Args:
        config: The recipe.
        classes: Classes of the data.
        length: Steps of an epoch.
        runtime: Devices and processes.
        reporter: Told when a batch is cut.

    Attributes:
        space: The search space.
        strategy: The search method.
        cost: The penalty on the expected cost.
        steps: How batches are differentiated.
    """

    def __init__(self, config: Config, classes: int, length: int, runtime: Runtime, reporter: Reporter) -> None:
        self.config, self.classes, self.length, self.runtime = config, classes, length, runtime
        self.space = Space.from_config(config.space)
        self.strategy = make_strategy(config, self.space, classes)
        self.cost = CostPenalty(config, self.space, classes)
        self.steps = Steps(runtime, reporter)


class StageState:
    """What one stage trains, and how far it has come.

    Args:
        parts: What all stages share.
        number: Which stage it is, from 0.
        alive: The candidates of every edge.
        ended: What the stages before ended with.
        inherit_from: The stage before, whose weights or alphas go on (`search.stages.inherit`).

    Attributes:
        plan: The recipe's stage.
        epoch: Epochs of the stage that have ended.
        step: Steps of the epoch that goes on.
        total: Epochs of the whole search.
        metrics: What that epoch has added up.
        supernet: The network of weights.
        architecture: The alphas.
        weight_optimizer: Of the weights.
        alpha_optimizer: Of the alphas.
    """

    def __init__(
        self,
        parts: SearchParts,
        number: int,
        alive: OperationMask,
        ended: Stages = (),
        inherit_from: StageState | None = None,
    ) -> None:
        self.config, self.runtime, self.space, self.length = parts.config, parts.runtime, parts.space, parts.length
        self.strategy, self.cost, self.steps = parts.strategy, parts.cost, parts.steps
        self.number, self.alive, self.ended = number, alive, ended
        options, device = self.config.search, self.runtime.device
        plans = list(options.stages)
        self.plan, self.stages = plans[number], len(plans)
        self.before, self.total = sum(plan.epochs for plan in plans[:number]), sum(plan.epochs for plan in plans)
        self.epoch = self.step = 0
        self.metrics = EpochMetrics(device)
        self.supernet = make_supernet(self.config, self.space, alive, self.plan.layers, parts.classes).to(device)
        self.architecture = Architecture(
            self.space, alive, options.relaxation, options.alphas.init_std, self.strategy.method.normalises_edges
        ).to(device)
        if inherit_from is not None:
            if options.stages.inherit in ("weights", "both"):
                self.supernet.inherit(inherit_from.supernet)
            if options.stages.inherit in ("alphas", "both"):
                alphas = dict(inherit_from.architecture.named_parameters())
                self.architecture.load_state_dict(alphas, strict=False)
        self.runtime.broadcast(self.supernet)
        self.runtime.broadcast(self.architecture)
        self.params: list[nn.Parameter] = list(self.supernet.parameters())
        self.weight_optimizer = make_optimizer(self.supernet, options.weights)
        whole = options.schedule == "search"
        epochs, self.schedule_from = (self.total, self.before * self.length) if whole else (self.plan.epochs, 0)
        self.schedule = make_schedule(self.weight_optimizer, options.weights, epochs, self.length)
        self.schedule.step_update(self.schedule_from)
        adam = options.alphas
        self.alpha_optimizer = torch.optim.Adam(
            self.architecture.parameters(), lr=adam.lr, betas=adam.betas, weight_decay=adam.weight_decay
        )

    @property
    def done(self) -> int:
        """Epochs of the whole search that have ended."""
        return self.before + self.epoch

    @property
    def scheduled(self) -> int:
        """Steps that the learning rate's schedule has seen."""
        return self.schedule_from + self.epoch * self.length + self.step

    @property
    def where(self) -> str:
        """Stage and epoch, as the terminal shows them."""
        epoch = min(self.epoch + 1, self.plan.epochs)
        return f"stage {self.number + 1}/{self.stages}, epoch {epoch}/{self.plan.epochs}"

    @property
    def lr(self) -> float:
        """The learning rate of the weights' next step."""
        rate: float = self.weight_optimizer.param_groups[0]["lr"]
        return rate

    @property
    def moves_alphas(self) -> bool:
        """Whether the epoch that goes on has alpha steps."""
        return self.strategy.moves_alphas and self.epoch >= self.plan.weight_epochs

    def live(self, later: float = 0.0) -> list[str]:
        """Return what the terminal shows below the bar: the epoch so far, and the leading operation of every edge.

        Args:
            later: Seconds of what follows the supernet.
        """
        left = (self.total - self.done) * self.length - self.step
        rows = zip(self.space.edge_names, self.architecture.strengths().tolist(), strict=True)
        leading = ((edge, max(zip(row, self.space.operations, strict=True))) for edge, row in rows)
        edges = "   ".join(f"{edge} {op} {weight:.2f}" for edge, (weight, op) in leading)
        return [self.metrics.live(self.step, left, later), edges]

    def begin_step(self) -> None:
        """Let the search method prepare the step that comes."""
        step, here = self.done * self.length + self.step, self.epoch * self.length + self.step
        done = step / max(1, self.total * self.length - 1)
        stage_done = here / max(1, self.plan.epochs * self.length - 1)
        self.strategy.begin_step(StepProgress(step, done, self.number, stage_done), self.architecture)

    def edge_weights(self) -> Tensor:
        """Return the edge weights of a forward pass, as the search method has them."""
        return self.strategy.weights(self.architecture)

    def logits(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the supernet's logits [B, classes] for images under edge weights, in float32 at least."""
        with self.runtime.autocast():
            return at_least_float32(self.supernet(inputs, weights, self.strategy.mode()))

    def outcome(self) -> StageWeights:
        """Return what the stage ends with."""
        return StageWeights(self.architecture.strengths().tolist(), self.alive, self.strategy.evaluated_cells())

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint holds: position, surviving operations, and the parts' states.

        Batches, rates, temperature and random numbers are functions of the position.
        """
        return {
            "stage": self.number,
            "epoch": self.epoch,
            "step": self.step,
            "rows": self.done,
            "parts": self.steps.micro_batches,
            "alive": self.architecture.alive.tolist(),
            "ended_stages": [[stage.weights, stage.alive] for stage in self.ended],
            **{name: item.state_dict() for name, item in self.stateful().items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint of this stage."""
        self.epoch, self.step, self.steps.micro_batches = state["epoch"], state["step"], state["parts"]
        for name, item in self.stateful().items():
            item.load_state_dict(state[name])

    def stateful(self) -> dict[str, Any]:
        """Return everything that has a state dictionary."""
        return {
            "metrics": self.metrics,
            "supernet": self.supernet,
            "architecture": self.architecture,
            "strategy": self.strategy,
            "weight_optimizer": self.weight_optimizer,
            "alpha_optimizer": self.alpha_optimizer,
        }


def make_supernet(config: Config, space: Space, alive: OperationMask, layers: int, classes: int) -> Supernet:
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
        share=find_method(config.search.method).channel_share(config.search),
        stem=config.model.stem,
        pool=config.model.pool,
    )
