"""A run that is killed, stopped or damaged, and goes on, ends as one that was left alone."""

import random
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import Faults, ForkServer
from runs import COMMANDS, assert_same_end, newest, same

WRITES = "dasvit.runtime.checkpoint._Sealed.write"
PLACES: dict[str, dict[str, dict[str, Any]]] = {
    "search": {
        "inside a step": {"place": "dasvit.search.loop.weight_step", "call": 3},
        "inside a checkpoint write": {"place": WRITES, "call": 150},
        "before a checkpoint's rename": {"place": "pathlib.Path.replace", "call": 6},
        "inside a line of metrics": {"place": "dasvit.io.run_folder.append_line", "call": 1, "half": True},
        "between stages": {"place": "dasvit.search.loop.prune", "call": 1},
        "inside a finalist's step": {"place": "dasvit.training.loop.weight_step", "call": 3},
        "before a candidate's result": {"place": "dasvit.search.candidates.write_rungs", "call": 1},
        "inside derivation": {"place": "dasvit.search.pipeline.derive_found", "call": 1},
    },
    "train": {
        "inside a step": {"place": "dasvit.training.optim.CosineLRScheduler.step_update", "call": 3},
        "inside a checkpoint write": {"place": WRITES, "call": 150},
        "before a checkpoint's rename": {"place": "pathlib.Path.replace", "call": 6},
        "inside a line of metrics": {"place": "dasvit.io.run_folder.append_line", "call": 1, "half": True},
        "inside an evaluation": {"place": "dasvit.training.evaluation.F.cross_entropy", "call": 1},
        "inside the model's write": {"place": "dasvit.models.folder.write_whole", "call": 1},
    },
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_killed_at_every_kind_of_place(
    kind: str, forks: ForkServer, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path, faults: Faults
) -> None:
    """One run, killed at one place after the other."""
    run = tmp_path / "run"
    for name, moment in PLACES[kind].items():
        fault = f"SIGKILL {name} ({kind})"
        assert forks.run(*COMMANDS[kind], "--run", run, **moment) == -signal.SIGKILL, f"{fault}: {forks.said()}"
        faults.provoked(fault)
    assert forks.run(*COMMANDS[kind], "--run", run, "--resume") == 0, forks.said()
    assert_same_end(run, undisturbed[kind][0])
    for fault in list(faults.counts):
        faults.survived(fault)


@pytest.mark.faults
@pytest.mark.parametrize("kind", COMMANDS)
def test_killed_at_each_place_alone(
    kind: str, forks: ForkServer, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path, faults: Faults
) -> None:
    for number, (name, moment) in enumerate(PLACES[kind].items()):
        fault, run = f"SIGKILL {name} ({kind})", tmp_path / str(number)
        assert forks.run(*COMMANDS[kind], "--run", run, **moment) == -signal.SIGKILL, f"{fault}: {forks.said()}"
        faults.provoked(fault)
        assert forks.run(*COMMANDS[kind], "--run", run) == 0, forks.said()
        assert_same_end(run, undisturbed[kind][0])
        faults.survived(fault)


@pytest.mark.faults
@pytest.mark.parametrize("kind", COMMANDS)
def test_killed_at_random_moments(
    kind: str, forks: ForkServer, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path, faults: Faults
) -> None:
    """Runs that are killed again and again until they end, forty kills in all."""
    generator, fault = random.Random(kind), f"SIGKILL at a random moment ({kind})"
    number = since = 0
    while faults.counts.get(fault, [0])[0] < 40 or since:
        run = tmp_path / str(number)
        status = forks.run(*COMMANDS[kind], "--run", run, seconds=generator.uniform(0.01, undisturbed[kind][1]))
        assert status in (0, -signal.SIGKILL), forks.said()
        if status:
            faults.provoked(fault)
            since += 1
        else:
            assert_same_end(run, undisturbed[kind][0])
            faults.survived(fault, since)
            number, since = number + 1, 0


@pytest.mark.fault("SIGTERM, SIGINT")
@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_at_the_next_step_with_a_checkpoint(
    kind: str,
    number: signal.Signals,
    forks: ForkServer,
    undisturbed: dict[str, tuple[Path, float]],
    tmp_path: Path,
) -> None:
    run, expected = tmp_path / "run", undisturbed[kind][0]
    command = [*COMMANDS[kind], "--run", str(run)]
    place = {"search": "dasvit.search.loop.weight_step", "train": "dasvit.training.optim.CosineLRScheduler.step_update"}
    status = forks.run(*command, place=place[kind], call=3, signal=number, always_save=False)
    assert status == 128 + number, forks.said()
    said = forks.said()
    assert re.search(rf"dasvit: {number.name}: stopped at .*step [23]/.*; the state is saved\. Go on with$", said, re.M)
    shown = said.splitlines()[-1]
    assert kind in shlex.split(shown) and str(run) in shown and "Traceback" not in said
    assert len(list((run / "checkpoints").glob("*.pt"))) == 1
    assert forks.run(*command, "--resume", always_save=False) == 0
    assert newest(run)["ended"] and same(newest(run)["metrics"], newest(expected)["metrics"])


@pytest.mark.fault("--max-minutes")
@pytest.mark.parametrize("kind", COMMANDS)
def test_max_minutes(kind: str, forks: ForkServer, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path) -> None:
    """A time that is always up: every command does one step."""
    run = tmp_path / "run"
    for step in (1, 2, 3):
        assert forks.run(*COMMANDS[kind], "--run", run, "--max-minutes", 1e-9, always_save=False) == 0
        assert "the time is up: stopped at " in forks.said() and f"step {step}/" in forks.said()
    assert forks.run(*COMMANDS[kind], "--run", run) == 0
    assert_same_end(run, undisturbed[kind][0])
    assert forks.run(*COMMANDS[kind], "--run", tmp_path / "other", "--max-minutes", -1) == 2


def test_resume_asks_for_a_run(forks: ForkServer, tmp_path: Path) -> None:
    assert forks.run(*COMMANDS["search"], "--run", tmp_path / "run", "--resume") == 2
    assert "there is no run in" in forks.said() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    kind: str, forks: ForkServer, undisturbed: dict[str, tuple[Path, float]], tmp_path: Path, faults: Faults
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
        assert forks.run(*command) == 0
        assert re.search(rf"checkpoint \S*{last.name} is damaged", forks.said())
        assert_same_end(tmp_path / "run", expected)
        faults.survived(f"checkpoint damaged: {name}")
    for path in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert forks.run(*command) == 2
    assert "delete that folder" in forks.said() and (tmp_path / "run" / "metrics.jsonl").read_bytes() == lines
