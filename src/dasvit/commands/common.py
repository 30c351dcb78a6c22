"""What several commands need."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from dasvit.config import Config
from dasvit.data import Data
from dasvit.models.cost import Cost
from dasvit.training.distributed import Precision, Runtime, measure_precision
from dasvit.training.progress import Reporter
from dasvit.training.run_folder import RunFolder


def settle_precision(
    runtime: Runtime,
    config: Config,
    run: RunFolder,
    reporter: Reporter,
    probe: Callable[[torch.device], Callable[[], None]],
) -> None:
    """Settle the precision, on the main process for all: auto is measured once, printed, and kept in the run folder."""

    def settle() -> Precision:
        precision = config.runtime.precision
        if precision == "auto":
            kept: Precision | None = run.notes().get("precision")
            if kept is None:
                kept, seconds = measure_precision(runtime.device, probe(runtime.device))
                run.note(precision=kept, precision_seconds=seconds)
                times = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
                reporter.say(f"precision: {kept} (a step: {times})")
            precision = kept
        run.note(device=str(runtime.device), precision=precision, processes=runtime.world)
        return precision

    runtime.precision = runtime.from_main(settle)


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
