"""--track: what TensorBoard, Weights & Biases and trackio are sent, once each."""

import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dasvit.config import recipe as recipes
from dasvit.errors import UserError
from dasvit.io.run_folder import RunFolder
from dasvit.runtime.progress import Reporter
from dasvit.runtime.tracking import Tracking, parse_trackers, scalars
from helpers import SMALL, call_cli, interrupt_after_an_epoch


def rows(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]


def test_tensorboard_of_a_search_that_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off between an epoch's end and the next checkpoint: the epoch is done again, and not sent again."""
    run = tmp_path / "run"
    options = ["search", *SMALL, "--run", run, "--track", "tensorboard", "--json"]
    with monkeypatch.context() as patched:
        interrupt_after_an_epoch(patched)
        assert call_cli(*options)[0] == 130
    assert len(rows(run)) == 1 and not (run / "checkpoints").exists()
    status, out, err = call_cli(*options)
    assert status == 0 and json.loads(out)["genotype"], err
    assert len(rows(run)) == 2
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    tags = events.Tags()["scalars"]
    lines = rows(run, "architecture.jsonl")
    for tag, values in {
        "train_loss": [row["train_loss"] for row in rows(run)],
        "mean_weights/msa_2": [line["mean_weights"]["msa_2"] for line in lines],
        "fairness/type_weights/mlp": [line["fairness"]["type_weights"]["mlp"] for line in lines],
    }.items():
        found = events.Scalars(tag)
        assert [event.step for event in found] == [1, 2], tag
        assert [event.value for event in found] == pytest.approx(values, rel=1e-6)
    assert [event.step for event in events.Scalars("val_loss")] == [2], "the first epoch trains weights alone"
    assert not any(tag.startswith("weights/") for tag in tags) and "epoch" not in tags
    assert json.loads((run / "tracked.json").read_text())["sent"] == {"tensorboard": 2}


class Fake(ModuleType):
    """Weights & Biases, or trackio, as far as accelerate calls it; a run remembers what it was told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, origin="here")
        self.started: list[dict[str, Any]] = []
        self.told: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0
        self.config = self

    def init(self, **options: Any) -> "Fake":
        print("welcome")  # where a command's JSON goes
        self.started.append(options)
        return self

    def update(self, values: dict[str, Any], allow_val_change: bool) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int) -> None:
        self.told.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_others_are_told_once_and_recognise_the_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, run = Fake(name), tmp_path / "run"
    monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setenv("WANDB_MODE", "")  # to be put back as it was
    monkeypatch.delenv("WANDB_MODE")
    options = ["train", "--cell=dasvit_imagenet100", *SMALL, "--model.heads=2", "--model.width=24", "--train.epochs=2"]
    with monkeypatch.context() as patched:
        interrupt_after_an_epoch(patched)
        assert call_cli(*options, "--run", run, "--track", name)[0] == 130
    status, out, err = call_cli(*options, "--run", run, "--track", name, "--json")
    assert status == 0 and json.loads(out)["run"] == str(run) and "welcome" in err, err
    assert [step for step, _ in fake.told] == [1, 2] and fake.finished == 2
    assert fake.told[1][1]["train_loss"] == rows(run)[1]["train_loss"] and "test_top1" in fake.told[1][1]
    assert fake.settings["model.width"] == "24"
    first, second = fake.started
    assert first == second and first["project"] == "dasvit" and first["resume"] == "allow"
    if name == "wandb":
        assert first["dir"] == str(run) and first["id"] == json.loads((run / "tracked.json").read_text())["id"]
        assert os.environ["WANDB_MODE"] == "offline", "nothing leaves the machine unasked"


def test_a_tracker_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Broken(Fake):
        def log(self, values: dict[str, Any], step: int) -> None:
            raise RuntimeError("no more room")

    broken, whole = Broken("wandb"), Fake("trackio")
    monkeypatch.setitem(sys.modules, "wandb", broken)
    monkeypatch.setitem(sys.modules, "trackio", whole)
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = RunFolder(tmp_path, "train")
    with Tracking(folder, ("wandb", "trackio"), recipes.from_dict({}), Reporter()) as tracking:
        for epoch in (1, 2):
            folder.append("metrics.jsonl", {"stage": "train", "epoch": epoch, "train_loss": 0.5})
            tracking.follow()
    assert [values for _, values in whole.told] == [{"train_loss": 0.5}] * 2
    assert len(broken.started) == 1, "it is asked once"
    assert "wandb failed, the run goes on without it (RuntimeError: no more room)" in capsys.readouterr().err


def test_what_is_sent() -> None:
    line = {"stage": 2, "epoch": 1, "weights": {"a": {"b": 1.0}}, "mean_weights": {"zero": 0.5}, "monitor": {"top": 3}}
    found = scalars({"stage": 2, "epoch": 1, "lr": 0.1, "is": True, "name": "x"}, line)
    assert found == {"stage": 2, "lr": 0.1, "mean_weights/zero": 0.5, "monitor/top": 3}


def test_mistakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert parse_trackers(" wandb, tensorboard,wandb") == ("wandb", "tensorboard") and parse_trackers("") == ()
    with pytest.raises(UserError, match="Did you mean 'tensorboard'"):
        parse_trackers("tensorbord")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, out, err = call_cli("search", *SMALL, "--run", tmp_path / "run", "--track", "wandb")
    assert (status, out) == (2, "") and "pip install 'dasvit[wandb]'" in err
    assert not (tmp_path / "run").exists()
