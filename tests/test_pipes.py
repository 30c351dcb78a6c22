"""A pipe, a script or a thread is no reason to fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.fault("a pipe, a script or a thread")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than a pipe's buffer of answers."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(1500):
        Image.fromarray(np.full((4, 4), number % 256, np.uint8)).save(folder / f"{'long name ' * 8}{number}.png")
    return folder


def shell(command: str, **words: object) -> subprocess.CompletedProcess[str]:
    """Run a bash command; {dasvit} is ours, other words are quoted by the caller."""
    text = command.format(dasvit=f"{sys.executable} -m dasvit", **words)
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True)


@pytest.mark.parametrize("form", ["text", "csv"])
def test_a_reader_that_has_enough(form: str, small_run: Path, images: Path) -> None:
    command = "{dasvit} predict {run} {images} --format {form} | head -1; exit ${{PIPESTATUS[0]}}"
    done = shell(command, run=small_run, images=images, form=form)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == "" and done.returncode == 141, "as a shell says of SIGPIPE"


@pytest.mark.parametrize(
    ("command", "closed"),
    [("predict {run} {images}", ">&-"), ("evaluate {run}", "2>&-"), ("--help", ">&- 2>&-"), ("--version", ">&-")],
)
def test_closed_streams(command: str, closed: str, small_run: Path, images: Path) -> None:
    done = shell("{dasvit} " + command + " " + closed, run=small_run, images=images)
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_closed_streams_keep_the_status_of_mistakes(images: Path) -> None:
    assert shell("{dasvit} predict nowhere {images} >&- 2>&-", images=images).returncode == 2


SCRIPT = """
import dasvit
{guard}dasvit.train("vit", recipe="digits", run={run!r}, epochs=1, quiet=True, options={{
    "runtime.workers": 2, "data.limit": 60, "data.eval_limit": 20, "model.width": 8, "model.layers": 1,
    "model.heads": 2, "train.batch_size": 20, "runtime.device": "cpu", "runtime.precision": "float32"}})
{rest}print("done")
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_with_and_without_a_main_guard(guarded: bool, tmp_path: Path) -> None:
    guard, rest = ('if __name__ == "__main__":\n    ', "    ") if guarded else ("", "")
    text = SCRIPT.format(guard=guard, rest=rest, run=str(tmp_path / "run"))
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, cwd=tmp_path)
    if guarded:
        assert done.returncode == 0 and done.stdout == "done\n", done.stderr
        return
    assert done.returncode != 0 and "done" not in done.stdout
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1] and "memory" not in done.stderr
    assert "UserError" in done.stderr.splitlines()[-1]


def test_candidates_beside_a_script_without_a_main_guard(tmp_path: Path) -> None:
    """As above, for the processes that train candidates."""
    text = """
import dasvit
dasvit.search(recipe="digits", method="finals", run={run!r}, jobs=2, quiet=True, options={{
    "data.limit": 60, "data.eval_limit": 20, "model.width": 8, "model.layers": 1, "model.heads": 2, "space.heads": [2],
    "search.finals.cells": 2, "search.finals.rungs": [1], "train.batch_size": 20, "runtime.device": "cpu",
    "runtime.precision": "float32"}})
"""
    (tmp_path / "script.py").write_text(text.format(run=str(tmp_path / "run")))
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1] and "memory" not in done.stderr
