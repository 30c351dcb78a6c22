"""The finals: which cells are tried, what their results teach, and that the best one is the search's."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dasvit.cell.genotype import Genotype, is_viable, load_genotype
from dasvit.cell.space import Space
from dasvit.config import Config, FinalsConfig, ModelConfig, SpaceConfig
from dasvit.config import recipe as recipes
from dasvit.config.methods import with_method
from dasvit.config.validation import validate
from dasvit.data import ImageSet
from dasvit.data.image_set import HeldPixels
from dasvit.errors import UserError
from dasvit.models.cost import cost_of
from dasvit.search.candidates import choose_best, short_training
from dasvit.search.derive import Derivation
from dasvit.search.halving import Candidate, Rung
from dasvit.search.past_run import PastSearch
from dasvit.search.proposal import Proposer
from dasvit.search.sized import cost_counter
from helpers import SMALL, call_cli
from test_report_page import Page

COST = ("parameters", "multiply-adds")

MODEL = ModelConfig(image_size=8, patch_size=2, width=16, layers=2, heads=2)


def make(nodes: int = 2, cells: int = 8, learn: bool = True, **derive: Any) -> Config:
    config = Config(model=MODEL, space=SpaceConfig(nodes=nodes, heads=[2, 4], ratios=[0.5, 1.0]))
    config.search.finals = FinalsConfig(cells=cells, learn=learn)
    config.search.derive = dataclasses.replace(config.search.derive, **derive)
    return config


def reached_by(cell: Genotype, loss: float, epochs: float = 1.0) -> Candidate:
    return Candidate(cell, [Rung(epochs, loss, 50.0)])


def drawn(config: Config, count: int, first: Sequence[Genotype] = ()) -> list[Genotype]:
    """Return candidates whose results are all alike."""
    propose, entered = Proposer(config, 10, None, first), list[Candidate]()
    while len(entered) < count and (candidate := propose(entered)) is not None:
        candidate.rungs.append(Rung(1.0, 2.0, 50.0))
        entered.append(candidate)
    return [one.cell for one in entered]


def test_what_is_given_comes_first_then_others_within_the_budget() -> None:
    free = [cost_of(cell, MODEL, 10).macs for cell in drawn(make(), 12)]
    config = make(max_macs=sorted(free)[5])
    first = drawn(config, 12)[7]
    cells = drawn(config, 12, [first])
    assert cells[0] == first and len(set(cells)) == 12
    assert all(cost_of(cell, MODEL, 10).macs <= config.search.derive.max_macs for cell in cells)
    assert cells == drawn(config, 12, [first]), "a function of seed and results"
    config.runtime.seed = 1
    assert cells[1:] != drawn(config, 12, [first])[1:]


def test_candidates_that_learn_nothing_are_drawn_evenly() -> None:
    """Under a budget, among all cells that fit: counted, against the same number of each."""
    free = make(nodes=1, rule="strongest")
    space = Space.from_config(free.space)
    cells = [Genotype.from_ops(1, ops) for ops in itertools.product(space.operations, repeat=2)]
    costs = {cell: cost_of(cell, MODEL, 10).macs for cell in cells if is_viable(cell)}
    config = make(nodes=1, rule="strongest", learn=False, max_macs=sorted(costs.values())[len(costs) // 2])
    fitting = [cell for cell, macs in costs.items() if macs <= config.search.derive.max_macs]
    counts = dict.fromkeys(fitting[1:], 0)
    for seed in range(100 * len(counts)):
        config.runtime.seed = seed
        candidate = Proposer(config, 10, None, [])([reached_by(fitting[0], 1.0)])
        assert candidate is not None
        counts[candidate.cell] += 1
    assert len(counts) > 5 and stats.chisquare(list(counts.values())).pvalue > 0.001


def test_what_did_well_is_tried_more_often() -> None:
    """Of cells that lose less with every mlp_1, later candidates hold more of these than evenly drawn ones."""

    def tried(learn: bool) -> float:
        config, counts = make(learn=learn), []
        for seed in range(10):
            config.runtime.seed = seed
            entered: list[Candidate] = []
            while len(entered) < 12:
                candidate = Proposer(config, 10, None, [])(entered)
                assert candidate is not None
                candidate.rungs.append(Rung(1.0, 2.0 - 0.1 * candidate.cell.ops.count("mlp_1"), 50.0))
                entered.append(candidate)
            counts += [one.cell.ops.count("mlp_1") for one in entered[6:]]
        return float(np.mean(counts))

    assert tried(True) > 1.5 * tried(False)


def test_what_is_expected_of_a_candidate_comes_true() -> None:
    """Of the drawn cells, on average: they lose 2 less 0.1 for every mlp_1."""
    config, entered = make(), list[Candidate]()
    while len(entered) < 16:
        candidate = Proposer(config, 10, None, [])(entered)
        assert candidate is not None
        candidate.rungs.append(Rung(1.0, 2.0 - 0.1 * candidate.cell.ops.count("mlp_1"), 50.0))
        entered.append(candidate)
    assert all(one.expected is None for one in entered[:4])
    errors = [one.expected.loss - one.last.loss for one in entered[8:] if one.expected]
    assert len(errors) == 8 and abs(np.mean(errors)) < 0.05


def test_where_the_space_has_no_more_cells() -> None:
    config = make(nodes=1, cells=50, rule="strongest")
    config.space.heads, config.space.ratios = [2], []
    cells = drawn(config, 50)
    assert 0 < len(cells) == len(set(cells)) <= 5  # of 9 those with the attention: 5


@pytest.mark.parametrize("learn", [True, False])
def test_candidates_use_their_share_of_the_budget(learn: bool) -> None:
    """All that are drawn, by the model too, which then takes the best of many; with sizes as well."""
    for sizes in ({}, {"widths": [16, 32], "depths": [1, 2]}):
        config = make(cells=12)
        for name, values in sizes.items():
            setattr(config.space, name, values)
        config.search.finals.learn, config.search.finals.min_share = learn, 0.8
        entered, count = list[Candidate](), cost_counter(config, 10)
        limit = sorted(count(cell)[1] for cell in drawn(make(), 12))[8]
        config.search.derive.max_macs = limit
        propose = Proposer(config, 10, None, [])
        for _ in range(12):
            candidate = propose(entered)
            assert candidate is not None
            assert 0.8 * limit <= count(candidate.cell)[1] <= limit, "as it is counted"
            candidate.rungs.append(Rung(1.0, 2.0 - 0.1 * candidate.cell.ops.count("mlp_1"), 50.0))
            entered.append(candidate)
        assert len({one.cell for one in entered}) == 12
        counts = [one.cell.ops.count("mlp_1") for one in entered]
        assert not learn or np.mean(counts[6:]) > np.mean(counts[:4])
    config.search.derive.max_macs, config.search.finals.min_share = limit + 1, 0.9999999
    with pytest.raises(UserError, match=r"lower search\.finals\.min_share"):
        Proposer(config, 10, None, [])([])


def test_the_shipped_cell_is_a_candidate_where_it_may_be() -> None:
    shipped = load_genotype("dasvit_shift")
    config = make()
    assert Proposer(config, 10, None, []).shipped is None, "it is of another space"
    config.space = SpaceConfig(heads=[2, 4, 8], ratios=[0.5, 1.0, 2.0], shifts=[0.5, 1.0, 2.0])
    config.model = dataclasses.replace(MODEL, width=32)
    propose = Proposer(config, 10, None, [])
    assert propose.shipped == shipped
    candidate = propose([])
    assert candidate is not None and candidate.cell == shipped
    config.search.derive.max_macs = cost_of(shipped, config.model, 10).macs - 1
    assert Proposer(config, 10, None, []).shipped is None, "it is too dear"
    config.search.derive.max_macs, config.search.finals.shipped = 0, False
    assert Proposer(config, 10, None, []).shipped is None, "it is not wanted"


def test_the_best_candidate_decides_and_says_so() -> None:
    one, other = Genotype.from_ops(1, ["msa_2", "mlp_1"]), Genotype.from_ops(1, ["msa_4", "mlp_1"])
    derivation = Derivation(one, one, "")
    assert choose_best(derivation, [reached_by(one, 1.0), reached_by(other, 2.0)]) == derivation
    moved = choose_best(derivation, [reached_by(other, 1.25, epochs=3), reached_by(one, 1.5)])
    assert (moved.genotype, moved.unconstrained) == (other, one)
    assert "Of 2 candidates this cell was the best" in moved.reason
    assert "(loss 1.2500, top-1 50.00 % after 3 epochs)" in moved.reason
    assert "reached loss 1.5000, top-1 50.00 % after 1 epoch." in moved.reason
    assert choose_best(None, [reached_by(other, 1.0)]) == Derivation(other, other, "")


def test_a_short_training_warms_up_for_the_same_share() -> None:
    options = dataclasses.replace(Config().train, epochs=100)
    options.optim.warmup_epochs = 20
    short = short_training(options, 5)
    assert (short.epochs, short.eval_every, short.optim.warmup_epochs) == (5, 5, 1.0)
    assert options.optim.warmup_epochs == 20


def test_some_of_the_images() -> None:
    pixels = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)
    images = ImageSet(HeldPixels(pixels), np.arange(5)).select(np.array([4, 1]))
    assert len(images) == 2 and images.size == 2 and images.images.shape == (2, 2, 2, 3)
    assert np.array_equal(images.images[np.array([1, 0])], pixels[[1, 4]])
    assert images.labels.tolist() == [4, 1]


RUNGS = ["--search.finals.cells=4", "--search.finals.rungs=[0.5,1,2]"]


def test_a_search_with_finals(tmp_path: Path) -> None:
    options = [*RUNGS, "--space.heads=[2,4]", "--space.ratios=[0.5,1]", "--run", tmp_path / "run"]
    status, _, err = call_cli("search", *SMALL, *options)
    assert status == 0, err
    derivation = json.loads((tmp_path / "run/derivation.json").read_text())
    rows = derivation["finals"]
    assert [len(row["rungs"]) for row in rows] == [3, 2, 1, 1] and rows[0]["epochs"] == 2
    assert rows[2]["loss"] <= rows[3]["loss"]
    best = Genotype.from_dict(rows[0]["genotype"])
    assert load_genotype(tmp_path / "run") == best == Genotype.from_dict(derivation["genotype"])
    folders = list((tmp_path / "run/finals").iterdir())
    assert {load_genotype(folder) for folder in folders} == {Genotype.from_dict(row["genotype"]) for row in rows}
    assert not any((folder / "checkpoints").exists() for folder in folders)
    assert "candidate 4/4, 0.5 epochs: val loss" in err and "test top-1" not in err
    page = (tmp_path / "run/report.html").read_text()
    assert "Finals" in page and " · ".join(best.ops) in page
    again, _, err = call_cli("search", *SMALL, *options)
    assert again == 0, err
    assert json.loads((tmp_path / "run/derivation.json").read_text()) == derivation


def test_a_rung_is_a_pause_in_one_training(tmp_path: Path) -> None:
    """What a candidate reaches at its last rung is what one training without pauses reaches: to the bit."""
    common = ["--method", "finals", "--search.finals.cells=1"]
    runs = []
    for name, rungs in (("paused", "[0.5,1,2]"), ("whole", "[2]")):
        options = [*common, f"--search.finals.rungs={rungs}", "--run", tmp_path / name]
        status, _, err = call_cli("search", *SMALL, *options)
        assert status == 0, err
        runs.append(json.loads((tmp_path / name / "derivation.json").read_text())["finals"][0])
    assert runs[0]["loss"] == runs[1]["loss"] and runs[0]["genotype"] == runs[1]["genotype"]
    assert len(runs[0]["rungs"]) == 3


def test_a_rung_looks_at_some_of_the_images(tmp_path: Path) -> None:
    """All of 60, or 20 of them, on which shares are multiples of 5 %."""
    options = ["--method", "finals", *RUNGS, "--search.finals.images=20", "--run", tmp_path / "run"]
    assert call_cli("search", *SMALL, *options)[0] == 0
    rows = json.loads((tmp_path / "run/derivation.json").read_text())["finals"]
    assert all(row["top1"] % 5 == pytest.approx(0, abs=1e-9) for row in rows)


def test_several_candidates_at_a_time(tmp_path: Path) -> None:
    """In processes of their own; what each reaches is what it reaches here, and the same cells every time."""
    options = [*RUNGS, "--method", "finals"]
    found = []
    for name, jobs in (("here", 1), ("beside", 2), ("again", 2)):
        status, _, err = call_cli("search", *SMALL, *options, "--jobs", str(jobs), "--run", tmp_path / name)
        assert status == 0, err
        rows = json.loads((tmp_path / name / "derivation.json").read_text())["finals"]
        found.append({(str(row["genotype"]), str([r["loss"] for r in row["rungs"]])) for row in rows})
    assert found[1] == found[2] and len(found[0] & found[1]) >= 3  # the first few are drawn without knowledge
    status, _, err = call_cli("search", *SMALL, *options, "--jobs", "0", "--run", tmp_path / "none")
    assert status == 2 and "jobs" in err


def test_recipes_of_older_versions_are_read() -> None:
    """Epochs, a last round and a gain become rungs; the shipped cell was no candidate then."""
    old = {"cells": 12, "epochs": 1, "last": 4, "last_epochs": 3, "gain": 4.0}
    read = recipes.from_dict({"search": {"finals": recipes.with_rungs(old)}}).search.finals
    assert (read.cells, read.rungs, read.learn, read.shipped) == (12, [1, 3], True, False)
    assert recipes.with_rungs({"cells": 3, "epochs": 2, "last": 0, "gain": 0.0})["rungs"] == [2]
    assert recipes.with_rungs({"cells": 3, "rungs": [1, 2]}) == {"cells": 3, "rungs": [1, 2]}


def test_finals_without_a_supernet(tmp_path: Path) -> None:
    options = ["--method", "finals", "--search.finals.cells=3", "--run", tmp_path / "run"]
    status, _, err = call_cli("search", *SMALL, *options)
    assert status == 0, err
    derivation = json.loads((tmp_path / "run/derivation.json").read_text())
    assert len(derivation["finals"]) == 3
    assert load_genotype(tmp_path / "run") == Genotype.from_dict(derivation["finals"][0]["genotype"])
    page = Page((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert "Ended." in page.said and "drawn evenly at first, then by what the ones before them reached" in page.said
    assert "Weights of the operations" not in page.said and "mixture" not in page.said


@pytest.mark.parametrize("method", ["finals", "random"])
def test_no_supernet_is_timed_where_none_is_trained(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finals time a step of a candidate's training; random trains nothing, and times nothing."""

    def built(*arguments: object) -> None:
        raise AssertionError("a supernet was built")

    monkeypatch.setattr("dasvit.search.state.make_supernet", built)
    more = ["--search.finals.cells=2"] if method == "finals" else ["--search.finals.cells=0"]
    status, _, err = call_cli(
        "search", *SMALL, "--method", method, *more, "--runtime.precision=auto", "--run", tmp_path / "run"
    )
    assert status == 0, err
    notes = json.loads((tmp_path / "run/environment.json").read_text())
    assert ("precision_seconds" in notes) == (method == "finals")
    assert notes["precision"] == "float32" or method == "finals"


def test_the_page_of_finals_that_go_on(tmp_path: Path) -> None:
    """There are no epochs to count while they run, and no weights to show."""
    options = ["--method", "finals", "--search.finals.cells=2", "--max-minutes=0.001", "--run", tmp_path / "run"]
    assert call_cli("search", *SMALL, *options)[0] == 0
    assert not (tmp_path / "run/genotype.json").exists()
    page = Page((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert "Not ended: before the finals' end." in page.said
    assert "Nothing to show yet: the finals have not ended." in page.said


def test_who_has_finals() -> None:
    config = make()
    assert with_method(config, "dasvit").search.finals.cells == 8
    assert with_method(config, "darts").search.finals.cells == with_method(config, "p-darts").search.finals.cells == 0
    for method in ("random", "evolution"):
        with pytest.raises(UserError, match=r"leave search\.finals\.cells at 0, or take the method finals"):
            validate(with_method(config, method, ["search.finals.cells"]))
    assert with_method(config, "random").search.finals.cells == 0


def test_finals_as_a_method() -> None:
    config = with_method(make(cells=8), "finals")
    assert config.search.finals.cells == 8 == with_method(config, "finals").search.finals.cells
    validate(config)
    assert with_method(make(cells=0), "finals").search.finals.cells == 16
    assert with_method(make(), "finals").search.tokens.ratio == 1
    config.search.random.reference = "dasvit_cifar10"
    with pytest.raises(UserError, match=r"asks for one cell of that cost.*or take the method random"):
        validate(config)
    with pytest.raises(UserError, match=r"needs finalists: raise search\.finals\.cells"):
        validate(with_method(make(cells=0), "finals", ["search.finals.cells"]))


@pytest.mark.parametrize(
    ("rungs", "words"),
    [
        ([], "needs epochs above 0 that rise"),
        ([0, 1], "needs epochs above 0 that rise"),
        ([2, 1], "that rise, as"),
        ([1, 1], "that rise, as"),
        ([0.5, 1.5], "must be whole epochs, not 1.5"),
    ],
)
def test_rungs_that_cannot_be(rungs: list[float], words: str) -> None:
    config = make()
    config.search.finals.rungs = rungs
    with pytest.raises(UserError, match=words):
        validate(config)


@pytest.fixture(scope="module")
def finals_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search by finals alone, of four candidates."""
    run = tmp_path_factory.mktemp("finals") / "run"
    options = ["--method", "finals", "--search.finals.cells=4", "--run", run]
    assert call_cli("search", *SMALL, *options, "--space.ratios=[1,2]")[0] == 0
    return run


def reached(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((run / "derivation.json").read_text())["finals"]
    return rows


def test_derive_returns_the_winner_of_finals(finals_run: Path) -> None:
    """Not the cell that was drawn first."""
    status, out, err = call_cli("derive", finals_run, "--json")
    assert status == 0, err
    assert json.loads(out)["genotype"] == reached(finals_run)[0]["genotype"]
    assert json.loads((finals_run / "genotype.json").read_text()) == reached(finals_run)[0]["genotype"]


def test_derive_within_a_budget_takes_the_best_candidate_that_fits(finals_run: Path) -> None:
    rows = reached(finals_run)
    for limit in sorted({row["macs"] for row in rows}):
        status, out, err = call_cli("derive", finals_run, "--max-macs", limit, "--json")
        assert status == 0, err
        best = next(row for row in rows if row["macs"] <= limit)
        assert json.loads(out)["genotype"] == best["genotype"]


def test_derive_below_every_candidate_goes_by_what_their_operations_did(tmp_path: Path) -> None:
    """Three candidates with mlp_2 are the worse the more of it they hold; the smallest cells hold none."""
    config = make(cells=3)
    cells = [
        Genotype.from_ops(2, ops)
        for ops in (
            ["msa_2", "mlp_1", "zero", "msa_2", "mlp_1"],
            ["msa_2", "mlp_1", "msa_2", "zero", "mlp_1"],
            ["msa_2", "mlp_0.5", "msa_4", "mlp_1", "zero"],
        )
    ]
    candidates = [reached_by(cell, loss) for cell, loss in zip(cells, (1.0, 1.5, 2.0), strict=True)]
    smallest = min(cost_of(cell, MODEL, 10).params for cell in cells)
    choice = dataclasses.replace(config.search.derive, max_params=smallest - 1)
    past = PastSearch(config, None, candidates, 10)
    found = past.derive(choice, by_weights=False)
    assert cost_of(found.genotype, MODEL, 10).params < smallest and found.unconstrained == cells[0]
    assert "None of 3 candidates fits" in found.reason
    free = past.derive(config.search.derive, by_weights=False)
    assert free.genotype == cells[0] and not free.reason


@pytest.fixture(scope="module")
def evolution_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("evolution") / "run"
    sizes = {"population": 8, "generations": 1, "parents": 3}
    options = [f"--search.evolution.{name}={size}" for name, size in sizes.items()]
    more = ["--space.ratios=[0.5,1,2]", "--method", "evolution", "--run", run]
    status, _, err = call_cli("search", *SMALL, *options, *more)
    assert status == 0, err
    return run


def evaluated_rows(run: Path) -> list[dict[str, Any]]:
    last: dict[str, Any] = json.loads((run / "architecture.jsonl").read_text().splitlines()[-1])
    rows: list[dict[str, Any]] = last["method"]["cells"]
    return rows


def test_derive_ranks_the_cells_that_an_evolution_evaluated(evolution_run: Path) -> None:
    rows = evaluated_rows(evolution_run)
    assert len(rows) > 5 and [row["top1"] for row in rows] == sorted((row["top1"] for row in rows), reverse=True)
    assert load_genotype(evolution_run).ops == tuple(rows[0]["ops"])
    model = recipes.load(evolution_run / "config.yaml").model
    macs = [cost_of(Genotype.from_ops(2, row["ops"]), model, 10).macs for row in rows]
    for limit in sorted(set(macs)):
        status, out, err = call_cli("derive", evolution_run, "--max-macs", limit, "--json")
        assert status == 0, err
        place = next(place for place, cost in enumerate(macs) if cost <= limit)
        derived = json.loads(out)
        assert Genotype.from_dict(derived["genotype"]).ops == tuple(rows[place]["ops"])
        assert ("in the supernet" in derived["reason"]) == (place > 0)
    status, out, err = call_cli("derive", evolution_run, "--max-macs", min(macs) - 1, "--json")
    assert status == 0, err
    assert f"None of {len(rows)} candidates fits" in json.loads(out)["reason"]


def test_an_evolution_of_an_older_version_is_derived_from_its_weights(evolution_run: Path, tmp_path: Path) -> None:
    """It noted no cells, and the weights of its best one at 1."""
    run = tmp_path / "run"
    shutil.copytree(evolution_run, run)
    lines = [json.loads(line) for line in (run / "architecture.jsonl").read_text().splitlines()]
    best = Genotype.from_ops(2, lines[-1]["method"].pop("cells")[1]["ops"])
    for op, weights in zip(best.ops, lines[-1]["weights"].values(), strict=True):
        weights.update({name: float(name == op) for name in weights})
    (run / "architecture.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, out, err = call_cli("derive", run, "--json")
    assert status == 0, err
    assert Genotype.from_dict(json.loads(out)["genotype"]) == best


def test_cells_of_another_space_are_named(evolution_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(evolution_run, run)
    path = run / "architecture.jsonl"
    for cells in ([{"ops": ["msa_3"] * 5, "top1": 1.0}], [{"ops": ["msa_2"], "top1": 1.0}], [{"ops": ["zero"] * 5}], 3):
        last = json.loads(path.read_text().splitlines()[-1])
        last["method"]["cells"] = cells
        path.write_text(json.dumps(last) + "\n")
        status, _, err = call_cli("derive", run)
        assert status == 2 and "does not fit the run's config.yaml" in err, cells


def test_a_random_search_has_nothing_to_derive_from(tmp_path: Path) -> None:
    assert call_cli("search", *SMALL, "--method", "random", "--run", tmp_path / "run")[0] == 0
    status, _, err = call_cli("derive", tmp_path / "run")
    assert status == 2 and "a search by random has no edge weights" in err


def test_a_search_says_what_it_has_over_the_shipped_cell(tmp_path: Path) -> None:
    space = ["--space.heads=[2,4,8]", "--space.ratios=[0.5,1,2]", "--space.shifts=[0.5,1,2]", "--model.width=16"]
    options = ["--method", "finals", *RUNGS, *space, "--run", tmp_path / "run"]
    status, out, err = call_cli("search", *SMALL, *options)
    assert status == 0, err
    content = json.loads((tmp_path / "run/derivation.json").read_text())
    shipped = load_genotype("dasvit_shift").to_dict()
    row = next(row for row in content["finals"] if row["genotype"] == shipped)
    assert content["shipped"] == row["rungs"][-1] and row["epochs"] == 2
    if content["genotype"] == shipped:
        assert "No candidate was better than dasvit_shift" in out
    else:
        best = content["finals"][0]
        tie = "within the noise of the validation images: a tie" in out
        assert tie == (best.get("tied", False) and row.get("tied", False))
        assert tie or f"against loss {row['loss']:.4f}, top-1 {row['top1']:.2f} %" in out
