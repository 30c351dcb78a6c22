"""How numbers are written for readers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

MOST_IMAGES = 10**12
"""No test has more; a larger number is damage."""


class Tile(NamedTuple):
    """A figure at the top of a page: what it is, the value, and a remark."""

    name: str
    value: str
    remark: str = ""


def plain(value: float) -> str:
    """Return a number with as many digits as tell, as 1.734 or 0.00015."""
    return f"{value:.4g}"


def weight(value: float) -> str:
    """Return a weight, as 0.125."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def percent(value: float) -> str:
    """Return a share in percent, as 56.2 %."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + " %"


def teacher_text(noted: Any, with_place: bool = False) -> str:
    """Return who taught a network and what it reaches itself, from what a run noted of it; empty: nobody did.

    Args:
        noted: The note.
        with_place: Say where it lies on this machine.
    """
    if not isinstance(noted, dict) or not isinstance(noted.get("top1"), (int, float)):
        return ""
    name = f"{noted.get('model')} ({noted.get('architecture')})" if with_place else noted.get("architecture")
    return f"{name}, top-1 {percent(noted['top1'])} on the test images"


def bounds_of(show: object) -> tuple[float, float] | None:
    """Return what values can be that a function writes: 0 to 100 of `percent`. None: anything."""
    return (0.0, 100.0) if show is percent else None


def duration(seconds: float) -> str:
    """Return a time, as 42 s, 20 min or 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def memory(mebibytes: float) -> str:
    """Return an amount of memory, as 1331 MiB or 7.3 GiB."""
    return f"{mebibytes:.0f} MiB" if mebibytes < 4096 else f"{mebibytes / 1024:.1f} GiB"


def interval(top1: float, images: float) -> tuple[float, float]:
    """Return the 95 % interval (Wilson's score) of an accuracy on so many images, all in percent."""
    z, p = 1.959964, top1 / 100
    middle, spread = p + z**2 / (2 * images), z * math.sqrt(p * (1 - p) / images + (z / (2 * images)) ** 2)
    scale = 100 / (1 + z**2 / images)
    return max(0.0, (middle - spread) * scale), min(100.0, (middle + spread) * scale)


def known_interval(results: Mapping[str, float], key: str = "top1") -> tuple[float, float] | None:
    """Return the interval of one of a test's accuracies, None where that or its number of images is not known."""
    top1, images = results.get(key, -1.0), results.get("images", 0.0)
    return interval(top1, images) if 0 <= top1 <= 100 and 1 <= images <= MOST_IMAGES else None


def ratio(value: float, reference: float) -> str:
    """Return how many times a reference, as 1.17 ×."""
    return f"{value / reference:.2f} ×" if reference else ""
