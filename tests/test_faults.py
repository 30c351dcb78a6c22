"""Disks that are full or cannot be written, clocks and locales."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dasvit.io.files import append_line, write_whole
from dasvit.io.run_folder import RunFolder
from helpers import Faults, ForkServer
from runs import COMMANDS, assert_same_end

Runs = dict[str, tuple[Path, float]]


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_full_disk(kind: str, forks: ForkServer, undisturbed: Runs, tmp_path: Path, faults: Faults) -> None:
    """A limit of file sizes that logs keep and checkpoints do not; one checkpoint is there, and stays."""
    command = [*COMMANDS[kind], "--run", tmp_path / "run"]
    assert forks.run(*command, "--max-minutes", 1e-9, always_save=False) == 0
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    whole = checkpoint.read_bytes()
    faults.provoked("disk full")
    assert forks.run(*command, file_size=20_000) == 2, forks.said()
    last = forks.said().splitlines()[-2:]
    assert "dasvit: error:" in last[0] and "Once the disk can be written, go on with" in last[0], forks.said()
    assert f"{kind} " in last[1] and str(tmp_path / "run") in last[1] and "Traceback" not in forks.said()
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]
    assert checkpoint.read_bytes() == whole
    assert forks.run(*command) == 0
    assert_same_end(tmp_path / "run", undisturbed[kind][0])
    faults.survived("disk full")


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize(("number", "fault"), [(errno.ENOSPC, "disk full"), (errno.EROFS, "disk became read-only")])
def test_a_line_that_cannot_be_written(
    kind: str,
    number: int,
    fault: str,
    forks: ForkServer,
    undisturbed: Runs,
    tmp_path: Path,
    faults: Faults,
) -> None:
    command = [*COMMANDS[kind], "--run", tmp_path / "run"]
    faults.provoked(fault)
    moment: dict[str, Any] = {"place": "dasvit.io.run_folder.append_line", "call": 2, "raise": number}
    assert forks.run(*command, **moment) == 2
    assert os.strerror(number) in forks.said() and "Traceback" not in forks.said()
    assert forks.run(*command) == 0
    assert_same_end(tmp_path / "run", undisturbed[kind][0])
    faults.survived(fault)


WRITES: dict[str, Callable[[Path], object]] = {
    "whole": lambda path: write_whole(path, lambda file: file.write(b"new " * 1000)),
    "line": lambda path: append_line(path, "new " * 1000),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_a_write_that_fails_halfway_leaves_the_file_as_it_was(
    write: Callable[[Path], object], tmp_path: Path, faults: Faults
) -> None:
    (tmp_path / "file").write_bytes(b"old\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    faults.provoked("disk full")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write(tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old\n")]
    faults.survived("disk full")


def test_a_run_folder_that_cannot_be_made(forks: ForkServer, tmp_path: Path, faults: Faults) -> None:
    """Root may write everywhere: a file stands where the folder should be, and the system says that it is read-only."""
    (tmp_path / "file").write_text("mine")
    read_only: dict[str, Any] = {"place": "pathlib.Path.mkdir", "call": 1, "raise": errno.EROFS}
    for run, moment in (
        (tmp_path / "file", dict[str, Any]()),
        (tmp_path / "file" / "run", {}),
        (tmp_path / "run", read_only),
    ):
        faults.provoked("run folder cannot be written")
        assert forks.run(*COMMANDS["search"], "--run", run, **moment) == 2
        assert "dasvit: error: " in forks.said() and "Traceback" not in forks.said()
        assert (tmp_path / "file").read_text() == "mine"
        faults.survived("run folder cannot be written")


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_clock_that_runs_back_and_a_terminal_of_ascii(
    kind: str,
    forks: ForkServer,
    undisturbed: Runs,
    tmp_path: Path,
    faults: Faults,
) -> None:
    faults.provoked("clock runs back, ASCII terminal")
    status = forks.run(*COMMANDS[kind], "--run", tmp_path / "run", clock_runs_back=True, ascii=True)
    assert status == 0, forks.said()
    assert_same_end(tmp_path / "run", undisturbed[kind][0])
    faults.survived("clock runs back, ASCII terminal")


def test_a_locale_without_utf_8(undisturbed: Runs, tmp_path: Path) -> None:
    """In a process of its own, since python chooses its encodings when it starts."""
    out = tmp_path / "cell.json"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "dasvit", "derive", str(undisturbed["search"][0]), "--out", str(out)]
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert result.returncode == 0 and b"output = x1 + x2" in result.stdout, result.stderr
    assert out.read_bytes() == (undisturbed["search"][0] / "genotype.json").read_bytes()


def test_no_duration_is_taken_from_the_wall_clock() -> None:
    for path in (Path(__file__).parents[1] / "src" / "dasvit").rglob("*.py"):
        if "report" not in path.parts:  # a page holds the date that a browser compares with its own clock
            assert "time.time(" not in path.read_text(encoding="utf-8"), path


def test_an_argument_that_is_no_text(tmp_path: Path) -> None:
    """Python hands on the bytes of a name that is not UTF-8 as lone surrogates."""
    run = RunFolder(tmp_path, "search")
    run.note(command=["search", "b\udcff"])
    run.append("metrics.jsonl", {"name": "b\udcff"})
    assert run.notes()["command"] == ["search", "b\udcff"] and run.rows("metrics.jsonl") == [{"name": "b\udcff"}]
