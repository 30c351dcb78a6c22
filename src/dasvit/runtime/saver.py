"""When a run saves its state, and how it ends before its end: shared by the search and the training loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

from dasvit.errors import Stopped, UserError
from dasvit.io.run_folder import RunFolder
from dasvit.runtime.checkpoint import load_checkpoint, save_checkpoint
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter

SHARE = 0.02
"""The largest share of a run's time that its checkpoints may take."""
FIRST_GUESS = 0.1
"""Seconds that a checkpoint is taken to cost before one was written."""
T = TypeVar("T")
TIME_IS_UP = -1
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Deadline:
    """The moment at which a run shall stop.

    Attributes:
        at: On the clock of `time.monotonic()`.
    """

    at: float = math.inf

    @classmethod
    def after(cls, minutes: float, begun: float | None = None) -> Deadline:
        """Return the moment in so many minutes; never, in 0.

        Args:
            minutes: How many.
            begun: From which moment on, on the clock of `time.monotonic()`. None: now.

        Raises:
            UserError: Less than 0 minutes.
        """
        if not minutes >= 0:
            raise UserError(f"--max-minutes must not be negative, but is {minutes}.")
        start = time.monotonic() if begun is None else begun
        return cls(start + 60 * minutes if minutes else math.inf)


NEVER = Deadline()


class Saver:
    """Saves a run's state in time, finds it again, and stops the run at a step's end when that is asked for.

    Within its `with` block SIGTERM and SIGINT do not end the process: the next `step` does, with a checkpoint. A second
    SIGINT ends it at once.

    Args:
        run: Whose `checkpoints/` and logs these are.
        logs: JSON-lines files that grow by a line an epoch; each checkpoint knows how many there were.
        runtime: This process among its peers.
        reporter: Told of damaged checkpoints, and what the checkpoints cost.
        deadline: When to stop.
    """

    def __init__(
        self, run: RunFolder, logs: tuple[str, ...], runtime: Runtime, reporter: Reporter, deadline: Deadline
    ) -> None:
        self.run, self.logs, self.runtime, self.reporter, self.deadline = run, logs, runtime, reporter, deadline
        self._started = self._saved = time.perf_counter()
        self._costs: list[float] = []
        self._signal = 0
        self._ended = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Saver:
        if threading.current_thread() is threading.main_thread():  # elsewhere python lets nobody listen
            self._handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number

    def load(self) -> dict[str, Any] | None:
        """Return the newest whole state, or None; the logs then hold the lines that it knows, and no others."""
        state = self.runtime.state_from_main(lambda: load_checkpoint(self.run.checkpoints, self.reporter.warn))
        if self.runtime.is_main:
            for name in self.logs:
                self.run.truncate(name, state["rows"] if state else 0)
        self._ended = bool(state and state["ended"])
        return state

    def reopen(self) -> None:
        """Take the run for one that has not ended, whatever the state says that was loaded."""
        self._ended = False

    def step(self, number: int, state: Callable[[], dict[str, Any]], where: str, is_good: bool = True) -> None:
        """Save after a step, where it is time to; end the run where that was asked for.

        Args:
            number: Steps of the whole run so far.
            state: Gives all that the run needs to go on from here; `rows` is the number of lines in the logs.
            where: Where the run is, for its message.
            is_good: Whether the state is one to come back to.

        Raises:
            Stopped: A signal came, or the time is up; the state is saved.
        """
        is_late = time.monotonic() >= self.deadline.at
        is_due, signalled, time_is_up = self.runtime.largest(
            self.runtime.is_main and is_good and self._is_due(), self._signal, is_late
        )
        stop = signalled or (TIME_IS_UP if time_is_up else 0)
        if stop or is_due:
            self._save(number, state)
        if stop:
            why = "the time is up" if stop == TIME_IS_UP else signal.Signals(stop).name
            raise Stopped(f"{why}: stopped at {where}", 0 if stop == TIME_IS_UP else 128 + stop)

    def watch(self, items: Iterable[T], number: int, state: Callable[[], dict[str, Any]], where: str) -> Iterator[T]:
        """Walk through items that change no state, as those of an evaluation, with a `step` behind each."""
        for item in items:
            yield item
            self.step(number, state, where)

    def finish(self, number: int, state: Callable[[], dict[str, Any]], ended: bool = True) -> None:
        """Save the state at the run's end, unless that is where it was found, and say what the checkpoints took.

        Args:
            number: Steps of the whole run so far.
            state: See `step`.
            ended: Whether the run is over. False: it pauses here.
        """
        if not self._ended:
            self._save(number, state, ended)
        if self._costs:
            seconds, total = sum(self._costs), time.perf_counter() - self._started
            times = "checkpoint" if len(self._costs) == 1 else "checkpoints"
            self.reporter.say(
                f"{len(self._costs)} {times} took {seconds:.2f} s, {100 * seconds / total:.1f} % of {total:.0f} s"
            )

    def _is_due(self) -> bool:
        """Tell whether saving now keeps within the share, the save at the run's end included."""
        now = time.perf_counter()
        cost = self._costs[-1] if self._costs else FIRST_GUESS
        fits = sum(self._costs) + 2 * cost <= SHARE * (now - self._started)
        return fits and cost <= SHARE * (now - self._saved)

    def _save(self, number: int, state: Callable[[], dict[str, Any]], ended: bool = False) -> None:
        start = time.perf_counter()
        content = state()  # every process takes part where weights are shared
        if self.runtime.is_main:
            save_checkpoint(self.run.checkpoints, number, {**content, "ended": ended})
        self._saved = time.perf_counter()
        self._costs.append(self._saved - start)


@contextmanager
def caught() -> Iterator[list[int]]:
    """Collect the signals that ask to stop, in place of ending; the processes beside us save their states."""
    signals: list[int] = []
    handlers: dict[int, Any] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, remember) for number in SIGNALS}
    try:
        yield signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
