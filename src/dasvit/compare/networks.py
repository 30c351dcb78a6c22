"""The networks that a comparison is asked for, by name, file or run folder; and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from dasvit.cell.cost import Cost
from dasvit.cell.genotype import NAMED, Genotype
from dasvit.cell.subnet import FILE, Found, load_found
from dasvit.config import Config, LatencyConfig, ModelConfig
from dasvit.errors import UserError
from dasvit.io.run_folder import RunFolder, find_run
from dasvit.latency.measure import MeasuredCost, measure
from dasvit.models.baselines import OURS, check_architecture
from dasvit.models.build import build_network
from dasvit.models.cost import cost_of, count_cost, make_on_meta, sized
from dasvit.models.folder import load_model
from dasvit.models.paper import PAPER, PaperRow
from dasvit.models.paper_flops import count_paper_flops
from dasvit.models.pretrained import has_weights, weights_name
from dasvit.runtime.progress import Reporter
from dasvit.session import noted_classes
from dasvit.training.classifier import read_input
from dasvit.training.start import Pretrained

CLASSES = 10
"""Classes that a head is counted with where no data say another number: the same for cells and for timm's models."""


@dataclass(frozen=True)
class Entry:
    """A network to compare.

    Attributes:
        label: Its name in the table.
        key: Its name as a folder.
        subject: What is built: a cell, a network that was found, or a model's name.
        classes: Classes that its head is counted with where there are no data.
        paper: The paper's figures for it.
        start: The published weights that its training begins with. None: it begins with fresh ones.
    """

    label: str
    key: str
    subject: Found | str
    classes: int
    paper: PaperRow | None = None
    start: Pretrained | None = None

    @property
    def design(self) -> str:
        """Who designed it: Manual or Auto; empty where we do not know."""
        if self.paper:
            return self.paper.design
        return "Manual" if self.subject == "vit" else "" if isinstance(self.subject, str) else "Auto"


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


def with_weights(entries: Sequence[Entry], download: bool, reporter: Reporter) -> list[Entry]:
    """Return the networks, those of timm's with the weights that timm publishes for them.

    Args:
        entries: The networks.
        download: Weights that are not on this machine may be fetched.
        reporter: Where it is said of which networks there are no weights.

    Raises:
        UserError: There are weights of none, or they are not here.
    """
    found = []
    for entry in entries:
        if not isinstance(entry.subject, str) or entry.subject in OURS or not has_weights(entry.subject):
            found.append(entry)
            continue
        start = Pretrained.find(entry.subject, download)
        found.append(replace(entry, label=f"{entry.label}, pretrained", key=f"{entry.key}-pretrained", start=start))
    fresh = [entry.label for entry in found if entry.start is None]
    if len(fresh) == len(found):
        raise UserError(
            f"--pretrained is for names of timm's with published weights, as resnet18: {', '.join(fresh)} has none."
        )
    for entry in found:
        if entry.start:
            reporter.say(f"{entry.label}: fine-tunes {weights_name(entry.start.name)} at a tenth of train.optim.lr")
    if fresh:
        reporter.say(f"trained from scratch: {', '.join(fresh)}")
    return found


def paper_entry(row: PaperRow, scale: str) -> Entry:
    """Return a row of the paper as a network."""
    name = row.small if scale == "small" else row.name
    subject, _ = named_network(name)
    return Entry(row.label, name, subject, row.classes if scale == "full" else 10, row)


def other_entry(name: str) -> Entry:
    """Return a network that the paper does not have."""
    run = find_run(name)
    if run and not any((run / file).is_file() for file in ("genotype.json", FILE)):
        notes = RunFolder(run, "train").notes()
        if notes.get("kind") == "train":  # of a baseline, whose name is all there is to know
            return Entry(name, Path(name).resolve().name, notes["subject"], notes.get("classes", CLASSES))
    subject, classes = named_network(name)
    if isinstance(subject, str):
        return Entry(name, name, subject, classes)
    path = Path(name)
    return Entry(name, path.resolve().name if path.is_dir() else path.stem, subject, classes)


def named_network(name: str) -> tuple[Found | str, int]:
    """Return the cell, network or baseline of that name, and the classes it is counted with."""
    if name in NAMED or Path(name).exists() or name.endswith(".json") or "/" in name:
        run = find_run(name)
        return load_found(name), noted_classes(RunFolder(run, "search")) if run else CLASSES
    if name not in OURS:
        check_architecture(name)
    return name, CLASSES


def costed(entry: Entry, config: Config, classes: int, ptflops: bool, latency: bool = False) -> dict[str, Any]:
    """Return a network's row, as far as it needs no training; its latency is measured as the recipe says.

    Raises:
        UserError: It cannot be built at these sizes.
    """
    token, model = config.train.adds_token, sized(entry.subject, config.model)
    network = make_on_meta(entry.subject, model, classes, config.train.drop_path, token)
    cost = count_cost(network, model.image_size)
    row: dict[str, Any] = {"network": entry.label, "name": entry.key, "design": entry.design, "classes": classes}
    if model.image_size != config.model.image_size:
        row["image_size"] = model.image_size  # its file's own
    row |= {"params": cost.params, "macs": cost.macs, "macs_linear": cost.macs_linear}
    if ptflops:
        row["paper_flops"] = count_paper_flops(network, model.image_size)
    if latency:
        how = config.search.latency
        timed = build_network(entry.subject, model, classes, token=token)
        row["latency"] = measure(timed, model.image_size, how).to_dict()
    if entry.paper:
        pairs = {name: {"top1": pair[0], "top5": pair[1]} for name, pair in entry.paper.accuracy.items()}
        row["published"] = {"params": entry.paper.params, "flops": entry.paper.flops, **pairs}
    return row


def cost_of_named(
    name: str, config: ModelConfig, classes: int = 0, how: LatencyConfig | None = None, *, resized: bool = False
) -> tuple[Cost, int]:
    """Count the network of a name: a cell, a model, a file, a run folder; return its cost and its head's classes.

    Args:
        name: See `named_network`; also the folder of a trained model.
        config: The sizes of a cell's network.
        classes: Classes of the head. 0: those of a run's data; of others CLASSES.
        how: Where it runs, to have its latency measured as well. None: nothing is measured.
        resized: Whether the configuration's sizes count where a cell's file has some of its own.

    Raises:
        UserError: There is no such network, or it is trained with other classes.
    """
    folder = trained_model(Path(name))
    if folder and classes:
        raise UserError(f"{name} is trained, with the head it has: leave out --classes.")
    if folder:
        described = read_input(folder)
        return measured_cost(load_model(folder), described.side, how), len(described.classes)
    subject, default = named_network(name)
    if resized and isinstance(subject, Genotype):
        subject = subject.alone
    return cost_with_latency(subject, config, classes or default, how), classes or default


def cost_with_latency(subject: Found | str, config: ModelConfig, classes: int, how: LatencyConfig | None) -> Cost:
    """Count the network of a cell or of sizes, or a baseline; measure its latency where it is said how."""
    if how is None:
        return cost_of(subject, config, classes)
    return measured_cost(build_network(subject, config, classes), sized(subject, config).image_size, how)


def measured_cost(network: nn.Module, side: int, how: LatencyConfig | None) -> Cost:
    """Count a network on an image of that side; measure its latency where it is said how."""
    cost = count_cost(network, side)
    return cost if how is None else MeasuredCost(**vars(cost), latency=measure(network, side, how))


def trained_model(path: Path) -> Path | None:
    """Return the folder of the trained model that a path is or holds; a search's folder stands for its cell."""
    folders = (path / inner for inner in ("", "model"))
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)
