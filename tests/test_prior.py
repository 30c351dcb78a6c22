"""What trainings on other data say beforehand: against the textbook's equations, and what a search does with it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dasvit.api.recipe import make_config
from dasvit.cell.genotype import Genotype
from dasvit.errors import UserError
from dasvit.search.halving import Candidate, Rung
from dasvit.search.prior import FORMAT, Source, describe_prior, make_prior, read_sources, to_json
from dasvit.search.proposal import TEACHERS, Proposer
from dasvit.search.surrogate import Features, LinearModel, Prior
from helpers import SMALL, call_cli
from test_surrogate import MACS, SPACE, losses_of, some_cells

FEATURES = Features(SPACE, MACS)


def elsewhere(sign: float = 1.0, noise: float = 0.2) -> Prior:
    """What 60 cells on other data say, whose losses follow the same effects (or, with -1, their opposites)."""
    cells = some_cells(60, seed=70)
    prior = make_prior(FEATURES, [Source("other", cells, (sign * losses_of(cells, noise, seed=71)).tolist())])
    assert prior is not None
    return prior


def test_the_posterior_is_that_of_bayes() -> None:
    """Against the normal equations with the prior's mean and covariance, in float64."""
    cells = some_cells(15)
    losses, prior = losses_of(cells, 0.1), elsewhere()
    model = LinearModel(replace(FEATURES, prior=prior), cells, losses)
    rows = FEATURES.rows(cells)
    x, y = np.column_stack([rows, np.ones(15)]), (losses - losses.mean()) / losses.std()
    before = np.diag(np.append(model.scales[FEATURES.groups] ** 2, 1.0))
    before[:-1, :-1] += model.trust**2 * prior.covariance
    start = model.trust * np.append(prior.mean, -(rows @ prior.mean).mean())
    precision = np.linalg.inv(before) + x.T @ x / model.scales[-1] ** 2
    said = np.linalg.solve(before, start) + x.T @ y / model.scales[-1] ** 2
    np.testing.assert_allclose(model.posterior[0], np.linalg.solve(precision, said), atol=1e-6)
    np.testing.assert_allclose(model.posterior[1], np.linalg.inv(precision), atol=1e-6)


def test_without_results_the_prior_is_all_that_is_known() -> None:
    prior = elsewhere()
    model = LinearModel(replace(FEATURES, prior=prior), [], np.zeros(0))
    mean, covariance = model.posterior
    np.testing.assert_allclose(mean[:-1], prior.mean)
    apart = covariance[:-1, :-1] - prior.covariance
    np.testing.assert_allclose(apart, np.diag(model.scales[FEATURES.groups] ** 2))


def test_it_ranks_cells_of_data_that_follow() -> None:
    """After few results better than without; of data that do the opposite the factor falls, and results correct it."""
    unseen = some_cells(300, seed=99)
    truth = losses_of(unseen, 0.0)
    taus: dict[str, list[float]] = {"none": [], "same": [], "opposite": []}
    trust: dict[str, list[float]] = {"same": [], "opposite": []}
    for seed in range(6):
        cells = some_cells(10, seed)
        for name, prior in (("none", None), ("same", elsewhere()), ("opposite", elsewhere(-1))):
            model = LinearModel(replace(FEATURES, prior=prior), cells, losses_of(cells, 0.15, seed))
            taus[name].append(float(stats.kendalltau(model.predict(unseen)[0], truth).statistic))
            if prior:
                trust[name].append(model.trust)
    assert np.mean(taus["same"]) > np.mean(taus["none"]) + 0.15
    assert np.mean(taus["opposite"]) > np.mean(taus["none"]) - 0.15
    assert np.median(trust["opposite"]) < 0.3 * np.median(trust["same"])


def test_what_it_adds_is_a_group_of_its_own() -> None:
    cells = some_cells(20)
    losses, prior = losses_of(cells, 0.1), elsewhere()
    model = LinearModel(replace(FEATURES, prior=prior), cells, losses)
    said = FEATURES.rows(cells) @ prior.mean * model.trust
    assert model.spreads()["other data"] == pytest.approx(said.std() * losses.std())
    assert "other data" not in LinearModel(FEATURES, cells, losses).spreads()


def test_sources_are_standardised_and_narrowed() -> None:
    cells = some_cells(30)
    losses = losses_of(cells, 0.1)
    one = make_prior(FEATURES, [Source("a", cells, losses.tolist())])
    other = make_prior(FEATURES, [Source("a", cells, (5 + 3 * losses).tolist())])
    assert one is not None and other is not None
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-6)
    foreign = [Genotype.from_ops(2, ["msa_8", *cell.ops[1:]]) for cell in cells]
    assert make_prior(FEATURES, [Source("b", foreign, losses.tolist())]) is None
    both = make_prior(FEATURES, [Source("a", cells, losses.tolist()), Source("b", foreign, losses.tolist())])
    assert both is not None
    np.testing.assert_allclose(one.mean, both.mean)


def recipe(tmp_path: Path, **options: Any) -> Any:
    """The study's recipe with a prior under which shift_2 is all that counts."""
    chance, space = np.random.default_rng(0), make_config("cifar10-study").space
    names = ["zero", "identity", "msa_2", "msa_4", "msa_8", "mlp_1", "shift_1", "shift_2"]
    assert space.shifts == [0.5, 1.0, 2.0]
    cells = [Genotype.from_ops(2, [names[i] for i in chance.integers(0, 8, 5)]) for _ in range(60)]
    losses = [2.0 - 0.2 * cell.ops.count("shift_2") + 0.05 * chance.standard_normal() for cell in cells]
    file = tmp_path / "prior.json"
    file.write_text(to_json([Source("made up", cells, losses)]))
    own = {"search.finals.prior": [str(file)], "search.finals.shipped": False, **options}
    return make_config("cifar10-study", options=own)


def test_the_first_candidates_are_drawn_by_it(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    assert describe_prior(config) == "prior: 60 cells trained on made up (search.finals.prior)"

    def counts(config: Any) -> list[int]:
        entered: list[Candidate] = []
        for _ in range(TEACHERS):
            candidate = Proposer(config, 10, None, [])(entered)
            assert candidate is not None and candidate.expected is None
            candidate.rungs.append(Rung(1.0, 2.0, 50.0))
            entered.append(candidate)
        assert len({one.cell for one in entered}) == TEACHERS
        return [one.cell.ops.count("shift_2") for one in entered]

    assert np.mean(counts(config)) > 1.2 > 2 * np.mean(counts(recipe(tmp_path, **{"search.finals.prior": []})))
    assert np.mean(counts(recipe(tmp_path, **{"search.finals.learn": False}))) < 1.2, "the control draws evenly"
    assert describe_prior(recipe(tmp_path, **{"search.finals.learn": False})) == ""


def test_sizes_are_drawn_evenly_until_some_are_seen(tmp_path: Path) -> None:
    config = recipe(tmp_path, **{"space.widths": [48, 96], "search.finals.min_share": 0.0})
    propose, entered = Proposer(config, 10, None, []), list[Candidate]()
    for number in range(12 + TEACHERS + 1):
        candidate = propose(entered)
        assert candidate is not None and candidate.cell.sizes is not None
        if number >= 12:
            candidate.rungs.append(Rung(1.0, 2.0 - 0.01 * number, 50.0))
        entered.append(candidate)
    assert len({one.cell.sizes for one in entered[:12]}) == 2 and entered[-1].expected is not None


def test_a_file_comes_back(tmp_path: Path) -> None:
    sources = read_sources(recipe(tmp_path).search.finals.prior)
    assert read_sources([str(tmp_path / "prior.json")]) == sources
    assert to_json(sources) == (tmp_path / "prior.json").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", f"no file of the format {FORMAT}"),
        ("[]", f"no file of the format {FORMAT}"),
        ('{"format": "other"}', f"no file of the format {FORMAT}"),
        (json.dumps({"format": FORMAT}), "damaged"),
        (json.dumps({"format": FORMAT, "sources": [{"data": "a", "nodes": 2, "cells": [{"ops": 3}]}]}), "damaged"),
        (
            '{"format": "dasvit-prior/1", "sources": [{"data": "a", "nodes": 1, "cells": '
            '[{"ops": ["msa_2", "zero"], "loss": NaN}]}]}',
            "finite",
        ),
    ],
)
def test_a_damaged_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prior.json"
    path.write_text(text)
    with pytest.raises(UserError) as info:
        read_sources([str(path)])
    assert str(path) in str(info.value) and said in str(info.value)


def test_a_search_takes_over_what_another_reached(tmp_path: Path) -> None:
    """Another search's folder is a prior; the run keeps a copy, with which it goes on and derives when that is gone."""
    finals = ["--method=finals", "--space.heads=[2,4]", "--space.ratios=[0.5,1]"]
    first, second = tmp_path / "first", tmp_path / "second"
    few = call_cli("search", *SMALL, *finals, "--search.finals.cells=2", "--search.finals.rungs=[1]", "--run", first)
    assert few[0] == 0, few[2]
    asked = ["--search.finals.cells=9", "--search.finals.rungs=[1]", f"--search.finals.prior={first}"]
    status, _, err = call_cli("search", *SMALL, *finals, *asked, "--run", second)
    assert status == 2 and "holds 2 trained candidates" in err
    shutil.rmtree(first)
    shutil.rmtree(second, ignore_errors=True)
    status, _, err = call_cli("search", *SMALL, *finals, *asked[:2], "--run", first)
    assert status == 0, err
    status, _, err = call_cli("search", *SMALL, *finals, *asked, "--runtime.seed=7", "--run", second)
    assert status == 0, err
    assert "prior: 9 cells trained on first" in err
    derivation = json.loads((second / "derivation.json").read_text())
    assert "other data" in derivation["spreads"]
    assert "of what the candidates and cells on other data reached" in (second / "report.html").read_text()
    shutil.rmtree(first)
    status, _, err = call_cli("derive", second, "--max-skips", "0")
    assert status == 0, err
    status, _, err = call_cli("search", *SMALL, *finals, *asked, "--runtime.seed=7", "--run", second)
    assert status == 0, err
    assert json.loads((second / "derivation.json").read_text()) == derivation


def test_a_prior_that_is_not_there(tmp_path: Path) -> None:
    options = ["--method=finals", "--search.finals.cells=2", "--search.finals.prior=[nowhere.json]"]
    status, _, err = call_cli("search", *SMALL, *options, "--run", tmp_path / "run")
    assert status == 2 and "there is no nowhere.json" in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_what_the_package_ships() -> None:
    """Cells of the study's space, which its recipe and that for folders can begin with."""
    sources = read_sources(["shipped"])
    assert all(len(source.cells) == len(set(source.cells)) for source in sources)
    for name in ("cifar10-study", "folder-small"):
        config = make_config(name, options={"search.finals.prior": ["shipped"]}, method="finals")
        assert describe_prior(config).startswith("prior: 43 cells trained on CIFAR-10")


def test_a_share_that_no_network_uses_is_said_before_anything_starts(tmp_path: Path) -> None:
    options = ["--method=finals", "--search.finals.cells=2", "--search.derive.max-macs=1G"]
    status, _, err = call_cli("search", *SMALL, *options, "--search.finals.min_share=0.9", "--run", tmp_path / "run")
    assert status == 2 and "uses 0.9 of the budget (the largest uses 0.0" in err
    assert "lower search.finals.min_share or the budget" in err and not (tmp_path / "run").exists()
