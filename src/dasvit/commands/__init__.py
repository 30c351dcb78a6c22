"""What each command of the command line does, once it is parsed; imported by the command that runs alone."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from dasvit.commands import options as own
from dasvit.config import Config
from dasvit.config.recipe import SECTIONS

ALL = tuple(SECTIONS)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command; its function is `NAME_command` of the module of its name.

    Attributes:
        summary: What it does, in a line.
        options: Its options.
        usage: Its arguments without a name, for `--help`.
        recipe: The recipe that it reads when none is given. Empty: none.
        sections: The recipe's sections that can be overridden. None at all: it reads no recipe.
        goes_on: Whether the same command line goes on with a run that was stopped.
    """

    summary: str
    options: type[own.Options]
    usage: str = ""
    recipe: str = ""
    sections: tuple[str, ...] = ()
    goes_on: bool = False


COMMANDS = {
    "search": Command(
        summary="search a cell on images, and derive it",
        options=own.SearchOptions,
        recipe="cifar10-small",
        sections=ALL,
        goes_on=True,
    ),
    "derive": Command(
        summary="derive a cell from a search again: another rule, a budget",
        options=own.DeriveOptions,
        usage="RUN",
    ),
    "train": Command(
        summary="train a cell or a timm model from scratch, or fine-tune a trained one",
        options=own.TrainOptions,
        recipe="cifar10-small",
        sections=ALL,
        goes_on=True,
    ),
    "evaluate": Command(
        summary="evaluate a trained model on a data set",
        options=own.EvaluateOptions,
        usage="MODEL",
        sections=("data", "runtime"),
    ),
    "predict": Command(
        summary="name the classes of images, or of folders of them",
        options=own.PredictOptions,
        usage="MODEL IMAGE|FOLDER...",
    ),
    "export": Command(
        summary="write a trained model as ONNX, torch.export or a folder for the hub",
        options=own.ExportOptions,
        usage="MODEL --to onnx|torch|hub",
    ),
    "demo": Command(
        summary="show a trained model in the browser: drop an image, see its classes",
        options=own.DemoOptions,
        usage="MODEL",
    ),
    "cost": Command(
        summary="count the parameters and multiply-adds of a cell or model",
        options=own.CostOptions,
        usage="CELL|MODEL|TIMM_NAME",
        recipe="cifar10-paper",
        sections=("model",),
    ),
    "latency": Command(
        summary="measure what a space's operations take on this machine, as a table",
        options=own.LatencyOptions,
        recipe="cifar10-paper",
        sections=("data", "model", "space"),
    ),
    "report": Command(
        summary="show a run as one HTML page, or several side by side",
        options=own.ReportOptions,
        usage="RUN...",
    ),
    "compare": Command(
        summary="train and cost any list of networks, in one table",
        options=own.CompareOptions,
        usage="[NETWORK ...]",
        recipe="cifar10-paper",
        sections=ALL,
        goes_on=True,
    ),
    "study": Command(
        summary="find out whether a search beats luck, and what is there already",
        options=own.StudyOptions,
        recipe="digits-study",
        sections=ALL,
        goes_on=True,
    ),
    "memory": Command(
        summary="count the memory of a search: what batch fits which GPU",
        options=own.MemoryOptions,
        recipe="cifar10-paper",
        sections=("model", "space", "search", "runtime"),
    ),
    "quickstart": Command(
        summary="search, train and compare on scikit-learn's digits, in minutes",
        options=own.QuickstartOptions,
        recipe="digits",
        sections=ALL,
        goes_on=True,
    ),
}


def run_command(name: str, options: own.Options, config: Config | None) -> None:
    """Run a command with its options, and its recipe where it reads one."""
    function = getattr(importlib.import_module(f"dasvit.commands.{name}"), f"{name}_command")
    if config is None:
        function(options)
    else:
        function(options, config)
