"""What several test files need."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dasvit.cli import main
from dasvit.runtime.progress import Reporter
from dasvit.session import Session

SMALL = (
    "--config=digits",
    "--data.limit=60",
    "--data.eval_limit=20",
    "--model.width=8",
    "--model.layers=1",
    "--model.heads=2",
    "--space.heads=[2]",
    "--space.ratios=[1]",
    "--space.shifts=[]",
    "--search.finals.cells=0",
    "--search.batch_size=10",
    "--search.tokens.dim=4",
    "--train.batch_size=20",
    "--train.epochs=1",
    '--search.stages={"layers":[1],"keep":[0],"epochs":[2],"weight_epochs":[1]}',
    "--runtime.device=cpu",
    "--runtime.precision=float32",
)
"""Options of a search and a training that take less than a second."""


def call_cli(*arguments: object) -> tuple[int, str, str]:
    """Run a command in this process; return its exit status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code, out.getvalue(), err.getvalue()


def record(record_property: Callable[[str, object], None], fault: str, provoked: int) -> None:
    """Count for the table of `make test-faults`: a test that comes this far has survived all it provoked."""
    record_property("faults", {fault: [provoked, provoked]})


def tree(folder: Path) -> dict[str, str]:
    """Return what lies below a folder: path → digest of the content, or that it is a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return base with the entries of over in place of its own, nested dictionaries merged."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


TINY: dict[str, Any] = {
    "data": {"name": "digits", "limit": 200},
    "model": {"image_size": 8, "patch_size": 2, "width": 16, "layers": 2, "heads": 2},
    "runtime": {"precision": "float32", "device": "cpu"},
}
"""A recipe whose network is trained in a moment; the two below are it with a search and with a training."""
TINY_SEARCH = merge(
    TINY,
    {
        "space": {"heads": [2, 4], "ratios": [0.5, 1.0]},
        "search": {
            "batch_size": 25,
            "stages": {"layers": [1, 2], "keep": [0, 3], "epochs": [2, 2], "weight_epochs": [1, 0]},
            "alphas": {"lr": 0.05},
        },
    },
)
TINY_TRAINING = merge(
    TINY,
    {
        "data": {"eval_limit": 100},
        "train": {
            "epochs": 3,
            "batch_size": 50,
            "ema": 0.9,
            "drop_path": 0.2,
            "augment": {"crop_padding": 1, "mixup": 0.5, "cutmix": 0.5, "erasing": 0.5},
        },
    },
)


def cut_off(patch: pytest.MonkeyPatch, after: int, run: Callable[[], object]) -> None:
    """Run something and interrupt it when it has said so many lines, each an epoch's end."""
    said: list[str] = []

    def say(self: Reporter, text: str) -> None:
        said.append(text)
        if len(said) == after:
            raise KeyboardInterrupt

    with patch.context() as patched:
        patched.setattr(Reporter, "say", say)
        with pytest.raises(KeyboardInterrupt):
            run()


def interrupt_after_an_epoch(patch: pytest.MonkeyPatch) -> None:
    """Have a run interrupted when an epoch's lines are written and whatever follows the run has seen them."""
    log = Session.log

    def interrupted(self: Session, said: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
        log(self, said, rows)
        raise KeyboardInterrupt

    patch.setattr(Session, "log", interrupted)


def untimed(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file without what no two runs share."""
    timed = ("seconds", "images_per_second", "peak_memory_mib")
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


class ForkServer:
    """Runs commands of dasvit in processes that start at once, and that can be killed at a moment of choice."""

    def __init__(self, output: Path) -> None:
        self.output = output
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-W",
            "error::DeprecationWarning:__main__",
            str(Path(__file__).with_name("fork_server.py")),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, *argv: object, always_save: bool = True, **moment: Any) -> int:
        """Return the exit status of a command, negative for the signal that killed it.

        Args:
            argv: Arguments of dasvit.
            always_save: Write a checkpoint after every step.
            moment: When to kill it: `place` (a function's dotted name), `call` (which call of it) and `half` (write
                half of its last argument to its first); or `seconds`, and perhaps another `signal`. Besides: how many
                `processes` share the work, whether in `float64`, and with `lonely_alphas`: gradients not summed.
        """
        self.output.write_text("")
        order = {"argv": [str(a) for a in argv], "output": str(self.output), "always_save": always_save, **moment}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def said(self) -> str:
        """Return what the last command wrote."""
        return self.output.read_text(encoding="utf-8")

    def close(self) -> None:
        """End the process that forks."""
        self._process.communicate()


class Faults:
    """Counts a fault's occurrences in a test, for the table that `make test-faults` prints."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}

    def provoked(self, fault: str) -> None:
        """Count a fault that happened."""
        self.counts.setdefault(fault, [0, 0])[0] += 1

    def survived(self, fault: str, times: int = 1) -> None:
        """Count faults after which nothing was lost."""
        self.counts.setdefault(fault, [0, 0])[1] += times
