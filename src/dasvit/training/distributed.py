"""Devices, precision and processes: the one file where accelerate and torch.distributed stand."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dasvit.config import RuntimeConfig
from dasvit.errors import UserError

Precision = Literal["float32", "bfloat16"]
M = TypeVar("M", bound=nn.Module)


def find_device(name: str) -> torch.device:
    """Return the device of that name; auto takes a GPU where there is one.

    Raises:
        UserError: There is no such device on this machine.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: give auto, cpu, cuda, cuda:N or mps (runtime.device).") from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}.get(device.type, 0)
    if (device.index or 0) >= count:
        raise UserError(f"the device {name} is not there: set runtime.device to auto or cpu.")
    return device


def seed_everything(seed: int) -> None:
    """Seed every global random number generator: python's, numpy's and torch's on all devices."""
    from accelerate.utils import set_seed

    set_seed(seed)


def reseed(seed: int, *place: int) -> None:
    """Seed every global generator anew for a place in a run.

    What is drawn there is then a function of seed and place alone: going on from there needs no generator's state.

    Args:
        seed: The run's.
        place: Numbers that name the place, as the step's.
    """
    torch_seed, numpy_seed, python_seed = np.random.SeedSequence([seed, *place]).generate_state(3).tolist()
    torch.manual_seed(torch_seed)
    np.random.seed(numpy_seed)
    random.seed(python_seed)


def measure_precision(device: torch.device, step: Callable[[], object]) -> tuple[Precision, dict[str, float]]:
    """Time a step in both precisions, alternating, and choose the faster one.

    Args:
        device: Where the step runs.
        step: One step of the work to come; it is called a few times under autocast on and off.

    Returns:
        The faster precision, and the median seconds of a step in each.
    """
    times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        for _ in range(4):
            for name, seconds in times.items():
                start = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=name == "bfloat16"):
                    step()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds.append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds[1:]) for name, seconds in times.items()}  # the first one warms up
    return ("bfloat16" if medians["bfloat16"] < medians["float32"] else "float32"), medians


class Runtime:
    """Where the arithmetic is done: a device, a precision, and this process among its peers.

    Args:
        config: Device and seed; the precision must be settled.
        precision: The settled precision.
    """

    def __init__(self, config: RuntimeConfig, precision: Precision) -> None:
        from accelerate import Accelerator

        device = find_device(config.device)
        if device.index is not None:
            os.environ.setdefault("ACCELERATE_TORCH_DEVICE", str(device))
        self.precision: Precision = precision
        # Its state is one a process, yet a search and a training may differ in precision: autocast is ours.
        self._accelerator: Any = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.is_main: bool = self._accelerator.is_main_process

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context that runs matrix products in the chosen precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def prepare(self, module: M) -> M:
        """Return the module as its weights are trained: gradients averaged where there are several processes."""
        prepared: M = self._accelerator.prepare_model(module) if self.world > 1 else module
        return prepared

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes."""
        reduced: Tensor = self._accelerator.reduce(tensor, "mean") if self.world > 1 else tensor
        return reduced

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        reduced: Tensor = self._accelerator.reduce(tensor, "sum") if self.world > 1 else tensor
        return reduced

    def peak_memory(self) -> float:
        """Return the largest memory so far, in MiB: of the GPU, or of this process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
