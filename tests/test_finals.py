"""The finals: which cells are tried, what their results teach, and that the best one is the search's."""

import dataclasses
import itertools
import json
import shutil
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
from dasvit.search.candidates import (
    Candidate,
    best_first,
    choose_best,
    next_candidate,
    operation_effects,
    short_training,
)
from dasvit.search.derivation import derive_found, even_stages
from dasvit.search.derive import Derivation
from dasvit.search.past_run import PastSearch
from dasvit.search.stages import Stages, StageWeights
from helpers import SMALL, call_cli
from test_report_page import Page

COST = ("parameters", "multiply-adds")

MODEL = ModelConfig(image_size=8, patch_size=2, width=16, layers=2, heads=2)


def make(nodes: int = 2, cells: int = 8, gain: float = 4.0, **derive: Any) -> Config:
    config = Config(model=MODEL, space=SpaceConfig(nodes=nodes, heads=[2, 4], ratios=[0.5, 1.0]))
    config.search.finals = FinalsConfig(cells=cells, gain=gain)
    config.search.derive = dataclasses.replace(config.search.derive, **derive)
    return config


def even(config: Config) -> Stages:
    space = Space.from_config(config.space)
    row = [1 / len(space.operations)] * len(space.operations)
    return [StageWeights([list(row) for _ in space.edges], space.everything())]


def final(cell: Genotype, top1: float) -> Candidate:
    return Candidate(cell, top1, 1.0, 1.0)


def drawn(config: Config, stages: Stages, count: int) -> list[Genotype]:
    finals = [final(derive_found(stages, config, 10, config.search.derive).genotype, 50.0)]
    while len(finals) < count and (cell := next_candidate(stages, config, 10, finals)) is not None:
        finals.append(final(cell, 50.0))
    return [one.cell for one in finals]


def test_derivations_choice_comes_first_then_others_within_the_budget() -> None:
    free = [cost_of(cell, MODEL, 10).macs for cell in drawn(make(), even(make()), 12)]
    limit = sorted(free)[5]
    config = make(max_macs=limit)
    stages = even(config)
    stages[0][0][1][2] = 0.5  # msa_2 on prev1→x1
    cells = drawn(config, stages, 12)
    assert cells[0] == derive_found(stages, config, 10, config.search.derive).genotype
    assert len(set(cells)) == 12
    assert all(cost_of(cell, MODEL, 10).macs <= limit for cell in cells)
    assert cells == drawn(config, stages, 12), "a function of seed, weights and results"
    config.runtime.seed = 1
    assert cells[1:] != drawn(config, stages, 12)[1:]


def test_finalists_that_learn_nothing_are_drawn_evenly() -> None:
    """Under a budget, among all cells that fit: counted, against the same number of each."""
    free = make(nodes=1, rule="strongest")
    space = Space.from_config(free.space)
    cells = [Genotype.from_ops(1, ops) for ops in itertools.product(space.operations, repeat=2)]
    costs = {cell: cost_of(cell, MODEL, 10).macs for cell in cells if is_viable(cell)}
    config = make(nodes=1, rule="strongest", gain=0, max_macs=sorted(costs.values())[len(costs) // 2])
    config.search.method = "finals"
    fitting = [cell for cell, macs in costs.items() if macs <= config.search.derive.max_macs]
    counts = dict.fromkeys(fitting[1:], 0)
    for seed in range(100 * len(counts)):
        config.runtime.seed = seed
        cell = next_candidate(even(config), config, 10, [final(fitting[0], 10.0)])
        assert cell is not None
        counts[cell] += 1
    assert len(counts) > 5 and stats.chisquare(list(counts.values())).pvalue > 0.001


def test_an_operation_of_twice_the_weight_is_drawn_twice_as_often() -> None:
    config = make(nodes=1, rule="strongest")
    space = Space.from_config(config.space)
    row = {"zero": 1, "identity": 1, "msa_2": 4, "msa_4": 2, "mlp_0.5": 1, "mlp_1": 1}
    weights = [[row[op] / 10 for op in space.operations], [float(op == "msa_2") for op in space.operations]]
    counts = dict.fromkeys(row, 0)
    first = final(Genotype.from_ops(1, ["mlp_1", "mlp_1"]), 10.0)  # not viable, so that it never stands in the way
    for seed in range(1500):
        config.runtime.seed = seed
        cell = next_candidate([StageWeights(weights, space.everything())], config, 10, [first])
        assert cell is not None
        assert cell.ops[1] == "msa_2"  # so it is viable whatever the first edge has
        counts[cell.ops[0]] += 1
    share = {op: count / sum(counts.values()) for op, count in counts.items()}
    for op, weight in row.items():
        assert share[op] == pytest.approx(weight / 10, abs=0.05), op


def test_pruned_operations_may_come_back() -> None:
    config = make()
    space = Space.from_config(config.space)
    first = even(config)[0][0]
    alive = tuple(tuple(op in ("zero", "msa_2", "mlp_1") for op in space.operations) for _ in space.edges)
    last = [[0.4 if keep else 0.0 for keep in row] for row in alive]
    cells = drawn(config, [StageWeights(first, space.everything()), StageWeights(last, alive)], 12)
    assert set(cells[0].ops) <= {"zero", "msa_2", "mlp_1"}
    assert {op for cell in cells for op in cell.ops} > {"zero", "msa_2", "mlp_1"}


def test_what_results_teach_by_hand() -> None:
    space = Space(1, ("zero", "identity", "msa_2", "mlp_1"))
    cells = [Genotype.from_ops(1, ops) for ops in (["msa_2", "mlp_1"], ["msa_2", "identity"], ["zero", "msa_2"])]
    finals = [final(cell, top1) for cell, top1 in zip(cells, (60.0, 50.0, 40.0), strict=True)]
    z = float(np.sqrt(1.5))  # 10 points are so many standard deviations
    # mlp_1 stood once, on the second edge, at +z: half of it there, a half of it everywhere
    # msa_2 stood at +z and 0 on the first edge, at -z on the second: z/3 and -z/2, and 0 everywhere
    expected = np.zeros((2, 4))
    expected[0] = [0, 0, z / 3, z / 2]
    expected[0, 3] = z / 2
    expected[1] = [0, 0, -z / 2, z / 2 + z / 2]
    expected[0, 2] += 0.0
    np.testing.assert_allclose(operation_effects(finals, space, 2.0), expected, atol=1e-12)
    assert not operation_effects(finals[:2], space, 2.0).any(), "two teach nothing"
    assert not operation_effects([final(cell, 50.0) for cell in cells], space, 2.0).any(), "nor do equal ones"
    assert not operation_effects(finals, space, 0.0).any()


def test_what_did_well_is_tried_more_often() -> None:
    """Of cells that reach more with every mlp_1, later finalists hold more of these than the first ones."""

    def tried(gain: float) -> float:
        config, counts = make(gain=gain), []
        for seed in range(20):
            config.runtime.seed = seed
            finals: list[Candidate] = []
            while len(finals) < 12:
                cell = next_candidate(even(config), config, 10, finals)
                assert cell is not None
                finals.append(final(cell, 40.0 + 5 * cell.ops.count("mlp_1")))
            counts += [one.cell.ops.count("mlp_1") for one in finals[6:]]
        return float(np.mean(counts))

    assert tried(4.0) > 1.5 * tried(0.0)


def test_where_the_space_has_no_more_cells() -> None:
    config = make(nodes=1, cells=50, rule="strongest")
    config.space.heads, config.space.ratios = [2], []
    cells = drawn(config, even(config), 50)
    assert 0 < len(cells) == len(set(cells)) <= 5  # of 9 those with the attention: 5


def test_the_best_final_decides_and_says_so() -> None:
    one, other = Genotype.from_ops(1, ["msa_2", "mlp_1"]), Genotype.from_ops(1, ["msa_4", "mlp_1"])
    derivation = Derivation(one, one, "")
    assert choose_best(derivation, [final(one, 50.0), final(other, 40.0)]) == derivation
    moved = choose_best(derivation, [Candidate(other, 50.0, 1.0, 1.0, epochs=3), final(one, 40.25)])
    assert (moved.genotype, moved.unconstrained) == (other, one)
    assert "Of 2 finalists this cell was the best" in moved.reason
    assert "50.00 % in 3 epochs" in moved.reason and "40.25 % in 1." in moved.reason


def test_who_was_trained_longer_stands_before_the_others() -> None:
    cells = [Genotype.from_ops(1, ["msa_2", op]) for op in ("mlp_1", "identity", "zero", "msa_2")]
    finals = [final(cell, top1) for cell, top1 in zip(cells, (50.0, 60.0, 60.0, 40.0), strict=True)]
    longer = dataclasses.replace(finals[3], epochs=2)
    assert best_first([*finals[:3], longer]) == [longer, finals[1], finals[2], finals[0]]


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


def test_a_search_with_finals(tmp_path: Path) -> None:
    finals = ["--search.finals.cells=3", "--search.finals.epochs=1"]
    options = [*finals, "--space.heads=[2,4]", "--space.ratios=[0.5,1]", "--run", tmp_path / "run"]
    status, _, err = call_cli("search", *SMALL, *options)
    assert status == 0, err
    derivation = json.loads((tmp_path / "run/derivation.json").read_text())
    finals = derivation["finals"]
    assert len(finals) == 3 and finals == sorted(finals, key=lambda row: (-row["top1"], row["loss"]))
    best = Genotype.from_dict(finals[0]["genotype"])
    assert load_genotype(tmp_path / "run") == best == Genotype.from_dict(derivation["genotype"])
    folders = list((tmp_path / "run/finals").iterdir())
    assert {load_genotype(folder) for folder in folders} == {Genotype.from_dict(row["genotype"]) for row in finals}
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    assert sorted(row["top1"] for row in results) == sorted(row["top1"] for row in finals)
    assert not any((folder / "checkpoints").exists() for folder in folders)
    assert "finalist 3/3: val top-1" in err and "test top-1" not in err
    page = (tmp_path / "run/report.html").read_text()
    assert "Finals" in page and " · ".join(best.ops) in page
    again, _, err = call_cli("search", *SMALL, *options)
    assert again == 0, err
    assert json.loads((tmp_path / "run/derivation.json").read_text()) == derivation


def test_without_a_supernet_all_are_as_likely() -> None:
    config = make()
    space = Space.from_config(config.space)
    seen: set[tuple[int, str]] = set()
    for seed in range(10):
        config.runtime.seed = seed
        cells = drawn(config, even_stages(space), 12)
        assert len(set(cells)) == 12
        seen |= {place for cell in cells[1:] for place in enumerate(cell.ops)}
    others = [op for op in space.operations if op != "zero"]
    assert seen >= {(edge, op) for edge in range(len(space.edges)) for op in others}


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


def test_the_last_round(tmp_path: Path) -> None:
    """The best two of three are trained anew for two epochs, in folders of their own; the best of these is the cell."""
    finals = ["--search.finals.cells=3", "--search.finals.epochs=1", "--search.finals.last=2"]
    options = [*finals, "--search.finals.last_epochs=2", "--space.heads=[2,4]", "--run", tmp_path / "run"]
    status, _, err = call_cli("search", *SMALL, *options)
    assert status == 0, err
    rows = json.loads((tmp_path / "run/derivation.json").read_text())["finals"]
    assert [row["epochs"] for row in rows] == [2, 2, 1] and rows[0]["top1"] >= rows[1]["top1"]
    assert load_genotype(tmp_path / "run") == Genotype.from_dict(rows[0]["genotype"])
    folders = list((tmp_path / "run/finals").iterdir())
    assert len(folders) == 5 and sum(folder.name.endswith("-2") for folder in folders) == 2
    assert "last round 2/2: val top-1" in err
    page = Page((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    table = page.table_of("prev2→x1 · prev1→x1 · prev2→x2 · prev1→x2 · x1→x2", "val top-1", "epochs", *COST)
    assert [row[2] for row in table] == ["2", "2", "1"]
    assert "finals not counted" in page.said


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
    assert with_method(make(cells=0), "finals").search.finals.cells == 12
    assert with_method(make(), "finals").search.tokens.ratio == 1
    config.search.random.reference = "dasvit_cifar10"
    with pytest.raises(UserError, match=r"asks for one cell of that cost.*or take the method random"):
        validate(config)
    with pytest.raises(UserError, match=r"needs finalists: raise search\.finals\.cells"):
        validate(with_method(make(cells=0), "finals", ["search.finals.cells"]))


def test_a_last_round_is_longer_than_the_first() -> None:
    config = make()
    config.search.finals = FinalsConfig(cells=8, epochs=3, last=2)
    with pytest.raises(
        UserError, match=r"longer than 3 epochs.*raise search\.finals\.last_epochs, which is 3, or leave"
    ):
        validate(config)
    config.search.finals.last_epochs = 4
    validate(config)
    config.search.finals = FinalsConfig(cells=8, epochs=25)
    validate(config)


@pytest.fixture(scope="module")
def finals_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search by finals alone, of four candidates."""
    run = tmp_path_factory.mktemp("finals") / "run"
    options = ["--method", "finals", "--search.finals.cells=4", "--search.finals.epochs=1", "--run", run]
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
    candidates = [Candidate(cell, top1, 1.0, 0.0) for cell, top1 in zip(cells, (60.0, 50.0, 40.0), strict=True)]
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
