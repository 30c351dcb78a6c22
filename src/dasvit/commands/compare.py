"""`dasvit compare`: any list of networks under one recipe, in one table."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from dasvit.cell.genotype import Genotype
from dasvit.cli import Request
from dasvit.commands.common import print_json
from dasvit.commands.cost import named_network
from dasvit.commands.train import do_train
from dasvit.config import Config
from dasvit.data import load_data
from dasvit.errors import UserError, unknown
from dasvit.io.run_folder import RunFolder, find_run
from dasvit.models.cost import count_cost, make_on_meta
from dasvit.models.paper import DATASETS, PAPER, PaperRow
from dasvit.models.paper_flops import WAY_OUT, count_paper_flops, has_ptflops
from dasvit.report.compare.tables import as_csv, as_json, as_latex, as_markdown, columns, terminal_table
from dasvit.runtime.distributed import find_device
from dasvit.runtime.progress import Reporter

FORMATS = ("table", "csv", "md", "tex", "json")
SCALES = ("full", "small")


@dataclass(frozen=True)
class Entry:
    """A network to compare.

    Attributes:
        label: Its name in the table.
        key: Its name as a folder.
        subject: What is built: a cell, or a model's name.
        classes: Classes that its head is counted with where there are no data.
        paper: The paper's figures for it.
    """

    label: str
    key: str
    subject: Genotype | str
    classes: int
    paper: PaperRow | None = None

    @property
    def design(self) -> str:
        """Who designed it: Manual or Auto; empty where we do not know."""
        if self.paper:
            return self.paper.design
        return "Auto" if isinstance(self.subject, Genotype) else "Manual" if self.subject == "vit" else ""


def compare_command(request: Request) -> None:
    """`dasvit compare`: a table of networks, trained or only costed."""
    assert request.config is not None
    config, options, reporter = request.config, request.options, Reporter()
    check_options(options)
    entries = find_networks(options["networks"], options["rows"], options["scale"])
    ptflops = wants_ptflops(options["ptflops"], reporter)
    if options["cost_only"]:
        side = config.model.image_size
        title = f"cost of one image of {side}×{side} pixels"
        rows = [costed(entry, config, options["classes"] or entry.classes, ptflops) for entry in entries]
        run = open_run(options["run"], config, "cost") if options["run"] else None
        show(rows, options, run, title, DATASETS)
        return
    compare_trained(entries, config, options, ptflops, reporter)


def check_options(options: dict[str, Any]) -> None:
    """Refuse what no option takes, and what cannot go together.

    Raises:
        UserError: It does.
    """
    for name, valid in {"format": FORMATS, "scale": SCALES, "ptflops": ("auto", "yes", "no")}.items():
        if options[name] not in valid:
            raise unknown(f"--{name}", options[name], valid)
    if options["rows"] not in ("", "paper"):
        raise unknown("--rows", options["rows"], ["paper"])
    if options["seeds"] < 1:
        raise UserError(f"--seeds must be at least 1, not {options['seeds']}.")
    if options["classes"] and not options["cost_only"]:
        raise UserError("--classes goes with --cost-only: trained networks have the classes of the data.")


def find_networks(names: Sequence[str], rows: str, scale: str) -> list[Entry]:
    """Return the networks that are meant, the paper's rows first.

    Args:
        names: Cells' and models' names, genotype files, run folders; none: the paper's rows.
        rows: paper, to have the paper's rows as well.
        scale: full, or small for the shrunken networks in place of the paper's.

    Raises:
        UserError: There is no such network, or two would write into one folder.
    """
    entries = [paper_entry(row, scale) for row in PAPER] if rows or not names else []
    known = {name: row for row in PAPER for name in (row.name, row.small if scale == "small" else row.name)}
    for name in names:
        entries.append(paper_entry(known[name], scale) if name in known else other_entry(name))
    keys = [entry.key for entry in entries]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise UserError(f"two networks are called {twice}: list each once, or give one's file or folder another name.")
    return entries


def paper_entry(row: PaperRow, scale: str) -> Entry:
    """Return a row of the paper as a network."""
    name = row.small if scale == "small" else row.name
    subject, _ = named_network(name)
    return Entry(row.label, name, subject, row.classes if scale == "full" else 10, row)


def other_entry(name: str) -> Entry:
    """Return a network that the paper does not have."""
    run = find_run(name)
    if run and not (run / "genotype.json").is_file():
        notes = RunFolder(run, "train").notes()
        if notes.get("kind") == "train":  # of a baseline, whose name is all there is to know
            return Entry(name, Path(name).resolve().name, notes["subject"], notes.get("classes", 10))
    subject, classes = named_network(name)
    if isinstance(subject, str):
        return Entry(name, name, subject, classes)
    path = Path(name)
    return Entry(name, path.resolve().name if path.is_dir() else path.stem, subject, classes)


def wants_ptflops(choice: str, reporter: Reporter) -> bool:
    """Tell whether the paper's FLOPs are counted.

    Raises:
        UserError: They are asked for, and ptflops is not installed.
    """
    if choice == "no" or has_ptflops():
        return choice != "no"
    if choice == "yes":
        raise UserError(f"ptflops is not installed: {WAY_OUT}")
    reporter.say(f"ptflops is not installed: {WAY_OUT}")
    return False


def costed(entry: Entry, config: Config, classes: int, ptflops: bool) -> dict[str, Any]:
    """Return a network's row, as far as it needs no training.

    Raises:
        UserError: It cannot be built at these sizes.
    """
    network = make_on_meta(entry.subject, config.model, classes, config.train.drop_path)
    cost = count_cost(network, config.model.image_size)
    row: dict[str, Any] = {"network": entry.label, "name": entry.key, "design": entry.design, "classes": classes}
    row |= {"params": cost.params, "macs": cost.macs, "macs_linear": cost.macs_linear}
    if ptflops:
        row["paper_flops"] = count_paper_flops(network, config.model.image_size)
    if entry.paper:
        pairs = {name: {"top1": pair[0], "top5": pair[1]} for name, pair in entry.paper.accuracy.items()}
        row["published"] = {"params": entry.paper.params, "flops": entry.paper.flops, **pairs}
    return row


def compare_trained(
    entries: Sequence[Entry], config: Config, options: dict[str, Any], ptflops: bool, reporter: Reporter
) -> None:
    """Train every network with every seed, and write the table after each.

    A network that fails in training (a loss that is not a number) does not stop the others.

    Raises:
        UserError: A network cannot be built, the folder holds something else, or, at the end, a training failed.
    """
    root = options["run"] or "runs/compare"
    data = load_data(config.data, config.model.image_size, config.runtime.seed)
    find_device(config.runtime.device)
    rows = [costed(entry, config, len(data.classes), ptflops) for entry in entries]  # what can fail, before all else
    run = open_run(root, config, "training")
    shown = [config.data.name] if config.data.name in DATASETS else []
    seeds = range(config.runtime.seed, config.runtime.seed + options["seeds"])
    results: list[list[dict[str, Any]]] = [[] for _ in entries]
    failures: list[str] = []
    for seed in seeds:
        for i, entry in enumerate(entries):
            reporter.say(f"\n{entry.label}, seed {seed} ({i + 1} of {len(entries)} networks)")
            try:
                results[i].append(trained(entry, config, seed, Path(root), reporter))
            except UserError as error:
                failures.append(f"{entry.label}, seed {seed}: {error}")
                reporter.say(failures[-1])
            write(summarised(rows, results), run, options, shown)
    title = f"{config.data.name}, {config.train.epochs} epochs, {options['seeds']} seed(s)"
    show(summarised(rows, results), options, run, title, shown)
    if failures:
        raise UserError(f"{len(failures)} training(s) failed; the same command tries them again. {failures[0]}")


def trained(entry: Entry, config: Config, seed: int, root: Path, reporter: Reporter) -> dict[str, Any]:
    """Return the result of a network with a seed and the times of its epochs; what is done is not trained again."""
    folder = root / entry.key / f"seed{seed}"
    config = replace(config, runtime=replace(config.runtime, seed=seed))
    run = RunFolder(folder, "train")
    if (folder / "model" / "config.json").is_file():  # the last thing that a training writes
        run.open(config, entry.subject.to_json() if isinstance(entry.subject, Genotype) else entry.subject)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        reporter.say(f"{folder} is done: top-1 {result['top1']:.2f} %")
    else:
        result = do_train(config, entry.subject, str(folder), reporter)
    epochs = run.rows("metrics.jsonl")
    return {**result, **{key: [row[key] for row in epochs] for key in ("seconds", "images_per_second")}}


def summarised(rows: Sequence[dict[str, Any]], results: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows with what their trainings gave: means and standard deviations over the seeds, median times."""
    summary = []
    for row, runs in zip(rows, results, strict=True):
        more: dict[str, Any] = {"seeds": len(runs), "runs": [run["run"] for run in runs]}
        for key in ("top1", "top5"):
            values = [run[key] for run in runs]
            if values:
                more[key] = statistics.fmean(values)
            if len(values) > 1:
                more[f"{key}_sd"] = statistics.stdev(values)
        if runs:
            more["seconds_per_epoch"] = statistics.median(value for run in runs for value in run["seconds"])
            more["images_per_second"] = statistics.median(value for run in runs for value in run["images_per_second"])
        summary.append(row | more)
    return summary


def open_run(path: str, config: Config, kind: str) -> RunFolder:
    """Return the folder of a comparison, made where it is not there.

    Raises:
        UserError: It holds something else.
    """
    run = RunFolder(path, "compare")
    run.open(config, kind)
    return run


def write(rows: Sequence[dict[str, Any]], run: RunFolder, options: dict[str, Any], datasets: Sequence[str]) -> None:
    """Write the table into the run folder in all formats."""
    for name in FORMATS[1:]:
        run.write_text(f"compare.{name}", formatted(rows, name, options, datasets))


def formatted(rows: Sequence[dict[str, Any]], name: str, options: dict[str, Any], datasets: Sequence[str]) -> str:
    """Return the table as text in a format."""
    shown = columns(rows, datasets if options["published"] else None)
    if name == "csv":
        return as_csv(rows)
    if name == "json":
        return as_json({"networks": list(rows)})
    return as_markdown(rows, shown) if name == "md" else as_latex(rows, shown)


def show(
    rows: Sequence[dict[str, Any]],
    options: dict[str, Any],
    run: RunFolder | None,
    title: str,
    datasets: Sequence[str],
) -> None:
    """Print the table as it is asked for, and write it into the run folder where there is one."""
    if run:
        write(rows, run, options, datasets)
    if options["json"]:
        print_json({**({"run": str(run.path)} if run else {}), "networks": rows})
    elif options["format"] != "table":
        sys.stdout.write(formatted(rows, options["format"], options, datasets))
    else:
        shown = columns(rows, datasets if options["published"] else None)
        console = Console()
        wide = None if console.is_terminal else 200  # a file or pipe has no width to fold into
        Console(width=wide).print(terminal_table(rows, shown, title))
        if run:
            print(f"{run.path}/compare.csv, .md, .tex and .json hold this table.")
