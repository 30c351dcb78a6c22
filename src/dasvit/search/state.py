"""What a search trains: its batches (section 7), and the state of a stage, which is what its checkpoints hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dasvit.cell.space import OperationMask, Space
from dasvit.config import Config
from dasvit.config.methods import find_method
from dasvit.data import Data, Loader, split_indices, train_transform
from dasvit.runtime.distributed import Runtime
from dasvit.search.architecture import Architecture
from dasvit.search.cost import CostPenalty
from dasvit.search.stages import Stages
from dasvit.search.strategies.base import StepProgress, Strategy
from dasvit.search.supernet import Supernet
from dasvit.training.metrics import EpochMetrics
from dasvit.training.optim import make_optimizer, make_schedule
from dasvit.training.steps import Steps


class SearchBatches:
    """The training set, halved into batches for the weights and batches for alpha (section 7).

    Its length is the number of steps of an epoch.
    """

    def __init__(self, data: Data, config: Config, runtime: Runtime) -> None:
        options = config.search
        lower, upper = split_indices(data.train.labels, options.val_fraction, config.runtime.seed, data.classes)
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


class StageState:
    """What one stage trains, and how far it has come.

    Attributes:
        number: Which stage it is, from 0.
        epoch: Epochs of the stage that have ended.
        done: Epochs of the whole search that have ended.
        step: Steps of the epoch that goes on.
        metrics: What that epoch has added up.
        ended: Edge weights and operations alive at the end of the stages before.
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
        alive: OperationMask,
        number: int,
        classes: int,
        length: int,
        runtime: Runtime,
        steps: Steps,
        strategy: Strategy,
        inherit_from: StageState | None = None,
        ended: Stages = (),
    ) -> None:
        options = config.search
        stages = list(options.stages)
        self.steps, self.strategy, self.length, self.ended = steps, strategy, length, ended
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
        runtime.broadcast(self.supernet)
        runtime.broadcast(self.architecture)
        self.params: list[nn.Parameter] = list(self.supernet.parameters())
        self.weight_optimizer = make_optimizer(self.supernet, options.weights)
        whole = options.schedule == "search"
        self.schedule = make_schedule(
            self.weight_optimizer, options.weights, self.total if whole else self.stage.epochs, length
        )
        self.schedule_from = self.before * length if whole else 0
        self.schedule.step_update(self.schedule_from)
        alphas = options.alphas
        self.alpha_optimizer = torch.optim.Adam(
            self.architecture.parameters(), lr=alphas.lr, betas=alphas.betas, weight_decay=alphas.weight_decay
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
        epoch = min(self.epoch + 1, self.stage.epochs)
        return f"stage {self.number + 1}/{self.stages}, epoch {epoch}/{self.stage.epochs}"

    @property
    def moves_alphas(self) -> bool:
        """Whether the epoch that goes on has alpha steps."""
        return self.strategy.moves_alphas and self.epoch >= self.stage.weight_epochs

    def live(self) -> list[str]:
        """Return what the terminal shows below the bar: the epoch so far, and the leading operation of every edge."""
        space, left = self.supernet.space, (self.total - self.done) * self.length - self.step
        rows = zip(space.edge_names, self.architecture.strengths().tolist(), strict=True)
        leading = ((edge, max(zip(row, space.operations, strict=True))) for edge, row in rows)
        edges = "   ".join(f"{edge} {op} {weight:.2f}" for edge, (weight, op) in leading)
        return [self.metrics.live(self.step, left), edges]

    def begin_step(self) -> None:
        """Let the search method prepare the step that comes."""
        step, here = self.done * self.length + self.step, self.epoch * self.length + self.step
        progress = step / max(1, self.total * self.length - 1)
        stage_progress = here / max(1, self.stage.epochs * self.length - 1)
        moment = StepProgress(step, progress, self.number, stage_progress)
        self.strategy.begin_step(moment, self.architecture)

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
            "parts": self.steps.micro_batches,
            "alive": self.architecture.alive.tolist(),
            "ended_stages": [list(stage) for stage in self.ended],
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
    )


def make_architecture(config: Config, space: Space, alive: OperationMask) -> Architecture:
    """Build a stage's alphas, as the search method has them."""
    options = config.search
    normalise_edges = find_method(options.method).normalises_edges
    return Architecture(space, alive, options.relaxation, options.alphas.init_std, normalise_edges)
