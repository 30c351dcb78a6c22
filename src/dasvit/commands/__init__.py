"""What each command of the command line does, once it is parsed; imported by the command that runs alone."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from dasvit.commands import options as own
from dasvit.config import Config
from dasvit.config.recipe import SECTIONS

ALL = tuple(SECTIONS)
SEARCHING = tuple(dict.fromkeys(["search", "space", *ALL]))
TRAINING = tuple(dict.fromkeys(["train", "data", "model", "runtime", *ALL]))


@dataclass(frozen=True)
class Command:
    """A command; its function is `NAME_command` of the module of its name.

    Attributes:
        options: Its options; the first line of their docstring says what the command does.
        usage: Its arguments without a name, for `--help`.
        recipe: The recipe that it reads when none is given. Empty: none.
        sections: The recipe's sections that can be overridden, in the order of `--help`. None: it reads no recipe.
    """

    options: type[own.Options]
    usage: str = ""
    recipe: str = ""
    sections: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return (self.options.__doc__ or "").partition("\n")[0]

    @property
    def goes_on(self) -> bool:
        """Whether the same command line goes on with a run that was stopped: what reads a whole recipe makes a run."""
        return set(self.sections) == set(ALL)


COMMANDS = {
    "search": Command(own.SearchOptions, recipe="cifar10-small", sections=SEARCHING),
    "derive": Command(own.DeriveOptions, "RUN"),
    "train": Command(own.TrainOptions, recipe="cifar10-small", sections=TRAINING),
    "evaluate": Command(own.EvaluateOptions, "MODEL", sections=("data", "runtime")),
    "data": Command(own.DataOptions, "FOLDER", sections=("data", "model", "runtime")),
    "cache": Command(own.CacheOptions),
    "predict": Command(own.PredictOptions, "MODEL [IMAGE|FOLDER...]"),
    "export": Command(own.ExportOptions, "MODEL --to onnx|torch|hub"),
    "demo": Command(own.DemoOptions, "MODEL"),
    "cost": Command(own.CostOptions, "CELL|MODEL|TIMM_NAME", "cifar10-paper", ("model",)),
    "latency": Command(own.LatencyOptions, recipe="cifar10-paper", sections=("data", "model", "space")),
    "report": Command(own.ReportOptions, "RUN..."),
    "compare": Command(own.CompareOptions, "[NETWORK ...]", "cifar10-paper", TRAINING),
    "study": Command(own.StudyOptions, recipe="digits-study", sections=ALL),
    "memory": Command(own.MemoryOptions, recipe="cifar10-paper", sections=("model", "space", "search", "runtime")),
    "quickstart": Command(own.QuickstartOptions, recipe="digits", sections=ALL),
}


def run_command(name: str, options: own.Options, config: Config | None) -> None:
    """Run a command with its options, and its recipe where it reads one."""
    function = getattr(importlib.import_module(f"dasvit.commands.{name}"), f"{name}_command")
    if config is None:
        function(options)
    else:
        function(options, config)
