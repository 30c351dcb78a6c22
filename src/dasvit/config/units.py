"""Values with a form of their own, as an option or a recipe has them: times (8ms), memory (24G), levels (0,4095)."""

from __future__ import annotations

import math
import re
from typing import Literal

from dasvit.errors import UserError

UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
"""Units of time, in seconds."""


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
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)\s*([a-zA-Zµ]+)", text.strip())
    seconds = float(match[1]) * UNITS.get(match[2], 0.0) if match else 0.0
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
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([dhm])", text.strip())
    if not match:
        raise UserError(f"{option} takes days, hours or minutes, as 30d, 12h or 90m, not {text!r}.")
    return float(match[1]) * {"d": 86400.0, "h": 3600.0, "m": 60.0}[match[2]]


def parse_memory(text: str, option: str) -> int:
    """Return an amount of memory such as 24G, 24GB, 11.5GiB or 512M in bytes, its units powers of 1,024.

    Args:
        text: The memory, with its unit.
        option: Where it stands, for the message.

    Raises:
        UserError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"{option} takes a memory such as 24G or 512M, not {text!r}.")
    return round(float(match[1]) * {"M": 2**20, "G": 2**30, "T": 2**40}[match[2].upper()])


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
