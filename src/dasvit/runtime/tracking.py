"""Trackers: what an epoch measured, sent to TensorBoard, Weights & Biases or trackio (docs/track.md)."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.errors import UserError, unknown
from dasvit.io.files import read_object
from dasvit.io.run_folder import RunFolder
from dasvit.runtime.distributed import TRACKERS, close_tracker, open_tracker
from dasvit.runtime.progress import Reporter

SENT = "tracked.json"
"""What the run folder knows of its trackers: the name that they know the run by, and how many epochs each has."""


def parse_trackers(text: str) -> tuple[str, ...]:
    """Return the trackers that are named in a list such as tensorboard,wandb; none in an empty one.

    Raises:
        UserError: Unknown name.
    """
    names = tuple(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
    return names


class Tracking:
    """Sends the lines of a run's files to trackers, each once, however often the run is cut off.

    Within its `with` block `follow` sends what is new; so does the end. A tracker that fails is named and left out: it
    is never worth a run.

    Args:
        run: Whose `metrics.jsonl` and `architecture.jsonl` are sent.
        names: The trackers.
        config: The run's configuration, which they are told.
        reporter: Told of failures.
    """

    def __init__(self, run: RunFolder, names: Sequence[str], config: Config, reporter: Reporter) -> None:
        self.run, self.names, self.config, self.reporter = run, list(names), config, reporter
        self._open: dict[str, Any] = {}

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *_: object) -> None:
        self.follow()
        for name in list(self._open):
            tracker = self._open.pop(name)
            self._guarded(name, lambda name=name, tracker=tracker: close_tracker(name, tracker))

    def follow(self) -> None:
        """Send the epochs that have ended since the last time."""
        if not self.names:
            return
        rows, lines = self._lines("metrics.jsonl"), self._lines("architecture.jsonl")
        lines += [{}] * (len(rows) - len(lines))
        epochs = [scalars(row, line) for row, line in zip(rows, lines, strict=False)]
        for name in list(self.names):
            self._guarded(name, lambda name=name: self._send(name, epochs))

    def _lines(self, name: str) -> list[dict[str, Any]]:
        try:
            return [row if isinstance(row, dict) else {} for row in self.run.rows(name)]
        except UserError as error:
            self.reporter.say(f"nothing is tracked: {error}")
            return []

    def _guarded(self, name: str, act: Any) -> None:
        """Do something with a tracker; what it prints goes to standard error, and where it fails it is left out."""
        try:
            with redirect_stdout(sys.stderr):
                act()
        except Exception as error:  # each has its own kinds
            self.names = [other for other in self.names if other != name]
            self._open.pop(name, None)
            self.reporter.say(f"{name} failed, the run goes on without it ({type(error).__name__}: {error})")

    def _send(self, name: str, epochs: list[dict[str, float]]) -> None:
        notes = self._notes()
        sent = notes["sent"].get(name, 0)
        for step, values in enumerate(epochs[sent:], start=sent + 1):
            if name not in self._open:
                plain = {key: str(value) for key, value in recipes.flatten(recipes.to_dict(self.config)).items()}
                self._open[name] = open_tracker(name, self.run.path, notes["id"], sent, plain)
            self._open[name].log(values, step=step)
        if len(epochs) > sent:
            notes["sent"][name] = len(epochs)
            self.run.write_json(SENT, notes)

    def _notes(self) -> dict[str, Any]:
        """Return what `tracked.json` holds, a new name where there is none yet."""
        notes = read_object(self.run.path / SENT)
        try:
            sent = {name: int(count) for name, count in notes["sent"].items() if name in TRACKERS}
            return {"id": str(notes["id"]), "sent": sent}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"id": uuid.uuid4().hex[:8], "sent": {}}


def scalars(row: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, float]:
    """Return an epoch's numbers by name, as mean_weights/msa_4: those of metrics, and of the architecture in short.

    Args:
        row: The epoch's line of `metrics.jsonl`.
        line: Its line of `architecture.jsonl`; of the edges' weights the means alone are taken.
    """
    means = {key: value for key, value in line.items() if key != "weights"}
    flat = recipes.flatten(row, "/") | recipes.flatten(means, "/")
    numbers = {name: value for name, value in flat.items() if isinstance(value, (int, float))}
    return {name: value for name, value in numbers.items() if name != "epoch" and not isinstance(value, bool)}
