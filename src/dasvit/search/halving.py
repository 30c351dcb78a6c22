"""Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943): many candidates briefly, the best for longer.

Sees cells and what they reached, never networks. Several candidates can be trained at the same time, and no worker
waits for the others of a rung: towards its end the best of those that are there go on (as in arXiv:1810.05934), so that
a few more than the share may. What is trained next depends on the order in which trainings end, which on a shared
machine differs from run to run. So that the same search with as many workers always takes the same decisions, that
order is the one of a virtual clock, on which a training takes its multiply-adds times its steps; a result that comes
early waits its turn.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from dasvit.cell.genotype import Genotype


class Rung(NamedTuple):
    """What a candidate had reached at a rung, on the validation images.

    Attributes:
        epochs: How long it had been trained.
        loss: Mean cross-entropy; infinite where the training diverged.
        top1: In percent; no number where images have several labels.
        seconds: What its training took so far.
        majority: Share of the largest class, in percent; as what follows, None of an older run.
        balanced_accuracy: In percent.
        macro_f1: In percent.
        value: What it is ranked by (`search.metric`), of which less is better. None: the loss.
        map: mAP in percent, where images have several labels.
        prevalence: Likewise what a constant reaches.
    """

    epochs: float
    loss: float
    top1: float
    seconds: float = 0.0
    majority: float | None = None
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    value: float | None = None
    map: float | None = None
    prevalence: float | None = None

    @property
    def score(self) -> float:
        """Top-1, or of several labels an image the mAP; in percent."""
        return self.top1 if self.map is None else self.map

    @property
    def is_constant(self) -> bool:
        """Whether it is known to be no better than a constant."""
        constant = self.majority if self.map is None else self.prevalence
        return constant is not None and self.score <= constant

    @property
    def ranked_by(self) -> float:
        """What it is ranked by, of which less is better."""
        return self.loss if self.value is None else self.value

    @property
    def order(self) -> tuple[float, float]:
        """Smaller is better: what it is ranked by; of equal ones, as constants are, the smaller loss."""
        return self.ranked_by, self.loss

    @property
    def diverged(self) -> bool:
        """Whether the training's numbers were not finite any more."""
        return not math.isfinite(self.loss)

    def reached(self) -> dict[str, float | None]:
        """Return what is known and the same in every run: all but the seconds; None, for JSON, what is not finite."""
        rest = {name: value for name, value in self._asdict().items() if name != "seconds" and value is not None}
        known = {name: value for name, value in rest.items() if not math.isnan(value)}
        return {name: value if math.isfinite(value) else None for name, value in known.items()}

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Rung:
        """Return what `reached` gave, with the seconds where they are there."""
        known = {"top1": math.nan} | {name: row[name] for name in cls._fields if name in row}
        return cls(**{name: math.inf if value is None else float(value) for name, value in known.items()})

    def __str__(self) -> str:
        if self.diverged:
            return "diverged"
        if self.map is not None:
            constant = "" if self.prevalence is None else f" (a constant's {self.prevalence:.2f} %)"
            macro_f1 = "" if self.macro_f1 is None else f", macro-F1 {self.macro_f1:.2f} %"
            return f"loss {self.loss:.4f}, mAP {self.map:.2f} %{constant}{macro_f1}"
        majority = "" if self.majority is None else f" (majority {self.majority:.2f} %)"
        macro_f1 = "" if self.macro_f1 is None else f", macro-F1 {self.macro_f1:.2f} %"
        return f"loss {self.loss:.4f}, top-1 {self.top1:.2f} %{majority}{macro_f1}"


class Expectation(NamedTuple):
    """What was expected of a candidate before it was trained: its value at the first rung, and how surely.

    Attributes:
        loss: Mean.
        sd: Standard deviation.
    """

    loss: float
    sd: float


@dataclass
class Candidate:
    """A cell that is trained, and what it reached.

    Attributes:
        cell: The cell.
        rungs: What it had reached at each rung so far.
        expected: What was expected of it; None where it was drawn without knowledge.
        tied: Whether the validation images cannot tell it from the best.
    """

    cell: Genotype
    rungs: list[Rung] = field(default_factory=list)
    expected: Expectation | None = None
    tied: bool = False

    @property
    def last(self) -> Rung:
        """What it reached at its last rung."""
        return self.rungs[-1]

    @property
    def diverged(self) -> bool:
        """Whether its training diverged, after which it goes no further."""
        return bool(self.rungs) and self.last.diverged

    @property
    def rank(self) -> tuple[float, ...]:
        """Smaller is better: who was trained longer stands before others, of these the smaller value; diverged last."""
        return self.diverged, -self.last.epochs, *self.last.order


def converged(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates whose trainings did not diverge."""
    return [candidate for candidate in candidates if not candidate.diverged]


class Train(Protocol):
    """Begins to train a candidate until a rung, from where it stands."""

    def __call__(self, cell: Genotype, rung: int) -> Future[Rung]:
        """Return what will hold the result."""


@dataclass
class Halving:
    """A race of candidates.

    Attributes:
        epochs: The rungs.
        cells: Candidates that enter.
        keep: Share of a rung that goes on.
        propose: Gives the next candidate, one that is none of those so far; None where there are no more.
        train: Begins a training.
        cost: What a step of a cell's network costs, in any unit.
        workers: Trainings at the same time.
        pinned: A cell that goes on to the last rung whatever it reaches. None: no such cell.
        follow: Told of every result: who reached it, and all candidates so far.
    """

    epochs: Sequence[float]
    cells: int
    keep: float
    propose: Callable[[Sequence[Candidate]], Candidate | None]
    train: Train
    cost: Callable[[Genotype], float]
    workers: int = 1
    pinned: Genotype | None = None
    follow: Callable[[Candidate, Sequence[Candidate]], None] = lambda candidate, entered: None
    entered: list[Candidate] = field(default_factory=list)
    _clock: float = 0.0
    _is_full: bool = False
    _running: list[tuple[float, int, Candidate, Future[Rung]]] = field(default_factory=list)
    _begun: int = 0

    def run(self) -> list[Candidate]:
        """Return all candidates, best first."""
        while True:
            while len(self._running) < self.workers and (candidate := self._next()) is not None:
                self._begin(candidate)
            if not self._running:
                return sorted(self.entered, key=lambda candidate: candidate.rank)
            self._clock, _, candidate, future = heapq.heappop(self._running)
            candidate.rungs.append(future.result())
            self.follow(candidate, self.entered)

    def _begin(self, candidate: Candidate) -> None:
        rung = len(candidate.rungs)
        epochs = self.epochs[rung] - (self.epochs[rung - 1] if rung else 0)
        end = self._clock + epochs * self.cost(candidate.cell)
        self._begun += 1
        heapq.heappush(self._running, (end, self._begun, candidate, self.train(candidate.cell, rung)))

    def _next(self) -> Candidate | None:
        """Return who is trained next: a new candidate, one that may go on, or none for now."""
        if len(self.entered) < self.cells and not self._is_full:
            candidate = self.propose(self.entered)
            if candidate is not None:
                self.entered.append(candidate)
                return candidate
            self._is_full = True
        return self._promoted() or (None if self._running else self._best_of_the_highest())

    def _promoted(self) -> Candidate | None:
        """Return the best candidate of the lowest rung that has one among its best `keep` that has not gone on."""
        for rung in range(len(self.epochs) - 1):
            here = sorted(
                (candidate for candidate in self.entered if len(candidate.rungs) > rung),
                key=lambda candidate: candidate.rungs[rung].order,
            )
            best = here[: int(len(here) * self.keep)]
            for candidate in [*best, *(one for one in here if one.cell == self.pinned)]:
                if len(candidate.rungs) == rung + 1 and not candidate.diverged and not self._is_running(candidate):
                    return candidate
        return None

    def _best_of_the_highest(self) -> Candidate | None:
        """Return the best so far where nobody has reached the last rung yet, so that somebody does."""
        best = min(converged(self.entered), key=lambda candidate: candidate.rank, default=None)
        return best if best is not None and len(best.rungs) < len(self.epochs) else None

    def _is_running(self, candidate: Candidate) -> bool:
        return any(other is candidate for _, _, other, _ in self._running)
