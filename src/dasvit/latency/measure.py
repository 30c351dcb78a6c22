"""How long an inference takes: repetitions on warm caches, their median and their spread, and where it was measured.

Of one thread on the CPU the processor's time is taken, which is the time that passes on a machine with nothing else to
do; what other programs take away does not count. Of several threads and of GPUs it is the time that passes.
"""

from __future__ import annotations

import functools
import logging
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from dasvit._version import __version__
from dasvit.cell.cost import Cost
from dasvit.config import LatencyConfig
from dasvit.config.units import time_text
from dasvit.errors import UserError
from dasvit.extras import need
from dasvit.models.export import make_program, open_onnx, write_onnx
from dasvit.runtime.distributed import find_device

SECONDS = 2.0
"""What the repetitions of a network take together, about."""
LEAST, MOST = 11, 101
"""Repetitions, whatever they take."""
FINE = 1e-6
"""The coarsest clock of a thread's processor time that is of use, in seconds."""
RUNS = 3
"""Inferences of a repetition: PyTorch's timer has two for warming up in front of the one that it times."""


@dataclass(frozen=True)
class Machine:
    """Where networks run: what a latency depends on beside the network.

    Attributes:
        processor: Name of the processor, or of the GPU.
        device: Kind of device: cpu, cuda or mps.
        threads: Threads on the CPU.
        runtime: torch or onnx.
        batch: Images of an inference.
        clock: What is taken: the time that passes (wall), or the processor's (thread).
        versions: Versions of the packages that have a part in it, by name.
    """

    processor: str
    device: str
    threads: int
    runtime: str
    batch: int
    clock: str
    versions: Mapping[str, str]

    def __str__(self) -> str:
        name = {"onnx": "onnxruntime"}.get(self.runtime, self.runtime)
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        images = f"batch of {self.batch}" if self.batch > 1 else "batch of one"
        return f"{self.processor} ({self.device}, {threads}, {name} {self.versions.get(name, '')}, {images})"


@dataclass(frozen=True)
class Latency:
    """What an inference of a batch took.

    Attributes:
        median: Median over the repetitions, in seconds.
        iqr: Their interquartile range, in seconds.
        repetitions: How many there were.
        machine: Where it was measured.
    """

    median: float
    iqr: float
    repetitions: int
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{time_text(self.median)} (IQR {time_text(self.iqr)} of {self.repetitions} repetitions)"


@dataclass(frozen=True)
class MeasuredCost(Cost):
    """What a network costs, its latency with it.

    Attributes:
        latency: What an inference took.
    """

    latency: Latency = field(kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name, as JSON holds them."""
        return {**super().to_dict(), "latency": self.latency.to_dict()}


def this_machine(how: LatencyConfig) -> Machine:
    """Return where networks run on this machine.

    Raises:
        UserError: The device is not there, or the runtime is not installed or not of that device.
    """
    device, versions = find_device(how.device), {"dasvit": __version__, "torch": torch.__version__}
    if how.runtime == "onnx":
        need("export", "onnx", "onnxscript", "onnxruntime")
        if device.type != "cpu":
            raise UserError(f"latency is measured by onnxruntime on the CPU alone: leave the device {how.device} out.")
        versions["onnxruntime"] = metadata.version("onnxruntime")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    threads = how.threads or torch.get_num_threads()
    is_fine = time.get_clock_info("thread_time").resolution <= FINE
    clock = "thread" if device.type == "cpu" and threads == 1 and is_fine else "wall"
    return Machine(name, device.type, threads, how.runtime, how.batch, clock, versions)


@functools.cache
def processor_name() -> str:
    """Return the name of this machine's processor, as its system gives it."""
    if platform.system() == "Darwin":
        said = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return said.stdout.strip() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def measure(network: nn.Module, side: int, how: LatencyConfig) -> Latency:
    """Measure the latency of a network.

    Args:
        network: Maps images [B, 3, S, S] to logits; its weights do not matter.
        side: Side S of the images.
        how: Runtime, batch, threads and device.

    Raises:
        UserError: The runtime or the device is not there, or the network cannot be exported.
    """
    machine = this_machine(how)
    return in_turns([inference(network, side, how)], machine)[0]


def inference(network: nn.Module, side: int, how: LatencyConfig) -> Callable[[], object]:
    """Return a function that runs a network once on a batch of noise."""
    device = find_device(how.device)
    images = torch.randn(how.batch, 3, side, side, device=device)
    if how.runtime == "onnx":
        with TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            write_onnx(make_program(network.eval(), side), path, {})
            session = open_onnx(path, how.threads or torch.get_num_threads())
        return lambda: session(images)
    network = network.eval().to(device)

    def run() -> None:
        with torch.inference_mode():
            network(images)
        if device.type != "cpu":
            torch.accelerator.synchronize()

    return run


def in_turns(runs: Sequence[Callable[[], object]], machine: Machine, seconds: float = SECONDS) -> list[Latency]:
    """Time functions in turns, so that what else the machine does meets all of them alike.

    Args:
        runs: What is timed.
        machine: Where; its threads are set.
        seconds: What each function's repetitions take together, about.
    """
    # What it imports warns of compilers for GPUs, which nobody asked for.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Measurement, Timer, timer

    clock = time.thread_time if machine.clock == "thread" else timer
    timers = [Timer("run()", timer=clock, globals={"run": run}, num_threads=machine.threads) for run in runs]
    for one in timers:
        one.timeit(1)  # what a first run alone does: kernels are chosen, memory is had
    once = sum(one.timeit(1).median for one in timers) / len(timers)
    rounds = min(MOST, max(LEAST, round(seconds / (RUNS * once))))
    taken = [[one.timeit(1) for one in timers] for _ in range(rounds)]
    merged = [Measurement.merge(column)[0] for column in zip(*taken, strict=True)]
    return [Latency(one.median, one.iqr, len(one.times), machine) for one in merged]
