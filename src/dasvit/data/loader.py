"""Batches in an order, and with an augmentation, that the seed and the epoch alone decide."""

from __future__ import annotations

import logging
import math
import multiprocessing
import multiprocessing.connection
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.context import BaseContext

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from dasvit.data.augment import Transform
from dasvit.data.image_set import ImageSet
from dasvit.data.shards import windowed_order
from dasvit.errors import UserError
from dasvit.io.main_guard import check_ended

Batch = tuple[torch.Tensor, torch.Tensor]
RESTARTS = 3
"""How often workers are started anew for one batch."""
log = logging.getLogger("dasvit")


@dataclass(frozen=True, kw_only=True)
class Batches(Dataset[Batch | str]):
    """Every batch of every epoch, each a pure function of (epoch, number); what workers receive.

    Attributes: see `Loader`.
    """

    images: ImageSet
    indices: NDArray[np.int64]
    batch_size: int
    transform: Transform | None
    seed: int
    shuffle: bool
    balance: bool
    rank: int
    world: int

    def __getitem__(self, key: tuple[int, int]) -> Batch | str:
        # An error's text, returned, arrives without the traceback that torch wraps around what is raised.
        try:
            return self.batch(*key)
        except UserError as error:
            return str(error)

    def batch(self, epoch: int, number: int) -> Batch:
        """Return this process's rows of a batch: uint8 [b, 3, H, W] and int64 [b]."""
        order = self.order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]
        rows = order[self.rank :: self.world]
        pixels = self.images.images[rows]
        if self.transform is None:
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        else:
            # Drawn for the whole batch, so that an image fares the same whichever process has it.
            generator = np.random.default_rng([self.seed, epoch, 1 + number])
            drawn = generator.integers(2**64, size=len(order), dtype=np.uint64)
            pixels = self.transform(pixels, drawn[self.rank :: self.world])
        return torch.from_numpy(pixels), torch.from_numpy(self.images.labels[rows])

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows of the set in the order of an epoch, int64 [N]."""
        if not self.shuffle:
            return self.indices
        known = self._last_order
        if epoch not in known:
            known.clear()
            chance, chunks = np.random.default_rng([self.seed, epoch, 0]), self.images.chunks
            if chunks is not None:
                known[epoch] = windowed_order(self.indices, chunks, self.images.window, chance)
            elif self.balance:  # as torch's WeightedRandomSampler, but by seed and epoch alone
                known[epoch] = chance.choice(self.indices, len(self.indices), p=self._shares)
            else:
                known[epoch] = chance.permutation(self.indices)
        return known[epoch]

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        """The probability of every row of `indices`, float64 [N]: all classes that have images are as likely."""
        _, places, counts = np.unique(self.images.labels[self.indices], return_inverse=True, return_counts=True)
        shares: NDArray[np.float64] = 1 / (len(counts) * counts[places])
        return shares

    @cached_property
    def _last_order(self) -> dict[int, NDArray[np.int64]]:
        return {}


def check_batch(size: int, images: int, field: str = "batch_size", which: str = "images") -> None:
    """Refuse a batch that can never be filled.

    Args:
        size: Images of a batch.
        images: Images that there are.
        field: The recipe's field that gives the size.
        which: What the images are.

    Raises:
        UserError: There are fewer.
    """
    if size > images:
        raise UserError(f"{field} is {size:,}, but there are {images:,} {which}: lower {field}, or add images.")


class WorkerDied(Exception):
    """A process that makes batches is gone: killed, as for want of memory, or crashed."""


class Keys:
    """The batches that are due, as the sampler of torch's DataLoader; read at the start of each epoch."""

    def __init__(self) -> None:
        self.due: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.due)

    def __len__(self) -> int:
        return len(self.due)


class Loader:
    """Yields an epoch's batches: images uint8 [B, 3, H, W] and labels int64 [B].

    Order is a function of seed and epoch, augmentation of seed, epoch and batch: neither depends on the
    number of workers or processes, and the global random generators stay as they are.

    Args:
        image_set: The images.
        indices: Which of them to use, int64 [n]. None: all.
        batch_size: Images of a batch, over all processes.
        transform: Augmentation (`train_transform`). None: images as they are.
        seed: Fixes order and augmentation.
        shuffle: Whether every epoch has an order of its own.
        balance: Whether that order is drawn with replacement, all classes as likely.
        drop_last: Whether a last, smaller batch is left out.
        workers: Processes that make batches. 0: this one.
        rank: Number of this process, of those that share every batch.
        world: Number of these processes; this one gets the rows rank::world of every batch.

    Raises:
        UserError: No batch could be filled.
    """

    def __init__(
        self,
        image_set: ImageSet,
        indices: NDArray[np.int64] | None,
        *,
        batch_size: int,
        transform: Transform | None,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        balance: bool = False,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        indices = np.arange(len(image_set)) if indices is None else indices
        if balance and image_set.chunks is not None:
            raise UserError(
                "train.balance sampler draws images from anywhere, and data.stream reads shards from front to back: "
                "--train.balance weights goes with it."
            )
        if drop_last:
            check_batch(batch_size, len(indices))
        self.batches = Batches(
            images=image_set,
            indices=np.asarray(indices, dtype=np.int64),
            batch_size=batch_size,
            transform=transform,
            seed=seed,
            shuffle=shuffle,
            balance=balance,
            rank=rank,
            world=world,
        )
        self.length = len(indices) // batch_size if drop_last else math.ceil(len(indices) / batch_size)
        self.workers = workers
        self.epoch = 0
        self._first = 0
        self._keys = Keys()

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self.epoch = epoch

    def skip(self, batches: int) -> None:
        """Let the next iteration, and only that, start behind so many batches."""
        self._first = batches

    def __iter__(self) -> Iterator[Batch]:
        first, self._first = self._first, 0
        due = [(self.epoch, number) for number in range(first, self.length)]
        if self.workers == 0:
            return (self.batches.batch(*key) for key in due)
        return self._from_workers(due)

    def _from_workers(self, due: list[tuple[int, int]]) -> Iterator[Batch]:
        """Yield batches from workers; where one dies, all are started anew and go on with the batch that was due."""
        failures = done = 0
        while done < len(due):
            try:
                for batch in self._pooled(due[done:]):
                    if isinstance(batch, str):
                        raise UserError(batch)
                    failures, done = 0, done + 1
                    yield batch
            except WorkerDied as error:
                failures += 1
                if failures > RESTARTS:
                    raise UserError(
                        f"the processes that load images die at the same batch again and again ({error}): if memory is "
                        "short, lower runtime.workers (0 loads images in the main process) or the batch size."
                    ) from None
                log.warning("a process that loads images died (%s): all are started anew", error)

    def _pooled(self, due: list[tuple[int, int]]) -> Iterator[Batch | str]:
        """Yield what the workers return for some keys; raises WorkerDied, with no workers left, where one is gone."""
        self._keys.due = due
        try:
            batches = iter(self._pool)
            workers = vars(batches)["_workers"]
        except (RuntimeError, OSError, EOFError) as error:
            self._drop_workers()
            raise WorkerDied(" ".join(str(error).split())) from None
        while True:
            try:
                batch = next(batches, None)
            except (RuntimeError, OSError, EOFError) as error:
                # A process that was killed is seen to be gone a moment after its connection is.
                if not multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout=1.0):
                    raise  # something else is wrong, in our own code
                check_ended(workers)
                self._drop_workers()
                raise WorkerDied(" ".join(str(error).split())) from None
            if batch is None:
                return
            yield batch

    def _drop_workers(self) -> None:
        """Stop the workers that are left; the next iteration starts new ones."""
        self.__dict__.pop("_pool", None)

    @cached_property
    def _pool(self) -> DataLoader[Batch | str]:
        return DataLoader(
            self.batches,
            batch_size=None,
            sampler=self._keys,
            num_workers=self.workers,
            persistent_workers=True,
            multiprocessing_context=_context(),
            # Otherwise torch draws the workers' seed from the global generator.
            generator=torch.Generator().manual_seed(self.batches.seed),
        )


def _context() -> BaseContext:
    """Return how workers start: never as a fork of this process, which has threads and perhaps a device."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Imported once, for all workers: timm takes as long as all the rest.
    context.set_forkserver_preload(["dasvit.data.loader", "timm.data.auto_augment"])
    return context
