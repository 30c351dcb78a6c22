"""Candidates whose trainings diverge: the others go on, and whatever was warned of is shown."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dasvit.errors import Diverged
from dasvit.runtime.progress import Reporter
from dasvit.search import candidates, workers
from dasvit.search.halving import Candidate, Rung, converged
from dasvit.training.loop import train
from helpers import SMALL, call_cli

SEARCH = (*SMALL, "--method", "finals", "--search.finals.cells", 4, "--search.finals.rungs", "[1, 2]")


def diverge(monkeypatch: pytest.MonkeyPatch, which: set[int], epochs: float = 1) -> None:
    """Have the trainings of some candidates diverge in a rung, by their order of entering."""
    seen = list[str]()

    def some(network: Any, session: Any, **how: Any) -> Any:
        folder = str(session.run.path)
        seen.extend([folder] if folder not in seen else [])
        if seen.index(folder) in which and how["until"] == epochs:
            raise Diverged("no step of epoch 1 was finite: stopped")
        return train(network, session, **how)

    monkeypatch.setattr(candidates, "train", some)


def test_what_diverged_is_kept_as_json_and_ranked_last() -> None:
    diverged, good = Rung(2.0, math.inf, 0.0, 3.0, value=math.inf), Rung(1.0, 1.5, 40.0)
    written = json.dumps(diverged.reached(), allow_nan=False)
    assert Rung.read({**json.loads(written), "seconds": 3.0}) == diverged and str(diverged) == "diverged"
    assert Rung.read(good.reached()) == good and not good.diverged
    cell: Any = None
    far, near = Candidate(cell, [good, diverged]), Candidate(cell, [good])
    assert far.rank > near.rank and converged([far, near]) == [near]


@pytest.mark.parametrize("rung", [1, 2])
def test_a_search_goes_on_without_a_candidate_that_diverges(
    rung: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(monkeypatch, {0, 1} if rung == 2 else {1}, epochs=rung)
    status, _, err = call_cli("search", *SEARCH, "--run", tmp_path / "run")
    assert status == 0, err
    assert "val diverged" in err and "was finite: stopped" in err
    assert "warmup_epochs" not in err, "said of every candidate, with numbers that are not the recipe's"
    found = json.loads((tmp_path / "run/derivation.json").read_text(), parse_constant=pytest.fail)["finals"]
    lost = [row for row in found if row["rungs"][-1]["loss"] is None]
    assert lost and found[: -len(lost)] == [row for row in found if row not in lost], "not ranked last"
    assert all(len(row["rungs"]) <= rung for row in lost)
    assert json.loads((tmp_path / "run/genotype.json").read_text()) == found[0]["genotype"]
    assert "diverged" in (tmp_path / "run/report.html").read_text()
    assert call_cli("search", *SEARCH, "--run", tmp_path / "run")[0] == 0
    status, _, err = call_cli("derive", tmp_path / "run")
    assert status == 0, err


def test_a_search_all_of_whose_candidates_diverge_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diverge(monkeypatch, {0, 1, 2, 3})
    status, _, err = call_cli("search", *SEARCH, "--run", tmp_path / "run")
    assert status == 2 and "the trainings of all 4 candidates diverged: lower train.optim.lr" in err


def test_warnings_of_candidates_are_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    whole = Reporter()
    for _ in range(2):
        part = whole.part("candidate a b")
        part.say("epoch 1/2")
        part.warn("a checkpoint is damaged")
    assert capsys.readouterr().err == "candidate a b: a checkpoint is damaged\n"


def test_warnings_come_back_from_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = Reporter(quiet=True)
    monkeypatch.setattr(workers, "_session", SimpleNamespace(reporter=reporter), raising=False)

    def task(cell: Any, rung: int, session: Any) -> Rung:
        session.reporter.part("candidate a").warn("micro-batches")
        return Rung(1.0, 2.0, 3.0)

    cell: Any = None
    assert workers.work(task, cell, 0) == ("done", Rung(1.0, 2.0, 3.0), 0, ["candidate a: micro-batches"])
