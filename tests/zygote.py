"""A process that has imported everything, and forks a child for every command: seconds less for each than a new one.

Run by `helpers.Zygote`. Reads a JSON object a line: `argv` (of dasvit), `output` (file of the child's output), and the
moment at which the child is killed, `place`, `call` and `half`, or `seconds`. Writes the child's status a line.

The child saves after every step, so that it is also killed while it saves.
"""

import importlib
import json
import math
import os
import signal
import sys
import time
import traceback
from typing import Any

import accelerate.utils  # noqa: F401
import docstring_parser  # noqa: F401
import jsonargparse  # noqa: F401
import safetensors.torch  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch._dynamo  # noqa: F401

# What a child would import: all of it, but nothing that starts a thread.
from dasvit import cli
from dasvit.commands import cost, judge, quickstart, search, train  # noqa: F401
from dasvit.training import saver


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


def child(order: dict[str, Any]) -> None:
    descriptor = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    saver.SHARE = math.inf if order["always_save"] else saver.SHARE
    if order.get("place"):
        number = order.get("signal", signal.SIGKILL)
        die_at(order["place"], order["call"], order.get("half", False), number)
    cli.main(order["argv"])


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
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
        if order.get("seconds"):
            time.sleep(order["seconds"])
            os.kill(pid, order.get("signal", signal.SIGKILL))  # not reaped yet, so the number is its own
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, flush=True)


main()
