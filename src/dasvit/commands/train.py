"""`dasvit train`: from a cell or network, a baseline's name or a trained model to a trained model."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from dasvit.cell.subnet import load_found
from dasvit.commands.common import check_download, print_evaluation, print_json, wanted_trackers
from dasvit.commands.options import TrainOptions
from dasvit.config import Config
from dasvit.errors import UserError
from dasvit.io.run_folder import find_model, find_run
from dasvit.report.tables import network_table
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.training.pipeline import Subject, expect_training, resized, run_training, say_taken_over
from dasvit.training.start import FirstWeights, Pretrained, Start


def train_command(options: TrainOptions, config: Config) -> None:
    cell, baseline, init = options.cell, options.baseline, options.init
    if [bool(cell), bool(baseline), bool(init)].count(True) != 1:
        raise UserError(
            "give one of --cell (a run folder, a genotype's file or a cell's name), --model and --init (the folder of "
            "a trained model)."
        )
    check_download(options.download, options.pretrained)
    if options.pretrained and not baseline:
        raise UserError("--pretrained goes with --model NAME, a name of timm's; a trained folder is given as --init.")
    subject: Subject | FirstWeights
    if init:
        subject = Start.read(init, config)
    elif options.pretrained:
        subject = Pretrained.find(baseline, options.download == "true")
    else:
        subject = resized(load_found(cell) if cell else baseline, config.model, Reporter().say)
    name = Path(cell or init).stem if cell or init else baseline
    folder = options.run or default_folder(cell, init, name)
    reporter = Reporter()
    if options.dry_run:
        expected = expect_training(config, subject, folder, reporter)
        if options.json:
            print_json({"training": expected.to_dict()})
        else:
            print(f"The training would take {expected}.")
        return
    say_taken_over(config, find_run(cell or (find_model(init) if init else "")), reporter)
    trained = run_training(
        config,
        subject,
        folder,
        reporter,
        resume=options.resume,
        deadline=Deadline.after(options.max_minutes, options.begun),
        track=wanted_trackers(options.track),
    )
    if options.json:
        print_json(trained.to_dict())
        return
    Console().print(network_table([{"network": name, **trained.to_dict()}]))
    print_evaluation(trained.evaluation, trained.session.data.classes)
    print(f"{folder}/model: dasvit predict {folder} IMAGE... | dasvit evaluate {folder}")


def default_folder(cell: str, init: str, name: str) -> str:
    """Return where a training goes that was given no folder: into that of the run it is about, or below runs/."""
    if init:
        return str((find_run(init) or Path("runs") / name) / "finetune")
    return str(Path(cell) / "train") if cell and Path(cell).is_dir() else f"runs/{name}"
