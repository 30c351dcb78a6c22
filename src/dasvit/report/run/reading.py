"""What a run folder says, read so that no damage in it stops the reader.

A run may be under way (its last line half written), cut off, copied in part or edited by hand: whatever cannot be read
is left out, and lines that cannot be read are counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import FILE, Subnet
from dasvit.config.methods import METHODS
from dasvit.errors import UserError

MOST_EPOCHS = 1_000_000
"""No run has more; a larger number is damage."""
Weights = dict[str, dict[str, float]]
"""Edge → operation → weight."""


@dataclass(frozen=True)
class Stage:
    """A stretch of a run's epochs: a stage of a search, or the whole of a training.

    Attributes:
        number: From 1.
        layers: Depth of the supernet; 0 where unknown.
        start: Epochs of the run before it.
        epochs: Its own epochs, as planned.
        weight_epochs: The first of these, which train weights alone.
    """

    number: int
    layers: int
    start: int
    epochs: int
    weight_epochs: int


@dataclass(frozen=True)
class Snapshot:
    """A line of `architecture.jsonl`.

    Attributes:
        epoch: Of the whole run, from 1.
        stage: Its stage.
        weights: Of the operations still alive.
        mean: Operation → weight averaged over the edges.
        fairness: total, skip and types, where they are there.
        types: Type of operation → its weight.
        entropy: Of an edge's weights, averaged; in nats.
    """

    epoch: int
    stage: int
    weights: Weights
    mean: dict[str, float]
    fairness: dict[str, float]
    types: dict[str, float]
    entropy: float | None


@dataclass(frozen=True)
class Run:
    """What a run folder says.

    Attributes:
        path: The folder.
        name: What it is called on a page.
        kind: search or train.
        subject: The method of a search; the network that is trained.
        config: The nested dictionary of `config.yaml`.
        environment: That of `environment.json`.
        stages: As planned, or as found where no plan can be read; none of a search without a supernet.
        metrics: Epoch of the whole run → its numbers, in order.
        snapshots: The lines of `architecture.jsonl`, in order.
        genotype: The cell that was found, or is trained.
        network: The network that was found, or is trained, where it is none of a cell.
        unconstrained: The cell that the weights alone would have chosen.
        reason: Why that was not taken; empty where it was.
        finals: The finalists of a search and their numbers (top1, loss, epochs, params, macs), best first.
        result: Numbers of the outcome: params, macs, macs_linear; of a training also top1, top5, loss, images.
        confusion: Images of class i that were taken for class j.
        classes: Names of the classes, where the folder knows them.
        ended: Whether the run came to its end.
        unreadable: File → lines, or 1 for the whole file, that could not be read.
        trained: The training inside a search's folder.
        token_images: What `token_images.json` holds.
        token_lines: Epoch of the whole run, stage and what was kept, of the lines of `tokens.jsonl`.
    """

    path: Path
    name: str
    kind: str
    subject: str
    config: dict[str, Any]
    environment: dict[str, Any]
    stages: tuple[Stage, ...]
    metrics: dict[int, dict[str, float]]
    snapshots: tuple[Snapshot, ...]
    genotype: Genotype | None
    unconstrained: Genotype | None
    reason: str
    finals: tuple[tuple[Genotype, dict[str, float]], ...]
    result: dict[str, float]
    confusion: list[list[int]]
    classes: tuple[str, ...]
    ended: bool
    unreadable: dict[str, int] = field(default_factory=dict)
    trained: Run | None = None
    network: Subnet | None = None
    token_images: dict[str, Any] = field(default_factory=dict)
    token_lines: tuple[tuple[int, int, Any], ...] = ()

    @property
    def drawn(self) -> bool:
        """Whether it is a search by finals alone, whose cells no weights made likely."""
        method = METHODS.get(self.subject)
        return self.kind == "search" and method is not None and method.finals == "always"

    @property
    def planned(self) -> int:
        """Epochs that the run was asked for."""
        return self.stages[-1].start + self.stages[-1].epochs if self.stages else 0

    @property
    def done(self) -> int:
        """Epochs that have ended."""
        return max([*self.metrics, *(snapshot.epoch for snapshot in self.snapshots)], default=0)

    def stage_of(self, epoch: int) -> Stage | None:
        """Return the stage that an epoch of the whole run belongs to."""
        return next((stage for stage in reversed(self.stages) if epoch > stage.start), None)

    def column(self, name: str) -> list[tuple[int, float]]:
        """Return (epoch, value) of a metric, where it was measured."""
        return [(epoch, row[name]) for epoch, row in self.metrics.items() if name in row]

    def option(self, key: str, default: Any = None) -> Any:
        """Return a value of the configuration by its dotted key."""
        return look_up(self.config, key, default)

    @property
    def edges(self) -> list[str]:
        """The edges that weights are known of, as prev1→x2."""
        return list(dict.fromkeys(edge for snapshot in self.snapshots for edge in snapshot.weights))


def read_run(folder: Path, inner: bool = True) -> Run:
    """Read a run folder.

    Args:
        folder: The folder.
        inner: Read the training inside a search's folder as well.

    Raises:
        UserError: The folder holds nothing of a run.
    """
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}.")
    names = ("config.yaml", "environment.json", "metrics.jsonl", "architecture.jsonl", "result.json", "derivation.json")
    if not any((folder / name).is_file() for name in names):
        raise UserError(f"{folder} is no run folder: it holds none of {', '.join(names[:4])}.")
    files = _Files(folder)
    environment = files.json("environment.json")
    config = files.yaml("config.yaml")
    derivation, result = files.json("derivation.json"), files.json("result.json")
    rows, lines = files.rows("metrics.jsonl"), files.rows("architecture.jsonl")
    kind = environment.get("kind")
    if kind not in ("search", "train"):
        kind = "search" if lines or derivation or not (rows or result) else "train"
    subject = _subject(environment.get("subject"))
    # The one line of weights that such a search writes is the cell that it drew: nothing that moved epoch by epoch.
    method = METHODS.get(subject) if kind == "search" else None
    still = method and not method.trains_supernet and method.finds == "cell"
    stages = () if still else _plan(kind, config, [*rows, *lines])
    outcome = derivation if kind == "search" else result
    trained = folder / "train"
    has_training = inner and kind == "search" and (trained / "config.yaml").is_file()
    return Run(
        path=folder,
        name=_name(folder),
        kind=kind,
        subject=subject,
        config=config,
        environment=environment,
        stages=stages,
        metrics=_metrics(rows, stages),
        snapshots=_snapshots(lines, stages),
        genotype=_genotype(files.json("genotype.json")) or _genotype(derivation.get("genotype")),
        unconstrained=_genotype(derivation.get("unconstrained")),
        reason=str(derivation.get("reason") or ""),
        finals=_finals(derivation.get("finals")),
        result=_numbers(outcome),
        confusion=_confusion(result.get("confusion")),
        classes=_class_names(files.json("model/config.json")),
        ended=bool(outcome),
        unreadable=files.unreadable,
        network=_network(files.json(FILE)),
        trained=read_run(trained, inner=False) if has_training else None,
        token_images=files.json("token_images.json"),
        token_lines=tuple(
            (epoch, _position(row)[0], row.get("kept"))
            for row in files.rows("tokens.jsonl")
            if (epoch := _epoch(row, stages))
        ),
    )


class _Files:
    """Reads the files of a folder and remembers what it could not read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unreadable: dict[str, int] = {}

    def json(self, name: str) -> dict[str, Any]:
        """Return the object of a JSON file, an empty one where it is not there."""
        return self._whole(name, json.loads)

    def yaml(self, name: str) -> dict[str, Any]:
        """Return the mapping of a YAML file, an empty one where it is not there."""
        return self._whole(name, yaml.safe_load)

    def _whole(self, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
        try:
            text = (self.folder / name).read_bytes().decode("utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError):
            text = ""
        content = _parse(text, parse)
        if not isinstance(content, dict):
            self.unreadable[name] = 1
            return {}
        return content

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the objects of a JSON-lines file."""
        try:
            lines = (self.folder / name).read_bytes().decode("utf-8", errors="replace").splitlines()
        except OSError:
            return []
        rows = [_parse(line, json.loads) for line in lines]
        good = [row for row in rows if isinstance(row, dict)]
        if len(good) < len(rows):
            self.unreadable[name] = len(rows) - len(good)
        return good


def _parse(text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except (ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError):
        return None


def finite(value: object) -> float | None:
    """Return a number as a float, and None for everything that is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole(value: object, least: int = 0, most: int = MOST_EPOCHS) -> int | None:
    """Return a whole number between two bounds, and None for everything else."""
    number = finite(value)
    return int(number) if number is not None and number == int(number) and least <= number <= most else None


def look_up(config: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """Return a value of a nested dictionary by its dotted key."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def _numbers(content: Any) -> dict[str, float]:
    """Return the entries of a dictionary that are finite numbers."""
    if not isinstance(content, dict):
        return {}
    pairs = ((str(name), finite(value)) for name, value in content.items())
    return {name: value for name, value in pairs if value is not None}


def _name(folder: Path) -> str:
    """Return the folder's name, with its search's in front where it lies in one."""
    path = folder.resolve()
    inside = (path.parent / "config.yaml").is_file() and (path.parent / "environment.json").is_file()
    return f"{path.parent.name}/{path.name}" if inside else path.name


def _subject(subject: object) -> str:
    """Return what was run in a word: a cell's JSON stands there in full."""
    text = subject if isinstance(subject, str) else ""
    return "cell" if text.lstrip().startswith("{") else text


def _plan(kind: str, config: dict[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[Stage, ...]:
    """Return the stages that the configuration plans, or those that the lines show."""
    if kind == "train":
        epochs = whole(look_up(config, "train.epochs"), 1) or max((_position(row)[1] for row in rows), default=0)
        return (Stage(1, 0, 0, epochs, 0),)
    columns = [look_up(config, f"search.stages.{name}") for name in ("layers", "epochs", "weight_epochs")]
    stages: list[Stage] = []
    if all(isinstance(column, list) for column in columns):
        for layers, epochs, alone in zip(*columns, strict=False):
            count = whole(epochs, 1)
            if count is None:
                break
            stages.append(Stage(len(stages) + 1, whole(layers) or 0, _end(stages), count, whole(alone) or 0))
    seen = max((_position(row)[0] for row in rows), default=0)
    while len(stages) < seen:
        number = len(stages) + 1
        count = max((epoch for stage, epoch in map(_position, rows) if stage == number), default=0)
        stages.append(Stage(number, 0, _end(stages), count, 0))
    return tuple(stages)


def _end(stages: Sequence[Stage]) -> int:
    return stages[-1].start + stages[-1].epochs if stages else 0


def _position(row: Mapping[str, Any]) -> tuple[int, int]:
    """Return the stage and the epoch within it of a line, zeros where it does not say."""
    stage = 1 if row.get("stage") == "train" else whole(row.get("stage"), 1, 1000)
    epoch = whole(row.get("epoch"), 1)
    return (stage, epoch) if stage and epoch else (0, 0)


def _epoch(row: Mapping[str, Any], stages: Sequence[Stage]) -> int:
    """Return the epoch of the whole run that a line is about, 0 where it does not say."""
    stage, epoch = _position(row)
    return stages[stage - 1].start + epoch if 1 <= stage <= len(stages) else 0


def _metrics(rows: Sequence[Mapping[str, Any]], stages: Sequence[Stage]) -> dict[int, dict[str, float]]:
    found = {_epoch(row, stages): _numbers(row) for row in rows}
    return {epoch: found[epoch] for epoch in sorted(found) if epoch}


def _snapshots(rows: Sequence[Mapping[str, Any]], stages: Sequence[Stage]) -> tuple[Snapshot, ...]:
    found = {}
    for row in rows:
        epoch, table = _epoch(row, stages), row.get("weights")
        if not epoch or not isinstance(table, dict):
            continue
        weights = {edge: _numbers(operations) for edge, operations in table.items()}
        fairness = row.get("fairness")
        found[epoch] = Snapshot(
            epoch=epoch,
            stage=_position(row)[0],
            weights={edge: operations for edge, operations in weights.items() if operations},
            mean=_numbers(row.get("mean_weights")),
            fairness=_numbers(fairness),
            types=_numbers(fairness.get("type_weights")) if isinstance(fairness, dict) else {},
            entropy=finite(row.get("entropy")),
        )
    return tuple(found[epoch] for epoch in sorted(found))


def _genotype(content: Any) -> Genotype | None:
    try:
        return Genotype.from_dict(content) if content else None
    except UserError:
        return None


def _network(content: Any) -> Subnet | None:
    try:
        return Subnet.from_dict(content) if content else None
    except UserError:
        return None


def _finals(rows: Any) -> tuple[tuple[Genotype, dict[str, float]], ...]:
    """Return the finalists that can be read, with their numbers."""
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    pairs = ((_genotype(row.get("genotype")), _numbers(row)) for row in rows)
    return tuple((cell, numbers) for cell, numbers in pairs if cell and "top1" in numbers)


def _confusion(table: Any) -> list[list[int]]:
    """Return a square table of counts, an empty one for everything else."""
    if not isinstance(table, list) or not all(isinstance(row, list) and len(row) == len(table) for row in table):
        return []
    counts = [[whole(value, most=10**12) for value in row] for row in table]
    return [[value for value in row if value is not None] for row in counts] if _full(counts) else []


def _full(table: Sequence[Sequence[int | None]]) -> bool:
    return all(value is not None for row in table for value in row)


def _class_names(model: Mapping[str, Any]) -> tuple[str, ...]:
    names = look_up(model, "pretrained_cfg.label_names")
    return tuple(map(str, names)) if isinstance(names, list) else ()
