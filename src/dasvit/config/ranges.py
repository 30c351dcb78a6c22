"""Ranges of values, written at the fields of a dataclass."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from dasvit.errors import UserError

RANGE = "range"
"""Key of a field's metadata: its Range."""
Interval = Literal["", "[0, 1)", "(0, 1]"]


@dataclass(frozen=True)
class Range:
    """Which values a field takes; of a list, every entry.

    Attributes:
        least: The smallest.
        most: The largest.
        interval: Where they lie, with ends that do not belong to it. Empty: least and most say all.
        entries: The most entries of a list.
    """

    least: float = -math.inf
    most: float = math.inf
    interval: Interval = ""
    entries: float = math.inf

    def check(self, name: str, value: Any) -> None:
        """Check a value.

        Args:
            name: Of the field, for the message.
            value: A number, or a list of numbers or texts.

        Raises:
            UserError: It is out of the range.
        """
        values = value if isinstance(value, (list, tuple)) else [value]
        if len(values) > self.entries:
            raise UserError(f"the number of {name} must be at most {self.entries:,}, not {len(values):,}.")
        for number in values:
            if isinstance(number, (int, float)):
                self._check_number(name, number)

    def _check_number(self, name: str, number: float) -> None:
        inside = {"": True, "[0, 1)": 0 <= number < 1, "(0, 1]": 0 < number <= 1}
        if not inside[self.interval]:
            raise UserError(f"{name} must lie in {self.interval}, not {number}.")
        if number < self.least:
            wrong = (
                f"not be negative, but is {number}" if self.least == 0 else f"be at least {self.least}, not {number}"
            )
            raise UserError(f"{name} must {wrong}.")
        if number > self.most:
            raise UserError(f"{name} must be at most {self.most:,}, not {number:,}.")


def at_least(least: float, default: Any, *, most: float = math.inf) -> Any:
    """Return a dataclass field with a default that takes no value below `least`, nor one above `most`."""
    return dataclasses.field(default=default, metadata={RANGE: Range(least, most)})


def within(interval: Interval, default: Any) -> Any:
    """Return a dataclass field with a default that takes values of an interval."""
    return dataclasses.field(default=default, metadata={RANGE: Range(interval=interval)})


def listed(*, most: float = math.inf, entries: float = math.inf) -> dict[str, Range]:
    """Return the metadata of a field that is a list: how large its entries may be, and how many there may be."""
    return {RANGE: Range(most=most, entries=entries)}
