"""A training that has ended goes on where it is given more epochs, and nothing else does."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from PIL import Image
from torch import nn, optim

from dasvit.config import OptimConfig
from dasvit.training.optim import make_schedule
from helpers import SMALL, Faults, ForkServer, call_cli, untimed
from runs import COMMANDS, assert_same_end

TRAIN = ("train", "--model=vit", *SMALL)
LONGER = [*COMMANDS["train"], "--train.epochs=5"]


def succeeds(*arguments: object) -> str:
    status, out, err = call_cli(*arguments)
    assert status == 0, err
    return out


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that has ended after three epochs."""
    run = tmp_path_factory.mktemp("ended") / "run"
    succeeds(*COMMANDS["train"], "--run", run)
    return run


@pytest.fixture
def run(ended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "run"))


def test_more_epochs_go_on_with_the_longer_schedule(run: Path) -> None:
    before = untimed(run / "metrics.jsonl")
    succeeds(*LONGER, "--run", run)
    rows = untimed(run / "metrics.jsonl")
    assert rows[:3] == before and [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["train"]["epochs"] == 5
    assert json.loads((run / "environment.json").read_text())["lengthened_after"] == [3]
    assert json.loads((run / "result.json").read_text())["top1"] == rows[-1]["test_top1"]
    assert "lengthened after" in (run / "report.html").read_text(encoding="utf-8")
    # The rates of the last two epochs are those of a training that was meant to have five.
    options = OptimConfig(**config["train"]["optim"])
    weights = optim.AdamW(nn.Linear(1, 1).parameters(), lr=options.lr)
    schedule, steps = make_schedule(weights, options, epochs=5, steps=4), []
    for epoch in (4, 5):
        schedule.step_update(4 * epoch)
        steps.append(weights.param_groups[0]["lr"])
    assert [row["lr"] for row in rows[3:]] == pytest.approx(steps, rel=1e-12)


def test_a_longer_training_that_is_killed_ends_the_same(
    run: Path, forks: ForkServer, tmp_path: Path, faults: Faults
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    assert forks.run(*LONGER, "--run", run) == 0, forks.said()
    for place in ("dasvit.training.loop.weight_step", "dasvit.training.optim.CosineLRScheduler.step_update"):
        status = forks.run(*LONGER, "--run", other, place=place, call=3)
        assert status == -signal.SIGKILL, forks.said()
        faults.provoked("SIGKILL in a training that was given more epochs")
    assert forks.run(*LONGER, "--run", other, "--resume") == 0, forks.said()
    assert_same_end(other, run)
    faults.survived("SIGKILL in a training that was given more epochs", 2)


def test_the_same_epochs_again_change_nothing(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*.jsonl")} | {run: (run / "config.yaml").read_bytes()}
    succeeds(*COMMANDS["train"], "--run", run)
    after = {path: path.read_bytes() for path in run.rglob("*.jsonl")} | {run: (run / "config.yaml").read_bytes()}
    assert after == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--train.epochs=2"], "train.epochs 3 (not 2): give --run"),
        (["--train.epochs=5", "--train.ema=0.5"], "train.epochs 3 (not 5), train.ema 0.9 (not 0.5): give --run"),
    ],
)
def test_other_changes_are_another_run(run: Path, options: list[str], words: str) -> None:
    before = (run / "config.yaml").read_bytes(), (run / "result.json").read_bytes()
    status, _, err = call_cli(*COMMANDS["train"], *options, "--run", run)
    assert status == 2 and words in err
    assert ((run / "config.yaml").read_bytes(), (run / "result.json").read_bytes()) == before


def test_what_has_not_ended_keeps_its_epochs(tmp_path: Path, run: Path) -> None:
    (run / "result.json").unlink()
    status, _, err = call_cli(*LONGER, "--run", run)
    assert status == 2 and "has not come to the end of its 3 epochs yet" in err
    succeeds(*COMMANDS["train"], "--run", run)
    shutil.rmtree(run / "checkpoints")
    status, _, err = call_cli(*LONGER, "--run", run)
    assert status == 2 and "holds no state to go on from" in err


def test_classes_that_change_are_named(tmp_path: Path) -> None:
    for number in range(24):
        folder = tmp_path / "birds" / ("owl", "kite")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * number).save(folder / f"{number}.png")
    options = [*TRAIN, "--data.path", tmp_path / "birds", "--train.batch_size=4", "--run", tmp_path / "run"]
    options = [option for option in options if "limit" not in str(option)]
    succeeds(*options)
    (tmp_path / "birds" / "kite").rename(tmp_path / "birds" / "kestrel")
    status, _, err = call_cli(*options)
    assert status == 2 and "(new: kestrel; gone: kite): put them back" in err
