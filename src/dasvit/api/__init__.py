"""dasvit in Python: search, train and compare, and what they return.

Each function does what the command of its name does, by the same code, and writes the same run folder: what
was begun in one may go on in the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dasvit.api.found import FoundCell
from dasvit.api.model import TrainedModel
from dasvit.api.recipe import count, make_config
from dasvit.cell.cost import Cost
from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import Found, Subnet, cell_kind
from dasvit.compare.networks import Entry, cost_of_named, cost_with_latency, named_network, other_entry, with_weights
from dasvit.compare.trainings import Comparison, run_comparison
from dasvit.config import Config, LatencyConfig
from dasvit.config.units import parse_time
from dasvit.config.validation import check_numbers, validate
from dasvit.data import inspection
from dasvit.data.inspection import Inspection
from dasvit.errors import UserError, unknown
from dasvit.io.run_folder import find_run, place_for
from dasvit.memory.fits import warn_memory
from dasvit.models.finetune import sizes_of
from dasvit.report.folders import write_pages
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.search.pipeline import run_search
from dasvit.study.options import StudyOptions
from dasvit.study.result import StudyResult
from dasvit.study.study import do_study
from dasvit.training.pipeline import Subject, resized, run_training, say_taken_over
from dasvit.training.start import FirstWeights, Pretrained, Start

__all__ = [
    "FoundCell",
    "StudyResult",
    "TrainedModel",
    "compare",
    "cost",
    "inspect_data",
    "report",
    "search",
    "study",
    "train",
]


def search(
    data: Any = None,
    *,
    recipe: str | Config = "folder-small",
    run: str | Path = "runs/search",
    method: str = "",
    max_macs: str | int = 0,
    max_params: str | int = 0,
    max_latency: str = "",
    latency_table: str | Path = "",
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    max_minutes: float = 0.0,
    track: Sequence[str] = (),
    jobs: int = 1,
    hours: float = 0.0,
    cluster: str = "",
    cluster_config: str = "",
    quiet: bool = False,
) -> FoundCell:
    """Search a cell on images, or with the method autoformer a network (`dasvit search`).

    Args:
        data: A folder of images; a recipe's section data, as a dictionary or DataConfig; (images, labels) as arrays; a
            data set of torchvision's kind, or a Hugging Face data set, or a dictionary of them by split. None: what the
            recipe says.
        recipe: A recipe's name, a YAML file, or a Config.
        run: The run folder. The same call goes on where it stopped.
        method: dasvit, or a rival (docs/methods.md). Empty: the recipe's.
        max_macs: Most multiply-adds of the found network for one image, as "80M". 0: no limit.
        max_params: Most parameters, likewise.
        max_latency: Most time of an inference of it, as "8ms", by a latency table (docs/latency.md). Empty: no limit.
        latency_table: That table, as `dasvit latency` writes it. Empty: this machine's own, measured once.
        seed: Fixes everything that is drawn. None: the recipe's.
        options: Other fields of the recipe by their dotted names, as {"search.tokens.ratio": 0.7}.
        resume: There must be a run to go on with.
        max_minutes: Stop, with a checkpoint, after so many minutes. 0: no limit.
        track: Trackers that are sent every epoch's numbers: tensorboard, wandb, trackio.
        jobs: Candidates trained beside each other, each in a process of its own.
        hours: Train as many candidates as fit into so many hours on this machine. 0: as many as the recipe says.
        cluster: slurm: candidates are jobs, at most `jobs` at once (docs/scale.md); local: jobs of this machine.
        cluster_config: YAML file of what a job asks for.
        quiet: Show no progress.

    Raises:
        UserError: What a user can mend, in a sentence.
        Stopped: The time was up, or a signal came; the same call goes on.
    """
    parse_time(max_latency, "max_latency")
    limits = {
        "search.derive.max_macs": count(max_macs, "max_macs"),
        "search.derive.max_params": count(max_params, "max_params"),
        "search.derive.max_latency": max_latency,
        "search.latency.table": str(latency_table),
    }
    chosen = {"runtime.seed": seed, **{name: limit or None for name, limit in limits.items()}}
    config = make_config(recipe, data, options, chosen=chosen, method=method)
    result = run_search(
        config,
        str(run),
        Reporter(quiet=quiet),
        resume=resume,
        deadline=Deadline.after(max_minutes),
        track=track,
        warn=lambda session: warn_memory(session.config, session.classes, session.reporter),
        jobs=jobs,
        hours=hours,
        cluster=cluster,
        cluster_config=cluster_config,
    )
    return FoundCell.of(result)


def train(
    subject: FoundCell | Found | TrainedModel | str | Path,
    data: Any = None,
    *,
    recipe: str | Config = "",
    run: str | Path = "",
    epochs: int = 0,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    max_minutes: float = 0.0,
    track: Sequence[str] = (),
    pretrained: bool = False,
    download: bool = False,
    quiet: bool = False,
) -> TrainedModel:
    """Train a network and keep its model (`dasvit train`).

    Args:
        subject: What a search found; a cell or network, its name or file; vit or a timm model's name: trained from
            scratch. A trained model is fine-tuned.
        data: As in `search`. None: what the search or the recipe says.
        recipe: A recipe's name, a YAML file, or a Config. Empty: that of the search, or of the model's training.
        run: The run folder. Empty: train/ in the search's folder, or runs/ and the network's name.
        epochs: Epochs. 0: the recipe's.
        seed: Fixes everything that is drawn. None: the recipe's.
        options: Other fields of the recipe by their dotted names, as {"train.optim.lr": 1e-4}.
        resume: There must be a run to go on with.
        max_minutes: Stop, with a checkpoint, after so many minutes. 0: no limit.
        track: Trackers that are sent every epoch's numbers.
        pretrained: Of a name of timm's: begin with the weights that timm publishes for it, with a new head.
        download: Fetch these where they are not on this machine.
        quiet: Show no progress.

    Raises:
        UserError: What a user can mend, in a sentence.
        Stopped: The time was up, or a signal came; the same call goes on.
    """
    name, folder, known = _about(subject)
    cell = subject.found if isinstance(subject, FoundCell) else subject
    if not isinstance(subject, (FoundCell, TrainedModel, Genotype, Subnet)):
        cell = named_network(str(subject))[0]
    if isinstance(cell, Genotype) and cell.sizes:
        options = {**{f"model.{field}": size for field, size in cell.sizes.to_dict().items()}, **(options or {})}
    if isinstance(subject, TrainedModel):
        sizes = {f"model.{field}": size for field, size in sizes_of(subject.folder).items()}
        of_others = {"train.teacher": ""} if data is not None and not recipe else {}  # it need not know other classes
        options = {**sizes, **of_others, **(options or {})}
    chosen = {"runtime.seed": seed, "train.epochs": epochs or None}
    config = make_config(recipe or known, data, options, chosen=chosen, searching=False)
    what: Subject | FirstWeights
    if isinstance(subject, TrainedModel):
        what = Start.read(str(subject.folder), config)
    elif pretrained:
        what = Pretrained.find(str(subject), download)
    else:
        assert not isinstance(cell, (TrainedModel, Path)), "a path was read, and a model goes on"
        what = resized(cell, config.model, Reporter(quiet=quiet).say)
    place = str(run or folder or f"runs/{name}")
    deadline = Deadline.after(max_minutes)
    reporter = Reporter(quiet=quiet)
    say_taken_over(config, find_run(subject.run) if isinstance(subject, FoundCell) else None, reporter)
    run_training(config, what, place, reporter, resume=resume, deadline=deadline, track=track)
    return TrainedModel(place)


def compare(
    subjects: Iterable[FoundCell | Found | str | Path],
    data: Any = None,
    *,
    recipe: str | Config = "",
    run: str | Path = "runs/compare",
    seeds: int = 1,
    epochs: int = 0,
    latency: bool = False,
    pretrained: bool = False,
    download: bool = False,
    options: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Comparison:
    """Train networks alike, and set them side by side (`dasvit compare`); the same call goes on where it stopped.

    Args:
        subjects: What searches found, cells, networks, names of cells and of timm's models, their files, run folders.
        data: As in `search`. None: what the recipe says.
        recipe: A recipe's name, a YAML file, or a Config. Empty: that of the first search among the networks.
        run: Where trainings and table go.
        seeds: Trainings of each network.
        epochs: Epochs of each. 0: the recipe's.
        latency: Also measure what an inference takes, as `search.latency` says.
        pretrained: Fine-tune timm's networks from the weights that timm publishes for them, beside the others.
        download: Fetch these where they are not on this machine.
        options: Other fields of the recipe by their dotted names.
        quiet: Show no progress.

    Returns:
        The table: `rows`, `to_frame()`, `text("md")`; `failures` names trainings that failed.

    Raises:
        UserError: What a user can mend, in a sentence.
    """
    chosen = list(subjects)
    first = next((one for one in chosen if isinstance(one, FoundCell)), None)
    if not recipe and first is None:
        raise UserError("say under which recipe networks are compared: recipe='cifar10-small', say.")
    known, epochs_chosen = first.config if first else "", {"train.epochs": epochs or None}
    config = make_config(recipe or known, data, options, chosen=epochs_chosen, searching=False)
    entries = [_entry(one, place) for place, one in enumerate(chosen)]
    reporter = Reporter(quiet=quiet)
    if pretrained:
        entries = with_weights(entries, download, reporter)
    return run_comparison(entries, config, str(run), reporter, seeds=seeds, latency=latency)


def study(
    data: Any = None,
    *,
    recipe: str | Config = "digits-study",
    run: str | Path = "runs/study",
    searches: int = 4,
    trainings: int = 3,
    control: int = -1,
    random: int = 12,
    methods: Sequence[str] = ("dasvit", "darts"),
    ablate: bool = False,
    jobs: int = 1,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    max_minutes: float = 0.0,
    quiet: bool = False,
) -> StudyResult:
    """Find out whether a search beats luck, and what is there already (`dasvit study`).

    Args:
        data: As in `search`. None: what the recipe says.
        recipe: A recipe's name, a YAML file, or a Config.
        run: The study's folder. The same call goes on where it stopped.
        searches: Searches with each method.
        trainings: Trainings of each network.
        control: Searches of the control, the best of evenly drawn cells. -1: as many as `searches`; 0: none.
        random: Random cells of the found cells' multiply-adds.
        methods: Search methods, the first of which has the random cells' cost.
        ablate: Also search without tokens, fairness, stages and candidates.
        jobs: Runs beside each other, each a process.
        options: Other fields of the recipe by their dotted names.
        resume: There must be a study to go on with.
        max_minutes: Stop after so many minutes. 0: no limit.
        quiet: Show no progress.

    Raises:
        UserError: What a user can mend, in a sentence.
        Stopped: The time was up, or a signal came; the same call goes on.
    """
    config = make_config(recipe, data, options, searching=False)
    validate(config)
    plan = StudyOptions(
        run=str(run),
        searches=searches,
        trainings=trainings,
        control=control,
        random=random,
        methods=",".join(methods),
        ablate=ablate,
        jobs=jobs,
    )
    check_numbers(plan)
    return do_study(config, plan, Reporter(quiet=quiet), Deadline.after(max_minutes), resume=resume)


def cost(
    subject: FoundCell | Found | str | Path,
    *,
    recipe: str | Config = "cifar10-paper",
    classes: int = 0,
    latency: str | LatencyConfig = "",
) -> Cost:
    """Count the parameters and multiply-adds of a network, and measure its latency where asked (`dasvit cost`).

    Args:
        subject: A cell or network, its name or file, a run or model folder, vit, or a timm model's name.
        recipe: Whose sizes count.
        classes: Classes of its head. 0: its own, or 10.
        latency: Where an inference is timed: torch or onnx, for a batch of one on the CPU, or a LatencyConfig, which
            also says batch, threads and device. Empty: nothing is.

    Returns:
        Params and macs; with latency a `MeasuredCost`, whose `latency` has median and iqr, in seconds.

    Raises:
        UserError: There is no such network, runtime or device.
    """
    how = _where(latency) if latency else None
    if isinstance(subject, FoundCell) and how is None:
        return subject.cost
    model = make_config(subject.config if isinstance(subject, FoundCell) else recipe, searching=False).model
    if isinstance(subject, FoundCell):
        return cost_with_latency(subject.found, model, classes or 10, how)
    if isinstance(subject, (Genotype, Subnet)):
        return cost_with_latency(subject, model, classes or 10, how)
    return cost_of_named(str(subject), model, classes, how)[0]


def inspect_data(data: Any, *, seed: int = 0) -> Inspection:
    """Look at all images of a data set: how it is understood, sizes, bit depths, copies (`dasvit data`).

    Args:
        data: As in `search`.
        seed: Fixes which images are held out where there are no test images.

    Raises:
        UserError: The data are not there, or can be understood in two ways.
    """
    return inspection.inspect_data(make_config("folder-small", data, searching=False).data, seed)


def report(*runs: FoundCell | TrainedModel | str | Path, out: str | Path = "") -> Path:
    """Write the page of a run, or of several side by side, and return its path (`dasvit report`).

    Args:
        runs: Run folders, or what search and train returned.
        out: The page's file. Empty: report.html in the run's folder; of several, comparison.html.

    Raises:
        UserError: A folder holds no run.
    """
    folders = [_folder(one) for one in runs]
    return write_pages(folders, Path(out) if out else None)


def _about(subject: FoundCell | Found | TrainedModel | str | Path) -> tuple[str, str, str | Config]:
    """Return what a training is called, its folder (empty: below runs/) and the recipe that is known for it."""
    if isinstance(subject, FoundCell):
        return subject.run.name, str(subject.run / "train"), subject.config
    if isinstance(subject, TrainedModel):
        folder = place_for(subject.folder)
        return folder.name, str(folder / "finetune"), str(folder / "config.yaml") if subject.run else "folder-small"
    if isinstance(subject, (Genotype, Subnet)):
        return cell_kind(subject), "", "folder-small"
    run = find_run(subject)
    known = str(run / "config.yaml") if run else "folder-small"
    return Path(subject).stem, str(Path(subject) / "train") if run and Path(subject).is_dir() else "", known


def _folder(run: FoundCell | TrainedModel | str | Path) -> Path:
    if isinstance(run, TrainedModel):
        return run.run or run.folder
    return run.run if isinstance(run, FoundCell) else Path(run)


def _entry(subject: FoundCell | Found | str | Path, place: int) -> Entry:
    if isinstance(subject, FoundCell):
        return Entry(subject.run.name, subject.run.resolve().name, subject.found, 10)
    if isinstance(subject, (Genotype, Subnet)):
        kind = cell_kind(subject)
        return Entry(f"{kind} {place + 1}", f"{kind}-{place + 1}", subject, 10)
    return other_entry(str(subject))


def _where(latency: str | LatencyConfig) -> LatencyConfig:
    if isinstance(latency, LatencyConfig):
        check_numbers(latency, "latency.")
        return latency
    if latency not in ("torch", "onnx"):
        raise unknown("runtime", latency, ["torch", "onnx"])
    return LatencyConfig(runtime=latency)  # type: ignore[arg-type] # checked
