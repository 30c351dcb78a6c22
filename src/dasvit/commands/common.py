"""What several commands need."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from dasvit.config.units import time_text
from dasvit.errors import UserError
from dasvit.extras import need
from dasvit.latency.measure import Machine
from dasvit.runtime.tracking import parse_trackers
from dasvit.search.derive import Derivation
from dasvit.search.front import describe_use


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


def print_use(content: Mapping[str, Any]) -> None:
    """Print how much of a budget a derived network uses."""
    if said := describe_use(content.get("budget", {})):
        print(said)


def print_latency(content: Mapping[str, Any]) -> None:
    """Print what an inference of a derived cell's network takes, by whose table, and what it took."""
    if "latency" not in content:
        return
    machine = Machine(**content["latency"]["machine"])
    print(f"An inference takes {time_text(content['latency']['predicted'])} by the table of {machine}.")
    ops = [edge["op"] for edge in content["genotype"]["edges"]]
    for trial in content.get("measured", []):
        if trial["ops"] == ops and trial.get("sizes") == content["genotype"].get("sizes"):
            print(f"Measured here: {time_text(trial['median'])} (IQR {time_text(trial['iqr'])}).")


def print_derivation(derivation: Derivation) -> None:
    """Print a cell, and what it was taken in place of."""
    print(derivation.genotype)
    if derivation.reason:
        print(f"{derivation.reason} It was:\n{derivation.unconstrained}")
