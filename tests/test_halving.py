"""Successive halving: who goes on, that decisions do not depend on the order of results, and what it costs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from dasvit.cell.genotype import Genotype
from dasvit.config import FinalsConfig
from dasvit.search.halving import Candidate, Halving, Rung

CELLS = [
    Genotype.from_ops(1, [one, other])
    for one in ("msa_2", "msa_4", "msa_8", "msa_16")
    for other in ("mlp_1", "mlp_2", "mlp_4", "identity", "zero", "msa_2")
]
EPOCHS = (0.5, 1.0, 2.0, 4.0)


def value(cell: Genotype, rung: int) -> float:
    """A loss that later rungs know better: the cell's own, and noise that shrinks."""
    own, chance = CELLS.index(cell) / len(CELLS), random.Random(f"{cell.ops} {rung}")
    return own + chance.gauss(0, 0.3 / (rung + 1))


class Late(Future[Rung]):
    """A result that its worker has only when it is asked for: the order of asking is the race's own."""

    def __init__(self, cell: Genotype, rung: int, asked: list[tuple[Genotype, int]]) -> None:
        super().__init__()
        self.cell, self.rung, self.asked = cell, rung, asked

    def result(self, timeout: float | None = None) -> Rung:
        self.asked.append((self.cell, self.rung))
        return Rung(EPOCHS[self.rung], value(self.cell, self.rung), 50.0)


def race(workers: int = 1, cells: int = 16, pinned: Genotype | None = None) -> tuple[list[Candidate], Halving]:
    asked: list[tuple[Genotype, int]] = []

    def propose(entered: Sequence[Candidate]) -> Candidate | None:
        left = [cell for cell in CELLS if cell not in {candidate.cell for candidate in entered}]
        return Candidate(left[len(left) // 2]) if left else None

    halving = Halving(
        EPOCHS,
        cells,
        0.5,
        propose,
        lambda cell, rung: Late(cell, rung, asked),
        lambda cell: 1.0 + CELLS.index(cell),
        workers,
        pinned,
    )
    return halving.run(), halving


def test_half_of_a_rung_goes_on() -> None:
    """Against the rule written as loops: sort a rung, keep the first half."""
    found, _ = race()
    expected = {candidate.cell: 1 for candidate in found}
    here = [candidate.cell for candidate in found]
    for rung in range(1, len(EPOCHS)):
        here = sorted(here, key=lambda cell: value(cell, rung - 1))[: len(here) // 2]
        expected |= dict.fromkeys(here, rung + 1)
    assert {candidate.cell: len(candidate.rungs) for candidate in found} == expected
    assert [len(candidate.rungs) for candidate in found[:4]] == [4, 4, 3, 3]
    assert found[0].last.loss == min(value(candidate.cell, 3) for candidate in found[:2])


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_several_workers_take_the_same_decisions_every_time(workers: int) -> None:
    once, again = race(workers)[0], race(workers)[0]
    assert once == again
    counts = Counter(len(candidate.rungs) for candidate in once)
    at_least = [sum(n for rungs, n in counts.items() if rungs >= rung) for rung in (1, 2, 3, 4)]
    assert at_least[0] == 16
    for reached, size in zip(at_least, FinalsConfig(cells=16, rungs=list(EPOCHS)).sizes(), strict=True):
        assert size <= reached < size + workers


def test_no_worker_waits() -> None:
    """As long as anything can be trained, all workers train: looked at whenever a result is taken."""
    busy: list[int] = []
    asked: list[tuple[Genotype, int]] = []

    def follow(candidate: Candidate, entered: Sequence[Candidate]) -> None:
        busy.append(len(halving._running))  # the others, while this one's result is taken

    halving = Halving(
        EPOCHS,
        16,
        0.5,
        lambda entered: Candidate(CELLS[len(entered)]),
        lambda cell, rung: Late(cell, rung, asked),
        lambda cell: 1.0,
        3,
        follow=follow,
    )
    halving.run()
    assert busy[: 16 + 8 - 2] == [2] * (16 + 8 - 2)


def test_the_pinned_cell_is_trained_to_the_end() -> None:
    worst = max(race()[0], key=lambda candidate: value(candidate.cell, 0)).cell
    assert len(next(one for one in race()[0] if one.cell == worst).rungs) == 1
    pinned = next(one for one in race(pinned=worst)[0] if one.cell == worst)
    assert [rung.epochs for rung in pinned.rungs] == list(EPOCHS)


def test_somebody_reaches_the_last_rung_however_few_there_are() -> None:
    for cells in (1, 2, 3):
        found = race(cells=cells)[0]
        assert len(found) == cells and len(found[0].rungs) == len(EPOCHS)


def test_where_there_are_no_more_cells() -> None:
    found = race(cells=100)[0]
    assert len(found) == len(CELLS)


def test_sizes_of_rungs() -> None:
    assert FinalsConfig(cells=24, rungs=[1, 2, 4, 8, 16], keep=0.5).sizes() == [24, 12, 6, 3, 1]
    assert FinalsConfig(cells=24, rungs=[1, 2], keep=0.25).sizes() == [24, 6]
    assert FinalsConfig(cells=0, rungs=[1, 2]).sizes() == [0, 0]
