"""Every network of a comparison, trained with every seed; the table is written after each training."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dasvit.compare.networks import Entry, costed
from dasvit.config import Config, TrainConfig
from dasvit.errors import UserError
from dasvit.extras import frame
from dasvit.io.run_folder import RunFolder
from dasvit.latency.measure import Machine
from dasvit.models.paper import DATASETS
from dasvit.report.compare.tables import as_csv, as_json, as_latex, as_markdown, columns
from dasvit.report.tables import SHARES
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.estimate import LONG
from dasvit.runtime.progress import Reporter
from dasvit.session import Session, load_session
from dasvit.training.distillation import check_teacher
from dasvit.training.estimate import estimate_training
from dasvit.training.loop import check_sizes
from dasvit.training.multilabel import check_training
from dasvit.training.pipeline import at_sizes, network_maker, network_probe, run_training

if TYPE_CHECKING:
    import pandas as pd

CONSTANT = ("majority", "prevalence", "images")
"""What belongs to the test images, not to a training."""
FINE = 0.1
"""What the learning rate is multiplied by where a training begins with published weights."""
FORMATS = ("csv", "md", "tex", "json")
"""What a table is written as."""


@dataclass(frozen=True)
class Comparison:
    """A table of networks.

    Attributes:
        title: What it shows.
        rows: A network each: costs, and means over its trainings.
        run: The folder that it is written to. None: it is not.
        published: Data sets whose published figures it shows. None: none.
        failures: Trainings that failed, each in a sentence.
    """

    title: str
    rows: list[dict[str, Any]]
    run: RunFolder | None = None
    published: Sequence[str] | None = None
    failures: Sequence[str] = ()

    def text(self, name: str) -> str:
        """Return the table as csv, md, tex or json."""
        if name == "csv":
            return as_csv(self.rows)
        if name == "json":
            return as_json({"networks": self.rows})
        shown = columns(self.rows, self.published)
        return as_markdown(self.rows, shown) if name == "md" else as_latex(self.rows, shown)

    def to_frame(self) -> pd.DataFrame:
        """Return the table for pandas: a network each row, costs and means over its trainings."""
        return frame([{key: value for key, value in row.items() if key != "published"} for row in self.rows])

    def write(self) -> None:
        """Write the table into its folder in all formats."""
        if self.run:
            for name in FORMATS:
                self.run.write_text(f"compare.{name}", self.text(name))


def compare_costs(
    entries: Sequence[Entry],
    config: Config,
    folder: str,
    *,
    classes: int,
    ptflops: bool,
    published: bool,
    latency: bool = False,
) -> Comparison:
    """Return networks' costs, nothing trained.

    Args:
        entries: The networks.
        config: The recipe; its sizes count.
        folder: Where the table is written. Empty: nowhere.
        classes: Classes of every head. 0: each network's own.
        ptflops: Whether the paper's FLOPs are counted as well.
        published: Whether the paper's figures are shown.
        latency: Whether it is measured what an inference takes.
    """
    side = config.model.image_size
    rows = [costed(entry, config, classes or entry.classes, ptflops, latency) for entry in entries]
    run = RunFolder(folder, "compare") if folder else None
    if run:
        run.open(config, "cost")
    shown = DATASETS if published else None
    title = f"cost of one image of {side}×{side} pixels{measured_where(rows)}"
    comparison = Comparison(title, rows, run, shown)
    comparison.write()
    return comparison


def run_comparison(
    entries: Sequence[Entry],
    config: Config,
    folder: str,
    reporter: Reporter,
    *,
    seeds: int = 1,
    ptflops: bool = False,
    published: bool = False,
    latency: bool = False,
) -> Comparison:
    """Train every network with every seed, and write the table after each; go on where an earlier call stopped.

    A network that fails in training (a loss that is not a number) does not stop the others.

    Args:
        entries: The networks.
        config: The recipe.
        folder: Where trainings and table go.
        reporter: Where progress goes.
        seeds: Trainings of each network, from `runtime.seed` on.
        ptflops: Whether the paper's FLOPs are counted as well.
        published: Whether the paper's figures are shown.
        latency: Whether it is measured what an inference takes.

    Raises:
        UserError: A network cannot be built, or the folder holds something else.
        Stopped: By a signal; the same call goes on.
    """

    def check(labels: NDArray[np.int64], classes: Sequence[str], runtime: Runtime) -> None:
        check_sizes(len(labels), config.train, 1)
        check_training(config.train, labels)
        check_teacher(config.train, classes)

    session = load_session(config, folder, "compare", Reporter(quiet=True), check=check)
    # What can fail, before all else.
    rows = [costed(entry, config, session.classes, ptflops, latency) for entry in entries]
    run = session.run
    with run.locked():
        run.open(config, "training")
        session = replace(session, reporter=reporter)
        expect_trainings(entries, [row["macs"] for row in rows], session, seeds)
        results: list[list[dict[str, Any]]] = [[] for _ in entries]
        failures: list[str] = []
        shown = ([config.data.name] if config.data.name in DATASETS else []) if published else None
        title = f"{config.data.name}, {config.train.epochs} epochs, {seeds} seed(s){measured_where(rows)}"
        with session.timed():
            for seed in range(config.runtime.seed, config.runtime.seed + seeds):
                for i, entry in enumerate(entries):
                    reporter.say(f"\n{entry.label}, seed {seed} ({i + 1} of {len(entries)} networks)")
                    try:
                        results[i].append(trained(entry, config, seed, Path(folder), reporter))
                    except UserError as error:
                        failures.append(f"{entry.label}, seed {seed}: {error}")
                        reporter.say(failures[-1])
                    comparison = Comparison(title, summarised(rows, results), run, shown, failures)
                    comparison.write()
        return comparison


def expect_trainings(entries: Sequence[Entry], macs: Sequence[int], session: Session, seeds: int) -> None:
    """Say how long all trainings will take, where that is long.

    Args:
        entries: The networks.
        macs: Multiply-adds of each.
        session: The comparison's.
        seeds: Trainings of each network.
    """
    config, is_known = session.config, "estimate" in session.run.notes()
    if is_known or 3 * sum(macs) * seeds * len(session.data.train) * config.train.epochs < LONG:
        return
    phases = {}
    for entry in entries:
        own = replace(session, config=at_sizes(config, entry.subject))
        make = network_maker(entry.start or entry.subject, own)
        own.settle_precision(network_probe(make, own.config, own.classes), keep=False)
        phases[entry.label] = estimate_training(make, own) * seeds
    session.expect(phases)


def measured_where(rows: Sequence[dict[str, Any]]) -> str:
    """Return what a table's title says of where latency was measured; nothing where it was not."""
    return f"; latency on {Machine(**rows[0]['latency']['machine'])}" if rows and "latency" in rows[0] else ""


def trained(entry: Entry, config: Config, seed: int, root: Path, reporter: Reporter) -> dict[str, Any]:
    """Return the result of a network with a seed and the times of its epochs; what is done is not trained again."""
    folder = root / entry.key / f"seed{seed}"
    config = replace(config, runtime=replace(config.runtime, seed=seed), train=schedule(entry, config.train))
    config = at_sizes(config, entry.subject)
    run = RunFolder(folder, "train")
    if (folder / "model" / "config.json").is_file():  # the last thing that a training writes
        text = entry.subject if isinstance(entry.subject, str) else entry.subject.to_json()
        run.open(config, text, init=entry.start.digest if entry.start else "")
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        majority = f" (majority {result['majority']:.2f} %)" if "majority" in result else ""
        reached = f"mAP {result['map']:.2f} %" if "map" in result else f"top-1 {result['top1']:.2f} %{majority}"
        reporter.say(f"{folder} is done: {reached}")
    else:
        result = run_training(config, entry.start or entry.subject, str(folder), reporter, expected=True).to_dict()
    epochs = run.rows("metrics.jsonl")
    return {**result, **{key: [row[key] for row in epochs] for key in ("seconds", "images_per_second")}}


def schedule(entry: Entry, train: TrainConfig) -> TrainConfig:
    """Return how a network is trained: all alike, but published weights at a tenth of the learning rate."""
    optim = train.optim
    return replace(train, optim=replace(optim, lr=optim.lr * FINE)) if entry.start else train


def summarised(rows: Sequence[dict[str, Any]], results: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows with what their trainings gave: means and standard deviations over the seeds, median times."""
    summary = []
    for row, runs in zip(rows, results, strict=True):
        more: dict[str, Any] = {"seeds": len(runs), "runs": [run["run"] for run in runs]}
        for key in (*SHARES, "images"):
            values = [run[key] for run in runs if key in run]
            if values:
                more[key] = statistics.fmean(values)
            if len(values) > 1 and key not in CONSTANT:
                more[f"{key}_sd"] = statistics.stdev(values)
        if runs:
            more["seconds_per_epoch"] = statistics.median(value for run in runs for value in run["seconds"])
            more["images_per_second"] = statistics.median(value for run in runs for value in run["images_per_second"])
        summary.append(row | more)
    return summary
