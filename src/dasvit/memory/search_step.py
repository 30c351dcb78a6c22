"""The memory that a search needs: the most bytes alive in a step, as a function of the batch.

A step is an alpha step and a weight step, as `search/loop.py` does them. It is run once on the meta device, with a
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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.cost import operation_cost, token_count
from dasvit.cell.space import OperationMask, Space
from dasvit.config import Config
from dasvit.memory.live_bytes import Kind, LiveBytes, Pretend
from dasvit.search.bilevel import first_order, second_order
from dasvit.search.plain_darts import PlainSupernet
from dasvit.search.state import make_architecture, make_supernet
from dasvit.search.strategies import make_strategy
from dasvit.training.optim import make_optimizer

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


class SearchStep:
    """One step of a search, on any device.

    Args:
        subject: The network.
        config: The recipe.
        classes: Classes of the head.
        batch: Images B of a step.
        device: Where it runs.
        autocast: Makes the context that forward passes run in.
    """

    def __init__(
        self,
        subject: Subject,
        config: Config,
        classes: int,
        batch: int,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.config, self.plain, self.autocast = config, subject.plain, autocast
        space, options = Space.from_config(config.space), config.search
        with device:
            self.network = make_network(subject, config, space, classes)
            self.architecture = make_architecture(config, space, subject.alive)
            side = config.model.image_size
            self.batches = [(torch.zeros(batch, 3, side, side), torch.zeros(batch).long()) for _ in range(2)]
        self.strategy = make_strategy(config, space, classes)
        self.weights = list(self.network.parameters())
        self.optimizer = make_optimizer(self.network, options.weights)

    def tensors(self) -> list[Tensor]:
        """Return what is alive before a step, besides the optimiser's states."""
        return [*self.weights, *self.network.buffers(), *(t for batch in self.batches for t in batch)]

    def loss(self, batch: tuple[Tensor, Tensor], weights: Tensor) -> Tensor:
        """Return the loss of a batch under edge weights [E, O]."""
        images, labels = batch
        with self.autocast():
            logits = self.network(images, weights).float()
        return F.cross_entropy(logits, labels)

    def edge_weights(self) -> Tensor:
        """Return the edge weights of a forward pass: a search method's, where it moves alphas."""
        if self.plain or not self.strategy.moves_alphas:
            weights: Tensor = self.architecture()
            return weights
        return self.strategy.weights(self.architecture)

    def alpha_step(self) -> None:
        """Compute the gradient in alpha."""
        train, val = self.batches
        alphas = list(self.architecture.parameters())
        if self.plain:
            self.loss(val, self.edge_weights()).backward()
            self.optimizer.zero_grad(set_to_none=True)
        elif self.config.search.order == 1:
            first_order(lambda: self.loss(val, self.edge_weights()), alphas, self.weights)
        else:
            second_order(
                lambda: self.loss(train, self.edge_weights()),
                lambda: self.loss(val, self.edge_weights()),
                alphas,
                self.weights,
                self.config.search.weights.lr,
            )

    def weight_step(self) -> None:
        """Move the weights."""
        self.weight_gradients()
        self.update()

    def weight_gradients(self) -> None:
        """Compute the gradients of the weights."""
        self.loss(self.batches[0], self.edge_weights().detach()).backward()

    def update(self) -> None:
        """Move the weights down their gradients, and drop these."""
        if self.config.search.weights.clip_grad:
            nn.utils.clip_grad_norm_(self.weights, self.config.search.weights.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def make_network(subject: Subject, config: Config, space: Space, classes: int) -> nn.Module:
    """Build the network of a subject."""
    if not subject.plain:
        tokens = dataclasses.replace(config.search.tokens, ratio=subject.ratio)
        config = dataclasses.replace(config, search=dataclasses.replace(config.search, tokens=tokens))
        return make_supernet(config, space, subject.alive, subject.layers, classes)
    return PlainSupernet(
        space.nodes,
        space.operations,
        image_size=config.model.image_size,
        patch_size=config.model.patch_size,
        dim=config.search.width or config.model.width,
        layers=subject.layers,
        classes=classes,
    )


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
    step = SearchStep(subject, config, classes, PROBE, torch.device("meta"), lambda: pretend.autocast(enabled=bfloat16))
    with LiveBytes(PROBE) as live, pretend, warnings.catch_warnings():
        # A backward pass that computes features again asks for the GPU's autocast, which need not be there.
        warnings.filterwarnings("ignore", message="CUDA is not available")
        live.hold(step.tensors())
        step.weight_gradients()
        moments, before = len(live.curve), live.live[0]
        step.update()
        states = live.live[0] - before + sum(weight.nbytes for weight in step.weights)  # the gradients are gone
        step.alpha_step()
    curve = np.array(live.curve, dtype=np.int64)
    curve[:moments, 0] += states  # they are alive from the second step on
    return Memory(curve[:, 0], curve[:, 1])


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
    step = SearchStep(
        subject, config, classes, batch, device, lambda: torch.autocast("cuda", torch.bfloat16, enabled=bfloat16)
    )
    for _ in range(2):  # the optimiser's states are there in the second one
        torch.cuda.reset_peak_memory_stats(device)
        step.alpha_step()
        step.weight_step()
    return torch.cuda.max_memory_allocated(device)
