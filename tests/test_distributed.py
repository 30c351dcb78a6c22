"""Processes that share a run do what one does; all of them on gloo."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import Faults, ForkServer
from runs import COMMANDS, OPTIONS, difference, newest

# No random numbers of an image's own, which differ between the processes; batches of 25 are shared as 13 and 12.
SAME = [
    "--search.augment.erasing=0",
    "--train.drop_path=0",
    '--train.augment={"crop_padding":1,"mixup":0,"cutmix":0,"erasing":0}',
    "--train.batch_size=25",
]
STEPS = {"search": "dasvit.search.loop.weight_step", "train": "dasvit.training.loop.weight_step"}


def command(kind: str, run: Path, *more: str) -> list[str]:
    return [*COMMANDS[kind], *SAME, "--run", str(run), *more]


@pytest.fixture(scope="module")
def alone(forks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folder of each command, done by one process in float64."""
    folder = tmp_path_factory.mktemp("alone")
    for kind in COMMANDS:
        assert forks.run(*command(kind, folder / kind), float64=True, always_save=False) == 0, forks.said()
    return {kind: folder / kind for kind in COMMANDS}


@pytest.mark.parametrize("kind", COMMANDS)
def test_two_processes_end_where_one_does(kind: str, forks: ForkServer, alone: dict[str, Path], tmp_path: Path) -> None:
    """Weights, alphas, moments, losses; and one process wrote every file once."""
    assert forks.run(*command(kind, tmp_path / "run"), float64=True, processes=2) == 0, forks.said()
    assert difference(newest(tmp_path / "run"), newest(alone[kind])) < 1e-9
    names = [
        {str(p.relative_to(run)) for p in run.rglob("*") if p.suffix != ".pt"}
        for run in (tmp_path / "run", alone[kind])
    ]
    assert names[0] == names[1]
    said = forks.said()
    assert said.count("training and 100 test images") == 1
    assert len(re.findall(r"checkpoints? took", said)) == 1
    assert (tmp_path / "run/genotype.json").read_bytes() == (alone[kind] / "genotype.json").read_bytes()


@pytest.mark.parametrize("balance", ["sampler", "weights"])
def test_a_balanced_training_that_monitors(balance: str, forks: ForkServer, tmp_path: Path) -> None:
    """Two processes draw the same images, choose the same epoch and write the same predictions as one."""
    more = [f"--train.balance={balance}", "--train.monitor=macro_f1", "--train.val_fraction=0.2"]
    for processes in (1, 2):
        arguments = command("train", tmp_path / str(processes), *more)
        assert forks.run(*arguments, float64=True, processes=processes, always_save=False) == 0, forks.said()
    assert difference(newest(tmp_path / "2"), newest(tmp_path / "1")) < 1e-9
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in "12")
    assert one["epoch"] == two["epoch"] and one["confusion"] == two["confusion"]
    assert one["temperature"] == pytest.approx(two["temperature"], rel=1e-4)
    files = [
        [line.split(",")[:3] for line in (tmp_path / n / "predictions.csv").read_text().splitlines()] for n in "12"
    ]
    assert files[0] == files[1]


def test_second_order_and_what_is_seen_without_the_sum_of_alphas_gradients(forks: ForkServer, tmp_path: Path) -> None:
    """Two processes that share the work, and two that add up the gradients of the weights alone."""
    more = ["--search.order=2", '--search.stages={"layers":[1],"keep":[0],"epochs":[1],"weight_epochs":[0]}']
    alphas = []
    for number, how in enumerate(({}, {"processes": 2}, {"processes": 2, "lonely_alphas": True})):
        arguments = command("search", tmp_path / str(number), *more)
        assert forks.run(*arguments, float64=True, always_save=False, **how) == 0, forks.said()
        alphas.append(newest(tmp_path / str(number))["architecture"]["alpha"])
    assert difference(alphas[1], alphas[0]) < 1e-9
    assert difference(alphas[2], alphas[0]) > 1e-6


@pytest.mark.parametrize("method", ["pc-darts", "p-darts", "gdas", "evolution", "autoformer"])
def test_what_rivals_draw_is_drawn_alike(method: str, forks: ForkServer, tmp_path: Path) -> None:
    """Methods with random numbers or judgements of their own: two processes end where one does."""
    stages = '--search.stages={"layers":[1],"keep":[0],"epochs":[1],"weight_epochs":[0]}'
    few = [
        f"--method={method}",
        stages,
        "--search.finals.cells=0",
        "--search.evolution.population=6",
        "--search.evolution.generations=1",
        "--search.autoformer.population=6",
        "--search.autoformer.generations=1",
    ]
    ends = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        assert forks.run(*command("search", run, *few), float64=True, always_save=False, processes=processes) == 0
        ends.append(newest(run))
    assert difference(ends[1], ends[0]) < 1e-9


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("kind", COMMANDS)
def test_another_number_of_processes_goes_on(
    kind: str, before: int, after: int, forks: ForkServer, alone: dict[str, Path], tmp_path: Path
) -> None:
    arguments = command(kind, tmp_path / "run")
    status = forks.run(*arguments, float64=True, processes=before, place=STEPS[kind], call=6)
    assert status != 0
    assert forks.run(*arguments, "--resume", float64=True, processes=after) == 0, forks.said()
    assert difference(newest(tmp_path / "run"), newest(alone[kind])) < 1e-9


def test_evaluation_with_uneven_shards(forks: ForkServer, alone: dict[str, Path]) -> None:
    """Batches of 100 images, a last one of one image: the second process gets none of it."""
    said = []
    for processes in (1, 2):
        arguments = ["evaluate", alone["train"], "--data.eval_limit=101", "--runtime.device=cpu", "--json"]
        assert forks.run(*arguments, processes=processes) == 0, forks.said()
        (line,) = [line for line in forks.said().splitlines() if line.startswith("{")]
        said.append(json.loads(line))
    for key in ("loss", "ece"):
        assert said[0].pop(key) == pytest.approx(said[1].pop(key), rel=1e-6)
    assert said[0] == said[1] and said[0]["images"] == 101


def test_a_batch_smaller_than_the_number_of_processes(forks: ForkServer, tmp_path: Path) -> None:
    arguments = command("search", tmp_path / "run", "--search.batch_size=1")
    assert forks.run(*arguments, processes=2) == 2
    assert "search.batch_size is 1" in forks.said() and "Traceback" not in forks.said()


WORKER = """
import math, os, sys
sys.path.insert(0, {tests!r})
import fork_server
fork_server.saver.SHARE = math.inf
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
    fork_server.die_at("dasvit.search.loop.weight_step", 6, False, 9)
fork_server.cli.main(sys.argv[1:])
"""


def test_torchrun_starts_a_killed_worker_again(
    forks: ForkServer, alone: dict[str, Path], tmp_path: Path, faults: Faults
) -> None:
    """The second of two workers is killed in its sixth step."""
    (tmp_path / "worker.py").write_text(WORKER.format(tests=str(Path(__file__).parent)))
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--max-restarts=1", "--standalone"]
    arguments = ["search", *OPTIONS, *SAME, "--run", str(tmp_path / "run")]
    result = subprocess.run(
        [sys.executable, *torchrun, "--", tmp_path / "worker.py", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    faults.provoked("torchrun worker killed")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("training and 100 test images") == 2, "it was not started again"
    assert forks.run(*arguments[:-1], tmp_path / "undisturbed", processes=2) == 0
    assert difference(newest(tmp_path / "run"), newest(tmp_path / "undisturbed")) == 0
    faults.survived("torchrun worker killed")
