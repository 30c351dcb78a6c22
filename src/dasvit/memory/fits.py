"""Whether a search fits into a device's memory, and the warning before it starts."""

from __future__ import annotations

import os

import torch

from dasvit.config import Config
from dasvit.memory.live_bytes import Kind
from dasvit.memory.search_step import FREE, Memory, Subject, count, subjects
from dasvit.runtime.distributed import find_device
from dasvit.runtime.progress import Reporter

GIB = 2**30


def warn_memory(config: Config, classes: int, reporter: Reporter) -> None:
    """Say so where a search needs more memory than its device has, and what batch fits."""
    device = find_device(config.runtime.device)
    kind: Kind = "cpu" if device.type == "cpu" else "cuda"
    bfloat16, batch, total = config.runtime.precision == "bfloat16", config.search.batch_size, total_memory(device)
    searched = [subject for subject in subjects(config) if is_searched(subject, config)]
    memories = [count(subject, config, classes, kind, bfloat16) for subject in searched]
    peak, stage = max((memory.peak(batch), subject.stage) for subject, memory in zip(searched, memories, strict=True))
    if peak <= total:
        return
    largest = min(fitting(memory, total) for memory in memories)
    way_out = f"--search.batch_size {largest} fits" if largest else "not even a batch of one fits"
    reporter.say(
        f"warning: stage {stage} takes up to {readable(peak)} at batch {batch}, but {device} has "
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
