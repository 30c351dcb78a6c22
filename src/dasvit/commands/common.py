"""What several commands need."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from dasvit.cell.cost import Cost
from dasvit.config import Config
from dasvit.config.validation import MAX_CLASSES
from dasvit.data import Data
from dasvit.errors import UserError, printable
from dasvit.io.run_folder import RunFolder
from dasvit.report import refresh_report
from dasvit.report.run.page import PAGE
from dasvit.runtime.distributed import Precision, Runtime, measure_precision
from dasvit.runtime.progress import Reporter
from dasvit.runtime.tracking import parse_trackers

NAMED = 5
"""Skipped images that are named on the terminal; `environment.json` names them all."""


def settle_precision(
    runtime: Runtime,
    config: Config,
    run: RunFolder,
    reporter: Reporter,
    probe: Callable[[torch.device], Callable[[], None]] | None,
) -> None:
    """Settle the precision, on the main process for all: auto is measured once, printed, and kept in the run folder.

    A network whose weights are shared is not measured, as one device need not hold it; nor is anything where nothing is
    trained, without a probe.
    """

    def settle() -> Precision:
        precision = config.runtime.precision
        if precision == "auto" and runtime.shards:
            precision = "bfloat16" if runtime.device.type == "cuda" else "float32"
            reporter.say(f"precision: {precision} (not measured: the weights are shared by {runtime.world} processes)")
        if precision == "auto" and probe is None:
            precision = "float32"
        if precision == "auto":
            assert probe is not None
            kept: Precision | None = run.notes().get("precision")
            if kept not in ("float32", "bfloat16"):
                kept, seconds = measure_precision(runtime.device, probe(runtime.device))
                run.note(precision=kept, precision_seconds=seconds)
                times = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
                reporter.say(f"precision: {kept} (a step: {times})")
            precision = kept
        run.note(device=str(runtime.device), precision=precision, processes=runtime.world)
        return precision

    runtime.precision = runtime.from_main(settle)


@contextmanager
def live_report(run: RunFolder, runtime: Runtime, reporter: Reporter) -> Iterator[None]:
    """Keep a page in the run's folder: live from here on (the loop rewrites it), at rest when this ends, however."""
    if not runtime.is_main:
        yield
        return
    refresh_report(run.path, reporter.say)
    reporter.say(f"report: {run.path / PAGE} (open it in a browser: it follows the run)")
    try:
        yield
    finally:
        refresh_report(run.path, reporter.say, live=False)
        search = run.path.parent
        if run.path.name == "train" and (search / "derivation.json").is_file():  # its page tells how the cell did
            refresh_report(search, reporter.say, live=False)


def wanted_trackers(text: str) -> tuple[str, ...]:
    """Return the trackers that --track names, all of which are installed.

    Raises:
        UserError: One is unknown, or not installed.
    """
    names = parse_trackers(text)
    for name in names:
        need(name, name)
    return names


def describe_cost(cost: Cost) -> dict[str, int]:
    """Return a cost as the keys of --json."""
    return {"params": cost.params, "macs": cost.macs, "macs_linear": cost.macs_linear}


def note_data(run: RunFolder, data: Data, reporter: Reporter) -> None:
    """Note the data's classes and fingerprint; say so where the run began with other data.

    Only said: images that were copied to another machine have other times of change, and their run is to go on.

    Raises:
        UserError: They have another number of classes, which the run cannot go on with.
    """
    before = run.notes()
    if before.get("classes", len(data.classes)) != len(data.classes):
        raise UserError(
            f"the data have {len(data.classes)} classes now, but {before['classes']} when the run {run.path} began: "
            "put them back as they were, or give --run another folder."
        )
    if before.get("data_fingerprint", data.fingerprint) != data.fingerprint:
        reporter.say(
            f"the images were changed or copied since the run {run.path} began: it goes on with what they are now"
        )
    skipped = [printable(name) for name in data.skipped]
    run.note(classes=len(data.classes), data_fingerprint=data.fingerprint, skipped_images=skipped)


def settled_data(config: Config) -> Config:
    """Return a configuration whose data are there: fetching is what a command does, not what a run is."""
    return replace(config, data=replace(config.data, download=False))


def noted_classes(run: RunFolder) -> int:
    """Return the number of classes that a run noted of its data.

    Raises:
        UserError: It noted none, or none that can be.
    """
    classes = run.notes().get("classes")
    if isinstance(classes, bool) or not isinstance(classes, int) or not 1 <= classes <= MAX_CLASSES:
        raise UserError(f"{run.path}/environment.json does not say how many classes the data have.")
    return classes


def say_data(data: Data, reporter: Reporter) -> None:
    """Say what was loaded."""
    names = ", ".join(map(printable, data.skipped[:NAMED])) + (", …" if len(data.skipped) > NAMED else "")
    skipped = f", {len(data.skipped)} broken ones skipped ({names})" if data.skipped else ""
    side = data.train.size
    reporter.say(
        f"data: {len(data.train):,} training and {len(data.test):,} test images of {side}×{side} pixels, "
        f"{len(data.classes)} classes{skipped}"
    )


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


def print_json(content: Any) -> None:
    """Print one JSON object on standard output."""
    json.dump(content, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def need(extra: str, *packages: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        UserError: One is not; the text has the command that installs it.
    """
    specs = {name: importlib.util.find_spec(name) for name in packages}
    missing = [name for name, spec in specs.items() if spec is None or spec.origin is None]  # a mere folder has none
    if missing:
        raise UserError(f"this needs {' and '.join(missing)}: pip install 'dasvit[{extra}]'.")
