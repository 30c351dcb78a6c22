"""A run that is killed, stopped or damaged, and goes on, ends as one that was left alone."""

import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dasvit.training.checkpoint import read_checkpoint
from helpers import Faults, Zygote, untimed

OPTIONS = [
    "--config=digits",
    "--data.limit=200",
    "--data.eval_limit=100",
    "--model.image_size=8",
    "--model.patch_size=2",
    "--model.width=16",
    "--model.layers=2",
    "--model.heads=2",
    "--space.heads=[2,4]",
    "--space.ratios=[0.5,1]",
    "--search.batch_size=25",
    "--search.tokens.dim=4",
    "--search.relaxation=gumbel_softmax",
    "--search.augment.erasing=0.5",
    '--search.stages={"layers":[1,2],"keep":[0,3],"epochs":[2,2],"weight_epochs":[1,0],"inherit":"weights"}',
    "--train.batch_size=50",
    "--train.epochs=3",
    "--train.ema=0.9",
    "--train.drop_path=0.2",
    '--train.augment={"crop_padding":1,"mixup":0.5,"cutmix":0.5,"erasing":0.5}',
    "--runtime.device=cpu",
    "--runtime.precision=float32",
]
COMMANDS: dict[str, list[str]] = {
    "search": ["search", *OPTIONS],
    "train": ["train", "--cell=dasvit_cifar10", *OPTIONS],
}
WRITES = "dasvit.training.checkpoint._Sealed.write"
PLACES: dict[str, dict[str, dict[str, Any]]] = {
    "search": {
        "inside a step": {"place": "dasvit.search.loop.weight_loss", "call": 3},
        "inside a checkpoint write": {"place": WRITES, "call": 150},
        "before a checkpoint's rename": {"place": "pathlib.Path.replace", "call": 6},
        "inside a line of metrics": {"place": "dasvit.training.run_folder.append_line", "call": 1, "half": True},
        "between stages": {"place": "dasvit.search.loop.prune", "call": 1},
        "inside derivation": {"place": "dasvit.commands.search.derive_found", "call": 1},
    },
    "train": {
        "inside a step": {"place": "dasvit.training.optim.CosineLRScheduler.step_update", "call": 3},
        "inside a checkpoint write": {"place": WRITES, "call": 150},
        "before a checkpoint's rename": {"place": "pathlib.Path.replace", "call": 6},
        "inside a line of metrics": {"place": "dasvit.training.run_folder.append_line", "call": 1, "half": True},
        "inside an evaluation": {"place": "dasvit.training.evaluation.F.cross_entropy", "call": 1},
        "inside the model's write": {"place": "dasvit.models.folder.os.replace", "call": 1},
    },
}


@pytest.fixture(scope="module")
def undisturbed(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, float]]:
    """The run folder of each command, and its seconds, when nothing happens."""
    runs = {}
    for kind, command in COMMANDS.items():
        run = tmp_path_factory.mktemp("undisturbed") / kind
        start = time.perf_counter()
        assert zygote.run(*command, "--run", run) == 0, zygote.said()
        runs[kind] = run, time.perf_counter() - start
    return runs


def newest(run: Path) -> dict[str, Any]:
    return read_checkpoint(max((run / "checkpoints").glob("*.pt")))


def same(one: Any, other: Any) -> bool:
    """Tell whether two states are equal to the bit, but for times."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def assert_same_end(run: Path, undisturbed: Path) -> None:
    """Hold every file against the undisturbed run's, to the byte where no time and no name of the run stands in it."""
    names = {str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*")}
    assert {str(path.relative_to(run)) for path in run.rglob("*")} == names, "a file is missing, or left over"
    for name in names & {"genotype.json", "architecture.jsonl", "derivation.json", "model/model.safetensors"}:
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert untimed(run / "metrics.jsonl") == untimed(undisturbed / "metrics.jsonl")
    assert same(newest(run), newest(undisturbed))


@pytest.mark.parametrize("kind", COMMANDS)
def test_killed_at_every_kind_of_place(
    kind: str, zygote: Zygote, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path, faults: Faults
) -> None:
    """One run, killed at one place after the other."""
    run = tmp_path / "run"
    for name, moment in PLACES[kind].items():
        fault = f"SIGKILL {name} ({kind})"
        assert zygote.run(*COMMANDS[kind], "--run", run, **moment) == -signal.SIGKILL, f"{fault}: {zygote.said()}"
        faults.provoked(fault)
    assert zygote.run(*COMMANDS[kind], "--run", run, "--resume") == 0, zygote.said()
    assert_same_end(run, undisturbed[kind][0])
    for fault in list(faults.counts):
        faults.survived(fault)


@pytest.mark.faults
@pytest.mark.parametrize("kind", COMMANDS)
def test_killed_at_each_place_alone(
    kind: str, zygote: Zygote, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path, faults: Faults
) -> None:
    for number, (name, moment) in enumerate(PLACES[kind].items()):
        fault, run = f"SIGKILL {name} ({kind})", tmp_path / str(number)
        assert zygote.run(*COMMANDS[kind], "--run", run, **moment) == -signal.SIGKILL, f"{fault}: {zygote.said()}"
        faults.provoked(fault)
        assert zygote.run(*COMMANDS[kind], "--run", run) == 0, zygote.said()
        assert_same_end(run, undisturbed[kind][0])
        faults.survived(fault)


@pytest.mark.faults
@pytest.mark.parametrize("kind", COMMANDS)
def test_killed_at_random_moments(
    kind: str, zygote: Zygote, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path, faults: Faults
) -> None:
    """Runs that are killed again and again until they end, forty kills in all."""
    generator, fault = random.Random(kind), f"SIGKILL at a random moment ({kind})"
    number = since = 0
    while faults.counts.get(fault, [0])[0] < 40 or since:
        run = tmp_path / str(number)
        status = zygote.run(*COMMANDS[kind], "--run", run, seconds=generator.uniform(0.01, undisturbed[kind][1]))
        assert status in (0, -signal.SIGKILL), zygote.said()
        if status:
            faults.provoked(fault)
            since += 1
        else:
            assert_same_end(run, undisturbed[kind][0])
            faults.survived(fault, since)
            number, since = number + 1, 0


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_at_the_next_step_with_a_checkpoint(
    kind: str, number: signal.Signals, zygote: Zygote, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path
) -> None:
    run, expected = tmp_path / "run", undisturbed[kind][0]
    command = [*COMMANDS[kind], "--run", str(run)]
    place = {"search": "dasvit.search.loop.weight_loss", "train": "dasvit.training.optim.CosineLRScheduler.step_update"}
    status = zygote.run(*command, place=place[kind], call=3, signal=number, always_save=False)
    assert status == 128 + number, zygote.said()
    said = zygote.said()
    assert re.search(rf"dasvit: {number.name}: stopped at .*step [23]/.*; the state is saved\. Go on with$", said, re.M)
    shown = said.splitlines()[-1]
    assert "dasvit" in shown and str(run) in shown and "Traceback" not in said
    assert len(list((run / "checkpoints").glob("*.pt"))) == 1
    assert zygote.run(*command, "--resume", always_save=False) == 0
    assert newest(run)["ended"] and same(newest(run)["metrics"], newest(expected)["metrics"])


@pytest.mark.parametrize("kind", COMMANDS)
def test_max_minutes(kind: str, zygote: Zygote, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path) -> None:
    """A time that is always up: every command does one step."""
    run = tmp_path / "run"
    for step in (1, 2, 3):
        assert zygote.run(*COMMANDS[kind], "--run", run, "--max-minutes", 1e-9, always_save=False) == 0
        assert "the time is up: stopped at " in zygote.said() and f"step {step}/" in zygote.said()
    assert zygote.run(*COMMANDS[kind], "--run", run) == 0
    assert_same_end(run, undisturbed[kind][0])
    assert zygote.run(*COMMANDS[kind], "--run", tmp_path / "other", "--max-minutes", -1) == 2


def test_resume_asks_for_a_run(zygote: Zygote, tmp_path: Path) -> None:
    assert zygote.run(*COMMANDS["search"], "--run", tmp_path / "run", "--resume") == 2
    assert "there is no run in" in zygote.said() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    kind: str, zygote: Zygote, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path, faults: Faults
) -> None:
    """A bit that fell over, a file cut off, and one of zeros, each the newest of two; then both."""
    expected = undisturbed[kind][0]
    command = [*COMMANDS[kind], "--run", tmp_path / "run"]
    damages: dict[str, Callable[[bytes], bytes]] = {
        "a bit": lambda content: content[:1000] + bytes([content[1000] ^ 4]) + content[1001:],
        "the end": lambda content: content[:-1000],
        "all": lambda content: bytes(len(content)),
    }
    for name, damage in damages.items():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(expected, tmp_path / "run")
        _, last = sorted((tmp_path / "run" / "checkpoints").glob("*.pt"))
        last.write_bytes(damage(last.read_bytes()))
        faults.provoked(f"checkpoint damaged: {name}")
        assert zygote.run(*command) == 0
        assert re.search(rf"checkpoint \S*{last.name} is damaged", zygote.said())
        assert_same_end(tmp_path / "run", expected)
        faults.survived(f"checkpoint damaged: {name}")
    for path in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert zygote.run(*command) == 2
    assert "delete that folder" in zygote.said() and (tmp_path / "run" / "metrics.jsonl").read_bytes() == lines
