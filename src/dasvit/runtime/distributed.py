"""Devices, precision and processes: the one file where accelerate and torch.distributed stand."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from dasvit.config import RuntimeConfig
from dasvit.errors import UserError

Precision = Literal["float32", "bfloat16"]
TRACKERS = ("tensorboard", "wandb", "trackio")
"""The trackers that can be sent a run's numbers."""
T = TypeVar("T")
PATIENCE = timedelta(hours=1)
"""How long a process waits for its peers: one that decodes a large data set may take its time."""


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


def generator(seed: int, *place: int) -> torch.Generator:
    """Return a generator of its own for a place in a run, the same on every process."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, *place]).generate_state(1)[0]))


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


def bfloat16_slowdown(device: torch.device, side: int = 256) -> float:
    """Return how many times as long a matrix product takes in bfloat16 as in float32: above 1 without units for it."""
    factors = torch.randn(2, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        one, other = factors.to(dtype)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            (one @ other).sum().item()  # waits for the device
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] / seconds[torch.float32]


def meet_peers(backend: str) -> None:
    """Join the processes that torchrun has started with this one, where it has.

    accelerate would do so, too. But torchrun keeps its store when it starts killed workers again, with the addresses
    that their predecessors left there: gloo then calls the dead. So every start gets its own part of the store.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
        store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)


def layers_of(module: nn.Module) -> list[nn.Module]:
    """Return a network's layers: the members of its outermost lists of several modules of one kind."""
    if isinstance(module, (nn.Sequential, nn.ModuleList)) and len(module) > 1:
        kinds = set(map(type, module))
        if len(kinds) == 1 and not kinds & {nn.ModuleList, nn.ModuleDict}:
            return list(module)
    return [layer for child in module.children() for layer in layers_of(child)]


class Runtime:
    """Where the arithmetic is done: a device, a precision, and this process among its peers.

    Args:
        config: Device and seed.
        precision: The settled precision; it may be settled later.

    Attributes:
        device: This process's device.
        precision: Of matrix products.
        rank: Number of this process.
        world: Number of processes.
        is_main: Whether this is the process that writes files.
        shards: Whether each process keeps a share of every weight alone.
        measured: The precision that was measured to be the faster one, and the seconds of a step in each.
    """

    def __init__(self, config: RuntimeConfig, precision: Precision = "float32") -> None:
        from accelerate import Accelerator

        device = find_device(config.device)
        meet_peers("gloo" if device.type == "cpu" else "nccl")
        if device.index is not None:
            os.environ.setdefault("ACCELERATE_TORCH_DEVICE", str(device))
        self.precision: Precision = precision
        self.measured: tuple[Precision, dict[str, float]] | None = None
        # Its state is one a process, yet a search and a training may differ in precision: autocast is ours.
        self._accelerator: Any = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.is_main: bool = self._accelerator.is_main_process
        self.shards: bool = config.shard and self.world > 1

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context that runs matrix products in the chosen precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def share_of(self, total: int, name: str) -> None:
        """Raise a UserError where a batch of so many rows, by the field of that name, leaves a process without any."""
        if total < self.world:
            raise UserError(
                f"{name} is {total}, for all of the {self.world} processes together: raise it to that at least."
            )

    def broadcast(self, module: nn.Module) -> None:
        """Give a module the parameters and buffers that it has on the main process."""
        if self.world > 1:
            with torch.no_grad():
                for tensor in itertools.chain(module.parameters(), module.buffers()):
                    there = tensor.to(self.device)
                    distributed.broadcast(there, 0)
                    tensor.copy_(there)

    def place(self, module: nn.Module) -> None:
        """Move a module to the device: all of it, or this process's share of every parameter (FSDP2).

        The layers of a network come together one at a time, for as long as they are computed; what lies outside of them
        stays together from the forward to the backward pass. Gradients are added up over the processes on their way.
        """
        if not self.shards:
            module.to(self.device)
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        for part in [*layers_of(module), module]:
            fully_shard(part, mesh=mesh)
            assert isinstance(part, FSDPModule)
            part.set_gradient_divide_factor(1.0)  # a process's loss is its share of the batch's
            part.set_force_sum_reduction_for_comms(True)  # not all backends can scale while they add up

    def kept(self, module: nn.Module) -> int:
        """Return the number of weights of a module that this process keeps."""
        weights: list[Any] = list(module.parameters())
        return sum((weight.to_local() if self.shards else weight).numel() for weight in weights)

    def full_state(self, state: Any) -> Any:
        """Return a state with whole tensors in place of shares: on the main process; elsewhere it is not to be used."""
        if not self.shards:
            return state
        from accelerate.utils import recursively_apply
        from torch.distributed.tensor import DTensor

        def gather(tensor: Tensor) -> Tensor:
            if isinstance(tensor, DTensor):
                tensor = tensor.full_tensor()
            return tensor.cpu() if self.is_main else tensor.new_empty(0)

        return recursively_apply(gather, state)

    def load(self, part: Any, state: dict[str, Any]) -> None:
        """Have a module, an optimiser, or anything else with a `load_state_dict` take over a state of whole tensors."""
        if self.shards and isinstance(part, nn.Module):
            state = self._shares_of(state, part.state_dict())
        elif self.shards and isinstance(part, torch.optim.Optimizer):
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            moments = {
                i: self._shares_of(entry, {name: parameters[i] for name, value in entry.items() if value.ndim})
                for i, entry in state["state"].items()
            }
            state = {**state, "state": moments}
        part.load_state_dict(state)

    def _shares_of(self, state: dict[str, Any], like: dict[str, Tensor]) -> dict[str, Any]:
        """Return a state with this process's shares of those tensors that others of the same names are shares of."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        shares = dict(state)
        for name, other in like.items():
            if name in state and isinstance(other, DTensor):
                whole = state[name].to(other.device)
                shares[name] = distribute_tensor(whole, other.device_mesh, other.placements, src_data_rank=None)
        return shares

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the Euclidean norm of gradients, a scalar tensor; of whole ones, where these are shares."""
        norm: Any = nn.utils.get_total_norm(tensors)
        whole: Tensor = norm.full_tensor() if self.shards else norm
        return whole

    def average_statistics(self, module: nn.Module) -> None:
        """Give the running statistics of batch normalisation their means over the processes."""
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        statistics = [b for norm in norms for b in norm.buffers() if b.is_floating_point()]
        self.all_reduce(statistics)
        for buffer in statistics:
            buffer /= self.world

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over the processes, all in one message."""
        if self.world > 1 and tensors:
            flat = torch.cat([t.detach().reshape(-1) for t in tensors])  # in the widest of their types
            distributed.all_reduce(flat)
            with torch.no_grad():
                for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                    tensor.copy_(total.view_as(tensor))

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        reduced: Tensor = self._accelerator.reduce(tensor, "sum") if self.world > 1 else tensor
        return reduced

    def any(self, here: bool) -> bool:
        """Tell whether something is so on any process."""
        return bool(self.largest(int(here))[0])

    def largest(self, *numbers: int) -> list[int]:
        """Return the largest of each number over the processes."""
        if self.world == 1:
            return list(numbers)
        flags = torch.tensor(numbers, device=self.device)
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return [int(flag) for flag in flags.tolist()]

    def from_all(self, made: T) -> list[T]:
        """Return what every process has made, by rank; each returns the same."""
        found: list[Any] = [made]
        if self.world > 1:
            found = [None] * self.world
            distributed.all_gather_object(found, made)
        return found

    def from_main(self, make: Callable[[], T]) -> T:
        """Return what a function gives on the main process; others do not call it."""
        made: list[Any] = [make() if self.is_main else None]
        if self.world > 1:
            distributed.broadcast_object_list(made, 0)
        value: T = made[0]
        return value

    def state_from_main(self, load: Callable[[], T]) -> T:
        """Return a state that the main process alone reads, its tensors on the CPU.

        Tensors travel one by one: a large network's state need not fit on a device.
        """
        from accelerate.utils import recursively_apply

        state = load() if self.is_main else None
        if self.world == 1:
            return cast(T, state)
        found: list[Any] = [recursively_apply(lambda tensor: torch.empty_like(tensor, device="meta"), state)]
        distributed.broadcast_object_list(found, 0)
        tensors: list[Tensor] = []
        recursively_apply(tensors.append, state)

        def receive(tensor: Tensor) -> Tensor:
            there = torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)
            if self.is_main:
                there.copy_(tensors.pop(0))
            distributed.broadcast(there, 0)
            return there.cpu()

        return cast(T, recursively_apply(receive, found[0]))

    def first_of_machine(self) -> AbstractContextManager[None]:
        """Return the context that one process of each machine goes through before the others may."""
        context: AbstractContextManager[None] = self._accelerator.local_main_process_first()
        return context

    def peak_memory(self) -> float:
        """Return the largest memory so far, in MiB: of the GPU, or of this process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def open_tracker(name: str, folder: Path, identity: str, sent: int, config: Mapping[str, str]) -> Any:
    """Open a tracker through accelerate, to send a run's epochs to; call it on the main process.

    Nothing leaves the machine unless the environment says so (`WANDB_MODE`; trackio keeps its data in a local file).

    Args:
        name: One of `TRACKERS`.
        folder: The run's folder; TensorBoard's and Weights & Biases' files go into it.
        identity: What the tracker knows the run by when it goes on.
        sent: Epochs that the tracker has already.
        config: The run's configuration; told with the first epoch.

    Returns:
        accelerate's tracker, with `log(values, step=...)`; `close_tracker` ends it.
    """
    from accelerate import tracking

    tracker: Any
    label = folder.resolve().name
    if name == "tensorboard":
        tracker = tracking.TensorBoardTracker(name, folder, purge_step=sent + 1 if sent else None)
    elif name == "wandb":
        os.environ.setdefault("WANDB_MODE", "offline")
        tracker = tracking.WandBTracker("dasvit", name=label, id=identity, dir=str(folder), resume="allow")
    else:
        tracker = tracking.TrackioTracker("dasvit", name=f"{label}-{identity}", resume="allow")
    tracker.start()
    if not sent and name == "tensorboard":  # its own way to keep a configuration makes a run of each start
        tracker.log({"config": "".join(f"    {key}: {value}\n" for key, value in config.items())}, step=0)
    elif not sent:
        tracker.store_init_configuration(dict(config))
    return tracker


def close_tracker(name: str, tracker: Any) -> None:
    """End what `open_tracker` gave, everything sent."""
    if name != "trackio":
        tracker.finish()
        return
    import trackio

    trackio.finish()  # accelerate's way leaves the run to be ended once more at exit, and told of on standard output
