"""Cells and sizes searched together: exact within a budget, and all of a search's road with them."""

import dataclasses
import itertools
import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import dasvit
import test_candidates_killed as killed
from dasvit.cell.cost import network_cost, vit_cost
from dasvit.cell.genotype import Genotype, is_viable, load_genotype
from dasvit.cell.size_space import at, at_cell, sizes_of_space
from dasvit.cell.sizes import Sizes
from dasvit.cell.space import Space
from dasvit.config import Config, FinalsConfig, ModelConfig, SpaceConfig
from dasvit.config.methods import with_method
from dasvit.config.validation import validate
from dasvit.errors import UserError
from dasvit.latency import table as tables
from dasvit.latency.measure import Latency, Machine, this_machine
from dasvit.latency.table import LatencyTable, find_table, sizes_of, with_table
from dasvit.models.cost import cost_of
from dasvit.runtime.progress import Reporter
from dasvit.search.cost import make_budget
from dasvit.search.expected import make_features
from dasvit.search.front import budget_use, describe_use, front_of
from dasvit.search.halving import Candidate, Rung
from dasvit.search.proposal import Proposer
from dasvit.search.sized import best_network, draw_network, fits, pools_within
from dasvit.search.surrogate import SIZED, LinearModel, common_losses
from helpers import SMALL, call_cli
from test_report_page import Page

MODEL = ModelConfig(image_size=8, patch_size=2, width=16, layers=2, heads=2)
LISTS: dict[str, Any] = {"widths": [8, 12, 18], "depths": [1, 2], "patches": [2, 4]}


def make(nodes: int = 1, lists: dict[str, Any] = LISTS, **derive: Any) -> Config:
    config = Config(model=MODEL, space=SpaceConfig(nodes=nodes, heads=[2, 4], ratios=[0.5, 1.0], **lists))
    config = with_method(config, "finals")
    config.search.finals = FinalsConfig(cells=8)
    config.search.derive = dataclasses.replace(config.search.derive, **derive)
    validate(config)
    return config


def everything(config: Config) -> list[Genotype]:
    """Return every viable network of a space whose rule is strongest, listed one by one."""
    found = []
    for sizes in sizes_of_space(config):
        space = Space.from_config(at(config, sizes).space)
        cells = itertools.product(space.operations, repeat=len(space.edges))
        found += [Genotype.from_ops(space.nodes, ops).sized(sizes) for ops in cells]
    return [cell for cell in found if is_viable(cell)]


def test_the_sizes_of_a_space() -> None:
    config = make()
    sizes = sizes_of_space(config)
    assert len(sizes) == 12 and sizes[0] == Sizes(8, 1, 2, image_size=8)
    assert Space.from_config(at(config, Sizes(18, 1, 2)).space).operations[2:4] == ("msa_2", "mlp_0.5")
    assert at(config, sizes[0]).model.width == 8 and at(config, None) is config
    assert sizes_of_space(make(lists={})) == []
    odd = make(lists={"widths": [8, 9], "stems": ["patch", "conv"], "patches": [1, 2]})
    found = sizes_of_space(odd)
    assert {one.width for one in found} == {8}, "no head divides 9"
    assert {(one.stem, one.patch_size) for one in found} == {("patch", 1), ("patch", 2), ("conv", 2)}


@pytest.mark.parametrize("limit", ["max_macs", "max_params"])
def test_the_best_network_is_the_best_of_all_listed(limit: str) -> None:
    """Under random coefficients, against every network of the space, listed."""
    free = make(rule="strongest")
    costs = {cell: getattr(network_cost(cell, MODEL, 5), limit.removeprefix("max_")) for cell in everything(free)}
    some = random.Random(0).sample(list(costs), 12)
    seen = [Candidate(cell, [Rung(1.0, 2.0 + 0.1 * place, 50.0)]) for place, cell in enumerate(some)]
    for seed in range(6):
        limits = {limit: sorted(costs.values())[len(costs) * (seed + 1) // 9]}
        config = make(rule="strongest", **limits)
        model = LinearModel(make_features(config, 5, None), some, common_losses(seen))
        coefficients = np.random.default_rng(seed).normal(size=len(model.features.groups) + 1)
        sizes = [one for one in pools_within(config, 5) if one is not None]
        best = best_network(coefficients, model, sizes, config, 5)
        fitting = [cell for cell, cost in costs.items() if cost <= limits[limit]]
        values = model.features.rows(fitting) @ coefficients[:-1]
        assert best in fitting
        assert getattr(cost_of(best, MODEL, 5), limit.removeprefix("max_")) == costs[best], "as counted on the network"
        assert model.features.rows([best]) @ coefficients[:-1] == pytest.approx(values.min(), abs=1e-6)


def test_features_of_sizes() -> None:
    config = make()
    features = make_features(config, 5, None)
    assert features.names[-2:] == SIZED
    cells = [Genotype.from_ops(1, ["msa_2", "mlp_1"]).sized(sizes) for sizes in sizes_of_space(config)]
    rows = features.rows(cells)
    own = rows[:, np.isin(features.groups, [4, 5])]
    assert features.levels == [
        ("width", 8),
        ("width", 12),
        ("width", 18),
        ("layers", 1),
        ("layers", 2),
        ("patch_size", 2),
        ("patch_size", 4),
    ]
    assert own[0, :-1].tolist() == [1, 0, 0, 1, 0, 1, 0] and (own[:, :-1].sum(axis=1) == 3).all()
    logs = own[:, -1]
    assert logs.mean() == pytest.approx(0) and logs.std() == pytest.approx(1)
    macs = [cost_of(cell, MODEL, 5).macs for cell in cells]
    assert stats.spearmanr(logs, macs).statistic > 0.95
    assert len({tuple(row) for row in rows[:, features.groups < 4]}) == 1, "the cell is the same"
    assert make_features(make(lists={}), 5, None).names == features.names[:-2]


def test_the_effect_of_a_size_is_what_it_changes_of_the_expected_loss() -> None:
    """Against what the model expects of one cell at all sizes, and of draws from it."""
    config = make()
    features, chance = make_features(config, 5, None), np.random.default_rng(0)
    cells = [Genotype.from_ops(1, ["msa_2", "mlp_1"]).sized(sizes) for sizes in sizes_of_space(config)]
    losses = np.array([2.0 - 0.3 * (cell.sizes.width == 18) for cell in cells if cell.sizes])
    model = LinearModel(features, cells, losses + 0.05 * chance.standard_normal(len(cells)))
    found, expected = model.size_effects(), model.predict(cells)[0]
    assert list(found) == [f"{name.replace('_', ' ')} {value}" for name, value in features.levels]
    drawn = np.array([features.rows(cells) @ model.draw_coefficients(chance)[:-1] for _ in range(2000)])
    for (name, value), (effect, sd) in zip(features.levels, found.values(), strict=True):
        own = [getattr(cell.sizes, name) == value for cell in cells]
        assert effect == pytest.approx(expected[own].mean() - expected.mean(), abs=1e-9)
        apart = (drawn[:, own].mean(axis=1) - drawn.mean(axis=1)) * model.losses.std()
        assert sd == pytest.approx(apart.std(), rel=0.1)
    assert min(found, key=lambda name: found[name][0]) == "width 18"
    assert LinearModel(make_features(make(lists={}), 5, None), [], np.zeros(0)).size_effects() == {}


def test_a_model_learns_what_width_does() -> None:
    """Losses that fall by 0.3 with the width 18, of drawn networks: it is proposed more and more."""
    config, entered = make(nodes=2), list[Candidate]()
    propose = Proposer(config, 5, None, [])
    while len(entered) < 14:
        candidate = propose(entered)
        assert candidate is not None and candidate.cell.sizes is not None
        candidate.rungs.append(Rung(1.0, 2.0 - 0.3 * (candidate.cell.sizes.width == 18), 50.0))
        entered.append(candidate)
    wide = [one.cell.sizes.width == 18 for one in entered if one.cell.sizes]
    assert sum(wide[-6:]) >= 5 and len({one.cell for one in entered}) == 14
    assert entered[-1].expected is not None and entered[-1].expected.loss < 1.9


def test_networks_are_drawn_evenly_over_the_sizes_that_fit() -> None:
    free = make()
    costs = sorted(network_cost(cell, MODEL, 5).macs for cell in everything(make(rule="strongest")))
    config = make(max_macs=costs[len(costs) // 3])
    pools, chance = pools_within(config, 5), random.Random(0)
    assert 0 < len(pools) < len(pools_within(free, 5))
    drawn = [draw_network(pools, chance) for _ in range(100 * len(pools))]
    counts = [sum(cell.sizes == sizes for cell in drawn) for sizes in pools]
    assert stats.chisquare(counts).pvalue > 0.001
    assert all(network_cost(cell, MODEL, 5).macs <= costs[len(costs) // 3] for cell in drawn)
    assert all(fits(cell, config, 5) for cell in drawn[:20])


def test_no_candidate_is_above_the_budget() -> None:
    config, entered = make(nodes=2, max_macs=20_000), list[Candidate]()
    propose = Proposer(config, 5, None, [])
    while len(entered) < 20 and (candidate := propose(entered)) is not None:
        candidate.rungs.append(Rung(1.0, random.Random(len(entered)).random(), 50.0))
        entered.append(candidate)
    assert len(entered) == 20
    assert all(cost_of(one.cell, MODEL, 5).macs <= 20_000 for one in entered)


def test_the_shipped_cell_is_a_candidate_at_the_largest_sizes_that_fit() -> None:
    shipped = load_genotype("dasvit_shift")
    config = make(nodes=2, lists={"widths": [8, 16, 32], "depths": [1, 2]})
    config.space.heads, config.space.ratios, config.space.shifts = [2, 4], [0.5, 1.0, 2.0], [2.0]
    assert Proposer(config, 10, None, []).shipped == shipped.sized(Sizes(32, 2, 2, image_size=8))
    config.search.derive.max_macs = cost_of(shipped.sized(Sizes(16, 2, 2)), MODEL, 10).macs
    found = Proposer(config, 10, None, [])
    assert found.shipped == shipped.sized(Sizes(16, 2, 2, image_size=8))
    first = found([])
    assert first is not None and first.cell == found.shipped
    config.search.derive.max_macs = cost_of(shipped.sized(Sizes(8, 1, 2)), MODEL, 10).macs - 1
    assert Proposer(config, 10, None, []).shipped is None


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"widths": [9]}, "no width of .9. is divisible by a head count of .2, 4."),
        ({"widths": [8, 8]}, "space.widths names one twice"),
        ({"depths": [0]}, "space.depths must all be at least 1"),
        ({"patches": [3]}, "space.patches has 3, but an image of 8 pixels is not divisible"),
        ({"widths": list(range(2, 80, 2)), "depths": list(range(1, 11))}, "390 combinations of sizes, more than 200"),
    ],
)
def test_sizes_that_cannot_be(edit: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        pools_within(make(lists=edit), 5)


def test_where_none_fits_the_cheapest_network_is_named() -> None:
    costs = {cell: network_cost(cell, MODEL, 5) for cell in everything(make(rule="strongest"))}
    least = min(cost.macs for cost in costs.values())
    with pytest.raises(UserError, match=rf"smallest has {least:,} multiply-adds .limit {least - 1:,}., of width 8, 1"):
        pools_within(make(rule="strongest", max_macs=least - 1), 5)
    assert pools_within(make(rule="strongest", max_macs=least), 5)


def made_up(config: Config, machine: Machine) -> LatencyTable:
    operations = Space.from_config(config.space).operations
    times = {op: 0.0 if op == "zero" else 1e-6 * (place + config.model.width) for place, op in enumerate(operations)}
    return LatencyTable(machine, sizes_of(config.model), 1e-5, 1e-6, times, 0.0)


def test_latency_tables_are_measured_once_for_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of this machine's tables grows; another machine's is refused where it lacks one."""
    config, asked = make(nodes=2, max_latency="55us"), list[Any]()
    config.data.cache = str(tmp_path / "cache")
    here = this_machine(config.search.latency)

    def measured(config: Config, *_: Any) -> LatencyTable:
        asked.append(sizes_of(config.model))
        return made_up(config, here)

    monkeypatch.setattr(tables, "measure_table", measured)
    own_tables = tmp_path / "latency"
    own_tables.mkdir()
    config = with_table(config, own_tables)
    assert pools_within(config, 5) and not list(own_tables.iterdir()), "no run's folder: it is read alone"
    assert len(asked) == 12, "what is cached is not measured again"
    (tmp_path / "config.yaml").touch()
    pools = pools_within(config, 5)
    assert len(list(own_tables.iterdir())) == 12 == len(asked) and 0 < len(pools) < 12
    assert pools_within(config, 5).keys() == pools.keys()
    for sizes, cells in pools.items():
        assert sizes is not None
        own = at(config, sizes)
        cell = cells.draw(random.Random(0))
        assert find_table(own, 5).predict(cell, sizes.layers) <= 55e-6 + 1e-6
    for path in own_tables.iterdir():
        other = dataclasses.replace(tables.read_table(path), machine=dataclasses.replace(here, processor="Abacus"))
        path.write_text(other.to_json())
    assert len(pools_within(config, 5)) == len(pools), "another machine's are gone by where they are complete"
    next(iter(own_tables.iterdir())).unlink()
    with pytest.raises(UserError, match=r"another machine .Abacus"):
        pools_within(config, 5)


def test_the_front_is_what_none_beats() -> None:
    """Of trainings of one length, against the definition; a longer one beats by what it had reached where both were."""
    chance = random.Random(0)
    cells = everything(make(rule="strongest"))[:40]
    for _ in range(20):
        found = [Candidate(cell, [Rung(1.0, float(chance.randrange(6)), 50.0)]) for cell in cells]
        costs = [float(chance.randrange(8)) for _ in cells]
        pairs = [(cost, one.last.loss) for cost, one in zip(costs, found, strict=True)]
        kept = front_of(found, costs)
        wanted = {pair for pair in pairs if not any(a <= pair[0] and b <= pair[1] and (a, b) != pair for a, b in pairs)}
        assert [pairs[place] for place in kept] == sorted(wanted)
    first, second, third = cells[:3]
    short, long = (
        Candidate(first, [Rung(1.0, 2.0, 50.0)]),
        Candidate(second, [Rung(1.0, 1.9, 50.0), Rung(4.0, 1.0, 50.0)]),
    )
    assert front_of([short, long], [5.0, 5.0]) == [1] and front_of([short, long], [4.0, 5.0]) == [0, 1]
    assert front_of([long, Candidate(third, [Rung(1.0, 1.0, 50.0)])], [5.0, 5.0]) == [0, 1], "no word on the longer one"
    lost = Candidate(third, [Rung(1.0, float("inf"), 0.0)])
    assert front_of([long, lost], [5.0, 1.0]) == [0]


def test_what_a_budget_is_used_by() -> None:
    config = make(max_macs=40_000, max_params=10_000)
    cell = Genotype.from_ops(1, ["msa_2", "mlp_1"]).sized(Sizes(8, 1, 2))
    budget = make_budget(at_cell(config, cell), 5, config.search.derive)
    used, cost = budget_use(budget.cost(cell), budget), cost_of(cell, MODEL, 5)
    assert used["max_macs"] == {"limit": 40_000, "has": cost.macs, "share": cost.macs / 40_000}
    shares = [round(100 * cost.params / 10_000), round(100 * cost.macs / 40_000)]
    assert describe_use(used) == (
        f"It uses {shares[0]} % of the parameters and {shares[1]} % of the multiply-adds that the budget allows."
    )
    assert describe_use({}) == ""


OPTIONS = [
    "--method",
    "finals",
    "--space.heads=[2,4]",
    "--space.ratios=[0.5,1]",
    "--search.finals.cells=6",
    "--search.finals.rungs=[0.5,1]",
    "--space.widths",
    "8,12",
    "--space.depths=1,2",
    "--space.patches",
    "[2,4]",
]


def test_a_search_over_sizes_from_end_to_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    status, out, err = call_cli("search", *SMALL, *OPTIONS, "--search.derive.max-macs", "30k", "--run", run)
    assert status == 0, err
    derivation = json.loads((run / "derivation.json").read_text())
    rows = derivation["finals"]
    assert len(rows) == 6 and all(row["macs"] <= 30_000 for row in rows)
    found = load_genotype(run)
    assert found.sizes is not None and found.to_dict() == derivation["genotype"]
    assert f"width {found.sizes.width}, {found.sizes.layers} layers" in out
    share = derivation["budget"]["max_macs"]["share"]
    assert share == derivation["macs"] / 30_000 and f"It uses {100 * share:.0f} % of the multiply-adds" in out
    assert "the best of 6 candidates at their cost" in out and "←" in out
    front = [row for row in rows if row.get("front")]
    assert min(row["macs"] for row in front) == min(row["macs"] for row in rows) and rows[0] in front
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert "What the candidates say of the sizes" in page.said and "patch size 4" in page.said
    assert "Reached against cost" in page.said and f"at {found.sizes.brief}" in page.said
    assert len({json.dumps(row["genotype"]["sizes"]) for row in rows}) > 2
    for row in rows:
        assert cost_of(Genotype.from_dict(row["genotype"]), MODEL, 10).macs == row["macs"]
    before = (run / "derivation.json").read_bytes()
    assert call_cli("search", *SMALL, *OPTIONS, "--search.derive.max-macs", "30k", "--run", run)[0] == 0
    assert (run / "derivation.json").read_bytes() == before

    status, out, err = call_cli("derive", run, "--max-macs", str(min(row["macs"] for row in rows)), "--json")
    assert status == 0, err
    cheap = json.loads(out)
    assert cheap["macs"] == min(row["macs"] for row in rows) and cheap["genotype"]["format"] == "dasvit-genotype/2"
    status, out, err = call_cli("derive", run, "--max-macs", str(min(row["macs"] for row in rows) - 1), "--json")
    assert status == 0, err
    predicted = json.loads(out)
    assert predicted["macs"] < cheap["macs"] and "This network was not trained" in predicted["reason"]
    status, out, err = call_cli("derive", run, "--max-macs", "10")
    assert status == 2 and "no network of the space fits the budget: the smallest has" in err

    status, _, err = call_cli("train", "--cell", run, "--train.epochs", "1")
    assert status == 0, err
    model = json.loads((run / "train/model/config.json").read_text())["model_args"]
    assert (model["embed_dim"], model["depth"]) == (found.sizes.width, found.sizes.layers)
    assert load_genotype(run / "train") == found
    status, _, err = call_cli("train", "--cell", predicted["cell"], "--run", tmp_path / "small")
    assert status == 0, err
    assert call_cli("report", run)[0] == 0
    image = tmp_path / "image.png"
    from PIL import Image

    Image.new("RGB", (8, 8)).save(image)
    status, out, err = call_cli("predict", run / "train", image)
    assert status == 0, err


def test_a_search_over_sizes_beside_a_supernet(tmp_path: Path) -> None:
    """The supernet has the recipe's sizes; what its weights derive enters first, at the largest sizes that fit."""
    options = [option for option in OPTIONS[2:] if "heads" not in option]
    run = tmp_path / "run"
    status, _, err = call_cli("search", *SMALL, *options, "--search.derive.max-macs", "30k", "--run", run)
    assert status == 0, err
    rows = json.loads((run / "derivation.json").read_text())["finals"]
    assert len(rows) == 6 and all(row["macs"] <= 30_000 for row in rows)
    status, out, err = call_cli("derive", run, "--rule", "darts", "--max-macs", "20k", "--json")
    assert status == 0, err
    assert json.loads(out)["macs"] <= 20_000 and json.loads(out)["genotype"]["sizes"]


def test_a_search_over_sizes_in_python(tmp_path: Path) -> None:
    small = {
        "train.epochs": 1,
        "train.batch_size": 20,
        "search.finals.cells": 4,
        "data.limit": 60,
        "space.widths": [8, 16],
        "space.depths": [1],
        "space.heads": [2],
        "data.eval_limit": 20,
        "runtime.precision": "float32",
        "search.finals.rungs": [1],
    }
    found = dasvit.search(recipe="digits", run=tmp_path / "run", method="finals", options=small, quiet=True)
    assert found.cell.sizes is not None and found.cell.sizes.width in (8, 16)
    assert found.cost.macs == cost_of(found.cell, found.config.model, 10).macs
    trained = dasvit.train(found, quiet=True)
    assert load_genotype(trained.run or "") == found.cell
    frame, front = found.to_frame(), found.front()
    assert list(frame["macs"]) == [cost_of(one.cell, found.config.model, 10).macs for one in found.candidates]
    assert set(frame["width"]) <= {8, 16} and sum(frame["front"]) == len(front) > 0
    other = found.derive(max_macs=found.cost.macs - 1)
    assert cost_of(other, found.config.model, 10).macs < found.cost.macs


def test_sizes_need_candidates() -> None:
    config = Config(model=MODEL, space=SpaceConfig(heads=[2], widths=[8]))
    with pytest.raises(UserError, match="searched by candidates, and this search has none"):
        validate(config)


def test_a_tuned_vit_is_searched_alike(tmp_path: Path) -> None:
    """The same finals over sizes and heads, every candidate a plain ViT."""
    options = [option for option in OPTIONS if "ratios" not in option]
    run = tmp_path / "run"
    command = ["search", *SMALL, *options, "--space.cell", "vit", "--search.derive.max-macs", "60k", "--run", run]
    status, _, err = call_cli(*command)
    assert status == 0, err
    rows = json.loads((run / "derivation.json").read_text())["finals"]
    cells = [Genotype.from_dict(row["genotype"]) for row in rows]
    assert len(set(cells)) == 6 and all(row["macs"] <= 60_000 for row in rows)
    assert {cell.ops for cell in cells} == {("zero", "vit_2"), ("zero", "vit_4")}
    for cell, row in zip(cells, rows, strict=True):
        assert vit_cost(cell.at(MODEL), 10).macs == row["macs"]
    status, out, err = call_cli("derive", run, "--max-macs", str(min(row["macs"] for row in rows)), "--json")
    assert status == 0 and json.loads(out)["macs"] == min(row["macs"] for row in rows), err


def test_a_latency_table_of_plain_vits() -> None:
    config = make(lists={"widths": [8], "depths": [2]})
    config.space.cell = "vit"
    table = tables.measure_table(at(config, sizes_of_space(config)[0]), 5, Reporter(quiet=True))
    assert table.operations["vit_2"] + table.layer > 0 and set(table.operations) == {"zero", "vit_2", "vit_4"}
    config.search.method = "dasvit"
    with pytest.raises(UserError, match="leaves no cell to search"):
        validate(config)


def test_tables_share_the_networks_that_they_have_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """Depths share the shallow ones, poolings all; a table of shared times is that of its own."""
    counts = list[int]()

    def in_turns(stacks: list[str], machine: Machine) -> list[Latency]:
        counts.append(len(stacks))
        return [Latency(random.Random(stack).uniform(1e-3, 2e-3), 0.0, 3, machine) for stack in stacks]

    monkeypatch.setattr(tables, "make_network", lambda cell, model, _: f"{cell.ops} {model.width} {model.layers}")
    monkeypatch.setattr(tables, "inference", lambda network, *_: network)
    monkeypatch.setattr(tables, "in_turns", in_turns)
    config = make(lists={"widths": [8, 16], "depths": [4, 5], "pools": ["token", "avg"]})
    timed: tables.Timed = {}
    of = {
        sizes: tables.measure_table(at(config, sizes), 5, Reporter(quiet=True), timed)
        for sizes in sizes_of_space(config)
    }
    first = counts[0]
    assert len(of) == 8 and counts == [first, tables.WHOLE, first, tables.WHOLE]
    counts.clear()
    for sizes, table in of.items():
        assert table == tables.measure_table(at(config, sizes), 5, Reporter(quiet=True))
    assert counts == [first] * 8, "a table by itself times all of its own"


def test_a_search_over_sizes_under_a_latency_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables made up, the chosen network measured: the run keeps a table of every size, and derives by them."""
    asked = list[Any]()

    def measured(config: Config, *_: Any) -> LatencyTable:
        asked.append(sizes_of(config.model))
        return made_up(config, this_machine(config.search.latency))

    monkeypatch.setattr(tables, "measure_table", measured)
    run = tmp_path / "run"
    options = [*OPTIONS, "--data.cache", tmp_path / "cache", "--max-latency", "10s", "--run", run]
    status, out, err = call_cli("search", *SMALL, *options)
    assert status == 0, err
    derivation = json.loads((run / "derivation.json").read_text())
    assert len(asked) == 8 == len(list((run / "latency").iterdir())) and not (run / "latency.json").exists()
    times = [row["latency"] for row in derivation["finals"]]
    assert derivation["latency"]["predicted"] == pytest.approx(times[0], abs=2e-6)
    assert derivation["measured"][0]["sizes"] == derivation["genotype"]["sizes"] and "Measured here" in out
    before = (run / "derivation.json").read_bytes()
    assert call_cli("search", *SMALL, *options)[0] == 0 and (run / "derivation.json").read_bytes() == before
    limit = f"{1e6 * min(times) + 1:.0f}us"
    status, out, err = call_cli("derive", run, "--max-latency", limit, "--json")
    assert status == 0 and json.loads(out)["latency"]["predicted"] <= min(times) + 2e-6, err
    assert len(asked) == 8, "the run's own tables serve"
    status, out, err = call_cli("derive", run, "--max-latency", "1us")
    assert status == 2 and "no network of the space fits the budget: the fastest takes" in err


def test_a_killed_search_over_sizes_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed once in the middle, with two candidates at a time, it finds what an undisturbed one finds."""
    shorter = ["--search.finals.cells=4", "--search.finals.rungs=[1,2]", "--data.limit=200"]
    command = [*killed.COMMAND[:-1], *shorter, "--space.widths=8,16", "--space.depths=1,2", "--run"]
    monkeypatch.setattr(killed, "COMMAND", command)
    began = time.perf_counter()
    first = killed.start(tmp_path / "first")
    assert first.wait() == 0, killed.said(tmp_path / "first").read_text()
    killed.disturb(signal.SIGKILL, 1, 0, (tmp_path / "first", time.perf_counter() - began), tmp_path / "run")


def test_a_study_is_of_one_size(tmp_path: Path) -> None:
    options = ["--space.widths", "48,96", "--search.finals.cells=4", "--run", tmp_path / "study"]
    status, _, err = call_cli("study", "--config", "digits-study", *options)
    assert status == 2 and "a study compares cells at one size" in err and not (tmp_path / "study").exists()
