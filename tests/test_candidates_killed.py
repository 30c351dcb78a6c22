"""Candidates in several processes: killed, asked to stop, and gone on with, the search finds the same cell."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from helpers import SMALL, Faults

COMMAND = [
    *("search", *SMALL, "--method", "finals", "--search.finals.cells=6", "--search.finals.rungs=[1,2,4]"),
    *("--data.limit=400", "--jobs", "2", "--run"),
]


def start(run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dasvit", *map(str, COMMAND), str(run)]
    with said(run).open("ab") as file:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True)


def said(run: Path) -> Path:
    """Return the file of what a search said."""
    return run.with_suffix(".txt")


def found(run: Path) -> list[Any]:
    """Return what a search found: all candidates, and what they had reached at every rung but for the seconds."""
    rows = json.loads((run / "derivation.json").read_text())["finals"]
    return [(row["genotype"], [(rung["epochs"], rung["loss"]) for rung in row["rungs"]]) for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A search that nothing stopped, and the seconds it took."""
    run, began = tmp_path_factory.mktemp("undisturbed") / "run", time.perf_counter()
    process = start(run)
    assert process.wait() == 0, said(run).read_text()
    return run, time.perf_counter() - began


def disturb(number: int, times: int, seed: int, undisturbed: tuple[Path, float], run: Path) -> None:
    """Send a signal to a search so many times, each time after a random while, and hold its end against the other's."""
    chance = random.Random(seed)
    for _ in range(times):
        process = start(run)
        try:
            process.wait(chance.uniform(0.2, 1.0) * undisturbed[1])
        except subprocess.TimeoutExpired:
            os.kill(process.pid, number)
        status = process.wait(60)
        # The other way to end by SIGTERM is before Python has set its handler, when nothing has begun yet.
        assert status in (0, -signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM), said(run).read_text()
    process = start(run)
    assert process.wait() == 0, said(run).read_text()
    assert found(run) == found(undisturbed[0])


def test_killed_once(undisturbed: tuple[Path, float], tmp_path: Path, faults: Faults) -> None:
    faults.provoked("candidates killed")
    disturb(signal.SIGKILL, 1, 0, undisturbed, tmp_path / "run")
    faults.survived("candidates killed")


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_twice(number: int, seed: int, undisturbed: tuple[Path, float], tmp_path: Path, faults: Faults) -> None:
    """Twenty searches, forty kills."""
    for _ in range(2):
        faults.provoked("candidates killed")
    disturb(number, 2, seed + 1, undisturbed, tmp_path / "run")
    for _ in range(2):
        faults.survived("candidates killed")


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """A search that is killed outright leaves no process behind."""
    process = start(tmp_path / "run")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("this system does not list a process's children")
    until = time.monotonic() + 60
    while not list((tmp_path / "run").glob("finals/*/config.yaml")) and time.monotonic() < until:
        time.sleep(0.1)
    workers = [int(pid) for pid in children.read_text().split()]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    while any(Path(f"/proc/{pid}").exists() and not is_dead(pid) for pid in workers):
        assert time.monotonic() < until + 30, "a worker outlived its parent"
        time.sleep(0.1)


def is_dead(pid: int) -> bool:
    """Tell whether a process has ended, and nobody has asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in ("Z", "X")
    except OSError:
        return True
