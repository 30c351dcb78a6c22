"""The same input, spelt otherwise, is the same input; two runs never write into one folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dasvit.config import recipe as recipes
from dasvit.errors import UserError
from dasvit.io.run_folder import LOCK, RunFolder
from helpers import SMALL, call_cli

pytestmark = pytest.mark.fault("the same input spelt otherwise, or written to twice")

TRAIN = ("train", "--model", "vit", *SMALL)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dasvit", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def until_there(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.02)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirty images of two classes."""
    chance = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(15):
            pixels = chance.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start(*TRAIN, "--train.epochs=100000", "--run", run)
    try:
        until_there(run / "metrics.jsonl")
        lines = (run / "metrics.jsonl").read_text().splitlines()
        for command in (TRAIN, ("search", *SMALL)):
            status, out, err = call_cli(*command, "--run", run)
            assert (status, out) == (2, "")
            assert f"another process writes into {run} now: wait until it has ended, or give --run another" in err
        epochs = [json.loads(line)["epoch"] for line in lines]
        assert epochs == list(range(1, len(epochs) + 1))
    finally:
        first.kill()
        first.communicate()
    assert (run / LOCK).exists()
    status, _, err = call_cli(*TRAIN, "--train.epochs=100000", "--run", run, "--max-minutes", "0.0001")
    assert status == 0, err


@pytest.mark.parametrize("command", [("search", *SMALL), TRAIN, ("compare", "vit", *SMALL)])
def test_a_run_lets_go_of_its_folder(command: tuple[str, ...], tmp_path: Path) -> None:
    """One process may do one run after the other, failed ones included."""
    for _ in range(2):
        status, _, err = call_cli(*command, "--run", tmp_path / "run")
        assert status == 0, err
    status, _, err = call_cli(*command, "--train.smoothing=0.3", "--run", tmp_path / "run")
    assert status == 2 and "already holds another run" in err
    with RunFolder(tmp_path / "run", "train").locked():
        pass


def test_a_study_lets_nobody_else_write(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", "study").locked():
        status, _, err = call_cli("study", *SMALL, "--searches=2", "--run", tmp_path / "run")
    assert status == 2 and "another process writes into" in err


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    status, _, err = call_cli(*TRAIN, "--run", tmp_path / "run")
    assert status == 0, err


def test_a_folder_spelt_otherwise_is_the_same(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(photos)
    options = [*TRAIN, "--data.name=imagefolder", "--data.limit=0", "--data.eval_limit=0", "--run=run"]
    for spelling in ("photos", "photos/", "./photos", "link", str(photos), "photos/../photos"):
        status, _, err = call_cli(*options, f"--data.path={spelling}")
        assert status == 0, f"{spelling}: {err}"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, out, err = call_cli("evaluate", "../run", "--json")
    assert status == 0, err
    assert json.loads(out)["images"] == 6
    shutil.copytree(photos, tmp_path / "others")
    status, _, err = call_cli(*options[:-1], "--run=../run", "--data.path=../others")
    assert status == 2 and "already holds another run" in err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train:\n  epochs: 3\n  batch_size: 8\n  epochs: 50\n", "has epochs twice, in lines 2 and 4"),
        ("train: {epochs: 3}\ndata: {name: digits}\ntrain: {ema: 0.9}\n", "has train twice, in lines 1 and 3"),
        ("search:\n  finals: {cells: 1}\n  tokens:\n    ratio: 1\n    'ratio': 0.5\n", "ratio twice, in lines 4 and 5"),
    ],
)
def test_a_field_given_twice(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"mine.yaml has .*{sentence[4:]}: leave one of them out"):
        recipes.read_recipe(str(file))


def test_merged_keys_are_no_repetition(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: &t {epochs: 3}\nsearch:\n  weights: {lr: 0.1}\n  alphas: {lr: 0.2}\ndata: {limit: 1}\n")
    assert recipes.read_recipe(str(file))["search"]["alphas"] == {"lr": 0.2}


def test_stopped_by_a_signal_the_lock_is_free(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(*TRAIN, "--train.epochs=100000", "--run", run)
    until_there(run / "metrics.jsonl")
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    process.communicate()
    with RunFolder(run, "train").locked():
        pass
