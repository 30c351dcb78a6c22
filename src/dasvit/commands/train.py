"""`dasvit train`: from a cell, a baseline's name or a trained model to a trained model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.cli import Request
from dasvit.commands.common import (
    check_memory,
    describe_cost,
    live_report,
    note_data,
    print_json,
    say_data,
    settle_precision,
    settled_data,
    wanted_trackers,
)
from dasvit.commands.judge import read_input
from dasvit.config import Config
from dasvit.data import MEAN, STD, Data, load_data
from dasvit.errors import UserError
from dasvit.io.run_folder import RunFolder, find_model, find_run
from dasvit.models.baselines import make_model, make_network, prefer_fast_attention
from dasvit.models.cost import cost_of, count_cost
from dasvit.models.finetune import load_start, sizes_of, subject_of
from dasvit.models.folder import WEIGHTS, read_model_config, save_model
from dasvit.report.tables import network_table
from dasvit.runtime.distributed import Runtime, seed_everything
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import NEVER, Deadline
from dasvit.runtime.tracking import Tracking
from dasvit.training.loop import probe_step, train


@dataclass(frozen=True)
class Start:
    """A trained model whose weights a training begins with.

    Attributes:
        folder: The model's folder.
        classes: Names of the classes that its head knows.
        digest: SHA-256 of its weights: a run that goes on must have begun with the same.
    """

    folder: Path
    classes: tuple[str, ...]
    digest: str

    @classmethod
    def read(cls, path: str, config: Config) -> Start:
        """Find the model of a run or model folder, and see that the recipe asks for its sizes.

        Raises:
            UserError: There is no model, or it cannot be what this recipe trains.
        """
        folder = find_model(path)
        for field, size in sizes_of(folder).items():
            asked = getattr(config.model, field)
            if field != "image_size" and asked != size:
                raise UserError(
                    f"the model in {folder} has model.{field} {size}, not {asked}: leave out --model.{field}, or train "
                    "from scratch, without --init."
                )
        norms = read_model_config(folder)["pretrained_cfg"]
        if [*norms.get("mean", MEAN)] != [*MEAN] or [*norms.get("std", STD)] != [*STD]:
            raise UserError(
                f"the model in {folder} was trained on images of another normalisation than mean and deviation "
                f"{MEAN[0]}: it cannot be gone on with."
            )
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"{folder} holds no {WEIGHTS}: was its training cut off?")
        with (folder / WEIGHTS).open("rb") as file:
            return cls(folder, read_input(folder).classes, hashlib.file_digest(file, "sha256").hexdigest())

    def keeps_head(self, data: Data) -> bool:
        """Tell whether the data have the classes that the model's head knows."""
        return self.classes == tuple(data.classes)

    def load(self, config: Config, data: Data) -> nn.Module:
        """Return the model, with a fresh head where the data have other classes."""
        side, rate = config.model.image_size, config.train.drop_path
        return load_start(self.folder, side, len(data.classes), keep_head=self.keeps_head(data), drop_path=rate)


def train_command(request: Request) -> None:
    """`dasvit train`: a trained model in a run folder."""
    assert request.config is not None
    options, config = request.options, request.config
    cell, baseline, init = options["cell"], options["baseline"], options["init"]
    if [bool(cell), bool(baseline), bool(init)].count(True) != 1:
        raise UserError(
            "give one of --cell (a run folder, a genotype's file or a cell's name), --model and --init (the folder of "
            "a trained model)."
        )
    start = Start.read(init, config) if init else None
    subject: Genotype | str | None = load_genotype(cell) if cell else baseline or None
    name = Path(cell or init).stem if cell or init else baseline
    folder = options["run"] or default_folder(cell, init, name)
    deadline, track = Deadline.after(options["max_minutes"]), wanted_trackers(options["track"])
    result = do_train(config, subject, folder, Reporter(), options["resume"], deadline, start, track)
    if options["json"]:
        print_json(result)
        return
    Console().print(network_table([{"network": name, **result}]))
    print(f"{folder}/model: dasvit predict {folder} IMAGE... | dasvit evaluate {folder}")


def default_folder(cell: str, init: str, name: str) -> str:
    """Return where a training goes that was given no folder: into that of the run it is about, or below runs/."""
    if init:
        return str((find_run(init) or Path("runs") / name) / "finetune")
    return str(Path(cell) / "train") if cell and Path(cell).is_dir() else f"runs/{name}"


def do_train(
    config: Config,
    subject: Genotype | str | None,
    folder: str,
    reporter: Reporter,
    resume: bool = False,
    deadline: Deadline = NEVER,
    start: Start | None = None,
    track: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a cell's network or a baseline in a run folder, write its model, and return its judgement.

    Args:
        config: The recipe.
        subject: The cell, or the baseline's name. None: what `start` is.
        folder: The run folder.
        reporter: Where progress goes.
        resume: There must be a run to go on with.
        deadline: When to stop.
        start: The trained model to begin with. None: fresh weights.
        track: Trackers that are sent every epoch's numbers.

    Raises:
        UserError: A user's mistake.
        Stopped: By a signal or the deadline; the same call goes on.
    """
    run = RunFolder(folder, "train")
    runtime = Runtime(config.runtime)
    if config.runtime.shard and not runtime.shards:
        reporter.say("runtime.shard: this one process keeps all weights; torchrun starts several (docs/scale.md).")
    with runtime.first_of_machine():
        data = load_data(config.data, config.model.image_size, config.runtime.seed)
    say_data(data, reporter)
    config = settled_data(config)
    classes = len(data.classes)

    def make() -> nn.Module:
        if start is not None:
            return start.load(config, data)
        assert subject is not None, "neither a subject nor a model to begin with"
        return build(subject, config, classes)

    if start is None:  # what can fail, before the folder is made
        assert subject is not None
        cost = cost_of(subject, config.model, classes)
        check_memory(cost.params)
    seed_everything(config.runtime.seed)
    model = make()
    if start is not None:
        subject, cost = subject_of(model, start.folder), count_cost(model, config.model.image_size)
    if runtime.is_main:
        text = subject.to_json() if isinstance(subject, Genotype) else str(subject)
        run.open(config, text, resume, start.digest if start else "")
        note_data(run, data, reporter)
        if start is not None:
            run.note(init_model=str(start.folder))
            head = "its head as well, for the classes are the same" if start.keeps_head(data) else "with a fresh head"
            reporter.say(f"begins with the weights of {start.folder}, {head}")
    settle_precision(runtime, config, run, reporter, lambda device: train_probe(make(), config, classes, device))
    prefer_fast_attention(model, runtime.device, torch.bfloat16 if runtime.precision == "bfloat16" else torch.float32)
    seed_everything(config.runtime.seed)
    tracking = Tracking(run, track if runtime.is_main else (), config, reporter)
    with live_report(run, runtime, reporter), tracking:
        trained = train(model, data, config, run, runtime, reporter, deadline, tracking)
        result = {"run": folder, **describe_cost(cost), **trained.evaluation.summary()}
        weights = runtime.whole(trained.model.state_dict())
        if runtime.is_main:
            model = trained.model
            if runtime.shards:
                model = make()
                model.load_state_dict(weights)
            if isinstance(subject, Genotype):
                run.write_text("genotype.json", subject.to_json())
            run.write_json("result.json", {**result, "confusion": trained.evaluation.confusion})
            side = config.model.image_size
            save_model(
                model,
                run.path / "model",
                class_names=data.classes,
                input_size=(3, side, side),
                mean=MEAN,
                std=STD,
                crop_pct=data.crop_pct,
                extra={"result": result, "data": config.data.name},
            )
    return result


def build(subject: Genotype | str, config: Config, classes: int) -> nn.Module:
    """Build what is trained, with fresh weights."""
    drop_path = config.train.drop_path
    if isinstance(subject, Genotype):
        return make_network(subject, config.model, classes, drop_path)
    return make_model(subject, config.model, classes, drop_path=drop_path)


def train_probe(model: nn.Module, config: Config, classes: int, device: torch.device) -> Callable[[], None]:
    """Return one step of a network as it is to be trained, to time a precision with."""
    model = model.to(device)
    inner = probe_step(model, config.model.image_size, config.train.batch_size, classes, device)

    def step() -> None:
        prefer_fast_attention(
            model, device, torch.bfloat16 if torch.is_autocast_enabled(device.type) else torch.float32
        )
        inner()

    return step
