"""What the terminal shows while a run goes on: bars and live figures on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from importlib.util import find_spec
from typing import Protocol, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T", covariant=True)
EVERY = 1.0
"""Seconds between two looks at the live figures: on a GPU each waits for the steps before it."""


class SizedIterable(Sized, Iterable[T], Protocol[T]):
    """Something with a length that can be walked through."""


class LiveBar(Progress):
    """A bar with lines of text below it.

    Attributes:
        lines: These lines; they may change while the bar is shown.
    """

    lines: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bar, then the lines."""
        yield self.make_tasks_table(self.tasks)
        yield from (Text(line, style="dim") for line in self.lines)


class Reporter:
    """Writes progress to standard error, so that standard output holds results alone.

    Args:
        quiet: Write nothing; of several processes, only the first writes.
        about: What this is the reporter of, where that is a part of a run: it shows bars, and of lines the warnings
            alone, each with this in front.

    Attributes:
        warnings: What was warned of, each once.
    """

    about = ""

    def __init__(self, quiet: bool = False, about: str = "") -> None:
        self.about = about
        self.warnings: list[str] = []
        quiet = quiet or os.environ.get("RANK", "0") != "0"
        self.console = Console(stderr=True, quiet=quiet, soft_wrap=True)

    def part(self, about: str) -> Reporter:
        """Return a reporter for a part of the run: it shows bars, and warnings with the part's name."""
        reporter = Reporter(self.console.quiet, about)
        reporter.warnings = self.warnings
        return reporter

    def say(self, text: str) -> None:
        """Write one line."""
        if not self.about:
            self._write(text)

    def warn(self, text: str) -> None:
        """Write a line that is not passed over: what the user should know of, once."""
        text = f"{self.about}: {text}" if self.about else text
        if text not in self.warnings:
            self.warnings.append(text)
            self._write(text)

    def _write(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def _in_notebook(self) -> bool:
        """Tell whether a bar can move in a notebook; without ipywidgets rich would write line after line."""
        return self.console.is_jupyter and not self.console.quiet and find_spec("ipywidgets") is not None

    def track(
        self, items: SizedIterable[T], description: str, done: int = 0, live: Callable[[], Sequence[str]] | None = None
    ) -> Iterator[T]:
        """Walk through items under a bar that vanishes when they end (none where there is no terminal).

        Args:
            items: What is walked through; its length is the bar's.
            description: What is being done, as "stage 1/3, epoch 2/30".
            done: How many of them lie behind us already and do not come.
            live: Gives the lines below the bar; it is asked about once a second.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        is_shown, looked = self.console.is_terminal or self._in_notebook(), -math.inf
        with LiveBar(*columns, console=self.console, transient=True, disable=not is_shown) as bar:
            task = bar.add_task(description, total=len(items), completed=done)
            for item in items:
                yield item
                bar.advance(task)
                if live and is_shown and time.monotonic() - looked >= EVERY:
                    bar.lines, looked = live(), time.monotonic()
