"""The memory that a search needs: the most bytes alive in a step, as a function of the batch.

A step is the search loop's own alpha step and weight step (`search/probe.py`). It is run on the meta device, with a
large prime as its batch: tensors whose size this divides grow with the batch, all others are the same at every batch.
So the bytes alive at any moment of the step are a constant plus a multiple of the batch, and the peak at every batch
follows. Weights, gradients, optimiser states, casts and both batches of images are alive like all else. What no
operator makes is not counted: workspaces of matrix libraries, what the allocator keeps, and the program itself.

Shapes: B images, E edges, O operations.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from dasvit.cell.cost import operation_cost, token_count
from dasvit.cell.space import OperationMask, Space
from dasvit.config import Config
from dasvit.memory.live_bytes import Kind, LiveBytes, Pretend
from dasvit.runtime.distributed import Runtime
from dasvit.search.plain_darts import PlainStep, PlainSupernet
from dasvit.search.probe import LoneRuntime, SearchStep, Step, noise

PROBE = 10007
"""The batch that is run on the meta device: a prime that divides the size of no weight."""
FREE = 0.1
"""Share of a device's memory that a batch that fits leaves free, for what is not counted."""


@dataclass(frozen=True)
class Subject:
    """A network in one stage of a search.

    Attributes:
        stage: The stage's number, from 1.
        layers: Depth of the supernet.
        alive: The candidates of every edge.
        ratio: Share of the patch tokens that is kept.
        plain: Whether it is plain DARTS, as the DARTS family publishes it.
    """

    stage: int
    layers: int
    alive: OperationMask
    ratio: float
    plain: bool

    @property
    def operations(self) -> int:
        """Operations on an edge."""
        return sum(self.alive[0])

    @property
    def name(self) -> str:
        """What tables and figures call it, as `DASViT, ρ 0.5`."""
        return "plain DARTS" if self.plain else f"DASViT, ρ {self.ratio:g}"


def subjects(config: Config) -> list[Subject]:
    """Return for every stage plain DARTS of its depth, and the supernet with all tokens and with the recipe's share.

    Pruning is a search's own result: the operations that survive it are taken to be the costliest.
    """
    space = Space.from_config(config.space)
    ratios = sorted({1.0, config.search.tokens.ratio}, reverse=True)
    found = []
    keep = len(space.operations)
    for number, stage in enumerate(config.search.stages, start=1):
        if number > 1 and stage.keep:
            keep = min(keep, stage.keep)
        found.append(Subject(number, stage.layers, space.everything(), 1.0, plain=True))
        found += [Subject(number, stage.layers, costliest(space, keep, config), r, plain=False) for r in ratios]
    return found


def costliest(space: Space, keep: int, config: Config) -> OperationMask:
    """Return the candidates where every edge keeps its operations of the most multiply-adds."""
    width, tokens = config.search.width or config.model.width, token_count(config.model)
    costs = [operation_cost(op, width, tokens).macs for op in space.operations]
    kept = sorted(range(len(costs)), key=lambda o: -costs[o])[:keep]
    return tuple(tuple(o in kept for o in range(len(costs))) for _ in space.edges)


def make_step(subject: Subject, config: Config, classes: int, batch: int, runtime: Runtime) -> Step:
    """Build a network and return its step: the search loop's own, or plain DARTS's.

    Args:
        subject: The network.
        config: The recipe.
        classes: Classes of the head.
        batch: Images B of a step, for the weights and for alpha each.
        runtime: Where it runs.
    """
    if not subject.plain:
        tokens = dataclasses.replace(config.search.tokens, ratio=subject.ratio)
        config = dataclasses.replace(config, search=dataclasses.replace(config.search, tokens=tokens))
        return SearchStep(config, classes, batch, runtime, subject.stage - 1, subject.alive)
    space, device = Space.from_config(config.space), runtime.device
    with device:
        supernet = PlainSupernet(
            space,
            image_size=config.model.image_size,
            patch_size=config.model.patch_size,
            dim=config.search.width or config.model.width,
            layers=subject.layers,
            num_classes=classes,
            stem=config.model.stem,
            pool=config.model.pool,
        )
    alpha = torch.zeros(len(space.edges), len(space.operations), device=device, requires_grad=True)
    batches = [noise(batch, config.model.image_size, classes, device) for _ in range(2)]
    return PlainStep(supernet, alpha, batches, config.search, runtime)


@dataclass(frozen=True)
class Memory:
    """Bytes alive at the moments of a step: constant + slope * batch, each of the moments' number."""

    constant: np.ndarray[Any, np.dtype[np.int64]]
    slope: np.ndarray[Any, np.dtype[np.int64]]

    def peak(self, batch: int) -> int:
        """Return the most bytes alive with so many images."""
        return int((self.constant + self.slope * batch).max())

    def largest(self, limit: int) -> int:
        """Return the largest batch whose peak is within so many bytes; 0 where there is none."""
        if self.peak(0) > limit:
            return 0
        grows = self.slope > 0
        return int(((limit - self.constant[grows]) // self.slope[grows]).min())


def count(subject: Subject, config: Config, classes: int, kind: Kind, bfloat16: bool) -> Memory:
    """Count the memory of a step on the meta device.

    Args:
        subject: The network.
        config: The recipe.
        classes: Classes of the head.
        kind: The device that is counted for.
        bfloat16: Whether autocast to bfloat16 is on.
    """
    pretend = Pretend(kind)
    runtime = LoneRuntime(torch.device("meta"), lambda: pretend.autocast(enabled=bfloat16))
    step = make_step(subject, config, classes, PROBE, runtime)
    curve: list[tuple[int, int]] = []
    with pretend, warnings.catch_warnings():
        # A backward pass that computes features again asks for the GPU's autocast, which need not be there.
        warnings.filterwarnings("ignore", message="CUDA is not available")
        for choose in choices(step):
            choose()
            curve += bytes_alive(step)
    table = np.array(curve, dtype=np.int64)
    return Memory(table[:, 0], table[:, 1])


def choices(step: Step) -> list[Callable[[], object]]:
    """Return what prepares each of the steps among which the dearest is."""
    if not isinstance(step, SearchStep):
        return [lambda: None]
    strategy = step.stage.strategy
    paths = strategy.extreme_paths(step.stage.alive)
    return [partial(strategy.choose, path) for path in paths] or [step.stage.begin_step]


def bytes_alive(step: Step) -> list[tuple[int, int]]:
    """Return the bytes alive at every moment of a step in which the optimisers already have their states."""
    live = LiveBytes(PROBE)
    with live:
        live.hold(step.tensors())
        for optimizer in step.optimizers:
            make_states(optimizer)
        step.alpha_step()
        step.weight_step()
    return live.curve


def make_states(optimizer: Optimizer) -> None:
    """Let an optimiser make the states that it makes in its first step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def measure(subject: Subject, config: Config, classes: int, batch: int, device: torch.device, bfloat16: bool) -> int:
    """Return the most bytes that a step had allocated on a GPU.

    Args:
        subject: The network.
        config: The recipe.
        classes: Classes of the head.
        batch: Images B of a step.
        device: The GPU.
        bfloat16: Whether autocast to bfloat16 is on.
    """
    runtime = LoneRuntime(device, lambda: torch.autocast("cuda", torch.bfloat16, enabled=bfloat16))
    step = make_step(subject, config, classes, batch, runtime)
    for _ in range(2):  # the optimiser's states are there in the second one
        torch.cuda.reset_peak_memory_stats(device)
        step()
    return torch.cuda.max_memory_allocated(device)
