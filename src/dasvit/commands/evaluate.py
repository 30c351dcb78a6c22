"""`dasvit evaluate`: how well a trained model does on a data set."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console

from dasvit.cli import Request
from dasvit.commands.common import print_json
from dasvit.config import RuntimeConfig
from dasvit.data import load_data
from dasvit.errors import UserError
from dasvit.io.run_folder import find_model
from dasvit.report.tables import confusion_table
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.training.classifier import check_finite, load_classifier, read_input
from dasvit.training.evaluation import Evaluation, evaluate
from dasvit.training.loop import test_batches


def evaluate_command(request: Request) -> None:
    """`dasvit evaluate`: top-1, top-5 and the confusion matrix."""
    assert request.config is not None
    folder = find_model(request.options["model_path"])
    described = read_input(folder)
    names = described.classes
    config = request.config
    runtime = Runtime(config.runtime, settled(config.runtime))
    with runtime.first_of_machine():
        data = load_data(config.data, described.side, config.runtime.seed)
    if len(data.classes) < len(names):
        raise UserError(
            f"the model has {len(names)} classes, the data {len(data.classes)}: evaluate it on its own classes."
        )
    if tuple(data.classes) != tuple(names):
        raise UserError(
            f"the model's classes ({', '.join(names[:3])}, …) are not the data's ({', '.join(data.classes[:3])}, …)."
        )
    model = load_classifier(folder, described, torch.device("cpu"))
    runtime.place(model)
    batches = test_batches(data, config, runtime)
    preprocess = described.preprocess.to(runtime.device)
    judged = evaluate(model, preprocess, Reporter().track(batches, "evaluating"), runtime, len(names))
    check_finite(folder, judged.loss)
    if request.options["json"]:
        print_json({"model": str(folder), **judged.summary(), "classes": list(names), "confusion": judged.confusion})
        return
    print_evaluation(judged, names)


def print_evaluation(judged: Evaluation, names: tuple[str, ...]) -> None:
    """Print accuracies and, of few classes, the confusion matrix (of many, the commonest confusions)."""
    print(f"{judged.images} images: top-1 {judged.top1:.2f} %, top-5 {judged.top5:.2f} %, loss {judged.loss:.4f}")
    Console().print(confusion_table(judged.confusion, names))


def settled(config: RuntimeConfig) -> Any:
    """Return the precision where nothing is measured: float32 for auto."""
    return "float32" if config.precision == "auto" else config.precision
