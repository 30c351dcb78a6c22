"""A trained model, in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dasvit.api.recipe import make_config
from dasvit.data import find_images
from dasvit.errors import UserError
from dasvit.inference.evaluate import ModelEvaluation, evaluate_model
from dasvit.inference.export import Exported, export_model
from dasvit.inference.predict import Row, predictions
from dasvit.io.files import read_object
from dasvit.io.run_folder import find_model, find_run
from dasvit.runtime.distributed import find_device
from dasvit.runtime.progress import Reporter
from dasvit.training.classifier import Classifier

BATCH = 64
"""Images that a model sees at once in `predict`."""


class TrainedModel:
    """A trained model.

    Args:
        path: Run folder of a training (or of a search, for the training inside it), a model folder, or `cifar10`, which
            comes with the package.

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
        """What its training ended with: the record of its evaluation (docs/tasks.md), params, macs."""
        return {**read_object(self.folder.parent / "result.json")}

    def evaluate(
        self, data: Any = None, *, options: Mapping[str, Any] | None = None, quiet: bool = False
    ) -> ModelEvaluation:
        """Evaluate it on the test images of a data set: all metrics of docs/tasks.md, and every image's logits.

        Args:
            data: As in `search`. None: the data that it was trained on.
            options: Other fields of the recipe by their dotted names, as {"data.eval_limit": 100}.
            quiet: Show no progress.

        Returns:
            `evaluation` has the figures, `to_frame()` every image's prediction; `write(folder)` keeps them as files.

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
            `label` and `probability`, the most probable first. Of a model of several labels an image these are the
            classes above 0.5, whatever `top`, and `probabilities` says all of them by name.

        Raises:
            UserError: An image cannot be read.
        """
        pairs = _named_images(images)
        described, top = self.classifier.described, min(top, len(self.classes))
        rows: list[Row] = []
        for start in range(0, len(pairs), BATCH):
            part = pairs[start : start + BATCH]
            pixels = torch.stack([described.shown(one) for _, one in part])
            rows += predictions(self.classifier, [name for name, _ in part], pixels, top)
        return rows

    def export(self, target: str, out: str | Path = "", precision: str = "float32") -> Exported:
        """Write it as "onnx", "torch" (a .pt2 file) or "hub" (a folder with a model card), checked against the model.

        Args:
            target: onnx, torch or hub.
            out: File, or folder of hub. Empty: in `export/` of the run's folder.
            precision: Of an .onnx file: float32, fp16 or int8; `accuracy` then holds what it keeps.

        Raises:
            UserError: An unknown target, a package that is missing, or something else is in the place.
        """
        return export_model(self.folder, target, out, precision)

    def __repr__(self) -> str:
        reached = self.result
        about = f", test top-1 {reached['top1']:.2f} %" if "top1" in reached else ""
        about += f" (majority {reached['majority']:.2f} %)" if "majority" in reached else ""
        about += f", test mAP {reached['map']:.2f} %" if "map" in reached else ""
        return f"TrainedModel({str(self.folder)!r}{about})"


def _named_images(images: Any) -> list[tuple[str, Any]]:
    """Return images with names: paths by themselves, others by their places."""
    shape: Sequence[int] = getattr(images, "shape", ())
    is_one = len(shape) == 2 or (len(shape) == 3 and shape[-1] == 3)
    if isinstance(images, (str, Path)) or is_one or not hasattr(images, "__len__"):
        images = [images]
    items = list(images)
    if all(isinstance(one, (str, Path)) for one in items):
        return [(path, path) for path in find_images([str(one) for one in items])]
    return [(f"image {place}", one) for place, one in enumerate(items)]
