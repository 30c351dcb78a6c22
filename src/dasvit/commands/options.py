"""The options of every command, as dataclasses: their docstrings are the texts of `--help`.

The first line says what the command does. A field is an option of the same name, `--edges-per-node` for
`edges_per_node`; one made by `positional` is an argument without a name.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dasvit.config import LatencyConfig
from dasvit.config.methods import METHODS
from dasvit.config.ranges import at_least
from dasvit.study.options import StudyOptions as StudyPlan


def positional(metavar: str = "", nargs: Literal["", "+", "*"] = "") -> Any:
    """Return a field that is given by its place: one value, or at least one (+), or any number of them (*)."""
    return dataclasses.field(metadata={"positional": True, "metavar": metavar, "nargs": nargs})


def shown(metavar: str, default: Any = "") -> Any:
    """Return a field whose value has another name in `--help`."""
    return dataclasses.field(default=default, metadata={"metavar": metavar})


def name_of(table: Mapping[str, Any]) -> Any:
    """Return a field that takes a name of a table, all of which stand in `--help`."""
    return dataclasses.field(default="", metadata={"names": table})


def choice(default: str) -> Any:
    """Return a field of so few choices that the sentence on all others names them in words."""
    return dataclasses.field(default=default, metadata={"few": True})


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every command takes.

    Attributes:
        json: Print one JSON object, and nothing else, on standard output.
    """

    json: bool = False


@dataclass(frozen=True, kw_only=True)
class Resumable(Options):
    """What commands take that go on where they stopped.

    Attributes:
        resume: Go on with the run in the folder, and fail where there is none (without it: go on, or begin).
        max_minutes: Stop, with a checkpoint, after so many minutes; the same command goes on (default: 0, no limit).
        begun: When the command began, on the clock of `time.monotonic()`; no option.
    """

    resume: bool = False
    max_minutes: float = shown("M", default=0.0)
    begun: float = dataclasses.field(default_factory=time.monotonic, init=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Tracked(Options):
    """What commands take that train.

    Attributes:
        track: Also send every epoch's numbers to tensorboard, wandb or trackio (several: tensorboard,wandb).
    """

    track: str = shown("TRACKER")


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Resumable, Tracked):
    """Search a cell on images, and derive it.

    Attributes:
        run: Folder that the run writes.
        method: Search method (search.method).
        max_latency: Budget of the time of an inference, as 8ms (search.derive.max_latency).
        latency_table: Latency table of the machine that the network is for (search.latency.table).
        jobs: Candidates trained beside each other, each in a process with its share of the cores, or a GPU of its own.
        cluster: Send the candidates to slurm as jobs, at most --jobs of them at once (local: as jobs on this machine).
        cluster_config: YAML file of what a job asks for: partition, account, qos, constraint, minutes, cpus, gpus,
            memory.
        hours: Train as many candidates as fit into so many hours on this machine (default: 0, as the recipe says).
        dry_run: Say how long it would take, and stop.
    """

    run: str = "runs/search"
    method: str = name_of(METHODS)
    max_latency: str = shown("TIME")
    latency_table: str = shown("FILE")
    jobs: int = at_least(1, default=1)
    cluster: str = ""
    cluster_config: str = ""
    hours: float = shown("H", default=0.0)
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class DeriveOptions(Options):
    """Derive a cell from a search again: another rule, a budget.

    Attributes:
        run: Run folder of a search.
        rule: How to derive: darts, strongest, or perturbation, which needs checkpoints and images (default: the run's).
        edges_per_node: Edges kept into each node (default: the run's).
        max_params: Budget of parameters, as 6M.
        max_macs: Budget of multiply-adds of one image, as 500M.
        max_latency: Budget of the time of an inference, as 8ms.
        latency_table: Latency table of the machine that the network is for (default: this machine's own).
        max_skips: Most edges that may be identity (default: the run's).
        out: File of the cell (default: in RUN/derived/).
    """

    run: str = positional()
    rule: Literal["", "darts", "strongest", "perturbation"] = choice("")
    edges_per_node: int = 0
    max_params: str = ""
    max_macs: str = ""
    max_latency: str = shown("TIME")
    latency_table: str = shown("FILE")
    max_skips: int = -1
    out: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Resumable, Tracked):
    """Train a cell or a timm model from scratch, or fine-tune a trained one.

    Attributes:
        cell: Run folder of a search, a genotype's JSON file, or a cell's name.
        baseline: Instead of a cell (also --model): vit, of the recipe's width and depth, or a timm model's name.
        init: Instead of both: begin with a trained model's weights (a run or model folder), with a new head.
        pretrained: With --model NAME of timm's, begin with the weights that timm publishes for it, with a new head.
        download: With --pretrained, fetch weights that are not on this machine: true or false.
        run: Folder that the run writes (default: RUN/train for --cell RUN, RUN/finetune for --init, else runs/NAME).
        dry_run: Say how long it would take, and stop.
    """

    cell: str = ""
    baseline: str = shown("NAME")
    init: str = shown("RUN")
    pretrained: bool = False
    download: Literal["", "true", "false"] = choice("")
    run: str = ""
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """Evaluate a trained model on a data set: the metrics of docs/tasks.md, and every image's prediction.

    Attributes:
        model: Run folder of a training, or a model folder.
        out: Folder for predictions.csv, confusion.csv and the figures (default: evaluation/ in the run's folder; of a
            model outside a run none).
    """

    model: str = positional("MODEL")
    out: str = shown("FOLDER")


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """Show how a folder of images is understood: splits, classes, sizes, copies.

    Attributes:
        folder: Folder of images or of parquet files.
        report: A page (HTML) of it, with what fit, flip and window do to four of the images. Empty: none.
        held_out: A file for the names of the images that would be held out, a line each. Empty: none.
    """

    folder: str = positional("FOLDER")
    report: str = ""
    held_out: str = ""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    """Name the classes of images, or of folders of them.

    Attributes:
        model: Run folder of a training, a model folder, or cifar10, which comes with the package.
        images: Image files, and folders of them (with all below); of cifar10 also none: ten drawings that come with it.
        top: Classes shown for an image.
        format: Text, csv or json (as --json).
        batch_size: Images that the model sees at once.
        on_error: What broken images are, which are left out and named: an error of the command (stop), or none (skip).
        device: The device: auto, cpu, cuda, cuda:N or mps.
    """

    model: str = positional("MODEL")
    images: tuple[str, ...] = positional("IMAGE", "*")
    top: int = at_least(1, default=5)
    format: Literal["text", "csv", "json"] = "text"
    batch_size: int = at_least(1, default=64)
    on_error: Literal["stop", "skip"] = choice("stop")
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Write a trained model as ONNX, torch.export or a folder for the hub.

    Attributes:
        model: Run folder of a training, or a model folder.
        to: What is written: onnx: one .onnx file; torch: a .pt2 file of torch.export; hub: a folder with a model card.
        out: File, or folder of hub (default: in export/ of the run's folder; never written over).
        precision: Of an .onnx file: float32, fp16 or int8; what accuracy it keeps is said.
    """

    model: str = positional("MODEL")
    to: str = shown("TARGET")
    out: str = ""
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """Show a trained model in the browser: drop an image, see its classes.

    Attributes:
        model: Run folder of a training, a model folder, or cifar10, which comes with the package.
        host: Address to listen at (default: this machine alone).
        port: Port to listen at; 0: the first free one from 7860 on.
        device: The device: auto, cpu, cuda, cuda:N or mps.
    """

    model: str = positional("MODEL")
    host: str = "127.0.0.1"
    port: int = 7860
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Timed(Options):
    """What commands take that measure latency.

    Attributes:
        runtime: Runtime whose latency it is: torch or onnx (default: the recipe's search.latency.runtime).
        batch: Images of an inference (default: the recipe's).
        threads: Threads on the CPU (default: the recipe's).
        device: The device: cpu, cuda, cuda:N, mps or auto (default: the recipe's).
    """

    runtime: Literal["", "torch", "onnx"] = choice("")
    batch: int = at_least(0, default=0)
    threads: int = at_least(0, default=0)
    device: str = ""

    def where(self, recipe: LatencyConfig) -> LatencyConfig:
        """Return the recipe's section with what the command line says."""
        given = {name: getattr(self, name) for name in ("runtime", "batch", "threads", "device")}
        return dataclasses.replace(recipe, table="", **{name: value for name, value in given.items() if value})


@dataclass(frozen=True, kw_only=True)
class CostOptions(Timed):
    """Count the parameters and multiply-adds of a cell or model.

    Attributes:
        subject: What is counted.
        classes: Classes of the head (default: those of a run's data or of a trained model; of all others 10).
        latency: Also measure what an inference takes.
    """

    subject: str = positional("CELL|MODEL|TIMM_NAME")
    classes: int = 0
    latency: bool = False


@dataclass(frozen=True, kw_only=True)
class LatencyOptions(Timed):
    """Measure what a space's operations take on this machine, as a table.

    Attributes:
        out: File of the table; another table in its place is written over.
        classes: Classes of the head, which takes next to nothing.
    """

    out: str = shown("FILE")
    classes: int = at_least(1, default=10)


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """Show a run as one HTML page, or several side by side.

    Attributes:
        runs: Run folders; several are set side by side.
        out: The page (default: RUN/report.html; of several: comparison.html).
        figures: Also write PDF and SVG figures, to figures/ beside the page.
    """

    runs: tuple[str, ...] = positional("RUN", "+")
    out: str = ""
    figures: bool = False


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options):
    """Train and cost any list of networks, in one table.

    Attributes:
        networks: Cells' and timm models' names, genotype files, run folders (default: the paper's thirteen).
        rows: Rows besides these: paper, the thirteen networks of the paper's Table I.
        scale: Full, or small: networks and recipe that two CPU cores can train.
        cost_only: Train nothing: parameters and multiply-adds.
        pretrained: Fine-tune timm's networks from the weights that timm publishes for them, beside the others.
        download: With --pretrained, fetch weights that are not on this machine: true or false.
        latency: Also measure what an inference takes, as search.latency says.
        classes: With --cost-only, classes of every head (default: the paper's rows as in the paper, others 10).
        seeds: Train every network with so many seeds, from runtime.seed on.
        published: Show the paper's figures beside ours.
        ptflops: FLOPs as the paper counts them: auto (where ptflops is installed), yes or no.
        format: Form of the table: table, csv, md, tex or json.
        run: Folder that the runs and the table are written to (default: runs/compare; none with --cost-only).
    """

    networks: tuple[str, ...] = positional("NETWORK", "*")
    rows: Literal["", "paper"] = ""
    scale: Literal["full", "small"] = "full"
    cost_only: bool = False
    pretrained: bool = False
    download: Literal["", "true", "false"] = choice("")
    latency: bool = False
    classes: int = 0
    seeds: int = at_least(1, default=1)
    published: bool = False
    ptflops: Literal["auto", "yes", "no"] = "auto"
    format: Literal["table", "csv", "md", "tex", "json"] = "table"
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class StudyOptions(StudyPlan, Resumable):
    """Find out whether a search beats luck, and what is there already."""


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(Options):
    """Count the memory of a search: what batch fits which GPU.

    Attributes:
        fits: Print only the largest batch that fits, as 24G.
        out: Figure, saved as PNG and as SVG (default: runs/memory.png; empty: none).
    """

    fits: str = shown("MEMORY")
    out: str = shown("FILE", default="runs/memory.png")


@dataclass(frozen=True, kw_only=True)
class CacheOptions(Options):
    """List the decoded images that are kept, or remove them.

    Attributes:
        clean: Remove them, but for what a process reads.
        older: Only what was not used for so long, as 30d, 12h or 90m.
        folder: The cache (default: $DASVIT_CACHE, or dasvit/ in the user's cache folder).
    """

    clean: bool = False
    older: str = shown("TIME")
    folder: str = ""


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions(Options):
    """Search, train and compare on scikit-learn's digits, in minutes.

    Attributes:
        run: Folder that the runs write.
    """

    run: str = "runs/quickstart"
