"""Latency: its table against naive sums, exact budgets by it, whose table counts, and what measurements change.

Nothing here depends on how long anything takes: where times matter, they are given.
"""

import itertools
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dasvit
from dasvit.cell.genotype import Genotype, is_viable
from dasvit.cell.space import Space
from dasvit.config import Config, LatencyConfig
from dasvit.config import recipe as recipes
from dasvit.config.units import parse_time, time_text
from dasvit.errors import UserError
from dasvit.io.run_folder import RunFolder
from dasvit.latency import measure, table
from dasvit.latency.measure import Latency, Machine, MeasuredCost, in_turns, inference, this_machine
from dasvit.latency.table import LatencyTable, find_table, fit_table, own_table, past_table, read_table, sample
from dasvit.models.export import make_program
from dasvit.runtime.progress import Reporter
from dasvit.search import confirm
from dasvit.search.derivation import derive_found
from dasvit.search.halving import Candidate, Rung
from dasvit.search.proposal import Proposer
from dasvit.search.stages import StageWeights
from helpers import SMALL, TINY, call_cli, merge

PHONE = Machine("Phone", "cpu", 1, "torch", 1, "wall", {"torch": "9.9"})
QUIET = Reporter(quiet=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three repetitions a network, and a cache of the test's own."""
    monkeypatch.setattr(measure, "LEAST", 3)
    monkeypatch.setattr(measure, "MOST", 3)
    monkeypatch.setattr(table, "_HELD", {})
    monkeypatch.setenv("DASVIT_CACHE", str(tmp_path / "cache"))


def make(**changes: Any) -> Config:
    space = {"heads": [2], "ratios": [0.5, 1.0]}
    return recipes.from_dict(merge(merge(TINY, {"space": space}), changes))


def made_up(config: Config, machine: Machine = PHONE, seed: int = 0) -> LatencyTable:
    """Return a table of times that are made up, each a whole number of microseconds in a layer."""
    chance = random.Random(seed)
    operations = Space.from_config(config.space).operations
    times = {op: 0.0 if op == "zero" else chance.randint(5, 400) * 1e-6 for op in operations}
    return LatencyTable(machine, table.sizes_of(config.model), 120e-6, 7e-6, times, 0.02)


def written(config: Config, path: Path, machine: Machine = PHONE) -> Config:
    """Return the recipe with a made-up table, in a file."""
    path.write_text(made_up(config, machine).to_json())
    return table.with_table(config, path)


@pytest.mark.parametrize(
    ("text", "seconds"), [("8ms", 0.008), ("500us", 5e-4), ("500 µs", 5e-4), ("0.2s", 0.2), ("1.25ms", 0.00125)]
)
def test_units(text: str, seconds: float) -> None:
    assert parse_time(text, "x") == pytest.approx(seconds, rel=1e-12)
    assert parse_time("", "x") == 0


@pytest.mark.parametrize("text", ["8", "8 milis", "ms", "-3ms", "8MS", "1e3ms", "0ms", "8ms 3us", "nan ms"])
def test_a_misspelt_time_is_answered_in_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"--max-latency takes a time with its unit, as 500us, 8ms or 0\.2s, not"):
        parse_time(text, "--max-latency")
    with pytest.raises(UserError, match=r"search\.derive\.max_latency takes a time"):
        make(search={"derive": {"max_latency": text}})


def test_times_are_written_with_three_digits_or_so() -> None:
    assert [time_text(t) for t in (0.00793, 0.0123456, 0.000313)] == ["7.93 ms", "12.35 ms", "313 us"]


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_a_table_is_found_again_from_the_times_that_it_explains(nodes: int) -> None:
    """Times made by a naive sum over the layers: the fit returns the numbers that they were made of."""
    config = make(space={"nodes": nodes})
    space, known = Space.from_config(config.space), made_up(config)

    def naive(cell: Genotype, layers: int) -> float:
        total = known.skeleton
        for _ in range(layers):
            total += known.layer
            fed = {"prev2", "prev1"}
            for edge in cell.edges:
                if edge.op != "zero" and edge.source in fed:
                    fed.add(edge.target)
                    total += known.operations[edge.op]
        return total

    stacks = sample(space, config.model.layers)
    assert {layers for _, layers in stacks} == {*table.DEPTHS, config.model.layers}
    found = fit_table(stacks, [naive(*stack) for stack in stacks], space.operations, PHONE, known.sizes)
    assert found.skeleton == pytest.approx(known.skeleton, rel=1e-6)
    assert found.layer == pytest.approx(known.layer, rel=1e-6)
    assert found.operations == pytest.approx(known.operations, rel=1e-6)
    assert found.error < 1e-9
    chance = random.Random(1)
    for _ in range(20):
        cell = Genotype.from_ops(nodes, chance.choices(space.operations, k=len(space.edges)))
        assert known.predict(cell, 5) == pytest.approx(naive(cell, 5), rel=1e-12)


def test_deep_networks_scale_the_sums() -> None:
    """Networks of the recipe's depth that take a tenth more than the sums make every time a tenth more."""
    config = make(model={"layers": 6})
    space, known = Space.from_config(config.space), made_up(config)
    stacks = sample(space, 6)
    times = [known.predict(*stack) * (1.1 if stack[1] == 6 else 1) for stack in stacks]
    found = fit_table(stacks, times, space.operations, PHONE, known.sizes)
    assert found.error < 1e-9
    for cell, _ in stacks:
        assert found.predict(cell, 6) == pytest.approx(1.1 * known.predict(cell, 6), rel=1e-9)


def test_no_time_is_negative() -> None:
    config = make()
    space, chance = Space.from_config(config.space), random.Random(2)
    stacks = sample(space, 2)
    found = fit_table(stacks, [chance.uniform(1e-4, 1e-3) for _ in stacks], space.operations, PHONE, {"layers": 2})
    assert min(found.skeleton, found.layer, *found.operations.values()) >= 0 and found.error > 0


@pytest.mark.parametrize("rule", ["darts", "strongest"])
@pytest.mark.parametrize("seed", range(4))
def test_the_budget_is_exact_against_all_cells(rule: str, seed: int, tmp_path: Path) -> None:
    """Of every cell of the space that the table puts within the budget, derivation finds the heaviest."""
    config = written(make(search={"derive": {"rule": rule}}), tmp_path / "phone.json")
    space, known, layers = Space.from_config(config.space), made_up(config), config.model.layers
    draw = np.random.default_rng(seed)
    weights = draw.random((5, len(space.operations))) * [0.3 if op == "msa_2" else 1 for op in space.operations]
    cells = [Genotype.from_ops(2, ops) for ops in itertools.product(space.operations, repeat=5)]
    cells = [cell for cell in cells if is_viable(cell) and (rule == "strongest" or kept(cell))]
    limit = round(1e6 * float(np.quantile([known.predict(cell, layers) for cell in cells], 0.15)))
    config.search.derive.max_latency = f"{limit}us"

    def score(cell: Genotype) -> float:
        rows = [math.log(weights[i][space.operations.index(op)]) for i, op in enumerate(cell.ops)]
        return sum(row for row, op in zip(rows, cell.ops, strict=True) if rule == "strongest" or op != "zero")

    fitting = [cell for cell in cells if round(1e6 * known.predict(cell, layers)) <= limit]
    found = derive_found([StageWeights(weights.tolist(), space.everything())], config, 10, config.search.derive)
    assert found.genotype == max(fitting, key=score) and 0 < len(fitting) < len(cells)


def kept(cell: Genotype) -> bool:
    """Tell whether two edges lead into each node."""
    return all(sum(e.target == node and e.op != "zero" for e in cell.edges) == 2 for node in ("x1", "x2"))


def test_none_is_fast_enough(tmp_path: Path) -> None:
    config = written(make(), tmp_path / "phone.json")
    space, known = Space.from_config(config.space), made_up(config)
    config.search.derive.max_latency = "130us"
    cells = (Genotype.from_ops(2, ops) for ops in itertools.product(space.operations, repeat=5))
    least = min(known.predict(cell, 2) for cell in cells if is_viable(cell) and kept(cell))
    weights = [StageWeights([[1.0] * len(space.operations)] * 5, space.everything())]
    with pytest.raises(UserError, match=rf"the fastest takes {time_text(least)} \(limit 130 us\)"):
        derive_found(weights, config, 10, config.search.derive)


def test_a_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    known = made_up(make())
    (tmp_path / "t.json").write_text(known.to_json())
    assert read_table(tmp_path / "t.json") == known


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("layer"),
        lambda content: content.update(format="dasvit-latency/2"),
        lambda content: content.update(more=1),
        lambda content: content["machine"].pop("clock"),
        lambda content: content["machine"].update(threads=0),
        lambda content: content["sizes"].update(width="8"),
        lambda content: content["operations"].update(msa_2=-1.0),
        lambda content: content["operations"].update(msa_2=float("nan")),
        lambda content: content["operations"].update(msa_2="fast"),
        lambda content: content["operations"].update(nonsense=1.0),
        lambda content: content.update(operations=[]),
    ],
)
def test_a_damaged_table_is_refused(damage: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    content = json.loads(made_up(make()).to_json())
    damage(content)
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"is no latency table of this version: `dasvit latency --out FILE` writes one"):
        read_table(tmp_path / "t.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 10_000, "null"])
def test_what_is_no_table_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match="is no latency table"):
        read_table(tmp_path / "t.json")
    with pytest.raises(UserError, match="cannot read the latency table"):
        read_table(tmp_path / "none.json")


def test_a_table_of_other_sizes_or_operations_is_refused(tmp_path: Path) -> None:
    config = written(make(), tmp_path / "phone.json")
    assert find_table(config, 10) == made_up(config)
    way_out = "measure one with `dasvit latency --config RECIPE --out FILE` there"
    with pytest.raises(UserError, match=rf"networks with width 16, not 32: {way_out}"):
        find_table(replace(config, model=replace(config.model, width=32)), 10)
    with pytest.raises(UserError, match=rf"lacks msa_4, mlp_2, which space has: {way_out}"):
        find_table(replace(config, space=replace(config.space, heads=[2, 4], ratios=[0.5, 1.0, 2.0])), 10)
    fewer = replace(config, space=replace(config.space, ratios=[1.0]))
    assert find_table(fewer, 10) == made_up(config)  # more than is asked for will do
    with pytest.raises(UserError, match="networks with layers 2, not 7"):
        find_table(replace(config, model=replace(config.model, layers=7)), 10)


def test_this_machines_table_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make()
    first = find_table(config, 10)
    assert first.machine == this_machine(config.search.latency)
    assert set(first.operations) == set(Space.from_config(config.space).operations)
    assert first.operations["msa_2"] > 0
    monkeypatch.setattr(table, "_HELD", {})
    with monkeypatch.context() as patch:
        patch.setattr(table, "measure_table", None)
        assert find_table(config, 10) == find_table(config, 10) == first
    places = {table.cached_at(config)}
    for changes in ({"threads": 2}, {"batch": 3}, {"runtime": "onnx"}):
        places.add(table.cached_at(make(search={"latency": changes})))
    places.add(table.cached_at(make(space={"ratios": [1.0]})))
    monkeypatch.setattr(measure, "processor_name", lambda: "another")
    places.add(table.cached_at(config))
    assert len(places) == 6


def test_a_damaged_cached_table_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make(space={"heads": [2], "ratios": [1.0]})
    path = table.cached_at(config)
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    monkeypatch.setattr(table, "measure_table", lambda config, *_: made_up(config, this_machine(config.search.latency)))
    found = find_table(config, 10)
    assert read_table(path) == found == made_up(config, found.machine)


def test_a_cache_that_cannot_be_written_costs_the_next_process_time_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("no folder")
    calls: list[int] = []

    def counted(config: Config, *_: object) -> LatencyTable:
        calls.append(1)
        return made_up(config)

    monkeypatch.setattr(table, "measure_table", counted)
    config = make()
    assert find_table(config, 10) == find_table(config, 10) and len(calls) == 1


def test_networks_beyond_the_memory_are_timed_group_by_group(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make()
    stacks = sample(Space.from_config(config.space), config.model.layers)
    assert len(list(table._groups(stacks, config.model, 10))) == 1
    monkeypatch.setattr(table, "ALIVE", 20_000)
    groups = list(table._groups(stacks, config.model, 10))
    assert len(groups) > 2 and all(groups)
    assert [(cell, model.layers) for group in groups for cell, model in group] == stacks


def test_functions_are_timed_in_turns() -> None:
    order: list[str] = []
    runs = [lambda name=name: order.append(name) for name in "ab"]
    found = in_turns(runs, replace(PHONE, threads=1))
    assert [latency.repetitions for latency in found] == [3, 3]
    rounds = "".join(order)[-2 * 3 * measure.RUNS :]
    assert rounds == ("a" * measure.RUNS + "b" * measure.RUNS) * 3


def test_the_median_and_the_spread_are_those_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [5.0, 1.0, 2.0]
    warm = [0.0, 7.0]  # read around the warm-up, too
    ticks = itertools.chain([*warm, 0.0, 1.0] * 2, *([*warm, 10.0, 10.0 + t] for t in times))
    monkeypatch.setattr(time, "thread_time", lambda: next(ticks))
    found = in_turns([lambda: None], replace(PHONE, clock="thread"))[0]
    assert (found.median, found.iqr) == (np.median(times), np.quantile(times, 0.75) - np.quantile(times, 0.25))


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_an_inference_is_the_networks(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs once on a batch of the size asked for, in either runtime."""
    seen: list[tuple[int, ...]] = []

    class Spy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(images.shape))
            return images.mean(dim=(1, 2, 3))

    how = LatencyConfig(runtime=runtime, batch=4, threads=1)  # type: ignore[arg-type]
    run = inference(Spy(), 8, how)
    if runtime == "torch":
        run()
        assert seen == [(4, 3, 8, 8)]
        return
    assert run().shape == (4,)  # type: ignore[attr-defined]
    assert measure.measure(Spy(), 8, how).machine.versions.keys() >= {"torch", "onnxruntime"}
    assert make_program(Spy(), 8) is not None


def test_onnx_is_of_the_cpu() -> None:
    if torch.cuda.is_available():
        with pytest.raises(UserError, match="onnxruntime on the CPU alone"):
            this_machine(LatencyConfig(runtime="onnx", device="cuda"))
    with pytest.raises(UserError, match="is not there"):
        this_machine(LatencyConfig(device="cuda:99"))


def told(*arguments: object) -> dict[str, Any]:
    status, out, err = call_cli(*arguments, "--json")
    assert status == 0, err
    content: dict[str, Any] = json.loads(out)
    return content


def test_cost_tells_latency_in_json_and_in_python() -> None:
    sizes = ["--model.image_size=8", "--model.patch_size=2", "--model.width=24", "--model.layers=1"]
    content = told("cost", "dasvit_shift", *sizes, "--latency", "--batch", 2, "--threads", 1)
    assert {"params", "macs", "macs_linear"} < set(content)
    found = content["latency"]
    assert found["repetitions"] == 3 and found["median"] > 0 and found["iqr"] >= 0
    assert found["machine"] == asdict(this_machine(LatencyConfig(batch=2, threads=1)))
    assert "latency" not in told("cost", "dasvit_shift", *sizes)
    config = make(model={"width": 24, "layers": 1})
    cost = dasvit.cost("dasvit_shift", recipe=config, latency=LatencyConfig(batch=2, threads=1))
    assert isinstance(cost, MeasuredCost) and set(cost.to_dict()) == set(content) - {"name", "classes"}
    assert dasvit.cost("dasvit_shift", recipe=config).params == cost.params
    with pytest.raises(UserError, match="unknown runtime 'tflite'"):
        dasvit.cost("dasvit_shift", recipe=config, latency="tflite")
    assert "is torch or onnx" in call_cli("cost", "vit", "--latency", "--runtime", "tflite")[2]


def test_cost_measures_trained_models(small_run: Path) -> None:
    assert told("cost", small_run / "train", "--latency")["latency"]["median"] > 0


def test_compare_has_a_column() -> None:
    options = ["vit", "dasvit_shift", "--cost-only", "--model.image_size=8", "--model.patch_size=2"]
    options += ["--model.width=24", "--model.layers=1", "--latency", "--search.latency.threads=1"]
    rows = told("compare", *options)["networks"]
    assert [row["latency"]["repetitions"] for row in rows] == [3, 3]
    status, out, _ = call_cli("compare", *options, "--format", "md")
    assert status == 0 and "| latency |" in out and "(IQR" in out
    assert "latency" not in call_cli("compare", *[o for o in options if o != "--latency"], "--format", "md")[1]


def test_the_command_writes_a_table_that_searches_take(tmp_path: Path) -> None:
    out, run = tmp_path / "phone.json", tmp_path / "run"
    shared = [option for option in SMALL if option.startswith(("--config", "--model", "--space"))]
    content = told("latency", *shared, "--threads", 1, "--out", out)
    assert content["out"] == str(out) and read_table(out).to_json() == out.read_text()
    assert set(content["operations"]) == {"zero", "identity", "msa_2", "mlp_1"}
    told("latency", *shared, "--threads", 1, "--out", out)  # a table may take a table's place
    (tmp_path / "other.json").write_text("{}")
    status, _, err = call_cli("latency", *shared, "--out", tmp_path / "other.json")
    assert status == 2 and "is no latency table: give --out another name" in err
    found = told("search", *SMALL, "--run", run, "--max-latency", "1s", "--latency-table", out)
    assert found["latency"]["limit"] == 1 and found["latency"]["machine"] == content["machine"]
    assert (run / "latency.json").read_text() == out.read_text()
    assert [row["ops"] for row in found["measured"]] == [[edge["op"] for edge in found["genotype"]["edges"]]]


def test_a_table_of_another_machine_is_told_and_nothing_is_measured(tmp_path: Path) -> None:
    config = recipes.load("digits")
    config.model.width, config.model.layers = 8, 1
    config.space.heads, config.space.ratios, config.space.shifts = [2], [1.0], []
    out, run = tmp_path / "phone.json", tmp_path / "run"
    out.write_text(made_up(config).to_json())
    search = ["search", *SMALL, "--run", run, "--max-latency", "3ms", "--latency-table", out]
    status, said, err = call_cli(*search)
    assert status == 0 and "by the table of Phone (cpu, 1 thread" in said
    assert "latency: not measured, for the table is of another machine, Phone" in err
    content = json.loads((run / "derivation.json").read_text())
    assert content["latency"]["machine"]["processor"] == "Phone" and "measured" not in content
    out.unlink()  # the run has its own, with which it goes on, and from which others are derived
    assert call_cli(*search)[0] == 0
    assert told("derive", run, "--max-latency", "2ms")["latency"]["machine"]["processor"] == "Phone"
    status, _, err = call_cli("derive", run, "--max-latency", "10us")
    assert status == 2 and "the fastest takes" in err and "(limit 10 us)" in err


def test_derive_takes_the_table_that_is_cached(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipes.load(small_run / "config.yaml")
    here = made_up(config, this_machine(config.search.latency))
    path = table.cached_at(config)
    path.parent.mkdir(parents=True)
    path.write_text(here.to_json())
    monkeypatch.setattr(table, "measure_table", None)
    cells = []
    for limit in ("1s", f"{round(1e6 * cheapest(config, here))}us"):
        content = told("derive", small_run, "--max-latency", limit, "--out", tmp_path / f"{limit}.json")
        cells.append(Genotype.from_dict(content["genotype"]))
        assert content["latency"]["predicted"] == here.predict(cells[-1], 1) <= content["latency"]["limit"] + 1e-6
        assert content["latency"]["machine"] == asdict(here.machine)
    assert here.predict(cells[0], 1) >= here.predict(cells[1], 1) == pytest.approx(cheapest(config, here))
    status, _, err = call_cli("derive", small_run, "--max-latency", "8 milis")
    assert status == 2 and "--max-latency takes a time with its unit, as 500us, 8ms or 0.2s, not '8 milis'" in err


def cheapest(config: Config, known: LatencyTable) -> float:
    space = Space.from_config(config.space)
    cells = (Genotype.from_ops(2, ops) for ops in itertools.product(space.operations, repeat=5))
    return min(known.predict(cell, config.model.layers) for cell in cells if is_viable(cell) and kept(cell))


def test_whose_table_a_past_run_is_derived_by(tmp_path: Path) -> None:
    """The one that is given; else the run's, if it was given one or is this machine's; else this machine's."""
    config = make()
    own = tmp_path / "latency.json"
    assert past_table(config, tmp_path).search.latency.table == ""
    own.write_text(made_up(config).to_json())
    assert past_table(config, tmp_path).search.latency.table == ""
    assert past_table(config, tmp_path, "given.json").search.latency.table == "given.json"
    assert past_table(table.with_table(config, "gone.json"), tmp_path).search.latency.table == str(own)
    own.write_text(made_up(config, this_machine(config.search.latency)).to_json())
    assert past_table(config, tmp_path).search.latency.table == str(own)


def test_a_run_goes_on_with_its_own_table(tmp_path: Path) -> None:
    config = written(make(search={"derive": {"max_latency": "1s"}}), tmp_path / "phone.json")
    run = RunFolder(tmp_path / "run", "search")
    run.open(config, "dasvit")
    assert find_table(own_table(config, 10, run, QUIET), 10) == made_up(config)
    (tmp_path / "phone.json").write_text(made_up(config, seed=5).to_json())
    assert find_table(own_table(config, 10, run, QUIET), 10) == made_up(config)
    run.append("metrics.jsonl", {})
    run.open(table.with_table(config, "elsewhere.json"), "dasvit")  # still the same run
    free = make()
    assert own_table(free, 10, RunFolder(tmp_path / "free", "search"), QUIET) == free
    assert not (tmp_path / "free").exists()


LIMIT = "2ms"


def searched(
    monkeypatch: pytest.MonkeyPatch, run: Path, slowness: Callable[[int, float], float], **changes: Any
) -> tuple[dict[str, Any], list[Genotype]]:
    """Search under LIMIT, where a measurement gives what a function makes of its number and of what was predicted.

    Returns:
        What the command says, and the cells whose networks were measured.
    """
    config = recipes.load("digits")
    config.model.width, config.model.layers = 8, 1
    config.space.heads, config.space.ratios, config.space.shifts = [2], [1.0], []
    here = made_up(config, this_machine(config.search.latency))
    times = {"zero": 0.0, "identity": 50e-6, "msa_2": 400e-6, "mlp_1": 300e-6}
    here = replace(here, operations=times)
    out = run.parent / "here.json"
    out.write_text(here.to_json())
    cells: list[Genotype] = []

    def measured(network: Any, side: int, how: LatencyConfig) -> Latency:
        cells.append(network.genotype)
        predicted = here.predict(network.genotype, 1)
        return Latency(slowness(len(cells), predicted), 1e-5, 3, here.machine)

    monkeypatch.setattr(confirm, "measure", measured)
    more = [f"--{name}={value}" for name, value in changes.items()]
    return told("search", *SMALL, *more, "--run", run, "--max-latency", LIMIT, "--latency-table", out), cells


def test_a_network_that_meets_the_budget_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, cells = searched(monkeypatch, tmp_path / "run", lambda number, predicted: 2.005e-3)  # within the spread
    assert [list(cell.ops) for cell in cells] == [row["ops"] for row in found["measured"]] and len(cells) == 1
    assert Genotype.from_dict(found["genotype"]) == cells[0] and "measured" not in found["reason"]


def test_a_network_that_misses_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, cells = searched(
        monkeypatch, tmp_path / "run", lambda number, predicted: 2.2e-3 if number == 1 else predicted
    )
    first, second = found["measured"]
    assert second["predicted"] < first["predicted"] * 2.0 / 2.2 + 1e-6
    assert found["genotype"] == cells[1].to_dict() and found["unconstrained"] == cells[0].to_dict()
    assert "The cell chosen first takes 2.20 ms" in found["reason"]
    assert "measured, this is the next that keeps to 2.00 ms" in found["reason"]
    again, more = searched(monkeypatch, tmp_path / "run", lambda number, predicted: 9.0)
    assert again == found and not more  # what was measured once is not measured again


def test_where_none_meets_the_budget_the_fastest_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, cells = searched(monkeypatch, tmp_path / "run", lambda number, predicted: 4e-3 - 1e-4 * number)
    assert 1 < len(cells) <= confirm.TRIES and len(set(cells)) == len(cells)
    assert found["genotype"] == cells[-1].to_dict()
    assert f"Of {len(cells)} networks measured none keeps to 2.00 ms; this one is the fastest" in found["reason"]


FINALS = {"search.finals.cells": 3, "train.optim.warmup_epochs": 0}


def test_trained_candidates_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, cells = searched(
        monkeypatch, tmp_path / "run", lambda number, predicted: 3e-3 if number < 3 else 1e-3, **FINALS
    )
    trained = [Genotype.from_dict(row["genotype"]) for row in found["finals"]]
    assert cells == trained and found["genotype"] == trained[2].to_dict()
    assert all(row["predicted"] <= 2e-3 for row in found["measured"])


@pytest.mark.parametrize("method", ["dasvit", "finals"])
def test_after_the_candidates_another_cell_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str
) -> None:
    found, cells = searched(
        monkeypatch,
        tmp_path / "run",
        lambda number, predicted: 2.02e-3 if number < 4 else 1e-3,
        **{**FINALS, "search.method": method},
    )
    trained = [Genotype.from_dict(row["genotype"]) for row in found["finals"]]
    assert cells[:3] == trained and cells[3] not in trained and found["genotype"] == cells[3].to_dict()
    assert found["measured"][3]["predicted"] < min(row["predicted"] for row in found["measured"][:3])


@pytest.mark.parametrize("learn", [True, False])
def test_candidates_keep_to_the_budget_of_time(tmp_path: Path, learn: bool) -> None:
    config = written(make(**{"search": {"finals": {"cells": 10, "learn": learn}}}), tmp_path / "phone.json")
    known, layers = find_table(config, 10), config.model.layers

    def times(limit: str) -> list[float]:
        config.search.derive.max_latency = limit
        propose, entered = Proposer(config, 10, None, []), list[Candidate]()
        while len(entered) < 10 and (candidate := propose(entered)) is not None:
            # The slower, the better: what is learned draws towards the limit.
            candidate.rungs.append(Rung(1.0, 1.0 - 100 * known.predict(candidate.cell, layers), 50.0))
            entered.append(candidate)
        return [known.predict(candidate.cell, layers) for candidate in entered]

    free = sorted(times(""))
    limit = math.ceil(1e6 * free[len(free) // 2])
    held = times(f"{limit}us")
    assert max(free) > limit * 1e-6
    assert len(held) > 5 and max(held) <= limit * 1e-6 + 1e-9


def test_python_takes_limits_as_the_command_does(tmp_path: Path) -> None:
    options = dict(option.removeprefix("--").split("=", 1) for option in SMALL if option.startswith("--s"))
    values = {name: json.loads(value) for name, value in options.items()}
    values |= {"model.width": 8, "model.layers": 1, "data.limit": 60, "data.eval_limit": 20}
    values |= {"runtime.device": "cpu", "runtime.precision": "float32"}
    found = dasvit.search(recipe="digits", run=tmp_path / "run", max_latency="1s", options=values, quiet=True)
    assert found.latency is not None and found.latency > 0
    known = read_table(tmp_path / "run" / "latency.json")
    limit = math.ceil(1e6 * cheapest(found.config, known)) + 5  # parts are rounded to microseconds, each by itself
    assert known.predict(found.derive(max_latency=f"{limit}us"), 1) <= (limit + 5) * 1e-6
    with pytest.raises(UserError, match="max_latency takes a time with its unit"):
        found.derive(max_latency="8")
    with pytest.raises(UserError, match="max_latency takes a time with its unit"):
        dasvit.search(recipe="digits", run=tmp_path / "other", max_latency="fast", quiet=True)
