"""Ranges of values, written at the fields of a dataclass."""

from __future__ import annotations

import dataclasses
from typing import Any

from dasvit.errors import UserError

LEAST = "least"
"""Key of a field's metadata: the least value that it takes."""


def at_least(least: int, default: Any) -> Any:
    """Return a dataclass field with a default that takes no value below `least`."""
    return dataclasses.field(default=default, metadata={LEAST: least})


def check_least(name: str, value: float, least: float) -> None:
    """Check a value against the least that its field takes.

    Raises:
        UserError: It is less.
    """
    if value < least:
        raise UserError(f"{name} must be at least {least}, not {value}.")
