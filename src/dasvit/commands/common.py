"""What several commands need."""

from __future__ import annotations

import json
import sys
from typing import Any

from dasvit.extras import need
from dasvit.runtime.tracking import parse_trackers
from dasvit.search.derive import Derivation


def wanted_trackers(text: str) -> tuple[str, ...]:
    """Return the trackers that --track names, all of which are installed."""
    names = parse_trackers(text)
    for name in names:
        need(name, name)
    return names


def print_json(content: Any) -> None:
    json.dump(content, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def print_derivation(derivation: Derivation) -> None:
    """Print a cell, and what it was taken in place of."""
    print(derivation.genotype)
    if derivation.reason:
        print(f"{derivation.reason} It was:\n{derivation.unconstrained}")
