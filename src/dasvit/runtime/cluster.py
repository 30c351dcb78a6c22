"""Where runs are done if not here: as processes of this machine, or through submitit as jobs of a cluster.

Those are Slurm's, as one array, or this machine's to try it out. What submitit starts imports this module to find what
it is to run: torch stays out of it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dasvit.config import recipe as recipes
from dasvit.errors import UserError, unknown
from dasvit.io.files import read_object, write_whole

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job
    from submitit.core.utils import DelayedSubmission

KINDS = ("local", "slurm")
NOTICE = 120
"""Seconds before its time limit at which a job is told to save and to queue up again."""
TIMES = 1000
"""How often a job may reach its time limit: it comes further each time."""
LOOKS = {"processes": 0.1, "local": 0.1, "slurm": 5.0}
"""Seconds between two looks at the runs."""
LIVE = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED", "SUSPENDED", "CONFIGURING")
"""Slurm's words for a job that has not ended."""
NAME = re.compile(r"[\w.,:&|*()+-]*", re.ASCII)
"""What may stand in the head of a batch script: no space, no line's end."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(kw_only=True)
class ClusterConfig:
    """What each run asks of the cluster: the fields of the file that `--cluster-config` names.

    Attributes:
        partition: Slurm's partition. Empty: the cluster's own choice, as in the three that follow.
        account: Who pays.
        qos: Quality of service.
        constraint: Features that a node must have.
        minutes: Time limit of a job; a run that takes longer saves its state and queues up again.
        cpus: Cores of a run, and its threads.
        gpus: GPUs of a run.
        memory: Memory of a run, in GB.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    minutes: int = 240
    cpus: int = 1
    gpus: int = 0
    memory: int = 8


def read_cluster(path: str) -> ClusterConfig:
    """Read the file of --cluster-config; an empty name gives the defaults.

    Raises:
        UserError: It cannot be read, or a field is unknown or of the wrong kind.
    """
    if not path:
        return ClusterConfig()
    try:
        content = recipes.read_yaml(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the file of --cluster-config {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold fields, as 'partition: gpu'.")
    recipes.check_fields(content, ClusterConfig, path)
    config = ClusterConfig(**content)
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), field.default
        if isinstance(default, str) and not (isinstance(value, str) and NAME.fullmatch(value)):
            raise UserError(f"{path}: {field.name} must be a name as Slurm has them, not {value!r}.")
        least = 0 if field.name == "gpus" else 1
        if isinstance(default, int) and (type(value) is not int or value < least):
            raise UserError(f"{path}: {field.name} must be a whole number of at least {least}, not {value!r}.")
    if 60 * config.minutes <= 2 * NOTICE:
        raise UserError(f"{path}: minutes must be more than {2 * NOTICE // 60}: a run needs some of them to save in.")
    return config


@dataclass
class RemoteRun:
    """A run's command, as a process of its own or a job of submitit's does it.

    Attributes:
        command: Program and arguments.
        log: File that what it says is appended to.
        threads: Of its arithmetic.
    """

    command: Sequence[str]
    log: str
    threads: int
    _process: subprocess.Popen[bytes] | None = None

    def start(self, file: IO[bytes], alone: bool) -> subprocess.Popen[bytes]:
        """Start the command. Alone: it hears of no signal that the terminal sends."""
        return subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **dict.fromkeys(THREADS, str(self.threads))},
            start_new_session=alone,
        )

    def __call__(self) -> int:
        """Return the command's exit status; a signal that ends this process ends it, too, once it has saved.

        The log is locked as long as it runs: no two jobs do the same run.
        """
        with open(self.log, "ab") as file:
            lock(file.fileno())
            self._process = self.start(file, alone=True)  # with the file it has the lock; signals come from us: once
            try:
                while self._process.poll() is None:
                    time.sleep(LOOKS["local"])
                return int(self._process.returncode)
            finally:
                self._stop()
                self._process.wait()

    def checkpoint(self) -> DelayedSubmission:
        """Have the run save its state, and return what goes on with it: submitit asks so before a job is put back."""
        from submitit.core.utils import DelayedSubmission

        self._stop()
        return DelayedSubmission(RemoteRun(self.command, self.log, self.threads))

    def _stop(self) -> None:
        """End the run with a checkpoint. Called by a signal's handler as well, so in between any two lines above."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._process.pid, signal.SIGTERM)
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)


def lock(descriptor: int) -> None:
    """Wait until no other process holds a file, and hold it; where the file system has no locks, go on without."""
    with suppress(OSError, ImportError):  # Windows has none
        from fcntl import LOCK_EX, flock

        flock(descriptor, LOCK_EX)


class Processes:
    """Runs as processes of this machine, each with its share of the cores.

    Attributes:
        kind: Key of LOOKS.
        at_once: The most runs beside each other.
        room: The most runs that it takes at a time; others wait.
        threads: Of a run.
    """

    kind = "processes"

    def __init__(self, at_once: int) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.at_once = self.room = at_once
        self.threads = max(1, cores // at_once)

    def submit(self, runs: Mapping[str, RemoteRun]) -> dict[str, subprocess.Popen[bytes]]:
        """Begin runs, and return what each is known by, both by the runs' names."""
        started = {}
        for name, run in runs.items():
            with open(run.log, "ab") as file:
                started[name] = run.start(file, alone=False)
        return started

    def has_ended(self, job: subprocess.Popen[bytes]) -> bool:
        """Tell whether a run has ended, well or not."""
        return job.poll() is not None

    def leave(self, jobs: Iterable[tuple[RemoteRun, subprocess.Popen[bytes]]]) -> bool:
        """Turn away from runs that have not ended; return whether they go on, or have saved and ended."""
        processes = [process for _, process in jobs]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        return False


class Cluster:
    """Jobs of a cluster; it is asked as `Processes` is.

    Args:
        kind: local or slurm.
        config: What each run asks for.
        root: The folder of what the runs are of.
        at_once: The most of them that run beside each other.

    Raises:
        UserError: Slurm's commands are not there.
    """

    def __init__(self, kind: str, config: ClusterConfig, root: Path, at_once: int) -> None:
        if kind not in KINDS:
            raise unknown("cluster", kind, KINDS)
        if kind == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise UserError(
                "there is no sbatch on this machine: give the command where jobs are submitted, or try --cluster local."
            )
        self.kind, self.config, self.folder, self.at_once = kind, config, root / "cluster", at_once
        self.room = at_once if kind == "local" else sys.maxsize  # Slurm keeps the limit itself
        self.threads = config.cpus

    def submit(self, runs: Mapping[str, RemoteRun]) -> dict[str, Job[int]]:
        """Send runs to the cluster, those that are not there since an earlier call of the command.

        Raises:
            UserError: The cluster refuses them.
        """
        from submitit.core.utils import FailedJobError
        from submitit.helpers import clean_env

        self.folder.mkdir(exist_ok=True)
        known = self._known()
        jobs = {name: job for name in runs if (job := self._find(known.get(name)))}
        new = {name: run for name, run in runs.items() if name not in jobs}
        if new:
            # Its pickles are read by the jobs: a folder of its own, which nobody else can write to.
            executor = self._executor(tempfile.mkdtemp(dir=self.folder))
            try:
                with clean_env(), executor.batch():
                    submitted = {name: executor.submit(run) for name, run in new.items()}
            except FailedJobError as error:
                raise UserError(f"the cluster refuses the jobs: {' '.join(str(error).split())}") from None
            known |= {name: [str(job.paths.folder), job.job_id] for name, job in submitted.items()}
            text = json.dumps(known, indent=2) + "\n"
            write_whole(self.folder / "jobs.json", text.encode())
            jobs |= submitted
        return jobs

    def has_ended(self, job: Job[int]) -> bool:
        """Tell whether a job has ended, well or not."""
        return job.done()

    def leave(self, jobs: Iterable[tuple[RemoteRun, Job[int]]]) -> bool:
        """Let Slurm's jobs go on; end this machine's with a checkpoint."""
        if self.kind == "slurm":
            return True
        jobs = list(jobs)
        for _, job in jobs:
            job.cancel()
        for run, job in jobs:
            job.wait()
            with open(run.log, "ab") as file:  # until what the job had started has saved
                lock(file.fileno())
        return False

    def _executor(self, folder: str) -> AutoExecutor:
        import submitit

        config = self.config
        executor = submitit.AutoExecutor(folder, cluster=self.kind, **{f"{self.kind}_max_num_timeout": TIMES})
        executor.update_parameters(
            name="dasvit",
            timeout_min=config.minutes,
            cpus_per_task=config.cpus,
            gpus_per_node=config.gpus,
            mem_gb=config.memory,
            slurm_array_parallelism=self.at_once,
            slurm_signal_delay_s=NOTICE,
            slurm_additional_parameters={"requeue": True},
            **{
                f"slurm_{name}": getattr(config, name) or None for name in ("partition", "account", "qos", "constraint")
            },
        )
        return executor

    def _known(self) -> dict[str, Any]:
        return read_object(self.folder / "jobs.json")

    def _find(self, entry: Any) -> Job[int] | None:
        """Return an earlier call's job that Slurm still has; None where there is none."""
        import submitit

        if self.kind != "slurm" or not isinstance(entry, list) or len(entry) != 2:
            return None
        if not re.fullmatch(r"\d+(_\d+)?", str(entry[1])) or not Path(str(entry[0])).is_dir():
            return None
        job: Job[int] = submitit.SlurmJob(folder=str(entry[0]), job_id=str(entry[1]))
        return job if job.state.split(" ")[0].upper() in LIVE and not job.paths.result_pickle.exists() else None


def open_cluster(kind: str, asked: str, folder: str, at_once: int, precision: str) -> Cluster:
    """Return the cluster that options name.

    Args:
        kind: local or slurm.
        asked: The file of --cluster-config. Empty: the defaults.
        folder: The folder of what the runs are of.
        at_once: The most runs beside each other.
        precision: `runtime.precision`.

    Raises:
        UserError: The cluster, its file or a precision for its machines is not there.
    """
    if kind == "slurm" and precision == "auto":
        raise UserError(
            "runtime.precision auto would be measured on a machine that does no run: say float32 or bfloat16."
        )
    return Cluster(kind, read_cluster(asked), Path(folder), at_once)


Place = Processes | Cluster
"""Where runs are done, if not in this process."""
