"""What several commands need."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dasvit.cell.cost import Cost
from dasvit.config import Config
from dasvit.data import Data
from dasvit.report import refresh_report
from dasvit.report.page import PAGE
from dasvit.training.distributed import Runtime, find_device, measure_precision
from dasvit.training.progress import Reporter
from dasvit.training.run_folder import RunFolder


def make_runtime(
    config: Config,
    run: RunFolder,
    reporter: Reporter,
    probe: Callable[[torch.device], Callable[[], None]],
) -> Runtime:
    """Settle device and precision: auto is measured once, printed, and kept in the run folder."""
    device = find_device(config.runtime.device)
    precision = config.runtime.precision
    if precision == "auto":
        kept = run.notes().get("precision")
        if kept is None:
            kept, seconds = measure_precision(device, probe(device))
            run.note(precision=kept, precision_seconds=seconds)
            times = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
            reporter.say(f"precision: {kept} (a step: {times})")
        precision = kept
    run.note(device=str(device), precision=precision)
    return Runtime(config.runtime, precision)


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


def describe_cost(cost: Cost) -> dict[str, int]:
    """Return a cost as the keys of --json."""
    return {"params": cost.params, "macs": cost.macs, "macs_linear": cost.macs_linear}


def note_data(run: RunFolder, data: Data) -> None:
    """Note the data's classes and fingerprint."""
    run.note(classes=len(data.classes), data_fingerprint=data.fingerprint, skipped_images=list(data.skipped))


def say_data(data: Data, reporter: Reporter) -> None:
    """Say what was loaded."""
    skipped = f", {len(data.skipped)} broken ones skipped" if data.skipped else ""
    side = data.train.size
    reporter.say(
        f"data: {len(data.train):,} training and {len(data.test):,} test images of {side}×{side} pixels, "
        f"{len(data.classes)} classes{skipped}"
    )


def print_json(content: Any) -> None:
    """Print one JSON object on standard output."""
    json.dump(content, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")
