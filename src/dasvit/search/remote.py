"""Candidates as jobs of a cluster: each training until a rung is a command of its own, on a folder that all see."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import cell_key
from dasvit.errors import Stopped, UserError
from dasvit.runtime.cluster import LOOKS, Cluster, RemoteRun
from dasvit.runtime.saver import caught
from dasvit.search.halving import Rung
from dasvit.search.workers import Later
from dasvit.session import Session


class RemotePool:
    """Trains candidates as jobs; within its `with` block a signal leaves them, or ends them with their states saved.

    Args:
        session: The search's; its run folder must be seen by the jobs, and hold its recipe.
        place: Where the jobs are done.
        reached: Reads what a candidate has reached so far, rung by rung.
    """

    def __init__(self, session: Session, place: Cluster, reached: Callable[[Genotype], list[Rung]]) -> None:
        self.session, self.place, self.reached = session, place, reached
        self.running: dict[str, tuple[RemoteRun, Any]] = {}
        self._stack, self._signals = ExitStack(), list[int]()

    def submit(self, cell: Genotype, rung: int) -> Future[Rung]:
        """Begin to train a candidate until a rung, unless it is there already."""
        before = self.reached(cell)
        if len(before) > rung:
            return Later(lambda: before[rung])
        run, name = self.session.run.path, f"{cell_key(cell)}-rung{rung + 1}"
        (run / "logs").mkdir(exist_ok=True)
        log = run / "logs" / f"{name}.txt"
        precision = self.session.runtime.precision
        task = json.dumps({"run": str(run), "cell": cell.to_dict(), "rung": rung, "precision": precision})
        command = [sys.executable, "-m", "dasvit.search.candidate_job", task]
        remote = RemoteRun(command, str(log), self.place.threads)
        self.running[name] = remote, self.place.submit({name: remote})[name]
        return Later(lambda: self.wait(name, cell, rung))

    def wait(self, name: str, cell: Genotype, rung: int) -> Rung:
        """Wait for a job, and return what its candidate reached.

        Raises:
            Stopped: By a signal, or the time is up.
            UserError: The training failed.
        """
        remote, job = self.running[name]
        while not self.place.has_ended(job):
            if self._signals:
                number = self._signals[0]
                raise Stopped(f"{signal.Signals(number).name}: stopped among the candidates", 128 + number)
            if time.monotonic() >= self.session.deadline.at:
                raise Stopped("the time is up: stopped among the candidates", 0)
            time.sleep(LOOKS[self.place.kind])
        del self.running[name]
        reached = self.reached(cell)
        if len(reached) <= rung:
            with open(remote.log, errors="replace") as file:
                lines = file.read().strip().splitlines()
            raise UserError(f"a candidate's job failed, see {remote.log}: {lines[-1] if lines else 'it said nothing'}")
        return reached[rung]

    def __enter__(self) -> RemotePool:
        self._signals = self._stack.enter_context(caught())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if self.running and self.place.leave(self.running.values()):
                self.session.reporter.say(
                    f"{len(self.running)} candidates go on in the cluster, and the same command waits for them"
                )
