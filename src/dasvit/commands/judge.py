"""`dasvit evaluate` and `dasvit predict`: what a trained model knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dasvit.cli import Request
from dasvit.commands.common import print_json
from dasvit.config import RuntimeConfig
from dasvit.data import Preprocess, load_data, open_image, predict_transform
from dasvit.errors import UserError
from dasvit.models.folder import load_model, read_model_config
from dasvit.report.tables import confusion_table
from dasvit.training.distributed import Runtime, find_device
from dasvit.training.evaluation import Evaluation, evaluate
from dasvit.training.loop import test_batches
from dasvit.training.progress import Reporter


def evaluate_command(request: Request) -> None:
    """`dasvit evaluate`: top-1, top-5 and the confusion matrix."""
    assert request.config is not None
    folder = find_model(request.options["model_path"])
    description = read_model_config(folder)
    side, names = model_input(description), class_names(description)
    config = replace(request.config, model=replace(request.config.model, image_size=side))
    data = load_data(config.data, side, config.runtime.seed)
    if len(data.classes) < len(names):
        raise UserError(
            f"the model has {len(names)} classes, the data {len(data.classes)}: evaluate it on its own classes."
        )
    if tuple(data.classes) != tuple(names):
        raise UserError(
            f"the model's classes ({', '.join(names[:3])}, …) are not the data's ({', '.join(data.classes[:3])}, …)."
        )
    runtime = Runtime(config.runtime, settled(config.runtime))
    model = load_model(folder).to(runtime.device)
    batches = test_batches(data, config, runtime)
    preprocess = preprocess_of(description).to(runtime.device)
    judged = evaluate(model, preprocess, Reporter().track(batches, "evaluating"), runtime, len(names))
    if request.options["json"]:
        print_json({"model": str(folder), **judged.summary(), "classes": list(names), "confusion": judged.confusion})
        return
    print_evaluation(judged, names)


def print_evaluation(judged: Evaluation, names: tuple[str, ...]) -> None:
    """Print accuracies and, of few classes, the confusion matrix (of many, the commonest confusions)."""
    print(f"{judged.images} images: top-1 {judged.top1:.2f} %, top-5 {judged.top5:.2f} %, loss {judged.loss:.4f}")
    Console().print(confusion_table(judged.confusion, names))


def predict_command(request: Request) -> None:
    """`dasvit predict`: labels with probabilities."""
    folder = find_model(request.options["model_path"])
    description = read_model_config(folder)
    names = class_names(description)
    top = request.options["top"]
    if top < 1:
        raise UserError(f"--top must be at least 1, not {top}.")
    device = find_device(request.options["device"])
    transform = predict_transform(model_input(description), description["pretrained_cfg"]["crop_pct"])
    images = [transform(open_image(path)) for path in request.options["images"]]
    model = load_model(folder).eval().to(device)
    preprocess = preprocess_of(description).eval().to(device)
    rows = []
    for path, image in zip(request.options["images"], images, strict=True):
        with torch.no_grad():
            shares = model(preprocess(image[None].to(device))).float().softmax(dim=1)[0]
        best = shares.topk(min(top, len(names)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        rows.append({"image": path, "predictions": [{"label": names[i], "probability": p} for i, p in pairs]})
    if request.options["json"]:
        print_json({"model": str(folder), "images": rows})
        return
    for row in rows:
        print(
            row["image"] + ": " + ", ".join(f"{p['label']} {100 * p['probability']:.1f} %" for p in row["predictions"])
        )


def is_model_folder(name: str) -> bool:
    """Tell whether a path holds a trained model (and not a cell alone)."""
    path = Path(name)
    return path.is_dir() and any((path / inner / "config.json").is_file() for inner in ("", "model"))


def find_model(name: str) -> Path:
    """Return the model folder of a path: itself, its `model/`, or that of the training inside a search's folder.

    Raises:
        UserError: There is none.
    """
    path = Path(name)
    if not path.exists():
        raise UserError(f"there is no model {name}: give a run folder of `dasvit train`, or a model folder.")
    for inner in ("", "model", "train/model"):
        if (path / inner / "config.json").is_file():
            return path / inner
    raise UserError(f"{name} holds no trained model: train one with `dasvit train --cell {name}`.")


def class_names(description: dict[str, Any]) -> tuple[str, ...]:
    """Return a model's classes by name."""
    names = description["pretrained_cfg"].get("label_names") or description.get("label_names")
    return tuple(names or map(str, range(int(description["num_classes"]))))


def model_input(description: dict[str, Any]) -> int:
    """Return the side of a model's input in pixels."""
    return int(description["pretrained_cfg"]["input_size"][-1])


def preprocess_of(description: dict[str, Any]) -> Preprocess:
    """Return the preprocessing that a model was trained with."""
    cfg = description["pretrained_cfg"]
    return Preprocess(model_input(description), cfg["mean"], cfg["std"])


def settled(config: RuntimeConfig) -> Any:
    """Return the precision where nothing is measured: float32 for auto."""
    return "float32" if config.precision == "auto" else config.precision
