"""Runs of a study as jobs: what is sent to Slurm (its commands replaced), found again, and how a job is stopped."""

import fcntl
import json
import os
import pickle
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dasvit.api.recipe import make_config
from dasvit.cell.genotype import load_genotype
from dasvit.config import Config
from dasvit.errors import Stopped, UserError
from dasvit.runtime import cluster as clusters
from dasvit.runtime.cluster import Cluster, ClusterConfig, RemoteRun, read_cluster
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline, caught
from dasvit.search.remote import RemotePool
from dasvit.session import load_session
from dasvit.study.jobs import Job, Runner
from helpers import SMALL, call_cli

JOBS = [Job(f"trainings/vit/seed{seed}", f"train ViT, seed {seed}", Config(), "vit") for seed in (0, 1)]
STUBS = {
    "sbatch": 'cp "$1" "$LOG/script"; echo "$SLURM_JOB_NAME" >> "$LOG/sbatch"; echo "Submitted batch job $NUMBER"',
    "srun": "exit 1",
    "sacct": 'printf "JobID|State|NodeList\\n%s_[0-1]|RUNNING|n1\\n%s|RUNNING|n1\\n" "$NUMBER" "$NUMBER"',
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which Slurm's replaced commands leave what they were given; its jobs run for ever."""
    (tmp_path / "bin").mkdir()
    for name, text in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path))
    monkeypatch.setenv("NUMBER", str(time.time_ns()))  # submitit remembers what it knows of a job as long as it lives
    monkeypatch.setenv("SLURM_JOB_NAME", "outer")  # as within a job of Slurm's
    monkeypatch.setitem(clusters.LOOKS, "slurm", 0.01)
    return tmp_path


def runner(root: Path, seconds: float) -> Runner:
    root.mkdir(exist_ok=True)
    cluster = Cluster("slurm", ClusterConfig(partition="gpu", gpus=2, memory=9), root, 3)
    deadline = Deadline(time.monotonic() + seconds)
    return Runner(root, Reporter(quiet=True), deadline, cluster, {"search": 0, "train": 2}, 2)


def test_an_array_is_sent_once_and_found_again(slurm: Path) -> None:
    root = slurm / "study"
    for _ in range(2):  # the second one finds what the first one sent
        with pytest.raises(Stopped, match="2 runs go on in the cluster"):
            runner(root, 1).run(JOBS)
    assert (slurm / "sbatch").read_text() == "\n", "sent twice, or with the variables of the job around it"
    head = {line.removeprefix("#SBATCH --") for line in (slurm / "script").read_text().splitlines() if "#SB" in line}
    wanted = {"array=0-1%2", "partition=gpu", "gpus-per-node=2", "mem=9GB", "time=240", "requeue", "signal=USR2@120"}
    assert wanted <= head
    known = json.loads((root / "cluster" / "jobs.json").read_text())
    assert list(known) == ["trainings_vit_seed0", "trainings_vit_seed1"]
    assert all(Path(folder).stat().st_mode & 0o777 == 0o700 for folder, _ in known.values())


class Payload:
    """A pickle that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_jobs_that_end(slurm: Path) -> None:
    """One has written its model, the other a reason; what a job returns is a pickle, and is not read."""
    root, trace = slurm / "study", slurm / "trace"
    with pytest.raises(Stopped):
        runner(root, 0.5).run(JOBS)
    waiting = runner(root, 60)
    (root / JOBS[0].folder / "model").mkdir(parents=True)
    (root / "logs" / "trainings_vit_seed1.txt").write_text("one\nit diverged\n")

    def end() -> None:
        time.sleep(0.5)
        (root / JOBS[0].folder / "model" / "config.json").write_text("{}")
        for folder, number in json.loads((root / "cluster" / "jobs.json").read_text()).values():
            Path(folder, f"{number}_0_result.pkl").write_bytes(pickle.dumps(Payload(trace)))

    ending = threading.Thread(target=end)
    ending.start()
    waiting.run(JOBS)
    ending.join()
    assert waiting.failures == ["train ViT, seed 1: it diverged"] and waiting.left["train"] == 0
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload does not work"


def test_a_refusal(slurm: Path) -> None:
    (slurm / "bin" / "sbatch").write_text("#!/bin/bash\necho invalid partition >&2; exit 1\n")
    with pytest.raises(UserError, match=r"the cluster refuses the jobs: .*invalid partition"):
        runner(slurm / "study", 60).run(JOBS)


SAVES = """
import signal, sys, time
def save(*_):
    print("saved", flush=True)
    raise SystemExit(143)
signal.signal(signal.SIGTERM, save)
print("begun", flush=True)
time.sleep(60)
"""


def wait_for(log: Path, words: str) -> None:
    while words not in (log.read_text() if log.exists() else ""):
        time.sleep(0.01)


def test_a_job_that_is_put_back_has_saved(tmp_path: Path) -> None:
    """As submitit's handler of a signal does it, in the middle of the call; a second one waits for the first."""
    log = tmp_path / "log"
    first = RemoteRun([sys.executable, "-c", SAVES], str(log), 1)
    second = RemoteRun([sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"], str(log), 3)
    status: list[int] = []
    calls = [threading.Thread(target=lambda run=run: status.append(run()), daemon=True) for run in (first, second)]
    calls[0].start()
    wait_for(log, "begun")
    calls[1].start()
    with log.open("ab") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    delayed = first.checkpoint()
    for call in calls:
        call.join()
    assert delayed.function == RemoteRun(first.command, first.log, 1)
    assert status == [143, 0] and log.read_text().split() == ["begun", "saved", "3"]


def test_a_job_that_is_ended_ends_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"

    def sleep(seconds: float) -> None:
        if log.read_text():
            raise KeyboardInterrupt

    monkeypatch.setattr(clusters, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(KeyboardInterrupt):
        RemoteRun([sys.executable, "-c", SAVES], str(log), 1)()
    assert log.read_text().split() == ["begun", "saved"]


def test_jobs_of_this_machine_end_with_the_command(tmp_path: Path) -> None:
    run = RemoteRun([sys.executable, "-c", SAVES], str(tmp_path / "log"), 1)
    cluster = Cluster("local", ClusterConfig(), tmp_path, 2)
    with caught():  # as the command does: what it starts then listens to a signal
        jobs = cluster.submit({"a": run})
        wait_for(tmp_path / "log", "begun")
        assert cluster.room == 2
        assert not cluster.leave([(run, jobs["a"])])
    assert jobs["a"].done() and (tmp_path / "log").read_text().split() == ["begun", "saved"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("partitions: gpu", "Did you mean 'partition'"),
        ("partition: 'a\nrm -r x'", "must be a name"),
        ("account: 7", "must be a name"),
        ("gpus: many", "at least 0"),
        ("cpus: 0", "at least 1"),
        ("memory: true", "at least 1"),
        ("minutes: 4", "more than 4"),
        ("[gpu]", "must hold fields"),
    ],
)
def test_mistakes_in_the_clusters_file(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        read_cluster(str(tmp_path / "cluster.yaml"))


def test_mistakes_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*more: str) -> str:
        status, _, err = call_cli("study", *SMALL, "--run", tmp_path / "s", *more)
        assert status == 2 and not (tmp_path / "s").exists()
        return err

    assert "--cluster slurm" in refused("--cluster-config=x.yaml")
    assert "cannot read the file of --cluster-config" in refused("--cluster=local", "--cluster-config=x.yaml")
    assert "unknown cluster 'pbs'" in refused("--cluster=pbs")
    assert "precision auto" in refused("--cluster=slurm", "--runtime.precision=auto")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no sbatch on this machine" in refused("--cluster=slurm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'dasvit[cluster]'" in refused("--cluster=local")


SEARCH = (*SMALL, "--method", "finals", "--search.finals.cells", 2, "--search.finals.rungs", "[1, 2]")


def test_candidates_as_jobs_end_as_those_of_one_process(tmp_path: Path) -> None:
    jobs = ("--cluster", "local", "--jobs", 2)
    status, _, err = call_cli("search", *SEARCH, *jobs, "--run", tmp_path / "jobs")
    assert status == 0, err
    assert call_cli("search", *SEARCH, "--jobs", 2, "--run", tmp_path / "here")[0] == 0
    found = [(tmp_path / run / "derivation.json").read_text() for run in ("jobs", "here")]
    assert found[0] == found[1]
    assert len(list((tmp_path / "jobs/logs").glob("*-rung1.txt"))) == 2
    assert len(list((tmp_path / "jobs/logs").glob("*-rung2.txt"))) >= 1
    sent = {path: path.stat().st_mtime_ns for path in (tmp_path / "jobs/logs").iterdir()}
    assert call_cli("search", *SEARCH, *jobs, "--run", tmp_path / "jobs")[0] == 0
    assert sent == {path: path.stat().st_mtime_ns for path in (tmp_path / "jobs/logs").iterdir()}, "sent again"


def test_candidates_that_wait_in_the_queue_are_left_and_found_again(slurm: Path) -> None:
    command = ("search", *SEARCH, "--cluster", "slurm", "--runtime.precision", "float32", "--run", slurm / "run")
    for _ in range(2):
        status, _, err = call_cli(*command, "--max-minutes", 0.02)
        assert status == 0 and "the time is up: stopped among the candidates" in err
        assert "1 candidates go on in the cluster, and the same command waits for them" in err
    assert (slurm / "sbatch").read_text() == "\n", "sent twice"


def test_a_candidates_job_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    session = load_session(make_config("digits"), str(tmp_path), "search", Reporter(quiet=True))
    cell = load_genotype("dasvit_shift")

    class Fails(Cluster):
        def submit(self, runs: Mapping[str, RemoteRun]) -> dict[str, Any]:
            for run in runs.values():
                Path(run.log).write_text("loading\nno disk is left\n")
            return dict.fromkeys(runs)

        def has_ended(self, job: object) -> bool:
            return True

    place = Fails("local", ClusterConfig(), tmp_path, 1)
    with (
        RemotePool(session, place, lambda cell: []) as pool,
        pytest.raises(UserError, match=r"logs/.*-rung1\.txt: no disk is left"),
    ):
        pool.submit(cell, 0).result()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--cluster-config", "x.yaml"), "say where, as --cluster slurm"),
        (("--cluster", "slurm", "--search.finals.cells", 0, "--method", "darts"), "this search has none"),
        (("--cluster", "moon"), "unknown cluster 'moon'"),
    ],
)
def test_mistakes_of_a_search_on_a_cluster(options: tuple[object, ...], words: str, tmp_path: Path) -> None:
    status, _, err = call_cli("search", *SEARCH, *options, "--run", tmp_path / "run")
    assert status == 2 and words in err and not (tmp_path / "run").exists()
