"""Sums over an epoch that become its line in `metrics.jsonl`."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from dasvit.errors import Diverged
from dasvit.report.words import duration
from dasvit.runtime.distributed import Runtime


class EpochMetrics:
    """Adds up the losses and hits of an epoch on the device, and times it.

    Args:
        device: Where the sums are kept, so that no step waits for the device.

    Attributes:
        images: Training images so far, of all processes.
        skipped: Steps so far that were left out, because loss or gradient was not a finite number.
    """

    def __init__(self, device: torch.device) -> None:
        self.images = self.skipped = 0
        self._start = time.perf_counter()
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._device = device

    def add(self, name: str, mean: Tensor, count: int) -> None:
        """Add a mean over so many images, of all processes."""
        total = self._sums.setdefault(name, torch.zeros((), dtype=torch.float64, device=self._device))
        total += mean.detach().double() * count
        self._counts[name] = self._counts.get(name, 0) + count

    def means(self) -> dict[str, float]:
        """Return the mean of everything added."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}

    @property
    def seconds(self) -> float:
        """Seconds since the epoch's start, without those between an interruption and going on."""
        return time.perf_counter() - self._start

    def row(self, runtime: Runtime, **more: Any) -> dict[str, Any]:
        """Return the epoch's line: what is given, the means, seconds, images/s and peak memory in MiB."""
        seconds = self.seconds
        return {
            **more,
            **{name: round(value, 6) for name, value in self.means().items()},
            "skipped_steps": self.skipped,
            "seconds": round(seconds, 3),
            "images_per_second": round(self.images / seconds, 1),
            "peak_memory_mib": round(runtime.peak_memory(), 1),
        }

    def live(self, step: int, left: int, later: float = 0.0) -> str:
        """Return the epoch so far in a line for the terminal.

        Args:
            step: Steps of the epoch that are done.
            left: Steps of the whole run that are not; they are taken to last as long as this epoch's.
            later: Seconds of what comes after them.
        """
        forms = {"train_loss": "training loss {:.3f}", "val_loss": "val loss {:.3f}", "val_top1": "val top-1 {:.1f} %"}
        forms |= {"val_exact_match": "val all labels right {:.1f} %"}
        means, seconds = self.means(), self.seconds
        shown = ", ".join(form.format(means[name]) for name, form in forms.items() if name in means)
        return f"{shown}; {self.images / seconds:.0f} images/s; about {duration(left * seconds / step + later)} left"

    def state_dict(self) -> dict[str, Any]:
        """Return everything added so far, and the seconds it took."""
        return {
            "images": self.images,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "sums": {name: total.clone() for name, total in self._sums.items()},
            "counts": dict(self._counts),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.images, self.skipped = state["images"], state["skipped"]
        self._start = time.perf_counter() - state["seconds"]
        self._sums = {name: total.to(self._device) for name, total in state["sums"].items()}
        self._counts = dict(state["counts"])


def check_steps(metrics: EpochMetrics, where: str, advice: str) -> None:
    """Stop with a sentence when not one step of an epoch could be taken.

    Args:
        metrics: The epoch's.
        where: The epoch.
        advice: What to lower.
    """
    if not metrics.images:
        raise Diverged(
            f"neither loss nor gradient was a finite number in any step of {where}: stopped. The last good checkpoint "
            f"is kept. Lower {advice}."
        )
