"""What the terminal shows while a run goes on: bars on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T", covariant=True)


class SizedIterable(Sized, Iterable[T], Protocol[T]):
    """Something with a length that can be walked through."""


class Reporter:
    """Writes progress to standard error, so that standard output holds results alone.

    Args:
        quiet: Write nothing; of several processes, only the first writes.
    """

    def __init__(self, quiet: bool = False) -> None:
        quiet = quiet or os.environ.get("RANK", "0") != "0"
        self.console = Console(stderr=True, quiet=quiet, soft_wrap=True)

    def say(self, text: str) -> None:
        """Write one line."""
        self.console.print(text, highlight=False, markup=False)

    def track(self, items: SizedIterable[T], description: str, done: int = 0) -> Iterator[T]:
        """Walk through items under a bar that vanishes when they end (none where there is no terminal).

        Args:
            items: What is walked through; its length is the bar's.
            description: What is being done, as "stage 1/3, epoch 2/30".
            done: How many of them lie behind us already and do not come.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(description, total=len(items), completed=done)
            for item in items:
                yield item
                bar.advance(task)
