"""What each command of the command line does, once it is parsed; imported by the command that runs alone."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dasvit.commands.request import Request

HOMES = {
    "search": "search",
    "derive": "derive",
    "train": "train",
    "evaluate": "evaluate",
    "predict": "predict",
    "export": "export",
    "demo": "demo",
    "cost": "cost",
    "report": "report",
    "compare": "compare",
    "study": "study",
    "memory": "memory",
    "quickstart": "quickstart",
}
"""The module of every command, in which its function is called NAME_command."""


def run_command(request: "Request") -> None:
    """Run a parsed command."""
    module = importlib.import_module(f"dasvit.commands.{HOMES[request.command]}")
    getattr(module, f"{request.command}_command")(request)
