"""Steps that survive a batch too large for the memory, a loss that is no number, and a batch spread over processes.

Every loss here is the mean over the whole batch, of which each process holds some rows. A process computes its rows'
share of the loss; the gradients of all processes are added up, and are those of one process that holds all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dasvit.errors import Diverged, UserError
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.training.metrics import EpochMetrics

PATIENCE = 10
"""Steps in a row without a finite loss and gradient after which a run stops."""


@dataclass
class BatchLoss:
    """The mean loss of a batch.

    Attributes:
        rows: Rows of this process.
        total: Rows of all processes.
        of: Gives the mean loss of some rows of this process, and other means of them by name.
        means: Those others over the whole batch, once the loss was differentiated.
    """

    rows: int
    total: int
    of: Callable[[slice], tuple[Tensor, dict[str, Tensor]]]
    means: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self) -> Tensor:
        """Return the mean loss of this process's rows."""
        return self.of(slice(0, self.rows))[0]


def at_least_float32(x: Tensor) -> Tensor:
    """Return a tensor that autocast may have shortened in float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


class Steps:
    """Differentiates batches, cut as small as the memory asks for, and checks what comes out.

    Args:
        runtime: This process among its peers.
        reporter: Told when a batch is cut.

    Attributes:
        micro_batches: Micro-batches that each process cuts its rows into.
        bad: Steps in a row that had to be left out.
    """

    def __init__(self, runtime: Runtime, reporter: Reporter) -> None:
        self.runtime, self.reporter = runtime, reporter
        self.micro_batches = 1
        self.bad = 0

    def differentiate(self, loss: Callable[[], Tensor], tensors: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the gradients of a batch's loss, None for tensors that it does not depend on.

        Args:
            loss: A BatchLoss.
            tensors: What to differentiate in.

        Raises:
            torch.OutOfMemoryError: On this process or a peer; on all of them at the same place.
        """
        assert isinstance(loss, BatchLoss), "not known how to cut this loss"
        sums: list[Tensor | None] = [None] * len(tensors)

        def compute() -> None:
            for term in self._terms(loss):
                found = torch.autograd.grad(term, list(tensors), allow_unused=True)
                sums[:] = [
                    new if old is None or new is None else old + new for old, new in zip(sums, found, strict=True)
                ]

        self._on_all(compute)
        self.runtime.all_reduce([*loss.means.values(), *(g for g in sums if g is not None)])
        return sums

    def backward(self, loss: BatchLoss, parameters: Sequence[Tensor]) -> None:
        """Leave the gradients of a batch's loss in the parameters.

        Raises:
            torch.OutOfMemoryError: As `differentiate` does.
        """

        def compute() -> None:
            for term in self._terms(loss):
                term.backward()

        self._on_all(compute)
        gradients = [] if self.runtime.shards else [p.grad for p in parameters if p.grad is not None]
        self.runtime.all_reduce([*loss.means.values(), *gradients])

    def descend(
        self, loss: BatchLoss, parameters: Sequence[Tensor], optimizer: Optimizer, clip: float, metrics: EpochMetrics
    ) -> bool:
        """Move weights one step down a batch's loss; return False where its numbers were not finite: it is left out.

        Args:
            loss: The loss, which has a mean of its own under the name `loss`.
            parameters: The weights.
            optimizer: Theirs.
            clip: Largest norm of their gradient. 0: any.
            metrics: To which the loss and the images are added.
        """
        self.within_memory(lambda: self.backward(loss, parameters), parameters, loss)
        norm = self.norm(loss, [weight.grad for weight in parameters])
        if norm is not None:
            if clip:
                nn.utils.clip_grads_with_norm_(parameters, clip, norm)
            optimizer.step()
            metrics.add("train_loss", loss.means["loss"], loss.total)
            metrics.images += loss.total
        optimizer.zero_grad(set_to_none=True)
        return norm is not None

    def within_memory(self, step: Callable[[], None], parameters: Sequence[Tensor], loss: BatchLoss) -> None:
        """Do a step, again and again with micro-batches of half the size while the memory does not suffice.

        Args:
            step: Differentiates the loss, and changes nothing before it has.
            parameters: Their gradients are dropped in between.
            loss: The loss of the larger batch.

        Raises:
            UserError: Not even one image fits; or weights are shared, which one process cannot try again alone.
        """
        while not _fits(step):
            if self.runtime.shards:
                raise UserError(
                    "out of memory: with runtime.shard a batch cannot be cut while the run goes on. Lower "
                    "train.batch_size, or start more processes."
                )
            for parameter in parameters:
                parameter.grad = None
            if self.runtime.device.type == "cuda":
                torch.cuda.empty_cache()
            if self.micro_batches * self.runtime.world >= loss.total:
                raise UserError("the memory does not hold a single image: lower the model's width or depth.")
            self.micro_batches *= 2
            size = math.ceil(loss.rows / self.micro_batches)
            self.reporter.warn(
                f"out of memory: from here on gradients are accumulated over micro-batches of {size} images; the "
                f"batch of {loss.total} stays what it is."
            )

    def norm(self, loss: BatchLoss, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """Return the gradients' norm, a scalar tensor; None where it, or a mean of the loss, is not finite."""
        norm = self.runtime.norm([g for g in gradients if g is not None])
        total = sum(loss.means.values(), norm.double())
        return norm if bool(torch.isfinite(total)) else None

    def count(self, is_good: bool, where: str, lr: float, advice: str) -> None:
        """Count a step that was taken, or had to be left out.

        Args:
            is_good: Whether it was taken.
            where: Which step, for the message.
            lr: The learning rate at it.
            advice: What to lower.

        Raises:
            Diverged: It is the tenth in a row that was left out.
        """
        self.bad = 0 if is_good else self.bad + 1
        if self.bad == PATIENCE:
            raise Diverged(
                f"neither loss nor gradient was a finite number in {PATIENCE} steps in a row, up to {where}, at a "
                f"learning rate of {lr:.3g}: stopped. The last good checkpoint is kept. Lower {advice}."
            )

    def _terms(self, loss: BatchLoss) -> Iterator[Tensor]:
        """Yield this process's terms of the loss, a micro-batch each, and add up the other means."""
        loss.means.clear()
        # Where weights are shared, processes compute together: each as often as the one that has the fewest rows can.
        parts = min(self.micro_batches, loss.total // self.runtime.world if self.runtime.shards else loss.rows)
        for part in range(parts):
            start, stop = part * loss.rows // parts, (part + 1) * loss.rows // parts
            value, means = loss.of(slice(start, stop))
            share = (stop - start) / loss.total
            for name, mean in means.items():
                term = mean.detach() * share
                loss.means[name] = loss.means[name] + term if name in loss.means else term
            yield value * share

    def _on_all(self, compute: Callable[[], None]) -> None:
        """Compute; where the memory of one process did not suffice, fail on all, so that none waits for it.

        Where weights are shared, its peers are in the middle of a layer that they wait for: torchrun ends them.
        """
        if self.runtime.shards:
            compute()
        elif self.runtime.any(not _fits(compute)):
            raise torch.OutOfMemoryError("on this process or a peer")


def _fits(compute: Callable[[], None]) -> bool:
    try:
        compute()
    except torch.OutOfMemoryError:  # gone when this returns, with all the tensors its traceback holds
        return False
    return True
