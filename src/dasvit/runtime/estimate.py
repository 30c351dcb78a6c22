"""How long work will take: a few timed steps, and what is counted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dasvit.report.words import duration

AT_LEAST, AT_MOST = 3, 8
"""Timed steps."""
ENOUGH = 0.3
"""Seconds of timed steps after which no more follow."""
MARGIN = 0.1
"""Share by which a range is wider than the timed steps say: checkpoints, pages, caches."""


@dataclass(frozen=True)
class Estimate:
    """A time, with the range that it lies in.

    Attributes:
        seconds: The middle.
        low: Seconds.
        high: Seconds.
    """

    seconds: float
    low: float
    high: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Estimate:
        """Return the estimate from several times of the same: their median, and how far they lie apart."""
        middle = statistics.median(times)
        return cls(middle, min(min(times), (1 - MARGIN) * middle), max(max(times), (1 + MARGIN) * middle))

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.seconds * factor, self.low * factor, self.high * factor)

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.seconds + other.seconds, self.low + other.low, self.high + other.high)

    def __str__(self) -> str:
        return f"about {duration(self.seconds)} ({duration(self.low)} to {duration(self.high)})"

    def to_dict(self) -> dict[str, float]:
        """Return the three numbers of seconds."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


NOTHING = Estimate(0.0, 0.0, 0.0)
"""The time of what is not done."""


def total(parts: Iterable[Estimate]) -> Estimate:
    """Return the sum of estimates."""
    return sum(parts, NOTHING)


def mean(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates."""
    return total(parts) * (1 / len(parts))


def time_steps(step: Callable[[], object], same_everywhere: bool = False) -> Estimate:
    """Time a step a few times, after one that warms up.

    Args:
        step: One step of the work to come.
        same_everywhere: Time AT_LEAST steps and no more, as processes must that wait for one another in each.
    """
    step()
    times: list[float] = []
    while len(times) < AT_LEAST or (not same_everywhere and len(times) < AT_MOST and sum(times) < ENOUGH):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return Estimate.of(times)


def describe(phases: Mapping[str, Estimate]) -> str:
    """Return what phases take, and all of them, in words."""
    several = [f"{name} {duration(phase.seconds)}" for name, phase in phases.items()]
    whole = total(phases.values())
    return str(whole) + (f": {', '.join(several)}" if len(several) > 1 else "")


LONG = 3e11
"""Multiply-adds from which on a run is estimated before it begins: more than ten seconds of a processor's core."""


def outcome(seconds: float, estimate: Mapping[str, Any]) -> str:
    """Return what a run took beside what was estimated at its start (`Estimate.to_dict`)."""
    low, high = duration(estimate["low"]), duration(estimate["high"])
    return f"took {duration(seconds)}; estimated at the start: {duration(estimate['seconds'])} ({low} to {high})"
