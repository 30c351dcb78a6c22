"""Whether a search fits into a device's memory, and the warning before it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dasvit.cell.cost import token_count
from dasvit.config import Config
from dasvit.memory.live_bytes import Kind
from dasvit.memory.search_step import FREE, Memory, Subject, count, measure, subjects
from dasvit.runtime.distributed import find_device
from dasvit.runtime.progress import Reporter

GIB = 2**30


@dataclass(frozen=True)
class SearchMemory:
    """The memory of a search's networks in each of its stages.

    Attributes:
        config: The recipe.
        classes: Classes of the head.
        kind: The device that is counted for.
        networks: Each network with its memory.
    """

    config: Config
    classes: int
    kind: Kind
    networks: Sequence[tuple[Subject, Memory]]

    @property
    def peak(self) -> tuple[int, int]:
        """Most bytes that the search takes at the recipe's batch, and in which stage."""
        batch = self.config.search.batch_size
        return max((memory.peak(batch), one.stage) for one, memory in self.networks if is_searched(one, self.config))

    def largest(self, limit: int) -> int:
        """Return the largest batch with which the whole search fits into so many bytes."""
        return min(fitting(memory, limit) for one, memory in self.networks if is_searched(one, self.config))

    def to_dict(self, batches: Sequence[int], limits: Mapping[str, int]) -> dict[str, Any]:
        """Return it as JSON holds it.

        Args:
            batches: The batch sizes whose peaks are wanted, besides the recipe's.
            limits: Memory of devices in bytes, by name.
        """
        batch = self.config.search.batch_size
        return {
            "device": self.kind,
            "precision": "bfloat16" if self.config.runtime.precision == "bfloat16" else "float32",
            "width": self.config.search.width or self.config.model.width,
            "tokens": token_count(self.config.model),
            "ratio": self.config.search.tokens.ratio,
            "batch_size": batch,
            "peak_bytes": self.peak[0],
            "largest_batch": {name: self.largest(limit) for name, limit in limits.items()},
            "networks": [
                {
                    "network": subject.name,
                    "stage": subject.stage,
                    "layers": subject.layers,
                    "operations": subject.operations,
                    "peak_bytes": {str(size): memory.peak(size) for size in sorted({*batches, batch})},
                    "largest_batch": {name: fitting(memory, limit) for name, limit in limits.items()},
                }
                for subject, memory in self.networks
            ],
        }

    def measured(self) -> dict[int, int]:
        """Return what networks really allocate at the recipe's batch, by place, where there is a GPU that holds it."""
        if self.kind == "cpu" or not torch.cuda.is_available():
            return {}
        device, bfloat16 = find_device(self.config.runtime.device), self.config.runtime.precision == "bfloat16"
        batch, (free, _) = self.config.search.batch_size, torch.cuda.mem_get_info(device)
        return {
            place: measure(subject, self.config, self.classes, batch, device, bfloat16)
            for place, (subject, memory) in enumerate(self.networks)
            if memory.peak(batch) < (1 - FREE) * free
        }


def count_search(config: Config, classes: int, kind: Kind, searched_alone: bool = False) -> SearchMemory:
    """Count the memory of a recipe's search.

    Args:
        config: The recipe.
        classes: Classes of the head.
        kind: The device that is counted for.
        searched_alone: Leave out what the recipe itself does not search with.
    """
    chosen = [one for one in subjects(config) if is_searched(one, config) or not searched_alone]
    bfloat16 = config.runtime.precision == "bfloat16"
    return SearchMemory(config, classes, kind, [(one, count(one, config, classes, kind, bfloat16)) for one in chosen])


def warn_memory(config: Config, classes: int, reporter: Reporter) -> None:
    """Say so where a search needs more memory than its device has, and what batch fits."""
    device = find_device(config.runtime.device)
    counted = count_search(config, classes, "cpu" if device.type == "cpu" else "cuda", searched_alone=True)
    total, (peak, stage) = total_memory(device), counted.peak
    if peak <= total:
        return
    largest = counted.largest(total)
    way_out = f"--search.batch_size {largest} fits" if largest else "not even a batch of one fits"
    reporter.say(
        f"warning: stage {stage} takes up to {readable(peak)} at batch {config.search.batch_size}, but {device} has "
        f"{readable(total)}: {way_out} (see `dasvit memory`)."
    )


def total_memory(device: torch.device) -> int:
    """Return the bytes of memory that a device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_searched(subject: Subject, config: Config) -> bool:
    """Tell whether this is the network that the recipe itself searches with."""
    return not subject.plain and subject.ratio == config.search.tokens.ratio


def fitting(memory: Memory, limit: int) -> int:
    """Return the largest batch that leaves some of so many bytes free."""
    return memory.largest(round((1 - FREE) * limit))


def readable(size: int) -> str:
    """Return bytes with their unit, as 8.3 GiB."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
