"""Sums over an epoch that become its line in `metrics.jsonl`."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from dasvit.errors import UserError
from dasvit.training.distributed import Runtime


class EpochMetrics:
    """Adds up the losses and hits of an epoch on the device, and times it.

    Args:
        device: Where the sums are kept, so that no step waits for the device.

    Attributes:
        images: Training images so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.images = 0
        self._start = time.perf_counter()
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._device = device

    def add(self, name: str, mean: Tensor, count: int) -> None:
        """Add a mean over so many images."""
        total = self._sums.setdefault(name, torch.zeros((), dtype=torch.float64, device=self._device))
        total += mean.detach().double() * count
        self._counts[name] = self._counts.get(name, 0) + count

    def means(self, runtime: Runtime) -> dict[str, float]:
        """Return the mean of everything added, over all processes."""
        return {name: float(runtime.mean(total)) / self._counts[name] for name, total in self._sums.items()}

    @property
    def seconds(self) -> float:
        """Seconds since the epoch's start, without those between an interruption and going on."""
        return time.perf_counter() - self._start

    def row(self, runtime: Runtime, **more: Any) -> dict[str, Any]:
        """Return the epoch's line: what is given, the means, seconds, images/s and peak memory in MiB."""
        seconds = self.seconds
        return {
            **more,
            **{name: round(value, 6) for name, value in self.means(runtime).items()},
            "seconds": round(seconds, 3),
            "images_per_second": round(self.images / seconds, 1),
            "peak_memory_mib": round(runtime.peak_memory(), 1),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything added so far, and the seconds it took."""
        return {
            "images": self.images,
            "seconds": self.seconds,
            "sums": {name: total.clone() for name, total in self._sums.items()},
            "counts": dict(self._counts),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.images = state["images"]
        self._start = time.perf_counter() - state["seconds"]
        self._sums = {name: total.to(self._device) for name, total in state["sums"].items()}
        self._counts = dict(state["counts"])


def check_finite(row: dict[str, Any], loss: str, advice: str) -> None:
    """Stop with a sentence when an epoch's loss is not a number any more.

    Args:
        row: The epoch's line.
        loss: The name of the loss.
        advice: The field to lower.
    """
    value = row[loss]
    if value != value or value in (float("inf"), float("-inf")):
        raise UserError(f"the {loss.replace('_', ' ')} became {value} in epoch {row['epoch']}: lower {advice}.")
