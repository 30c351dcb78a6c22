"""What several commands need."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dasvit.config.units import time_text
from dasvit.errors import UserError, printable
from dasvit.extras import need
from dasvit.latency.measure import Machine
from dasvit.report.tables import number
from dasvit.runtime.tracking import parse_trackers
from dasvit.search.derive import Derivation
from dasvit.search.front import describe_use
from dasvit.training.evaluation import Evaluation


def wanted_trackers(text: str) -> tuple[str, ...]:
    """Return the trackers that --track names, all of which are installed."""
    names = parse_trackers(text)
    for name in names:
        need(name, name)
    return names


def check_download(download: str, pretrained: bool) -> None:
    """Refuse leave to fetch weights where none are asked for.

    Raises:
        UserError: It is so.
    """
    if download and not pretrained:
        raise UserError("--download goes with --pretrained: of what else is fetched, --data.download decides.")


def print_json(content: Any) -> None:
    json.dump(content, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def print_table(table: Table) -> None:
    """Print a table of many columns, which are folded to a terminal's width alone: a file or pipe has none."""
    console = Console()
    Console(width=None if console.is_terminal else 200).print(table)


def print_derivation(derivation: Derivation) -> None:
    """Print a cell, and what it was taken in place of."""
    print(derivation.genotype)
    if derivation.reason:
        print(f"{derivation.reason} It was:\n{derivation.unconstrained}")


def print_evaluation(evaluation: Evaluation, classes: Sequence[str]) -> None:
    """Print what a model reached, and a remark where it is no better than a constant."""
    print(evaluation.describe())
    if remark := evaluation.remark(classes):
        print(printable(remark))


def print_found(place: str | Path, content: Mapping[str, Any]) -> None:
    """Print the cost of a derived network, its use of a budget, and how it is trained.

    Args:
        place: The cell's file, or the run's folder.
        content: The derivation, as `derivation.json` has it.
    """
    print(f"\n{place}: {number(content['params'])} parameters, {number(content['macs'])} multiply-adds.")
    if used := describe_use(content.get("budget", {})):
        print(used)
    if latency := content.get("latency"):
        print(f"An inference takes {time_text(latency['predicted'])} by the table of {Machine(**latency['machine'])}.")
        ops = [edge["op"] for edge in content["genotype"]["edges"]]
        for trial in content.get("measured", []):
            if trial["ops"] == ops and trial.get("sizes") == content["genotype"].get("sizes"):
                print(f"Measured here: {time_text(trial['median'])} (IQR {time_text(trial['iqr'])}).")
    print(f"Train it: dasvit train --cell {place}")
