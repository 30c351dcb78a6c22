"""A trained model as a file or folder that runs elsewhere, checked before it is there."""

from __future__ import annotations

import filecmp
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from huggingface_hub import ModelCard
from torch import nn

from dasvit.errors import UserError, unknown
from dasvit.extras import need
from dasvit.inference.low_precision import CONVERTERS, kept_accuracy
from dasvit.io.files import sync_folder
from dasvit.io.run_folder import find_model, find_run, place_for
from dasvit.models.export import (
    WithTemperature,
    describe_input,
    largest_difference,
    make_program,
    open_onnx,
    open_torch,
    write_onnx,
    write_torch,
)
from dasvit.models.folder import CONFIG, LOCAL, WEIGHTS, read_model_config
from dasvit.report.run.card import CARD, write_card
from dasvit.report.run.reading import read_run
from dasvit.training.classifier import ModelInput, check_finite, load_classifier, read_input

PLACES = {"onnx": "model.onnx", "torch": "model.pt2", "hub": "hub"}
"""What is written by default, in `export/` of the run's folder (or of the model's, outside a run)."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        model: The model's folder.
        target: onnx, torch or hub.
        out: The file or folder.
        difference: The largest difference of a logit from the model's own.
        precision: float32, or fp16 or int8 of an .onnx file.
        accuracy: Top-1 of the model in float32, and of the file in another precision, on how many test images. None: it
            is float32, or the run's images are not there.
        size: Its bytes.
        is_new: Whether it was not there already.
    """

    model: Path
    target: str
    out: Path
    difference: float
    size: int
    is_new: bool
    precision: str = "float32"
    accuracy: dict[str, Any] | None = None


def export_model(path: str | Path, target: str, out: str | Path = "", precision: str = "float32") -> Exported:
    """Write a trained model as an .onnx file, a .pt2 file or a folder for the hub, and check it against the model.

    Args:
        path: Run folder of a training, a model folder, or the name of a model that comes with the package.
        target: onnx, torch or hub.
        out: File, or folder of hub. Empty: in `export/` of the run's folder; below runs/ for a model of the package.
        precision: Of an .onnx file: float32, fp16, or int8.

    Raises:
        UserError: An unknown target, no model, a package that is missing, or something else is in the place.
    """
    if target not in PLACES:
        raise unknown("target of an export", target, PLACES)
    if precision != "float32" and (target != "onnx" or precision not in CONVERTERS):
        raise UserError(f"--precision {precision} is for --to onnx, and one of float32, {', '.join(CONVERTERS)}.")
    if target == "onnx":
        need("export", "onnx", "onnxscript", "onnxruntime")
    folder = find_model(path)
    name = PLACES[target] if precision == "float32" else f"model-{precision}.onnx"
    place = Path(out) if out else place_for(folder) / "export" / name
    described = read_input(folder)
    model = load_classifier(folder, described, torch.device("cpu"))
    with torch.no_grad():
        check_finite(folder, float(model(torch.zeros(1, 3, described.side, described.side)).sum()))
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=place.parent, prefix=".export-") as scratch:
        made = Path(scratch) / place.name
        difference, accuracy = WRITERS[target](folder, described, model, made), None
        if precision != "float32":
            whole = made.rename(made.with_name("whole.onnx"))
            CONVERTERS[precision](whole, made)
            scaled = WithTemperature(model, described.temperature or 1.0).eval()
            difference = largest_difference(scaled, open_onnx(made), described.side, math.inf)
            accuracy = kept_accuracy(folder, described, model, made)
        is_new = put(made, place)
    size = sum(file.stat().st_size for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file())
    return Exported(folder, target, place, difference, size, is_new, precision, accuracy)


def export_file(
    write: Callable[[Any, Path, dict[str, Any]], None], read: Callable[[Path], Callable[[torch.Tensor], torch.Tensor]]
) -> Callable[[Path, ModelInput, nn.Module, Path], float]:
    """Return the function that writes a model to a file with the one, reads it with the other, and compares."""

    def export(folder: Path, described: ModelInput, model: nn.Module, made: Path) -> float:
        if described.temperature is not None:  # its softmax is then that of `dasvit predict`
            model = WithTemperature(model, described.temperature).eval()
        write(make_program(model, described.side), made, describe_input(read_model_config(folder)))
        return largest_difference(model, read(made), described.side)

    return export


def export_hub(folder: Path, described: ModelInput, model: nn.Module, made: Path) -> float:
    """Write a folder for the hub: the model's own two files, less what is this machine's, and a model card."""
    made.mkdir()
    shutil.copyfile(folder / WEIGHTS, made / WEIGHTS)
    config = read_model_config(folder)
    (made / CONFIG).write_text(json.dumps(public(config), indent=2) + "\n", encoding="utf-8")
    run = find_run(folder)
    write_card(made, config, read_run(run) if run else None)
    ModelCard.load(made / CARD)  # its head is what the hub reads
    return largest_difference(model, timm.create_model(f"{LOCAL}{made}", pretrained=True).eval(), described.side)


def public(config: dict[str, Any]) -> dict[str, Any]:
    """Return a model's description without the path of the run that it came from."""
    ours = config.get("dasvit")
    if not isinstance(ours, dict) or not isinstance(ours.get("result"), dict):
        return config
    result = {key: value for key, value in ours["result"].items() if key != "run"}
    return {**config, "dasvit": {**ours, "result": result}}


WRITERS: dict[str, Callable[[Path, ModelInput, nn.Module, Path], float]] = {
    "onnx": export_file(write_onnx, open_onnx),
    "torch": export_file(write_torch, open_torch),
    "hub": export_hub,
}
"""What writes a target: given the model's folder, its description, the model and the place, it returns the largest
difference of a logit."""


def put(made: Path, out: Path) -> bool:
    """Put what was made in its place, unless the same is there already; return whether it was not.

    Raises:
        UserError: Something else is there.
    """
    if out.exists():
        if not same(made, out):
            raise UserError(f"{out} is there already and is not the same: remove it, or give --out another name.")
        return False
    for path in made.iterdir() if made.is_dir() else [made]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    os.replace(made, out)
    sync_folder(out.parent)
    return True


def same(left: Path, right: Path) -> bool:
    """Tell whether two files, or two folders of files, hold the same."""
    if left.is_dir() != right.is_dir():
        return False
    if not left.is_dir():
        return filecmp.cmp(left, right, shallow=False)
    names = sorted(path.name for path in left.iterdir())
    _, differ, unread = filecmp.cmpfiles(left, right, names, shallow=False)
    return names == sorted(path.name for path in right.iterdir()) and not differ + unread
