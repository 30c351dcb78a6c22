"""dasvit in Python: search, train and compare, and what they return.

Each function does what the command of its name does, by the same code, and writes the same run folder: what
was begun in one may go on in the other.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dasvit.cell.cost import Cost
from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import Found, Subnet
from dasvit.compare.networks import Entry, cost_of_named, named_network, other_entry
from dasvit.compare.trainings import Comparison, run_comparison
from dasvit.config import Config, DataConfig
from dasvit.config import recipe as recipes
from dasvit.config.methods import with_method
from dasvit.config.validation import check_numbers, validate
from dasvit.data import find_images, open_image, predict_transform
from dasvit.data.given import give, picture
from dasvit.errors import UserError, unknown
from dasvit.extras import need
from dasvit.inference.evaluate import ModelEvaluation, evaluate_model
from dasvit.inference.export import Exported, export_model
from dasvit.inference.predict import Row, predictions
from dasvit.io.run_folder import find_model, find_run
from dasvit.memory.fits import warn_memory
from dasvit.models.cost import cost_of
from dasvit.report.run.page import PAGE
from dasvit.runtime.distributed import find_device
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.search.autoformer.loop import EvolvedNetwork
from dasvit.search.candidates import Candidate
from dasvit.search.past_run import read_search
from dasvit.search.pipeline import SearchResult, run_search
from dasvit.session import Session
from dasvit.study.options import StudyOptions
from dasvit.study.study import do_study
from dasvit.training.classifier import Classifier
from dasvit.training.pipeline import Start, Subject, run_training

if TYPE_CHECKING:
    import pandas as pd

BATCH = 64
"""Images that a model sees at once in `predict`."""


@dataclass(frozen=True)
class FoundCell:
    """What a search found: a cell, or with the method autoformer a network.

    Attributes:
        found: The cell or network.
        reason: Why it is not the one that derivation chose first; empty where it is.
        candidates: The cells that were trained for a short while, best first; empty where weights alone decided.
        cost: Parameters and multiply-adds of its network at the recipe's sizes.
        config: The search's recipe.
        run: Its run folder.
    """

    found: Found
    reason: str
    candidates: Sequence[Candidate]
    cost: Cost
    config: Config
    run: Path

    @classmethod
    def of(cls, result: SearchResult) -> FoundCell:
        """Return what a search's pipeline found."""
        session, found = result.session, result.found
        cost = cost_of(found, session.config.model, session.classes)
        reason = "" if isinstance(result.derivation, EvolvedNetwork) else result.derivation.reason
        return cls(found, reason, result.candidates, cost, session.config, session.run.path)

    @property
    def cell(self) -> Genotype:
        """The cell.

        Raises:
            UserError: A network was found.
        """
        if isinstance(self.found, Subnet):
            raise UserError(f"the method {self.config.search.method} found a network, not a cell: it is `found`.")
        return self.found

    @property
    def report(self) -> Path:
        """The run's page."""
        return self.run / PAGE

    def derive(
        self, *, max_macs: str | int = 0, max_params: str | int = 0, rule: str = "", max_skips: int = -1
    ) -> Genotype:
        """Return another cell of the same search, without training: within a budget, or by another rule.

        Args:
            max_macs: Most multiply-adds of its network for one image, as "50M". 0: the recipe's limit.
            max_params: Most parameters, likewise.
            rule: darts or strongest, by the weights of the edges. Empty: by what candidates reached, if there are any.
            max_skips: Most skips. -1: the recipe's limit.

        Raises:
            UserError: No cell of the space fits.
        """
        if rule not in ("", "darts", "strongest"):
            raise unknown("rule", rule, ["darts", "strongest"])
        past = read_search(self.run)
        base = past.config.search.derive
        choice = replace(
            base,
            rule=rule or base.rule,  # type: ignore[arg-type] # checked below
            max_macs=_count(max_macs, "max_macs") or base.max_macs,
            max_params=_count(max_params, "max_params") or base.max_params,
            max_skips=max_skips if max_skips >= 0 else base.max_skips,
        )
        return past.derive(choice, by_weights=bool(rule)).genotype

    def to_frame(self) -> pd.DataFrame:
        """Return the candidates, best first, as a pandas table; the cell alone where none was trained."""
        found = self.candidates or [Candidate(self.cell, float("nan"), float("nan"), float("nan"), 0)]
        columns = {
            "cell": [" ".join(one.cell.ops) for one in found],
            "val_top1": [one.top1 for one in found],
            "val_loss": [one.loss for one in found],
            "epochs": [one.epochs for one in found],
        }
        need("frame", "pandas")
        import pandas as pd

        return pd.DataFrame(columns)

    def __str__(self) -> str:
        return f"{self.found}\n{self.cost.params:,} parameters, {self.cost.macs:,} multiply-adds; {self.run}"

    def _repr_svg_(self) -> str | None:
        """Return the cell as a drawing, which is what a notebook shows; a network has none, and shows its text."""
        if isinstance(self.found, Subnet):
            return None
        from dasvit.report.run.figures import draw_cell

        text = io.StringIO()
        draw_cell(self.cell, {}, list(dict.fromkeys(self.cell.ops))).savefig(text, format="svg")
        return text.getvalue()


class TrainedModel:
    """A trained model.

    Args:
        path: Run folder of a training (or of a search, for the training inside it), or a model folder.

    Attributes:
        folder: The model's folder.
        run: The run folder that it lies in; None outside of one.

    Raises:
        UserError: There is no model.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = find_model(path)
        self.run = find_run(self.folder)
        self._classifier: Classifier | None = None

    @property
    def classifier(self) -> Classifier:
        """The network with its preprocessing, on the CPU; `to` puts it elsewhere."""
        if self._classifier is None:
            self._classifier = Classifier(self.folder, torch.device("cpu"))
        return self._classifier

    def to(self, device: str) -> TrainedModel:
        """Return the model on a device: auto, cpu, cuda, cuda:N or mps."""
        self._classifier = Classifier(self.folder, find_device(device))
        return self

    @property
    def module(self) -> nn.Module:
        """The network, a model of timm's: it takes what `classifier.inputs` returns."""
        return self.classifier.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.classifier.described.classes

    @property
    def result(self) -> dict[str, Any]:
        """What its training ended with: top1, top5, loss, images, params, macs."""
        from dasvit.io.files import read_object

        return {**read_object(self.folder.parent / "result.json")}

    def evaluate(
        self, data: Any = None, *, options: Mapping[str, Any] | None = None, quiet: bool = False
    ) -> ModelEvaluation:
        """Evaluate it on the test images of a data set: top-1, top-5, loss, confusion matrix.

        Args:
            data: As in `search`. None: the data that it was trained on.
            options: Other fields of the recipe by their dotted names, as {"data.eval_limit": 100}.
            quiet: Show no progress.

        Raises:
            UserError: The data are not there, or have other classes.
        """
        if data is None and self.run is None:
            raise UserError(f"{self.folder} does not say what it was trained on: give the data to evaluate it on.")
        recipe = str(self.run / "config.yaml") if self.run else "digits"
        return evaluate_model(self.folder, make_config(recipe, data, options, searching=False), Reporter(quiet=quiet))

    def predict(self, images: Any, *, top: int = 5) -> list[Row]:
        """Return the most probable classes of images.

        Args:
            images: A file, a folder (with all below) or a list of them; or one image or a list of them, as PIL's or as
                uint8 arrays [h, w] or [h, w, 3].
            top: Classes an image.

        Returns:
            A dictionary for each image: `image` (its path, or its place in the list) and `predictions`, a list of
            `label` and `probability`, the most probable first.

        Raises:
            UserError: An image cannot be read.
        """
        pairs = _named_images(images)
        described, top = self.classifier.described, min(top, len(self.classes))
        transform = predict_transform(described.side, described.crop_pct)
        rows: list[Row] = []
        for start in range(0, len(pairs), BATCH):
            part = pairs[start : start + BATCH]
            pixels = torch.stack([transform(open_image(one) if isinstance(one, str) else one) for _, one in part])
            rows += predictions(self.classifier, [name for name, _ in part], pixels, top)
        return rows

    def export(self, target: str, out: str | Path = "") -> Exported:
        """Write it as "onnx", "torch" (a .pt2 file) or "hub" (a folder with a model card), checked against the model.

        Args:
            target: onnx, torch or hub.
            out: File, or folder of hub. Empty: in `export/` of the run's folder.

        Raises:
            UserError: An unknown target, a package that is missing, or something else is in the place.
        """
        return export_model(self.folder, target, out)

    def __repr__(self) -> str:
        reached = self.result
        about = f", test top-1 {reached['top1']:.2f} %" if "top1" in reached else ""
        return f"TrainedModel({str(self.folder)!r}{about})"


def search(
    data: Any = None,
    *,
    recipe: str | Config = "folder-small",
    run: str | Path = "runs/search",
    method: str = "",
    max_macs: str | int = 0,
    max_params: str | int = 0,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    max_minutes: float = 0.0,
    track: Sequence[str] = (),
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
        seed: Fixes everything that is drawn. None: the recipe's.
        options: Other fields of the recipe by their dotted names, as {"search.tokens.ratio": 0.7}.
        resume: There must be a run to go on with.
        max_minutes: Stop, with a checkpoint, after so many minutes. 0: no limit.
        track: Trackers that are sent every epoch's numbers: tensorboard, wandb, trackio.
        quiet: Show no progress.

    Raises:
        UserError: What a user can mend, in a sentence.
        Stopped: The time was up, or a signal came; the same call goes on.
    """
    limits = {"max_macs": _count(max_macs, "max_macs"), "max_params": _count(max_params, "max_params")}
    chosen = {f"search.derive.{name}": limit for name, limit in limits.items() if limit}
    config = make_config(recipe, data, {**_seeded(options, seed), **chosen}, method=method)
    result = run_search(
        config,
        str(run),
        Reporter(quiet=quiet),
        resume=resume,
        deadline=Deadline.after(max_minutes),
        track=track,
        warn=_warn,
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
        quiet: Show no progress.

    Raises:
        UserError: What a user can mend, in a sentence.
        Stopped: The time was up, or a signal came; the same call goes on.
    """
    name, folder, known = _about(subject)
    more = {**_seeded(options, seed), **({"train.epochs": epochs} if epochs else {})}
    if isinstance(subject, TrainedModel):
        from dasvit.models.finetune import sizes_of

        more = {**{f"model.{field}": size for field, size in sizes_of(subject.folder).items()}, **more}
    config = make_config(recipe or known, data, more, searching=False)
    what: Subject | Start
    if isinstance(subject, TrainedModel):
        what = Start.read(str(subject.folder), config)
    elif isinstance(subject, (FoundCell, Genotype, Subnet)):
        what = subject.found if isinstance(subject, FoundCell) else subject
    else:
        what = named_network(str(subject))[0]
    place = str(run or folder or f"runs/{name}")
    how: dict[str, Any] = {"resume": resume, "deadline": Deadline.after(max_minutes), "track": track}
    run_training(config, what, place, Reporter(quiet=quiet), **how)
    return TrainedModel(place)


def compare(
    subjects: Iterable[FoundCell | Found | str | Path],
    data: Any = None,
    *,
    recipe: str | Config = "",
    run: str | Path = "runs/compare",
    seeds: int = 1,
    epochs: int = 0,
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
    config = make_config(recipe or (first.config if first else ""), data, _epochs(options, epochs), searching=False)
    entries = [_entry(one, place) for place, one in enumerate(chosen)]
    return run_comparison(entries, config, str(run), Reporter(quiet=quiet), seeds=seeds)


@dataclass(frozen=True)
class StudyResult:
    """What a study says so far.

    Attributes:
        run: Its folder, with report.html, study.json and study.md.
        summary: The figures, as study.json holds them under `summary` (docs/study.md).
        failures: Runs that failed, and are left out.
    """

    run: Path
    summary: dict[str, Any]
    failures: Sequence[str]

    @property
    def verdicts(self) -> list[str]:
        """Whether searches beat luck, and what is there already, in sentences."""
        found: list[str] = self.summary["verdicts"]
        return found

    def to_frame(self) -> pd.DataFrame:
        """Return a row for every method and variant, the control among them, for pandas."""
        need("frame", "pandas")
        import pandas as pd

        kept = ("key", "label", "group", "mean", "sd", "n", "searches", "macs", "params", "seconds")
        return pd.DataFrame([{key: row.get(key) for key in kept} for row in self.summary["variants"]])


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
    content, failures = do_study(config, plan, Reporter(quiet=quiet), Deadline.after(max_minutes), resume=resume)
    return StudyResult(Path(run), content["summary"], failures)


def cost(subject: FoundCell | Found | str | Path, *, recipe: str | Config = "cifar10-paper", classes: int = 0) -> Cost:
    """Count the parameters and multiply-adds of a network (`dasvit cost`).

    Args:
        subject: A cell or network, its name or file, a run or model folder, vit, or a timm model's name.
        recipe: Whose sizes count.
        classes: Classes of its head. 0: its own, or 10.

    Raises:
        UserError: There is no such network.
    """
    if isinstance(subject, FoundCell):
        return subject.cost
    model = make_config(recipe, None, None, searching=False).model
    if isinstance(subject, (Genotype, Subnet)):
        return cost_of(subject, model, classes or 10)
    return cost_of_named(str(subject), model, classes)


def report(*runs: FoundCell | TrainedModel | str | Path, out: str | Path = "") -> Path:
    """Write the page of a run, or of several side by side, and return its path (`dasvit report`).

    Args:
        runs: Run folders, or what search and train returned.
        out: The page's file. Empty: report.html in the run's folder; of several, comparison.html.

    Raises:
        UserError: A folder holds no run.
    """
    from dasvit.report.compare.page import write_comparison
    from dasvit.report.run.page import write_report

    folders = [_folder(one) for one in runs]
    if len(folders) > 1:
        return write_comparison(folders, Path(out or "comparison.html"))
    return write_report(folders[0], out=Path(out) if out else None)


def make_config(
    recipe: str | Config,
    data: Any = None,
    options: Mapping[str, Any] | None = None,
    *,
    method: str = "",
    searching: bool = True,
) -> Config:
    """Return a recipe with other data and other values of some fields, checked.

    Args:
        recipe: A recipe's name, a YAML file, or a Config.
        data: As in `search`. None: the recipe's.
        options: Values by dotted names, as {"train.epochs": 5}.
        method: The search method. Empty: the recipe's.
        searching: Whether a search is to come.

    Raises:
        UserError: An unknown field, or values that do not work.
    """
    content = recipes.to_dict(recipe) if isinstance(recipe, Config) else recipes.read_recipe(recipe)
    if data is not None:
        content = {**content, "data": _data_section(data)}
    fields = dict(options or {})
    for name, value in fields.items():
        content = _with_field(content, name.split("."), value)
    config = recipes.from_dict(content, "the options", searching=False)
    if searching:
        config = with_method(config, method or config.search.method, fields)
        validate(config)
    return config


def _data_section(data: Any) -> dict[str, Any]:
    if isinstance(data, DataConfig):
        return {name: value for name, value in vars(data).items()}
    if isinstance(data, Mapping) and all(isinstance(key, str) for key in data) and set(data) <= set(vars(DataConfig())):
        return dict(data)
    if isinstance(data, (str, Path)):
        return {"name": "imagefolder", "path": str(data)}
    return vars(give(data))


def _with_field(content: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a nested dictionary with another value at a place."""
    head, *rest = path
    return {**content, head: _with_field(content.get(head) or {}, rest, value) if rest else value}


def _seeded(options: Mapping[str, Any] | None, seed: int | None) -> dict[str, Any]:
    return {**(options or {}), **({} if seed is None else {"runtime.seed": seed})}


def _epochs(options: Mapping[str, Any] | None, epochs: int) -> dict[str, Any]:
    return {**(options or {}), **({"train.epochs": epochs} if epochs else {})}


def _about(subject: FoundCell | Found | TrainedModel | str | Path) -> tuple[str, str, str | Config]:
    """Return what a training is called, its folder (empty: below runs/) and the recipe that is known for it."""
    if isinstance(subject, FoundCell):
        return subject.run.name, str(subject.run / "train"), subject.config
    if isinstance(subject, TrainedModel):
        folder = subject.run or subject.folder
        return folder.name, str(folder / "finetune"), str(folder / "config.yaml") if subject.run else "folder-small"
    if isinstance(subject, (Genotype, Subnet)):
        return "cell" if isinstance(subject, Genotype) else "network", "", "folder-small"
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
        kind = "cell" if isinstance(subject, Genotype) else "network"
        return Entry(f"{kind} {place + 1}", f"{kind}-{place + 1}", subject, 10)
    return other_entry(str(subject))


def _named_images(images: Any) -> list[tuple[str, Any]]:
    """Return images with names: paths by themselves, others by their places."""
    shape: Sequence[int] = getattr(images, "shape", ())
    is_one = len(shape) == 2 or (len(shape) == 3 and shape[-1] == 3)
    if isinstance(images, (str, Path)) or is_one or not hasattr(images, "__len__"):
        images = [images]
    items = list(images)
    if all(isinstance(one, (str, Path)) for one in items):
        return [(path, path) for path in find_images([str(one) for one in items])]
    return [(f"image {place}", picture(one)) for place, one in enumerate(items)]


def _count(value: str | int, name: str) -> int:
    return value if isinstance(value, int) else recipes.parse_count(value, name)


def _warn(session: Session) -> None:
    warn_memory(session.config, session.classes, session.reporter)
