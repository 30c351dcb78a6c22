"""The searches and trainings of a study: done in this process, or sent to a place (`cluster.py`)."""

from __future__ import annotations

import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from dasvit.cell.subnet import Found
from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.errors import Stopped, UserError
from dasvit.report.words import duration
from dasvit.runtime.cluster import LOOKS, Place, RemoteRun
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline, caught
from dasvit.search.pipeline import run_search
from dasvit.training.pipeline import run_training


@dataclass(frozen=True)
class Job:
    """A search or a training.

    Attributes:
        folder: Its run folder, within the study's.
        label: What it is called on the terminal.
        config: Its recipe.
        subject: What is trained: a cell, a network, or a model's name. None: this is a search.
        cell: File of the cell or network, read where the subject is one.
    """

    folder: str
    label: str
    config: Config
    subject: Found | str | None = None
    cell: str = ""

    def is_done(self, root: Path) -> bool:
        """Tell whether the run's last file is there."""
        last = "derivation.json" if self.subject is None else "model/config.json"
        return (root / self.folder / last).is_file()


@dataclass
class Runner:
    """Does jobs, and says where it stands.

    Attributes:
        root: The study's folder.
        reporter: Told what begins and what has ended, and how long the rest will take.
        deadline: When to stop.
        place: Where jobs are done. None: in this process, one after the other.
        left: Jobs of each kind (search, train) that are still to be done, those of later phases included.
        total: Jobs of the whole study.
        started: Jobs that have begun, or were done before.
        failures: What went wrong, by job.
        times: Seconds of the jobs that have ended, by kind.
        expected: Seconds of a job, by kind, as estimated before any has ended.
    """

    root: Path
    reporter: Reporter
    deadline: Deadline
    place: Place | None
    left: dict[str, int] = field(default_factory=dict)
    total: int = 0
    started: int = 0
    failures: list[str] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=lambda: {"search": [], "train": []})
    expected: dict[str, float] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> None:
        """Do jobs that are not done yet; one that fails does not stop the others.

        Raises:
            Stopped: By a signal or the deadline; the same command goes on.
        """
        todo = []
        for job in jobs:
            if job.is_done(self.root):
                self.left[kind(job)] -= 1
                self.started += 1
            else:
                todo.append(job)
        if self.place:
            self._away(todo, self.place)
        else:
            self._here(todo)

    def _here(self, todo: Sequence[Job]) -> None:
        for job in todo:
            if self._is_late():
                raise Stopped("the time is up: stopped between two runs", 0)
            start = time.monotonic()
            self._begins(job)
            try:
                with log(self.root, job) as file:
                    do_job(job, self.root, file, self.deadline)
                self._ends(job, time.monotonic() - start)
            except UserError as error:
                self._fails(job, str(error))

    def _away(self, todo: Sequence[Job], place: Place) -> None:
        """Send jobs to a place, and wait for them."""
        waiting, running, go_on = list(todo), list[tuple[Job, RemoteRun, Any, float]](), False
        with caught() as signals:
            try:
                while (running or waiting) and not signals and not self._is_late():
                    room = max(0, place.room - len(running))
                    batch, waiting = waiting[:room], waiting[room:]
                    running += self._send(batch, place)
                    for entry in [entry for entry in running if place.has_ended(entry[2])]:
                        running.remove(entry)
                        job, _, _, start = entry
                        if job.is_done(self.root):
                            self._ends(job, time.monotonic() - start)
                        else:
                            self._fails(job, self._last_words(job))
                    time.sleep(LOOKS[place.kind])
            finally:
                if running:
                    go_on = place.leave((run, handle) for _, run, handle, _ in running)
        hint = f"; {len(running)} runs go on in the cluster, and the same command waits for them" if go_on else ""
        if signals:
            raise Stopped(f"{signal.Signals(signals[0]).name}: stopped{hint}", 128 + signals[0])
        if running or waiting:
            raise Stopped(f"the time is up: stopped{hint}", 0)

    def _send(self, batch: Sequence[Job], place: Place) -> list[tuple[Job, RemoteRun, Any, float]]:
        """Submit jobs; return each with what the place knows it by, and since when."""
        runs = {}
        for job in batch:
            self._begins(job)
            with log(self.root, job) as file:
                command = [sys.executable, "-m", "dasvit", *arguments(job, self.root)]
                runs[name(job)] = RemoteRun(command, str(Path(file.name).resolve()), place.threads)
        handles = place.submit(runs) if runs else {}
        return [(job, runs[name(job)], handles[name(job)], time.monotonic()) for job in batch]

    def _last_words(self, job: Job) -> str:
        lines = (self.root / "logs" / f"{name(job)}.txt").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it ended without a word"

    def _is_late(self) -> bool:
        return time.monotonic() >= self.deadline.at

    def _begins(self, job: Job) -> None:
        self.started += 1
        self.reporter.say(f"run {self.started} of {self.total}: {job.label} ({self.root / job.folder}/report.html)")

    def _ends(self, job: Job, seconds: float) -> None:
        self.left[kind(job)] -= 1
        self.times[kind(job)].append(seconds)
        self.reporter.say(f"{job.label}: done in {duration(seconds)}{self._time_left()}")

    def _fails(self, job: Job, why: str) -> None:
        self.left[kind(job)] -= 1
        self.failures.append(f"{job.label}: {why}")
        self.reporter.say(f"{job.label} failed: {why}")

    def _time_left(self) -> str:
        """Return about how long the rest will take, nothing where a kind of job was neither seen nor estimated yet."""
        known = {kind: statistics.fmean(times) for kind, times in self.times.items() if times}
        each = {kind: known.get(kind, self.expected.get(kind)) for kind in self.times}
        if any(self.left[kind] and seconds is None for kind, seconds in each.items()):
            return ""
        seconds = sum(self.left[kind] * (one or 0.0) for kind, one in each.items())
        return f"; about {duration(seconds / (self.place.at_once if self.place else 1))} left" if seconds else ""


def kind(job: Job) -> str:
    return "search" if job.subject is None else "train"


def name(job: Job) -> str:
    """Return a job's name as a file."""
    return job.folder.replace("/", "_")


def do_job(job: Job, root: Path, file: TextIO, deadline: Deadline) -> None:
    """Do a job in this process; what it says goes into a file.

    Raises:
        UserError: It failed.
        Stopped: By a signal or the deadline.
    """
    reporter = Reporter()
    reporter.console = Console(file=file, width=200, soft_wrap=True)
    folder = str(root / job.folder)
    if job.subject is None:
        run_search(job.config, folder, reporter, deadline=deadline, expected=True)
    else:
        run_training(job.config, job.subject, folder, reporter, deadline=deadline, expected=True)


def arguments(job: Job, root: Path) -> list[str]:
    """Return the command line of a job; its recipe is written where that finds it."""
    config = root / "recipes" / f"{name(job)}.yaml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(recipes.to_yaml(job.config), encoding="utf-8")
    common = ["--config", str(config), "--run", str(root / job.folder)]
    if job.subject is None:
        return ["search", *common]
    what = ["--model", job.subject] if isinstance(job.subject, str) else ["--cell", str(root / job.cell)]
    return ["train", *what, *common]


def log(root: Path, job: Job) -> TextIO:
    """Open the file that holds what a job says; it grows when the job goes on."""
    (root / "logs").mkdir(exist_ok=True)
    return (root / "logs" / f"{name(job)}.txt").open("a", encoding="utf-8", errors="backslashreplace")
