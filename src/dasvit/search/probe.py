"""A search's own alpha step and weight step on noise: to time them, and to count their memory on no device at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dasvit.cell.space import OperationMask
from dasvit.config import Config
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.search.loop import alpha_step, weight_step
from dasvit.search.state import Batch, SearchParts, StageState


class LoneRuntime(Runtime):
    """A device, without peers and without accelerate.

    Args:
        device: Where the arithmetic is done; the meta device does none.
        autocast: Makes the context that forward passes run in. The default leaves the caller's in force.
    """

    def __init__(self, device: torch.device, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self.device, self.make_autocast = device, autocast
        self.rank, self.world, self.is_main, self.shards = 0, 1, True, False

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context that forward passes run in."""
        return self.make_autocast()


class Step:
    """One step on noise, that can be timed, and whose memory can be counted.

    Args:
        modules: What has parameters and buffers.
        alphas: Architecture parameters that are no module's.
        optimizers: Of the weights and of alpha.
        batches: Images and labels for the weights, and for alpha.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        alphas: Sequence[Tensor],
        optimizers: Sequence[Optimizer],
        batches: Sequence[Batch],
    ) -> None:
        self.modules, self.alphas, self.optimizers, self.batches = modules, alphas, optimizers, batches

    def __call__(self) -> None:
        """Do a step."""
        self.alpha_step()
        self.weight_step()

    def alpha_step(self) -> None:
        """Move alpha."""
        raise NotImplementedError

    def weight_step(self) -> None:
        """Move the weights."""
        raise NotImplementedError

    def tensors(self) -> list[Tensor]:
        """Return what is alive between two steps."""
        owned = [t for module in self.modules for t in (*module.parameters(), *module.buffers())]
        states = [t for one in self.optimizers for entry in one.state.values() for t in entry.values()]
        return [*owned, *self.alphas, *(t for batch in self.batches for t in batch), *filter(torch.is_tensor, states)]


class SearchStep(Step):
    """One step of a stage of a search, as `search/loop.py` does it, on noise.

    Args:
        config: The recipe.
        classes: Classes of the head.
        batch: Images B of a step, for the weights and for alpha each.
        runtime: Where it runs.
        number: Which stage it is, from 0.
        alive: The candidates of every edge. None: all of the space.
    """

    def __init__(
        self,
        config: Config,
        classes: int,
        batch: int,
        runtime: Runtime,
        number: int = 0,
        alive: OperationMask | None = None,
    ) -> None:
        self.config = replace(config, search=replace(config.search, batch_size=batch))
        parts = SearchParts(self.config, classes, 1, runtime, Reporter(quiet=True))
        with runtime.device:
            self.stage = StageState(parts, number, parts.space.everything() if alive is None else alive)
        batches = [noise(batch, config.model.image_size, classes, runtime.device) for _ in range(2)]
        optimizers = [self.stage.weight_optimizer, self.stage.alpha_optimizer]
        super().__init__([self.stage.supernet, self.stage.architecture], [], optimizers, batches)

    def __call__(self) -> None:
        """Do a step: the search method prepares it, alphas move where they ever do in the stage, and weights move."""
        self.stage.begin_step()
        super().__call__()

    def alpha_step(self) -> None:
        """Move alpha; nothing where the stage's alphas never move."""
        plan = self.stage.plan
        if self.stage.strategy.moves_alphas and plan.weight_epochs < plan.epochs:
            alpha_step(self.stage, *self.batches)

    def weight_step(self) -> None:
        """Move the weights."""
        weight_step(self.stage, self.batches[0])


def noise(batch: int, side: int, classes: int, device: torch.device) -> Batch:
    """Return random images [B, 3, S, S], and labels [B] that take turns."""
    return torch.randn(batch, 3, side, side, device=device), torch.arange(batch, device=device) % classes
