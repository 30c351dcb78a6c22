"""A process that has imported everything, and forks a child for every command: seconds less for each than a new one.

Run by `helpers.ForkServer`. Reads a JSON object a line: `argv` (of dasvit), `output` (file of the child's output), and
the moment at which the child is killed, `place`, `call` and `half`, or `seconds`. Writes the child's status a line.

The child saves after every step, so that it is also killed while it saves.
"""

import functools
import importlib
import io
import json
import math
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any
from unittest import mock

import accelerate.utils  # noqa: F401
import docstring_parser  # noqa: F401
import jsonargparse  # noqa: F401
import safetensors.torch  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch._dynamo
import torch.distributed.fsdp
import torch.distributed.tensor

# What a child would import: all of it, but nothing that starts a thread.
from dasvit import cli
from dasvit.commands import cost, derive, evaluate, quickstart, search, train  # noqa: F401
from dasvit.runtime import saver
from dasvit.runtime.distributed import Runtime
from dasvit.training.steps import Steps


def find(place: str) -> tuple[Any, str]:
    """Return the owner of a dotted name, and the name in it."""
    parts = place.split(".")
    owner: Any = None
    for length in range(1, len(parts)):
        try:
            owner = importlib.import_module(".".join(parts[:length]))
            depth = length
        except ImportError:
            break
    for name in parts[depth:-1]:
        owner = getattr(owner, name)
    return owner, parts[-1]


def die_at(place: str, call: int, half: bool, number: int) -> None:
    """Send this process a signal at a call of a function: before it, or with half of its last argument written."""
    owner, name = find(place)
    original, calls = getattr(owner, name), 0

    def lethal(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            if half:
                with open(arguments[0], "ab") as file:
                    file.write(arguments[-1].encode()[: len(arguments[-1]) // 2])
            os.kill(os.getpid(), number)
        return original(*arguments, **named)

    setattr(owner, name, lethal)


def spoil_at(place: str, call: int, act: Callable[[Any], Any]) -> None:
    """Pass what a function returns at one call through another function."""
    owner, name = find(place)
    original, calls = getattr(owner, name), 0

    def spoiled(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(*arguments, **named)
        return act(result) if calls == call else result

    setattr(owner, name, spoiled)


def fail(number: int, result: Any) -> Any:
    raise OSError(number, os.strerror(number))


def exhausted(terms: Any) -> Any:
    raise torch.OutOfMemoryError("raised by the test")


def lonely_alphas() -> None:
    """Take the sum over the processes out of what autograd returns."""
    original = Steps.differentiate

    def differentiate(self: Steps, *arguments: Any) -> Any:
        with mock.patch.object(Runtime, "all_reduce"):
            return original(self, *arguments)

    mock.patch.object(Steps, "differentiate", differentiate).start()


def child(order: dict[str, Any]) -> None:
    descriptor = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    saver.SHARE = math.inf if order["always_save"] else saver.SHARE
    if "file_size" in order:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"], order["file_size"]))
    if order.get("ascii"):
        for name, fd, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):  # as python opens them
            setattr(sys, name, io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), encoding="ascii", errors=errors))
    if order.get("clock_runs_back"):
        started = time.time()
        mock.patch("time.time", lambda: 2 * started - monotonic() - 10**6).start()
    if order.get("raise"):
        spoil_at(order["place"], order["call"], functools.partial(fail, order["raise"]))
    elif order.get("spoil"):
        spoil_at(order["place"], order["call"], lambda terms: (term * math.nan for term in terms))
    elif order.get("exhaust"):
        spoil_at(order["place"], order["call"], exhausted)
    elif order.get("place"):
        number = order.get("signal", signal.SIGKILL)
        die_at(order["place"], order["call"], order.get("half", False), number)
    if order.get("float64"):
        torch.set_default_dtype(torch.float64)
    if order.get("lonely_alphas"):
        lonely_alphas()
    cli.main(order["argv"])


def fork(order: dict[str, Any]) -> int:
    """Start a child, and return its number."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child(order)
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return pid


def peers(order: dict[str, Any]) -> Iterator[int]:
    """Start a child, or as many as share the work as torchrun would start, and yield their numbers."""
    world = order.get("processes", 1)
    if world == 1:
        yield fork(order)
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    for rank in range(world):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
        with mock.patch.dict(os.environ, {name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1"):
            yield fork(order)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        children = list(peers(order))
        if order.get("seconds"):
            time.sleep(order["seconds"])
            for pid in children:  # none is reaped yet, so the numbers are their own
                os.kill(pid, order.get("signal", signal.SIGKILL))
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(next((code for code in codes if code), 0), flush=True)


if __name__ == "__main__":
    main()
