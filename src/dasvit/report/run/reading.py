"""What a run folder says, read so that no damage in it stops the reader.

A run may be under way (its last line half written), cut off, copied in part or edited by hand: whatever cannot be read
is left out, and lines that cannot be read are counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import FILE, Subnet
from dasvit.config.methods import METHODS
from dasvit.errors import UserError, listed
from dasvit.report import label_scores, scores

FILES = ("config.yaml", "environment.json", "metrics.jsonl", "architecture.jsonl", "result.json", "derivation.json")
"""A folder that holds one of these holds a run, or what is left of one."""
MOST_EPOCHS = 1_000_000
"""No run has more; a larger number is damage."""
Weights = dict[str, dict[str, float]]
"""Edge → operation → weight."""


class Stage(NamedTuple):
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


class Snapshot(NamedTuple):
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


class Candidate(NamedTuple):
    """A cell that a search trained.

    Attributes:
        cell: The cell.
        numbers: What it reached and costs: top1, loss, macro_f1, epochs, params, macs.
        losses: Epochs and what it is ranked by (the loss, in older runs) at each rung.
        expected: The loss at the first rung that was expected of it; None where it was drawn without knowledge.
        deviation: How surely.
        tied: Whether the validation images cannot tell it from the best.
        front: Whether no candidate of no more cost beats it.
    """

    cell: Genotype
    numbers: dict[str, float]
    losses: tuple[tuple[float, float], ...]
    expected: float | None
    deviation: float | None
    tied: bool = False
    front: bool = False


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
        candidates: The candidates of a search, best first.
        spreads: By how much parts of that model, as a supernet's scores, tell the candidates apart, by name.
        effects: Operation, what it adds to the loss of a cell as a model of the candidates has it, and the deviation.
        size_effects: The same of sizes, where these were searched.
        result: Numbers of the outcome: params, macs, macs_linear; of a training also those of its evaluation.
        confusion: Images of class i that were taken for class j.
        classes: Names of the classes, where the folder knows them.
        ended: Whether the run came to its end.
        unreadable: File → lines, or 1 for the whole file, that could not be read.
        trained: The training inside a search's folder.
        mistakes: What `mistakes.json` holds.
        data: What `data.json` holds.
        token_images: What `token_images.json` holds.
        token_lines: Epoch of the whole run, stage and what was kept, of the lines of `tokens.jsonl`.
        rungs: Of a candidate of a search, numbers of what it had reached at each rung: epochs, loss, top1.
        by_label: Of several labels an image, a class's name and its figures.
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
    candidates: tuple[Candidate, ...]
    spreads: dict[str, float]
    effects: tuple[tuple[str, float, float], ...]
    size_effects: tuple[tuple[str, float, float], ...]
    result: dict[str, float]
    confusion: list[list[int]]
    classes: tuple[str, ...]
    ended: bool
    unreadable: dict[str, int]
    trained: Run | None
    network: Subnet | None
    mistakes: dict[str, Any]
    data: dict[str, Any]
    token_images: dict[str, Any]
    token_lines: tuple[tuple[int, int, Any], ...]
    rungs: tuple[dict[str, float], ...] = ()
    by_label: tuple[tuple[str, dict[str, float]], ...] = ()

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

    @property
    def seconds(self) -> float:
        """Time of all epochs, 0 where it is unknown."""
        return sum(value for _, value in self.column("seconds"))

    @property
    def peak_memory(self) -> float:
        """The most memory that was held, in MiB; 0 where it is unknown."""
        return max((value for _, value in self.column("peak_memory_mib")), default=0.0)

    @property
    def weights(self) -> Weights:
        """Those of the last epoch, none where there are none."""
        return self.snapshots[-1].weights if self.snapshots else {}

    @property
    def training(self) -> Run | None:
        """The training that this run is or holds."""
        return self if self.kind == "train" else self.trained

    @property
    def outcome(self) -> dict[str, float]:
        """Numbers of the result, those of its training among them."""
        return {**self.result, **(self.trained.result if self.trained else {})}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of the confusion matrix; their numbers, where the folder does not know them."""
        count = len(self.confusion)
        return self.classes if len(self.classes) == count else tuple(map(str, range(count)))

    def column(self, name: str) -> list[tuple[int, float]]:
        """Return (epoch, value) of a metric, where it was measured."""
        return [(epoch, row[name]) for epoch, row in self.metrics.items() if name in row]

    def track(self, group: str, name: str) -> list[tuple[int, float]]:
        """Return (epoch, value) of an entry of the snapshots' mean, fairness or types, where it is there."""
        return [(s.epoch, getattr(s, group)[name]) for s in self.snapshots if name in getattr(s, group)]

    def entropies(self) -> list[tuple[int, float]]:
        """Return (epoch, entropy) of the snapshots that say it."""
        return [(s.epoch, s.entropy) for s in self.snapshots if s.entropy is not None]

    def option(self, key: str, default: Any = None) -> Any:
        """Return a value of the configuration by its dotted key."""
        return look_up(self.config, key, default)


def is_run(folder: Path) -> bool:
    """Tell whether a folder holds anything of a run."""
    return any((folder / name).is_file() for name in FILES)


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
    if not is_run(folder):
        below = sorted(path.name for path in folder.iterdir() if path.is_dir() and is_run(path))
        hint = f" It holds the runs {listed(below)}: give one or several of these." if below else ""
        raise UserError(f"{folder} is no run folder: it holds none of {', '.join(FILES[:4])}.{hint}")
    files = _Files(folder)
    environment, config = files.whole("environment.json"), files.whole("config.yaml")
    derivation, result = files.whole("derivation.json"), files.whole("result.json")
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
    genotype = _genotype(files.whole("genotype.json")) or _genotype(derivation.get("genotype"))
    confusion = _confusion(result.get("confusion"))
    names = look_up(files.whole("model/config.json"), "pretrained_cfg.label_names")
    return Run(
        path=folder,
        name=_name(folder),
        kind=kind,
        subject=subject,
        config=config,
        environment=environment,
        stages=stages,
        metrics={epoch: _numbers(row) for epoch, row in _by_epoch(rows, stages)},
        snapshots=tuple(_snapshot(epoch, row) for epoch, row in _by_epoch(lines, stages, holds="weights")),
        genotype=genotype,
        unconstrained=_genotype(derivation.get("unconstrained")),
        reason=str(derivation.get("reason") or ""),
        candidates=_candidates(derivation.get("finals")),
        spreads=_numbers(derivation.get("spreads")),
        effects=_effects(derivation.get("effects"), "op"),
        size_effects=_effects(derivation.get("size_effects"), "size"),
        result=_result(outcome, confusion),
        confusion=confusion,
        classes=tuple(map(str, names)) if isinstance(names, list) else (),
        ended=bool(outcome),
        unreadable=files.unreadable,
        network=_network(files.whole(FILE)),
        trained=read_run(trained, inner=False) if has_training else None,
        mistakes=files.whole("mistakes.json"),
        data=files.whole("data.json"),
        token_images=files.whole("token_images.json"),
        token_lines=tuple(
            (epoch, _position(row)[0], row.get("kept"))
            for row in files.rows("tokens.jsonl")
            if (epoch := _epoch(row, stages))
        ),
        rungs=tuple(_numbers(row) for row in _dicts(files.whole("rungs.json").get("rungs"))),
        by_label=() if confusion else _by_label(result.get("by_class")),
    )


def outcome_remark(run: Run) -> str:
    """Return a sentence where the network that a run trained is no better than a constant, empty where it is."""
    judged = run.training
    if judged and {"map", "prevalence"} <= judged.result.keys():
        return label_scores.no_better_map(judged.result["map"], judged.result["prevalence"])
    return scores.remark(judged.confusion, judged.class_names) if judged and judged.confusion else ""


class _Files:
    """Reads the files of a folder and remembers what it could not read: lines, or 1 for a whole file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unreadable: dict[str, int] = {}

    def whole(self, name: str) -> dict[str, Any]:
        """Return what a JSON or YAML file holds, an empty dictionary where it is not there."""
        try:
            text = (self.folder / name).read_bytes().decode("utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError):
            text = ""
        content = _parse(text, yaml.safe_load if name.endswith(".yaml") else json.loads)
        if isinstance(content, dict):
            return content
        self.unreadable[name] = 1
        return {}

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the objects of a JSON-lines file."""
        try:
            lines = (self.folder / name).read_bytes().decode("utf-8", errors="replace").splitlines()
        except OSError:
            return []
        rows = [row for line in lines if isinstance(row := _parse(line, json.loads), dict)]
        if len(rows) < len(lines):
            self.unreadable[name] = len(lines) - len(rows)
        return rows


def _parse(text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except (ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError):
        return None


def finite(value: object) -> float | None:
    """Return a number as a float, and None for everything that is no finite number."""
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
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


def _by_epoch(
    rows: Sequence[Mapping[str, Any]], stages: Sequence[Stage], holds: str = ""
) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the lines that say their epoch and hold such a table, in order; of one epoch's the last one counts."""
    kept = (row for row in rows if not holds or isinstance(row.get(holds), dict))
    return sorted({epoch: row for row in kept if (epoch := _epoch(row, stages))}.items())


def _snapshot(epoch: int, row: Mapping[str, Any]) -> Snapshot:
    weights = {edge: _numbers(operations) for edge, operations in row["weights"].items()}
    fairness = row.get("fairness")
    return Snapshot(
        epoch=epoch,
        stage=_position(row)[0],
        weights={edge: operations for edge, operations in weights.items() if operations},
        mean=_numbers(row.get("mean_weights")),
        fairness=_numbers(fairness),
        types=_numbers(fairness.get("type_weights")) if isinstance(fairness, dict) else {},
        entropy=finite(row.get("entropy")),
    )


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


def _candidates(rows: Any) -> tuple[Candidate, ...]:
    """Return the candidates that can be read."""
    found = []
    for row in _dicts(rows):
        cell, numbers, expected = _genotype(row.get("genotype")), _numbers(row), _numbers(row.get("expected"))
        rungs = [_numbers(rung) for rung in _dicts(row.get("rungs"))]
        if cell and ("top1" in numbers or "map" in numbers):
            values = ((rung.get("epochs"), rung.get("value", rung.get("loss"))) for rung in rungs)
            losses = tuple((epochs, value) for epochs, value in values if epochs is not None and value is not None)
            marks = (row.get("tied") is True, row.get("front") is True)
            found.append(Candidate(cell, numbers, losses, expected.get("loss"), expected.get("sd"), *marks))
    return tuple(found)


def _effects(rows: Any, key: str) -> tuple[tuple[str, float, float], ...]:
    """Return what a model of the candidates' losses says of each operation or size: its name, effect and deviation."""
    pairs = ((str(row.get(key)), _numbers(row)) for row in _dicts(rows))
    return tuple((name, numbers["loss"], numbers["sd"]) for name, numbers in pairs if {"loss", "sd"} <= numbers.keys())


def _dicts(rows: Any) -> list[dict[str, Any]]:
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _result(outcome: Any, confusion: list[list[int]]) -> dict[str, float]:
    """Return the numbers of an outcome; older runs left the metrics to the confusion matrix, and had top-5 of any."""
    found = {**(scores.metrics(confusion) if confusion else {}), **_numbers(outcome)}
    if 0 < len(confusion) <= scores.FEW:
        found.pop("top5", None)
    return found


def _by_label(rows: Any) -> tuple[tuple[str, dict[str, float]], ...]:
    """Return the figures of every class, where they are those of several labels an image."""
    found = ((str(row.get("class", "")), _numbers(row)) for row in _dicts(rows))
    needed = {"images", "prevalence", "ap", "precision", "recall", "f1"}
    return tuple((name, numbers) for name, numbers in found if needed <= numbers.keys())


def _confusion(table: Any) -> list[list[int]]:
    """Return a square table of counts, an empty one for everything else."""
    if not isinstance(table, list) or not all(isinstance(row, list) and len(row) == len(table) for row in table):
        return []
    counts = [[count for value in row if (count := whole(value, most=10**12)) is not None] for row in table]
    return counts if all(len(row) == len(table) for row in counts) else []
