"""ONNX files in half precision or 8-bit integers, and the accuracy that they keep."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dasvit.config import recipe as recipes
from dasvit.data.splits import balanced_subset
from dasvit.errors import UserError
from dasvit.inference.evaluate import images_of
from dasvit.io.run_folder import find_run
from dasvit.models.export import open_onnx
from dasvit.runtime.distributed import Runtime
from dasvit.training.classifier import ModelInput
from dasvit.training.evaluation import evaluate
from dasvit.training.loop import test_batches

LOOKED_AT = 10_000
"""Test images that accuracies are taken on, at most."""
Convert = Callable[[Path, Path], None]


def to_fp16(source: Path, out: Path) -> None:
    """Write an ONNX file's network in half precision; what goes in and comes out stays float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), out)


def to_int8(source: Path, out: Path) -> None:
    """Write an ONNX file's network with weights of 8 bits, by output channel; activations are scaled as they come.

    Scales of activations that are fixed on training images beforehand kept no more accuracy (docs/lab-notes.md).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it names every vector that has no channels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_dynamic(source, out, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.root.setLevel(level)


CONVERTERS: dict[str, Convert] = {"fp16": to_fp16, "int8": to_int8}
"""What makes a file of another precision from one in float32."""


class Function(nn.Module):
    """A function of images, as a network that can be evaluated."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, C] for images [B, 3, S, S]."""
        return self.function(images.float())


def kept_accuracy(folder: Path, described: ModelInput, model: nn.Module, file: Path) -> dict[str, Any] | None:
    """Return the top-1 of a model and of its ONNX file on the test images of its run; None where these are not there.

    Of several labels an image it is the mAP, and `metric` says so.

    Args:
        folder: The model's folder.
        described: What it says about its images.
        model: The model.
        file: The file.
    """
    run = find_run(folder)
    if run is None:
        return None
    config = recipes.load(run / "config.yaml", searching=False)
    limit = min(config.data.eval_limit or LOOKED_AT, LOOKED_AT)
    config = replace(config, runtime=replace(config.runtime, device="cpu"))
    try:
        data, _ = images_of(config, folder, described)
    except UserError:
        return None
    runtime = Runtime(config.runtime)
    rows = balanced_subset(data.test.labels, limit if limit < len(data.test) else 0, config.runtime.seed, "eval_limit")
    some = replace(data, test=data.test.select(rows))
    found: dict[str, Any] = {"images": len(some.test)} | ({"metric": "map"} if data.multilabel else {})
    for name, network in (("float32", model), ("exported", Function(open_onnx(file)))):
        batches = test_batches(some, config, runtime)
        found[name] = evaluate(network, described.preprocess, batches, runtime, len(described.classes)).score
    return found
