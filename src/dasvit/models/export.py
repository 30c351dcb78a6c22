"""A trained network as one file that runs without dasvit: ONNX, and PyTorch's own .pt2.

What is written takes images as timm's networks do, normalised, float32 [B, 3, S, S] with any B, and gives logits
[B, C]. How an image becomes that, and what the classes are called, stands in the file as well (`describe_input`).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dasvit._version import __version__
from dasvit.errors import UserError

BATCHES = (1, 2, 7)
"""Batch sizes that a file is compared on."""
TOLERANCE = 1e-4
"""The largest difference of a logit over the largest logit (or 1): kernels add up in different orders."""
LARGEST_ONNX = 2**31 - 2**20
"""Bytes of weights above which an ONNX file cannot be one file: its format's messages end at 2 GiB."""
FACTS = "dasvit.json"
"""The file inside a .pt2 that holds `describe_input`."""


class WithTemperature(nn.Module):
    """A network whose logits are divided by a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, C] for images [B, 3, S, S]."""
        logits: Tensor = self.model(images) / self.temperature
        return logits


def describe_input(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a reader of an exported file must know, fit for JSON, from a model folder's `config.json`.

    Returns:
        architecture, model_args (sizes and cell), labels, input_size, mean, std, crop_pct, crop_mode, interpolation,
        window (the grey levels that are black and white in images of more than 8 bits; null: their type's), where one
        was fitted the temperature that the logits are divided by already, and the version of dasvit that wrote it;
        multilabel (true) where an image can have several labels, and a logit's sigmoid is its class's probability.
    """
    given = config["pretrained_cfg"]
    kept = {key: given.get(key) for key in ("input_size", "mean", "std", "crop_pct", "interpolation")}
    kept |= {"crop_mode": given.get("crop_mode") or "center", "window": (config.get("dasvit") or {}).get("window")}
    labels = given.get("label_names") or [str(i) for i in range(given.get("num_classes", 0))]
    named = {"architecture": config["architecture"], "model_args": config["model_args"]}
    fitted = (config.get("dasvit") or {}).get("temperature")
    temperature = {} if fitted is None else {"temperature": fitted}
    several = {"multilabel": True} if (config.get("dasvit") or {}).get("multilabel") else {}
    return {**named, "labels": list(labels), **several, **kept, **temperature, "dasvit": __version__}


def make_program(model: nn.Module, side: int) -> ExportedProgram:
    """Return the graph of a network, its batch size free.

    Args:
        model: Maps images [B, 3, S, S] to logits [B, C]; in evaluation mode, on the CPU, in float32.
        side: S.

    Raises:
        UserError: torch.export cannot take this network.
    """
    example = torch.zeros(2, 3, side, side)
    try:
        with _quiet():
            program = torch.export.export(model, (example,), dynamic_shapes=({0: Dim("batch", min=1)},), strict=False)
    except Exception as error:  # whatever the tracer has to say about a network of timm's
        raise UserError(f"torch.export cannot take this network: {' '.join(str(error).split())[:500]}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of this machine
    return program


def write_onnx(program: ExportedProgram, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a network as one self-contained .onnx file; the facts become its metadata, all but texts as JSON.

    Raises:
        UserError: It is too large for one file, or ONNX has no words for it.
    """
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    if size > LARGEST_ONNX:
        raise UserError(f"{size / 2**30:.1f} GiB of weights do not fit into one ONNX file: export --to torch.")
    try:
        with _quiet():
            written: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: "batch"},),
                verbose=False,
            )
            written.model.metadata_props.update(
                {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
            )
            written.save(path, external_data=False)
    except OSError:
        raise
    except Exception as error:  # an operator that the exporter does not know, in words of its own
        raise UserError(f"cannot write this network as ONNX: {' '.join(str(error).split())[:500]}") from error


def write_torch(program: ExportedProgram, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a network as a .pt2 file for `torch.export.load`; the facts are its extra file FACTS."""
    with _quiet():
        torch.export.save(program, path, extra_files={FACTS: json.dumps(facts)})


def open_onnx(path: Path, threads: int = 0) -> Callable[[Tensor], Tensor]:
    """Return the function of an .onnx file, as onnxruntime computes it on the CPU.

    Args:
        path: The file.
        threads: Threads of an operation. 0: as onnxruntime sees fit.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def open_torch(path: Path) -> Callable[[Tensor], Tensor]:
    """Return the function of a .pt2 file of our own (PyTorch's reader is not made for files of others)."""
    with _quiet():
        program: nn.Module = torch.export.load(path).module()
    return program


def largest_difference(
    ours: nn.Module, other: Callable[[Tensor], Tensor], side: int, tolerance: float = TOLERANCE
) -> float:
    """Return the largest difference of a logit between two forms of a network, on noise.

    Args:
        ours: The network.
        other: What was written, read back.
        side: Side S of the images.
        tolerance: Share of the largest logit that it may be; infinite where the file is of another precision.

    Raises:
        UserError: It is more than that, or no number.
    """
    generator = torch.Generator().manual_seed(0)
    largest, scale = 0.0, 1.0
    for batch in BATCHES:
        images = torch.randn(batch, 3, side, side, generator=generator)
        with torch.no_grad():
            expected, found = ours(images), other(images)
        scale = max(scale, float(expected.abs().max()))
        # max() of python's would pass over what is no number
        largest = float(torch.tensor([largest, float((expected - found).abs().max())]).max())
    if not (math.isfinite(largest) and largest <= tolerance * scale):
        raise UserError(
            f"what was exported gives other results than the model (logits differ by {largest:.2g}), so nothing was "
            "written: please report it with the versions of torch and onnxruntime."
        )
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' words about their own workings from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
