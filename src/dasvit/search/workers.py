"""Processes beside this one that train candidates, each with its share of the cores, or a GPU of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any

import torch

from dasvit.cell.genotype import Genotype
from dasvit.errors import Stopped, UserError
from dasvit.io.main_guard import check_ended
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import SIGNALS
from dasvit.search.halving import Rung
from dasvit.session import Session

GRACE = 30.0
"""Seconds that a worker without its parent has to save its state."""
Task = Callable[[Genotype, int, Session], Rung]
_session: Session
"""The session of a worker process."""


class Pool:
    """Trains candidates in several processes; within its `with` block a signal stops them all, with their states saved.

    Args:
        session: What candidates are trained with; a copy of it goes to every process.
        jobs: Processes.
        task: What is done for a cell and a rung.
    """

    def __init__(self, session: Session, jobs: int, task: Task) -> None:
        self.session, self.task, self._signal = session, task, 0
        devices = visible_devices(session.runtime.device)
        context = get_context("spawn")
        number = context.Value("i", 0)
        threads = max(1, torch.get_num_threads() // jobs)
        # Terminal and device cannot be sent: every process has its own.
        bare = replace(session, followers=(), reporter=None, runtime=None)  # type: ignore[arg-type]
        arguments = (bare, session.runtime.precision, threads, devices, number)
        self._pool = ProcessPoolExecutor(jobs, context, prepare, arguments)
        self._handlers: dict[int, Any] = {}
        self._processes: dict[int, BaseProcess] = {}

    def submit(self, cell: Genotype, rung: int) -> Future[Rung]:
        """Begin to train a candidate until a rung; its result waits where others are to be taken first."""
        try:
            future = self._pool.submit(work, self.task, cell, rung)
        except BrokenProcessPool:
            raise self._failure() from None
        self._processes |= self._pool._processes  # a broken pool forgets them
        return Later(lambda: self.wait(future))

    def wait(self, future: Future[Any]) -> Rung:
        """Return a result.

        Raises:
            Stopped: A signal came, or the time is up; all states are saved.
            UserError: The training failed, or its process was killed.
        """
        try:
            while not wait([future], timeout=0.2).done:
                self._check_signal()
            kind, value, status, warnings = future.result()
        except BrokenProcessPool:
            raise self._failure() from None
        for warning in warnings:
            self.session.reporter.warn(warning)
        self._check_signal()
        if kind == "stopped":
            raise Stopped(value, status)
        if kind == "refused":
            raise UserError(value)
        rung: Rung = value
        return rung

    def _failure(self) -> UserError:
        """Return what to say of a process that is gone."""
        self._pool.shutdown()  # waits until it is known how all of them ended
        check_ended(self._processes.values())
        return UserError(
            "a process that trained a candidate was killed (for lack of memory, perhaps): give the same command again "
            "to go on, with fewer --jobs where it happens again."
        )

    def _check_signal(self) -> None:
        if self._signal:
            raise Stopped(f"{signal.Signals(self._signal).name}: stopped among the candidates", 128 + self._signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def __enter__(self) -> Pool:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # what is still being trained saves its state
            for process in self._processes.values():
                process.terminate()  # SIGTERM; nothing where it has ended already
        self._pool.shutdown(wait=True, cancel_futures=True)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


class Later(Future[Rung]):
    """A result that is fetched where it is asked for, with the failures of what fetches it.

    Args:
        fetch: Waits for the result.
    """

    def __init__(self, fetch: Callable[[], Rung]) -> None:
        super().__init__()
        self._fetch = fetch

    def result(self, timeout: float | None = None) -> Rung:
        """Wait for the result."""
        return self._fetch()


def visible_devices(device: torch.device) -> list[str]:
    """Return the GPUs that workers share, as CUDA_VISIBLE_DEVICES names them; none where they compute on CPUs."""
    if device.type != "cuda":
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]


def prepare(session: Session, precision: Any, threads: int, devices: list[str], number: Any) -> None:
    """Make a new process a worker: its device, its threads, and its end when its parent ends."""
    global _session
    with number.get_lock():
        place = number.value
        number.value += 1
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent says who stops
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _session = replace(session, runtime=Runtime(session.config.runtime, precision), reporter=Reporter(quiet=True))


def work(task: Task, cell: Genotype, rung: int) -> tuple[str, Any, int, list[str]]:
    """Do a task in a worker, and return what it gave, or how it ended, and what was warned of, as can be sent."""
    warnings = _session.reporter.warnings
    try:
        return "done", task(cell, rung, _session), 0, warnings
    except Stopped as stopped:
        return "stopped", str(stopped), stopped.status, warnings
    except UserError as error:
        return "refused", str(error), 0, warnings


def _end_with_parent() -> None:
    """Stop the training of this process, with its state saved, when the parent is gone."""
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
