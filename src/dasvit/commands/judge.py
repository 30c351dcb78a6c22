"""`dasvit evaluate` and `dasvit predict`: what a trained model knows."""

from __future__ import annotations

from dataclasses import dataclass
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
from dasvit.training.run_folder import find_model


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
    model = load_model(folder).to(runtime.device)
    batches = test_batches(data, config, runtime)
    preprocess = described.preprocess.to(runtime.device)
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
    described = read_input(folder)
    names = described.classes
    top = request.options["top"]
    if top < 1:
        raise UserError(f"--top must be at least 1, not {top}.")
    device = find_device(request.options["device"])
    transform = predict_transform(described.side, described.crop_pct)
    images = [transform(open_image(path)) for path in request.options["images"]]
    model = load_model(folder).eval().to(device)
    preprocess = described.preprocess.eval().to(device)
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


@dataclass(frozen=True)
class ModelInput:
    """What a model folder says about the images that its model takes.

    Attributes:
        side: Side of the image in pixels.
        crop_pct: Share of an image's side that is looked at.
        classes: Names of the classes.
        preprocess: The normalisation that the model was trained with.
    """

    side: int
    crop_pct: float
    classes: tuple[str, ...]
    preprocess: Preprocess


def read_input(folder: Path) -> ModelInput:
    """Read what a model folder says about its images.

    Raises:
        UserError: It does not say enough.
    """
    description = read_model_config(folder)
    cfg = description["pretrained_cfg"]
    try:
        side = int(cfg["input_size"][-1])
        names = cfg.get("label_names") or description.get("label_names") or range(int(cfg["num_classes"]))
        preprocess = Preprocess(side, cfg["mean"], cfg["std"])
        return ModelInput(side, float(cfg.get("crop_pct", 1.0)), tuple(map(str, names)), preprocess)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{folder}/config.json does not say what images the model takes ({error!r}).") from None


def settled(config: RuntimeConfig) -> Any:
    """Return the precision where nothing is measured: float32 for auto."""
    return "float32" if config.precision == "auto" else config.precision
