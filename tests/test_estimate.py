"""How long a search and a training will take, and as many candidates as fit into a time."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from dasvit.api.recipe import make_config
from dasvit.config import Config, FinalsConfig
from dasvit.errors import UserError
from dasvit.runtime.estimate import Estimate, describe, time_steps, total
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.search import estimate as search_estimate
from dasvit.search import time_budget
from dasvit.search.estimate import SearchEstimate, estimate_search, fit_hours
from dasvit.session import load_session
from dasvit.training import estimate as training_estimate
from dasvit.training.estimate import Pace, measure_pace
from helpers import SMALL, call_cli, tree

SECOND = Estimate(1.0, 0.9, 1.1)


def exactly(seconds: float) -> Estimate:
    return Estimate(seconds, seconds, seconds)


def test_an_estimate_has_the_range_of_what_was_timed_and_ten_percent_at_least() -> None:
    assert Estimate.of([1.0, 2.0, 4.0]) == Estimate(2.0, 1.0, 4.0)
    assert Estimate.of([2.0, 2.0, 2.0]) == Estimate(2.0, 1.8, 2.2)
    three = total([SECOND * 2, SECOND])
    assert (three.seconds, three.low, three.high) == pytest.approx((3.0, 2.7, 3.3))
    assert describe({"supernet": exactly(120), "12 candidates": exactly(60)}) == (
        "about 3 min (3 min to 3 min): supernet 2 min, 12 candidates 60 s"
    )


def test_steps_are_timed_after_one_that_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, took = [0.0], iter([50.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def step() -> None:
        clock[0] += next(took)

    assert time_steps(step) == Estimate(2.0, 1.0, 3.0)


def test_a_training_is_its_steps_and_its_evaluations() -> None:
    config = make_config("digits", options={"train.epochs": 7, "train.eval_every": 3, "train.batch_size": 100})
    session = load_session(config, "unused", "train", Reporter(quiet=True))
    pace = Pace(exactly(2.0), exactly(0.5))
    # 1,437 images are 14 batches; epochs 3, 6 and 7 end with a look at 360 images
    assert pace.training(config.train, session.data).seconds == pytest.approx(7 * 14 * 2.0 + 3 * 360 * 0.5)


def count_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a training step last a second, an image a hundredth, and a supernet's step ten seconds."""
    monkeypatch.setattr(search_estimate, "measure_pace", lambda make, session: Pace(exactly(1.0), exactly(0.01)))
    monkeypatch.setattr(training_estimate, "measure_pace", lambda make, session: Pace(exactly(1.0), exactly(0.01)))
    monkeypatch.setattr(search_estimate, "time_steps", lambda step: exactly(10.0))


def test_a_search_is_its_supernet_and_its_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    count_steps(monkeypatch)
    options = {
        "search.stages": {"layers": [1, 2], "keep": [0, 3], "epochs": [3, 2], "weight_epochs": [1, 1]},
        "search.batch_size": 50,
        "search.finals.cells": 8,
        "search.finals.rungs": [0.5, 1, 2],
        "search.finals.images": 100,
        "train.batch_size": 40,
    }
    config = make_config("digits", options=options)
    found = estimate_search(load_session(config, "unused", "search", Reporter(quiet=True)))
    # Halves of 719 images: 14 steps of 50. A weight step with its batch lasts 20 s, an alpha step as long.
    assert found.supernet.seconds == pytest.approx(14 * (20 * (3 + 2) + 20 * (2 + 1)))
    # 17 steps of 40 an epoch: eight candidates for half of one, four for another half, two for one more
    epochs, looks = 8 * 0.5 + 4 * 0.5 + 2 * 1.0, 8 + 4 + 2
    assert found.candidates(config.search.finals, 1).seconds == pytest.approx(17 * epochs + looks * 100 * 0.01)
    assert found.candidates(config.search.finals, 2).seconds == pytest.approx((17 * epochs + looks) / 2)


def finals(**changes: Any) -> FinalsConfig:
    return FinalsConfig(**{"cells": 12, "rungs": [1.0, 2.0, 4.0], **changes})


def test_hours_choose_as_many_candidates_as_fit() -> None:
    found = SearchEstimate(exactly(600), exactly(30), exactly(1))
    chosen = fit_hours(finals(), found, 1.0, 2)
    assert found.candidates(chosen, 2).high <= 3000
    assert found.candidates(finals(cells=chosen.cells + 1), 2).high > 3000
    assert chosen.rungs == [1.0, 2.0, 4.0]


def test_little_time_shortens_the_candidates_trainings() -> None:
    found = SearchEstimate(exactly(0), exactly(3600), exactly(0))
    chosen = fit_hours(finals(rungs=[5.0, 20.0, 40.0]), found, 30.0, 1)
    assert chosen.cells == 6 and found.candidates(chosen, 1).seconds <= 30 * 3600
    assert chosen.rungs[-1] == int(chosen.rungs[-1]) < 40 and chosen.rungs[0] == chosen.rungs[-1] / 8


def test_too_little_time_is_refused_with_what_it_would_take() -> None:
    found = SearchEstimate(exactly(3600), exactly(600), exactly(0))
    with pytest.raises(UserError, match=r"--hours 1 is too little here: 6 candidates .* take up to .*supernet 60 min"):
        fit_hours(finals(), found, 1.0, 1)
    with pytest.raises(UserError, match="this search trains none"):
        fit_hours(finals(cells=0), found, 1.0, 1)


def test_timing_reads_no_batch_twice_and_leaves_nothing_behind(tmp_path: Path) -> None:
    config = make_config("digits", options={"train.epochs": 2, "train.augment.mixup": 0.5})
    session = load_session(config, str(tmp_path / "run"), "train", Reporter(quiet=True))
    pace = measure_pace(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10)), session)
    assert 0 < pace.step.low <= pace.step.seconds <= pace.step.high and pace.image.seconds > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_too_short_to_time_is_estimated_all_the_same(steps: int, tmp_path: Path) -> None:
    config = make_config("digits", options={"train.epochs": 1, "data.limit": 10 * steps, "train.batch_size": 10})
    session = load_session(config, str(tmp_path / "run"), "train", Reporter(quiet=True))
    assert measure_pace(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10)), session).step.seconds > 0


SEARCH = (*SMALL, "--method", "finals", "--search.finals.cells", 4, "--search.finals.rungs", "[1, 2]")


def test_a_dry_run_says_the_time_and_writes_nothing(tmp_path: Path) -> None:
    before = tree(tmp_path)
    status, out, _ = call_cli("search", *SEARCH, "--run", tmp_path / "run", "--dry-run", "--json")
    plan = json.loads(out)
    assert status == 0 and plan["candidates"] == {"cells": 4, "rungs": [1.0, 2.0]}
    assert plan["search"]["seconds"] == pytest.approx(sum(phase["seconds"] for phase in plan["phases"].values()))
    status, out, _ = call_cli("train", *SMALL, "--cell", "dasvit_shift", "--run", tmp_path / "run", "--dry-run")
    assert status == 0 and out.startswith("The training would take about ")
    assert tree(tmp_path) == before


def test_a_search_within_hours_goes_on_with_the_candidates_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SearchEstimate(exactly(0), exactly(100), exactly(0), exactly(7))
    monkeypatch.setattr(time_budget, "estimate_search", lambda session, jobs: found)
    command = ("search", *SEARCH, "--run", tmp_path / "run", "--hours", 0.25)
    status, _, err = call_cli(*command)
    cells = next(n for n in range(500, 0, -1) if 100 * finals(cells=n, rungs=[1.0, 2.0]).trained_epochs() <= 900)
    assert status == 0 and f"--hours 0.25: {cells} candidates, 2 epochs of the best ones" in err
    assert "time: about" in err and "took " in err and "estimated at the start" in err
    derived = (tmp_path / "run/derivation.json").read_text()
    assert len(json.loads(derived)["finals"]) == cells

    def fail(session: object, jobs: int) -> SearchEstimate:
        raise AssertionError("measured again")

    monkeypatch.setattr(time_budget, "estimate_search", fail)
    assert call_cli(*command)[0] == 0
    assert (tmp_path / "run/derivation.json").read_text() == derived


def test_a_long_search_says_its_time_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_budget, "LONG", 0.0)
    status, _, err = call_cli("search", *SEARCH, "--run", tmp_path / "run")
    lines = err.splitlines()
    said = next(place for place, line in enumerate(lines) if line.startswith("time: about "))
    first = next(place for place, line in enumerate(lines) if line.startswith("candidate 1/4"))
    assert status == 0 and said < first and "training what it finds: about" in lines[said]
    assert "left" in lines[first]


def test_minutes_count_from_where_the_command_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert Deadline.after(2, begun=900.0).at == 900 + 120
    assert Deadline.after(2).at == 1000 + 120
    with pytest.raises(UserError, match="--hours must not be negative"):
        run_negative(make_config("digits"))


def run_negative(config: Config) -> None:
    from dasvit.search.pipeline import run_search

    run_search(config, "unused", Reporter(quiet=True), hours=-1.0)


def test_a_comparison_says_its_time_before_the_first_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dasvit.compare.trainings.LONG", 0.0)
    command = ("compare", "vit", "dasvit_shift", *SMALL, "--seeds", 2, "--run", tmp_path / "run")
    status, _, err = call_cli(*command)
    said = next(line for line in err.splitlines() if line.startswith("time: about "))
    assert status == 0 and "dasvit_shift" in said and err.index("time: about") < err.index("seed 0 (1 of 2")
    notes = json.loads((tmp_path / "run/environment.json").read_text())
    assert set(notes["estimate"]["phases"]) == {"vit", "dasvit_shift"}
    assert err.count("time: about") == 1 and "took " in err.splitlines()[-1]
    assert "time: about" not in call_cli(*command)[2]  # all is done


def test_a_study_knows_how_long_it_takes_before_its_first_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dasvit.study import estimate as study_estimate

    found = SearchEstimate(exactly(0), exactly(100), exactly(0), exactly(70))
    monkeypatch.setattr(study_estimate, "LONG", 0.0)
    monkeypatch.setattr(study_estimate, "estimate_search", lambda session: found)
    counts = ("--searches", 1, "--control", 1, "--random", 1, "--trainings", 2, "--methods", "finals")
    finals_of = ("--search.finals.cells", 4, "--search.finals.rungs", "[1, 2]")
    status, _, err = call_cli("study", *SMALL, *finals_of, *counts, "--run", tmp_path / "run")
    assert status == 0, err
    lines = err.splitlines()
    said = next(place for place, line in enumerate(lines) if line.startswith("time: about "))
    # a search has four candidates for one epoch, and two of them for another
    assert "2 searches 20 min" in lines[said] and "a search 10 min" in lines[said]
    ended = next(place for place, line in enumerate(lines) if "done in" in line)
    assert said < ended and "left" in lines[ended] and "estimated at the start" in err
