"""A session: what a run is made of, made in one place and passed as one thing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dasvit.config import Config, DataConfig, recipe
from dasvit.config.limits import MAX_CLASSES
from dasvit.data import Data, load_data
from dasvit.data.description import data_lines, describe_data
from dasvit.data.mirrored import flips_of, with_mirrored
from dasvit.errors import UserError, listed, printable
from dasvit.io.files import read_object
from dasvit.io.run_folder import RunFolder, placed
from dasvit.report import refresh_report
from dasvit.report.run.page import PAGE
from dasvit.runtime.distributed import Precision, Runtime, bfloat16_slowdown, measure_precision
from dasvit.runtime.estimate import Estimate, describe, outcome, total
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import NEVER, Deadline
from dasvit.runtime.tracking import Tracking

SLOW = 2.0
"""How many times as long a product may take in bfloat16 before a run that insists on it says so."""
Probe = Callable[[torch.device], Callable[[], None]]
"""Returns, for a device, one step of the work to come: what a precision is timed with."""


@dataclass(frozen=True)
class Session:
    """What a run is made of.

    Attributes:
        config: The recipe.
        data: The images.
        run: Where the run is written.
        runtime: Device, precision, processes.
        reporter: Where progress goes.
        deadline: When to stop.
        followers: Called at the end of every epoch, on the main process: the page, the trackers.
        later: Seconds that what follows the training at hand will take, as was estimated.
    """

    config: Config
    data: Data
    run: RunFolder
    runtime: Runtime
    reporter: Reporter
    deadline: Deadline = NEVER
    followers: tuple[Callable[[], None], ...] = ()
    later: float = 0.0

    @property
    def classes(self) -> int:
        """Classes of the data."""
        return len(self.data.classes)

    def log(self, said: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """End an epoch: write its lines, have whatever follows the run look at them, and say it.

        Args:
            said: The epoch's line on the terminal.
            rows: The line of each JSON-lines file of the run.
        """
        if not self.runtime.is_main:
            return
        for name, row in rows.items():
            self.run.append(name, dict(row))
        for follow in self.followers:
            follow()
        self.reporter.say(said)

    def inner(self, run: RunFolder, config: Config) -> Session:
        """Return the session of a training inside this run: a page follows it, trackers do not."""
        page = (lambda: refresh_report(run.path, self.reporter.warn),)
        return replace(self, run=run, config=config, followers=page)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other run from writing into the folder (see `RunFolder.locked`); of several processes one does."""
        with self.run.locked() if self.runtime.is_main else nullcontext():
            yield

    def claim(self, subject: str, resume: bool = False, init: str = "", may_be_longer: bool = False) -> None:
        """Make the folder this run's own, and note what its data are (see `RunFolder.open`).

        Raises:
            UserError: The folder holds something else, or its run began with other classes.
        """
        if self.runtime.is_main:
            self.run.open(self.config, subject, resume, init, may_be_longer)
            note_data(self.run, self.data, self.reporter, self.config.model.image_size)

    def settle_precision(self, probe: Probe | None, keep: bool = True) -> None:
        """Settle the precision, on the main process for all: auto is measured once, said, and kept in the run folder.

        Args:
            probe: What is timed. None: the run computes nothing, and auto is float32.
            keep: False before the run has its folder: nothing is said or written.
        """
        self.runtime.precision = self.runtime.from_main(lambda: self._settled(probe, keep))

    def _settled(self, probe: Probe | None, keep: bool) -> Precision:
        runtime, precision = self.runtime, self.config.runtime.precision
        if precision == "auto":
            precision = self._automatic(probe, keep)
        elif precision == "bfloat16" and probe and keep and (slowdown := bfloat16_slowdown(runtime.device)) > SLOW:
            self.reporter.say(
                f"runtime.precision is bfloat16, in which a matrix product takes {slowdown:.0f} times as long as in "
                "float32 on this machine: --runtime.precision auto takes the faster one."
            )
        if not keep:
            return precision
        threads = torch.get_num_threads()
        self.run.note(device=str(runtime.device), precision=precision, processes=runtime.world, threads=threads)
        return precision

    def _automatic(self, probe: Probe | None, keep: bool) -> Precision:
        if self.runtime.shards:  # one device need not hold the network
            precision: Precision = "bfloat16" if self.runtime.device.type == "cuda" else "float32"
            world = self.runtime.world
            if keep:
                self.reporter.say(f"precision: {precision} (not measured: the weights are shared by {world} processes)")
            return precision
        kept: Precision | None = self.run.notes().get("precision")
        if kept in ("float32", "bfloat16"):
            return kept
        if probe is None:
            return "float32"
        if not self.runtime.measured:
            self.runtime.measured = measure_precision(self.runtime.device, probe(self.runtime.device))
        precision, seconds = self.runtime.measured
        if not keep:
            return precision
        self.run.note(precision=precision, precision_seconds=seconds)
        times = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
        self.reporter.say(f"precision: {precision} (a step: {times})")
        return precision

    def expect(self, phases: Mapping[str, Estimate], after: str = "") -> None:
        """Say how long a run will take, and keep it in the run folder.

        Args:
            phases: What its phases take, by name.
            after: What else there is to say of it.
        """
        if self.runtime.is_main:
            several = {name: phase.to_dict() for name, phase in phases.items()}
            self.run.note(estimate={**total(phases.values()).to_dict(), "phases": several})
            self.reporter.say(f"time: {describe(phases)}{after}")

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Of a run that was estimated, keep how many seconds it took, all calls together, and say it at its end."""
        start = time.monotonic()
        try:
            yield
        finally:
            notes = self.run.notes() if self.runtime.is_main else {}
            seconds = float(notes.get("seconds", 0.0)) + time.monotonic() - start
            if "estimate" in notes:
                self.run.note(seconds=round(seconds, 2))
        if "estimate" in notes:
            self.reporter.say(outcome(seconds, notes["estimate"]))

    @contextmanager
    def followed(self, track: Sequence[str] = ()) -> Iterator[Session]:
        """Yield the session with a page that follows the run, and trackers that are sent every epoch's numbers.

        When this ends, however it does, the page is at rest: it no longer asks to be loaded again.

        Args:
            track: Names of trackers.
        """
        if not self.runtime.is_main:
            yield self
            return
        folder, say = self.run.path, self.reporter.say
        refresh_report(folder, say)
        say(f"report: {folder / PAGE} (open it in a browser: it follows the run)")
        try:
            with Tracking(self.run, track, self.config, self.reporter) as tracking:
                yield replace(self, followers=(lambda: refresh_report(folder, say), tracking.follow))
        finally:
            refresh_report(folder, say, live=False)
            if folder.name == "train" and (folder.parent / "derivation.json").is_file():
                refresh_report(folder.parent, say, live=False)  # the search's page tells how its cell did


Check = Callable[[NDArray[np.int64], Sequence[str], Runtime], None]
"""Is told the labels of the training images, int64 [N] or [N, C], and the classes; refuses what cannot be."""


def load_session(
    config: Config, folder: str, kind: str, reporter: Reporter, deadline: Deadline = NEVER, check: Check | None = None
) -> Session:
    """Load the images of a recipe, and return the session of a run; its folder is not touched yet.

    Args:
        config: The recipe.
        folder: The run folder.
        kind: What runs in it: search, train or study.
        reporter: Where progress goes.
        deadline: When to stop.
        check: Asked before an image is decoded.

    Raises:
        UserError: The device or the images are not there, or not as they should be.
    """
    runtime = Runtime(config.runtime)
    asked = (lambda labels, classes: check(labels, classes, runtime)) if check else None
    with runtime.first_of_machine():
        begun = as_begun(config.data, Path(folder))
        data = load_data(begun, config.model.image_size, config.runtime.seed, check=asked)
    flips = flips_of(config, searching=kind != "train")
    if runtime.is_main:
        data = with_mirrored(data, flips)
    say_data(data, reporter)
    if flips:
        shares = ", ".join(f"{name} {share:g}" for name, share in flips.items())
        reporter.say(f"  flips: training images are flipped left to right by chance ({shares}; 0: never)")
    # The run goes on with images that are there, from whichever folder: fetching them is what a command does.
    path = Path(config.data.path).expanduser() if config.data.path else Path()
    where = os.path.abspath(path) if config.data.path and path.exists() else config.data.path
    listed = os.path.abspath(os.path.expanduser(config.data.csv)) if config.data.csv else ""
    config = replace(config, data=replace(config.data, path=where, csv=listed, download=False))
    config = replace(config, train=replace(config.train, teacher=placed(config.train.teacher)))
    return Session(config, data, RunFolder(folder, kind), runtime, reporter, deadline)


def as_begun(data: DataConfig, folder: Path) -> DataConfig:
    """Return the section data by which a run reads its images: one that began before there were windows has none."""
    begun = recipe.read_recipe(str(folder / "config.yaml")) if (folder / "config.yaml").is_file() else {}
    section = begun.get("data")
    return replace(data, window="full") if isinstance(section, Mapping) and "window" not in section else data


def say_data(data: Data, reporter: Reporter) -> None:
    """Say what was loaded, and how the source was understood."""
    for line in data_lines(data):
        reporter.say(line)


def note_data(run: RunFolder, data: Data, reporter: Reporter, image_size: int) -> None:
    """Note the data's classes and fingerprint, and how they were understood; say so where the run began with others.

    Only said: images that were copied to another machine have other times of change, and their run is to go on.

    Raises:
        UserError: They have other classes, which the run cannot go on with.
    """
    before, names = run.notes(), read_object(run.path / "data.json").get("classes", list(data.classes))
    if before.get("classes", len(data.classes)) != len(data.classes) or names != list(data.classes):
        raise UserError(
            f"the data have {len(data.classes)} classes now, but {before.get('classes')} when the run {run.path} began"
            f"{_changed_classes(names, data.classes)}: put them back as they were, or give --run another folder."
        )
    was_several = "multilabel" in read_object(run.path / "data.json")
    if before.get("classes") and was_several != data.multilabel:
        raise UserError(
            f"images have {'several labels' if data.multilabel else 'one label each'} now, and had "
            f"{'several' if was_several else 'one each'} when the run {run.path} began: give --run another folder."
        )
    if before.get("data_fingerprint", data.fingerprint) != data.fingerprint:
        reporter.say(
            f"the images, or the rules by which they are read, were changed since the run {run.path} began (copying "
            "them does so, too): it goes on with what they are now"
        )
    skipped = [printable(name) for name in data.skipped]
    run.note(classes=len(data.classes), data_fingerprint=data.fingerprint, skipped_images=skipped)
    if before.get("data_fingerprint") != data.fingerprint or not (run.path / "data.json").is_file():
        run.write_json("data.json", describe_data(data, image_size))
    if data.held_out:
        run.write_text("held_out.txt", "".join(f"{printable(name)}\n" for name in data.held_out))


def _changed_classes(before: Sequence[str], now: Sequence[str]) -> str:
    """Return which classes came and which went, in parentheses."""
    changes = {
        "new": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
    }
    said = [f"{what}: {listed(names)}" for what, names in changes.items() if names]
    return f" ({'; '.join(said)})" if said else " (in another order)" if list(before) != list(now) else ""


def noted_classes(run: RunFolder) -> int:
    """Return the number of classes that a run noted of its data.

    Raises:
        UserError: It noted none, or none that can be.
    """
    classes = run.notes().get("classes")
    if isinstance(classes, bool) or not isinstance(classes, int) or not 1 <= classes <= MAX_CLASSES:
        raise UserError(f"{run.path}/environment.json does not say how many classes the data have.")
    return classes


def check_memory(params: int) -> None:
    """Refuse a network whose weights alone are more than this machine's memory.

    Raises:
        UserError: They are.
    """
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return
    if 4 * params > memory:
        raise UserError(
            f"a network of {params:,} parameters takes {4 * params / 1e9:,.1f} GB for its weights alone, and this "
            f"machine has {memory / 1e9:,.1f} GB: lower the width or the layers."
        )
