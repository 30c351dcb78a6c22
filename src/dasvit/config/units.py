"""Values with a form of their own, as an option or a recipe has them: times (8ms), memory (24G), levels (0,4095)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

from dasvit.errors import UserError

UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
"""Units of time, in seconds."""
AGES = {"d": 86400.0, "h": 3600.0, "m": 60.0}
"""Units of an age, in seconds."""
MEMORY = {
    f"{unit}{ending}": size
    for unit, size in zip("MGT", (2**20, 2**30, 2**40), strict=True)
    for ending in ("", "B", "IB")
}
"""Units of memory in capital letters, in bytes."""


def parse_time(text: str, option: str) -> float:
    """Return a time such as 500us, 8ms or 0.2s in seconds; nothing is 0.

    Args:
        text: The time, with its unit.
        option: Where it stands, for the message.

    Raises:
        UserError: It is no such time, or no time at all.
    """
    if not text:
        return 0.0
    seconds = _amount(text, UNITS)
    if not seconds:
        raise UserError(f"{option} takes a time with its unit, as 500us, 8ms or 0.2s, not {text!r}.")
    return seconds


def parse_age(text: str, option: str) -> float:
    """Return an age such as 30d, 12h or 90m in seconds.

    Args:
        text: The age, with its unit.
        option: Where it stands, for the message.

    Raises:
        UserError: It is none.
    """
    seconds = _amount(text, AGES, digits=9)
    if seconds is None:
        raise UserError(f"{option} takes days, hours or minutes, as 30d, 12h or 90m, not {text!r}.")
    return seconds


def parse_memory(text: str, option: str) -> int:
    """Return an amount of memory such as 24G, 24GB, 11.5GiB or 512M in bytes, its units powers of 1,024.

    Args:
        text: The memory, with its unit.
        option: Where it stands, for the message.

    Raises:
        UserError: It is none.
    """
    size = _amount(text.upper(), MEMORY)
    if size is None:
        raise UserError(f"{option} takes a memory such as 24G or 512M, not {text!r}.")
    return round(size)


def _amount(text: str, units: Mapping[str, float], digits: int = 12) -> float | None:
    """Return a number with one of some units, as 8ms, in the unit that is 1; None of everything else.

    Args:
        text: The number, with its unit.
        units: What each is worth.
        digits: The most before and behind the point.
    """
    match = re.fullmatch(rf"(\d{{1,{digits}}}(?:\.\d{{1,{digits}}})?)\s*([a-zA-Zµ]+)", text.strip())
    return float(match[1]) * units[match[2]] if match and match[2] in units else None


def time_text(seconds: float) -> str:
    """Return a time as it is read, as 7.93 ms."""
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} us"


def parse_window(text: str, option: str) -> tuple[float, float] | Literal["auto", "full"]:
    """Return a window of grey levels, as 0,4095, or auto or full.

    Args:
        text: The window.
        option: Where it stands, for the message.

    Raises:
        UserError: It is none.
    """
    if text == "auto":
        return "auto"
    if text == "full":
        return "full"
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise UserError(f"{option} takes two grey levels that rise, as 0,4095, or auto or full, not {text!r}.")
    return low, high


def window_text(window: tuple[float, float] | str) -> str:
    """Return a window as `parse_window` reads it."""
    if isinstance(window, str):
        return window
    return ",".join(str(int(level)) if level.is_integer() else repr(level) for level in window)
