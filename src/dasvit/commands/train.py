"""`dasvit train`: from a cell or a baseline's name to a trained model."""

from __future__ import annotations

from collections.abc import Callable
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
)
from dasvit.config import Config
from dasvit.data import MEAN, STD, load_data
from dasvit.errors import UserError
from dasvit.models.baselines import make_model, make_network, prefer_fast_attention
from dasvit.models.cost import cost_of
from dasvit.models.folder import save_model
from dasvit.report.tables import network_table
from dasvit.training.distributed import Runtime, seed_everything
from dasvit.training.loop import probe_step, train
from dasvit.training.progress import Reporter
from dasvit.training.run_folder import RunFolder
from dasvit.training.saver import NEVER, Deadline


def train_command(request: Request) -> None:
    """`dasvit train`: a trained model in a run folder."""
    assert request.config is not None
    cell, baseline = request.options["cell"], request.options["baseline"]
    if bool(cell) == bool(baseline):
        raise UserError("give either --cell (a run folder, a genotype's file or a cell's name) or --model.")
    subject: Genotype | str = load_genotype(cell) if cell else baseline
    name = Path(cell).stem if cell else baseline
    folder = request.options["run"] or (str(Path(cell) / "train") if cell and Path(cell).is_dir() else f"runs/{name}")
    deadline = Deadline.after(request.options["max_minutes"])
    result = do_train(request.config, subject, folder, Reporter(), request.options["resume"], deadline)
    if request.options["json"]:
        print_json(result)
        return
    Console().print(network_table([{"network": name, **result}]))
    print(f"{folder}/model: dasvit predict {folder} IMAGE... | dasvit evaluate {folder}")


def do_train(
    config: Config,
    subject: Genotype | str,
    folder: str,
    reporter: Reporter,
    resume: bool = False,
    deadline: Deadline = NEVER,
) -> dict[str, Any]:
    """Train a cell's network or a baseline in a run folder, write its model, and return its judgement.

    Args:
        config: The recipe.
        subject: The cell, or the baseline's name.
        folder: The run folder.
        reporter: Where progress goes.
        resume: There must be a run to go on with.
        deadline: When to stop.

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
    cost = cost_of(subject, config.model, classes)  # what can fail, before the folder is made
    check_memory(cost.params)
    seed_everything(config.runtime.seed)
    model = build(subject, config, classes)
    if runtime.is_main:
        run.open(config, subject.to_json() if isinstance(subject, Genotype) else subject, resume)
        note_data(run, data, reporter)
    settle_precision(runtime, config, run, reporter, lambda device: train_probe(subject, config, classes, device))
    prefer_fast_attention(model, runtime.device, torch.bfloat16 if runtime.precision == "bfloat16" else torch.float32)
    seed_everything(config.runtime.seed)
    with live_report(run, runtime, reporter):
        trained = train(model, data, config, run, runtime, reporter, deadline)
        result = {"run": folder, **describe_cost(cost), **trained.evaluation.summary()}
        weights = runtime.whole(trained.model.state_dict())
        if runtime.is_main:
            model = trained.model
            if runtime.shards:
                model = build(subject, config, classes)
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


def train_probe(subject: Genotype | str, config: Config, classes: int, device: torch.device) -> Callable[[], None]:
    """Return one step of the network to be trained, to time a precision with."""
    model = build(subject, config, classes).to(device)
    inner = probe_step(model, config.model.image_size, config.train.batch_size, classes, device)

    def step() -> None:
        prefer_fast_attention(
            model, device, torch.bfloat16 if torch.is_autocast_enabled(device.type) else torch.float32
        )
        inner()

    return step
