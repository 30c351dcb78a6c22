"""Every search method end to end on digits, and what defines each."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dasvit.search.supernet as supernet_module
from dasvit.cell.genotype import Genotype, is_viable
from dasvit.cell.ops import Attention, Identity, Mlp, Parametric
from dasvit.cell.space import Space
from dasvit.config import Config, SearchConfig, TokensConfig
from dasvit.config import recipe as recipes
from dasvit.config.methods import METHODS, with_method
from dasvit.config.validation import validate
from dasvit.errors import UserError
from dasvit.models.cost import cost_of
from dasvit.runtime.progress import Reporter
from dasvit.search.architecture import Architecture
from dasvit.search.comparable import comparable_cells
from dasvit.search.mixture import mix
from dasvit.search.pipeline import run_search
from dasvit.search.strategies import make_strategy
from dasvit.search.strategies.base import StepProgress, Strategy
from dasvit.search.strategies.darts_plus import DartsPlus
from dasvit.search.strategies.evolution import Evolution
from dasvit.search.supernet import ForwardMode, MixedCell, Supernet
from helpers import TINY_SEARCH, cut_off, merge, untimed

SMALL = merge(TINY_SEARCH, {"search": {"evolution": {"population": 6, "generations": 2, "parents": 3, "images": 50}}})
CELLS = [name for name, method in METHODS.items() if method.finds == "cell"]
"""The methods whose searches end with a cell; tests/test_autoformer_search.py has the other."""
SPACE = Space(2, ("zero", "identity", "msa_2", "msa_4", "mlp_0.5", "mlp_1"))
SKIP = Genotype.from_ops(2, ["identity"] * 5)
PASS = supernet_module._Pass()
START, MIDDLE, END = (StepProgress(step, progress, 0, progress) for step, progress in ((0, 0.0), (5, 0.5), (10, 1.0)))


def make(method: str, **changes: Any) -> Config:
    config = with_method(recipes.from_dict(merge(SMALL, changes)), method)
    validate(config)
    return config


def parts(method: str, **changes: Any) -> tuple[Strategy, Supernet, Architecture]:
    """Return a method, its supernet of one layer and its alphas, in float64."""
    config = make(method, **changes)
    strategy = make_strategy(config, SPACE, 10)
    torch.manual_seed(0)
    supernet = Supernet(
        SPACE,
        SPACE.everything(),
        image_size=8,
        patch_size=2,
        dim=16,
        layers=2,
        num_classes=10,
        tokens=TokensConfig(ratio=1.0),
        share=strategy.method.channel_share(config.search),
    )
    for parameter in supernet.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    options = config.search
    architecture = Architecture(SPACE, SPACE.everything(), options.relaxation, 1.0, strategy.method.normalises_edges)
    return strategy, supernet.double(), architecture.double()


def images() -> Tensor:
    return torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def searched(config: Config, folder: str) -> dict[str, Any]:
    return run_search(config, folder, Reporter(quiet=True)).to_dict()


def lines(folder: Path, name: str = "architecture.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_record_tells_what_its_class_does(name: str) -> None:
    """Alphas learn where the edge weights carry gradients; without a supernet there is no class."""
    record = METHODS[name]
    assert record.name == name and record.summary
    assert record.of_recipe(record.of_recipe(SearchConfig())) == record.of_recipe(SearchConfig())
    if not record.trains_supernet:
        assert not record.learns_alphas
        return
    strategy, _, architecture = parts(name)
    assert strategy.method is record
    strategy.begin_step(StepProgress(0, 0.0, 0, 0.0), architecture)
    assert record.learns_alphas == strategy.weights(architecture).requires_grad


@pytest.mark.parametrize("method", CELLS)
def test_every_method_ends_with_a_viable_cell(tmp_path: Path, method: str) -> None:
    config = make(method, **({"search": {"finals": {"cells": 2}}} if method == "finals" else {}))
    result = searched(config, str(tmp_path))
    assert is_viable(Genotype.from_dict(result["genotype"]))
    if METHODS[method].trains_supernet:
        assert lines(tmp_path)[-1]["expected_macs"] > 0
    again = searched(config, str(tmp_path))
    assert again == result


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("dasvit", "random")])
def test_rivals_have_none_of_dasvits_parts(method: str) -> None:
    config = make(method)
    assert with_method(config, method) == config
    assert config.search.tokens.ratio == 1
    assert config.search.fairness.skip == config.search.fairness.types == 0
    assert len(config.search.stages.layers) == (2 if method == "p-darts" else 1)
    assert sum(config.search.stages.epochs) == 4


@pytest.mark.parametrize("method", [name for name in CELLS if name not in ("random", "finals")])
def test_a_method_that_is_cut_off_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    from dasvit.runtime.saver import Saver

    monkeypatch.setattr(Saver, "_is_due", lambda self: True)
    config = make(method, data={"limit": 100})
    whole = searched(config, str(tmp_path / "whole"))
    epochs = len(lines(tmp_path / "whole"))
    cut_off(monkeypatch, 2 + epochs // 2, lambda: searched(config, str(tmp_path / "cut")))
    torch.rand(5)
    assert searched(config, str(tmp_path / "cut")) == whole
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert untimed(tmp_path / "cut" / "metrics.jsonl") == untimed(tmp_path / "whole" / "metrics.jsonl")


def test_what_the_user_wrote_stands_against_the_method() -> None:
    config = recipes.from_dict(merge(SMALL, {"search": {"tokens": {"ratio": 0.5}}}))
    assert with_method(config, "darts").search.tokens.ratio == 1
    kept = with_method(config, "darts", {"search.tokens.ratio"}).search
    assert kept.tokens.ratio == 0.5 and kept.fairness.skip == 0 and len(kept.stages.layers) == 1
    assert with_method(config, "fair-darts", {"search.relaxation"}).search.relaxation == "softmax"


# --- pc-darts -------------------------------------------------------------------------------------------------------


def test_pc_darts_lets_one_channel_of_k_through_and_passes_the_others_by() -> None:
    strategy, supernet, architecture = parts("pc-darts")
    cell = supernet.blocks[0]
    assert isinstance(cell, MixedCell)
    widths = {m.inner.in_features for m in cell.modules() if isinstance(m, Parametric)}
    assert widths == {16 // 4}
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    weights = strategy.weights(architecture)
    z = supernet_module.normalise(x[..., :4])
    output = cell._edge(0, x, z, weights[0], PASS)
    mixed = cell._operations(0, x[..., :4], z, weights[0], PASS)
    assert output is not None and mixed is not None
    # behind the shuffle channel c of part k stands at 4 c + k
    torch.testing.assert_close(output[..., 0::4], mixed)
    for k in (1, 2, 3):
        torch.testing.assert_close(output[..., k::4], weights[0, -1] * x[..., 4 * k : 4 * k + 4])
    changed = x.clone()
    changed[..., 4:] += 1
    torch.testing.assert_close(cell._operations(0, changed[..., :4], z, weights[0], PASS), mixed)


def test_pc_darts_normalises_the_edges_into_each_node() -> None:
    strategy, _, architecture = parts("pc-darts")
    shares = architecture.edge_shares().detach()
    assert float(shares[:2].sum()) == pytest.approx(1) and float(shares[2:].sum()) == pytest.approx(1)
    assert len(set(shares.tolist())) == 5
    weights = strategy.weights(architecture).detach()
    torch.testing.assert_close(weights[:, :-1].sum(dim=1), shares)
    torch.testing.assert_close(weights[:, -1], shares)
    torch.testing.assert_close(architecture.strengths(), weights[:, :-1])


def test_pc_darts_moves_every_parameter_and_both_kinds_of_alphas() -> None:
    strategy, supernet, architecture = parts("pc-darts")
    supernet(images(), strategy.weights(architecture)).square().sum().backward()
    for name, parameter in [*supernet.named_parameters(), *architecture.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_pc_darts_says_which_widths_do() -> None:
    with pytest.raises(UserError, match=r"lower search\.pc_darts\.channels"):
        make("pc-darts", search={"pc_darts": {"channels": 8}})
    with pytest.raises(UserError, match=r"not divisible by search\.pc_darts\.channels 3"):
        make("pc-darts", search={"pc_darts": {"channels": 3}})


# --- p-darts --------------------------------------------------------------------------------------------------------


def test_p_darts_drops_out_skips_alone_and_less_and_less() -> None:
    strategy, supernet, architecture = parts("p-darts")
    rates = []
    for progress in (0.0, 0.5, 1.0):
        strategy.begin_step(StepProgress(0, 0.0, 1, progress), architecture)
        rates.append(strategy.mode().skip_dropout)
    assert rates == pytest.approx([0.4, 0.4 * math.exp(-2.5), 0.4 * math.exp(-5)])
    strategy.begin_step(StepProgress(0, 0.0, 7, 0.0), architecture)
    assert strategy.mode().skip_dropout == 0.7  # further stages have the last rate

    cell = supernet.blocks[0]
    assert isinstance(cell, MixedCell)
    x = torch.ones(4, 50, 16, dtype=torch.float64)
    z = supernet_module.normalise(x)
    for o, name in enumerate(SPACE.operations[1:], start=1):
        weights = torch.zeros(6, dtype=torch.float64)
        weights[o] = 1.0
        output = cell._edge(1, x, z, weights, supernet_module._Pass(strategy.mode()))
        assert output is not None
        gone = float((output == 0).double().mean())
        assert abs(gone - (0.7 if name == "identity" else 0.0)) < 0.05, name
    supernet.eval()
    identity = torch.tensor(SPACE.one_hot(SKIP)[0], dtype=torch.float64)
    passed = cell._edge(1, x, z, identity, supernet_module._Pass(strategy.mode()))
    assert passed is not None and torch.equal(passed, x)


def test_p_darts_restricts_skips(tmp_path: Path) -> None:
    config = make("p-darts")
    assert config.search.derive.max_skips == 2
    result = searched(config, str(tmp_path))
    assert sum(edge["op"] == "identity" for edge in result["genotype"]["edges"]) <= 2


# --- darts+ ---------------------------------------------------------------------------------------------------------


def with_alphas(architecture: Architecture, ops: list[str]) -> Architecture:
    with torch.no_grad():
        architecture.alpha.copy_(5 * torch.tensor(SPACE.one_hot(Genotype.from_ops(2, ops))))
    return architecture


def no_evaluation(weights: Tensor) -> float:
    raise AssertionError("nothing is evaluated")


def test_darts_plus_stops_when_skips_take_over() -> None:
    strategy, _, architecture = parts("darts+")
    with_alphas(architecture, ["msa_2", "identity", "zero", "mlp_1", "msa_4"])
    strategy.end_epoch(architecture, True, False, no_evaluation)
    assert not strategy.stopped
    with_alphas(architecture, ["identity", "identity", "zero", "mlp_1", "msa_4"])
    strategy.end_epoch(architecture, False, False, no_evaluation)
    assert not strategy.stopped  # an epoch of weights alone
    strategy.end_epoch(architecture, True, False, no_evaluation)
    assert strategy.stopped


def test_darts_plus_stops_when_the_order_rests() -> None:
    strategy, _, architecture = parts("darts+", search={"darts_plus": {"patience": 3}})
    assert isinstance(strategy, DartsPlus)
    with_alphas(architecture, ["msa_2", "mlp_1", "zero", "mlp_1", "msa_4"])
    for _ in range(3):
        strategy.end_epoch(architecture, True, False, no_evaluation)
    copy = make_strategy(strategy.config, SPACE, 10)
    copy.load_state_dict(strategy.state_dict())
    for one in (strategy, copy):
        assert not one.stopped
        one.end_epoch(architecture, True, False, no_evaluation)
        assert one.stopped


def test_darts_plus_ends_a_search_early_and_stays_ended(tmp_path: Path) -> None:
    config = make("darts+", search={"darts_plus": {"skips": 1, "patience": 1}})
    result = searched(config, str(tmp_path))
    rows = lines(tmp_path)
    assert len(rows) < 4 and rows[-1]["method"]["stopped"]
    assert searched(config, str(tmp_path)) == result and lines(tmp_path) == rows


# --- darts- ---------------------------------------------------------------------------------------------------------


def test_darts_minus_fades_to_the_plain_network() -> None:
    strategy, supernet, architecture = parts("darts-")
    plain = supernet(images(), architecture())
    coefficients = []
    for progress in (START, MIDDLE, END):
        strategy.begin_step(progress, architecture)
        weights = strategy.weights(architecture)
        coefficients.append(weights[0, -1].item())
        assert torch.equal(weights[:, :-1], architecture())
    assert coefficients == [1.0, 0.5, 0.0]
    assert torch.equal(supernet(images(), strategy.weights(architecture)), plain)
    strategy.begin_step(START, architecture)
    assert not torch.allclose(supernet(images(), strategy.weights(architecture)), plain)


def test_darts_minus_adds_the_source_of_every_edge() -> None:
    strategy, supernet, architecture = parts("darts-")
    strategy.begin_step(MIDDLE, architecture)
    with_skip = strategy.weights(architecture)
    more_identity = architecture().clone()
    more_identity[:, SPACE.operations.index("identity")] += 0.5
    torch.testing.assert_close(supernet(images(), with_skip), supernet(images(), more_identity))


def test_the_last_step_of_a_darts_minus_search_has_no_auxiliary_skip(tmp_path: Path) -> None:
    searched(make("darts-"), str(tmp_path))
    rows = lines(tmp_path)
    assert rows[-1]["method"]["auxiliary_skip"] == 0 and 0 < rows[0]["method"]["auxiliary_skip"] < 1


# --- fair-darts and beta-darts --------------------------------------------------------------------------------------


def test_fair_darts_has_sigmoids_and_the_zero_one_loss() -> None:
    strategy, _, architecture = parts("fair-darts")
    weights = strategy.weights(architecture)
    alphas = architecture.alpha.tolist()
    torch.testing.assert_close(
        weights, torch.tensor([[1 / (1 + math.exp(-a)) for a in row] for row in alphas], dtype=torch.float64)
    )
    flat = [1 / (1 + math.exp(-a)) for row in alphas for a in row]
    expected = -10 / len(flat) * sum((s - 0.5) ** 2 for s in flat)
    assert strategy.alpha_loss(architecture, weights).item() == pytest.approx(expected, rel=1e-12)


def test_beta_darts_adds_the_log_sum_exp_with_a_rising_weight() -> None:
    strategy, _, architecture = parts("beta-darts")
    architecture.alive[:, 3] = False
    rows = [[a for o, a in enumerate(row) if o != 3] for row in architecture.alpha.tolist()]
    mean = sum(math.log(sum(math.exp(a) for a in row)) for row in rows) / len(rows)
    for progress in (START, MIDDLE, END):
        strategy.begin_step(progress, architecture)
        loss = strategy.alpha_loss(architecture, strategy.weights(architecture))
        assert loss.item() == pytest.approx(50 * progress.done * mean, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, architecture.alpha)
    torch.testing.assert_close(gradient, 50 / 5 * architecture().detach())  # beta's decay: the softmax itself
    assert strategy.config.search.alphas.weight_decay == 0


# --- gdas -----------------------------------------------------------------------------------------------------------


def count_operations(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> int:
    """Return how many operations a forward pass evaluates."""
    seen: list[int] = []

    def count(function: Callable[..., Tensor], many: bool = False) -> Callable[..., Tensor]:
        def counted(*args: Any) -> Tensor:
            seen.append(len(args[0]) if many else 1)
            return function(*args)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr("dasvit.search.supernet.mix", count(mix, many=True))
        patch.setattr(Identity, "forward", count(Identity.forward))
        for cls in (Attention, Mlp):
            patch.setattr(cls, "class_token", count(cls.class_token))
        run()
    return sum(seen)


def test_gdas_evaluates_exactly_one_operation_an_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, supernet, architecture = parts("gdas")
    alive = [[op != "zero" for op in SPACE.operations]] * 5
    architecture.alive.copy_(torch.tensor(alive))
    picked = set()
    for step in range(5):
        strategy.begin_step(StepProgress(step, 0.0, 0, 0.0), architecture)
        weights = strategy.weights(architecture)
        assert weights.detach().sort(dim=1).values.tolist() == [[0.0] * 5 + [1.0]] * 5
        # five edges a layer
        assert count_operations(monkeypatch, lambda w=weights: supernet(images(), w, strategy.mode())) == 10  # type: ignore[misc]
        picked.add(tuple(weights.argmax(dim=1).tolist()))
    assert len(picked) > 1
    assert count_operations(monkeypatch, lambda: parts("darts")[1](images(), architecture())) == 50


def test_a_step_leaves_no_trace_on_the_supernet() -> None:
    """What one step evaluates is told to its own forward passes; the next one, told nothing, evaluates all."""
    _, supernet, architecture = parts("darts")
    weights = architecture().detach()
    before = supernet(images(), weights)
    for method in ("gdas", "evolution", "p-darts"):
        strategy = parts(method)[0]
        strategy.begin_step(StepProgress(0, 0.0, 1, 0.0), architecture)
        assert strategy.mode() != ForwardMode()
        assert not torch.equal(supernet(images(), weights, strategy.mode()), before), method
        assert torch.equal(supernet(images(), weights), before), method


def test_gdas_has_the_gradient_of_the_softmax() -> None:
    strategy, _, architecture = parts("gdas")
    architecture.temperature = 2.0
    strategy.begin_step(START, architecture)
    factors = torch.randn(5, 6, dtype=torch.float64)
    (ours,) = torch.autograd.grad((strategy.weights(architecture) * factors).sum(), architecture.alpha)
    soft = ((architecture.alpha + architecture.noise) / 2.0).softmax(dim=1)
    (expected,) = torch.autograd.grad((soft * factors).sum(), architecture.alpha)
    torch.testing.assert_close(ours, expected)


def test_gdas_draws_by_the_gumbel_distribution() -> None:
    strategy, _, architecture = parts("gdas")
    counts = torch.zeros(5, 6, dtype=torch.float64)
    for step in range(1500):
        strategy.begin_step(StepProgress(step, 0.0, 0, 0.0), architecture)
        counts += strategy.weights(architecture).detach()
    torch.testing.assert_close(counts / 1500, architecture.alpha.detach().softmax(dim=1), atol=0.05, rtol=0)


# --- random ---------------------------------------------------------------------------------------------------------


def test_random_draws_viable_cells_uniformly() -> None:
    config = make("random", space={"nodes": 1, "heads": [2], "ratios": [1.0]})
    cells = comparable_cells(config, 10)
    chance = random.Random(0)
    counts: dict[Genotype, int] = {}
    for _ in range(1000):
        cell = cells.draw(chance)
        counts[cell] = counts.get(cell, 0) + 1
    # two edges of identity, msa_2 or mlp_1: the 5 of 9 that hold an attention
    assert len(counts) == 5 and all(is_viable(cell) for cell in counts)
    assert all(150 < count < 250 for count in counts.values())


@pytest.mark.parametrize("rule", ["darts", "strongest"])
def test_random_keeps_to_budget_rule_and_seed(tmp_path: Path, rule: str) -> None:
    limit = 6_000

    def found(seed: int) -> dict[str, Any]:
        changes = {"search": {"derive": {"max_params": limit, "rule": rule}}, "runtime": {"seed": seed}}
        return searched(make("random", **changes), str(tmp_path / str(seed)))

    results = [found(seed) for seed in range(6)]
    cells = [Genotype.from_dict(result["genotype"]) for result in results]
    assert all(result["params"] <= limit and not result["reason"] for result in results)
    assert len(set(cells)) > 1
    if rule == "darts":
        assert all(sum(e.op != "zero" for e in cell.edges) == 4 for cell in cells)
    assert not (tmp_path / "0" / "metrics.jsonl").exists() and not (tmp_path / "0" / "checkpoints").exists()


def test_random_costs_as_much_as_its_reference() -> None:
    reference = Genotype.from_ops(2, ["msa_2", "mlp_0.5", "zero", "mlp_0.5", "mlp_0.5"])
    config = make("random")
    wanted = cost_of(reference, config.model, 10).macs
    cells = comparable_cells(config, 10, reference)
    for seed in range(10):
        macs = cost_of(cells.draw(random.Random(seed)), config.model, 10).macs
        assert abs(macs / wanted - 1) <= 0.05
    with pytest.raises(UserError, match=r"search\.random\.reference holds"):
        comparable_cells(make("random", search={"random": {"reference": "dasvit_imagenet100"}}), 10)
    with pytest.raises(UserError, match="the smallest has"):
        comparable_cells(make("random", search={"derive": {"max_params": 10}}), 10).draw(random.Random(0))


# --- evolution ------------------------------------------------------------------------------------------------------


def test_evolution_trains_one_viable_path_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, supernet, architecture = parts("evolution")
    for step in range(4):
        strategy.begin_step(StepProgress(step, 0.0, 0, 0.0), architecture)
        path = strategy.weights(architecture).double()
        cell = Genotype.from_ops(2, [SPACE.operations[o] for o in path.argmax(dim=1).tolist()])
        assert is_viable(cell) and path.tolist() == SPACE.one_hot(cell)
        assert count_operations(monkeypatch, lambda w=path: supernet(images(), w, strategy.mode())) == 8  # type: ignore[misc]


def test_evolution_never_leaves_the_budget_and_never_gets_worse() -> None:
    limit = 6_000
    changes = {"derive": {"max_params": limit}, "evolution": {"population": 12, "generations": 6, "parents": 4}}
    strategy, _, architecture = parts("evolution", search=changes)
    assert isinstance(strategy, Evolution)
    model = strategy.config.model
    evaluated = []

    def evaluate(weights: Tensor) -> float:  # later operations and later edges are the better ones
        cell = Genotype.from_ops(2, [SPACE.operations[o] for o in weights.argmax(dim=1).tolist()])
        evaluated.append(cell)
        return float((weights.argmax(dim=1) * torch.tensor([1, 2, 3, 4, 5])).sum())

    strategy.end_epoch(architecture, False, False, no_evaluation)
    assert not strategy.notes()
    strategy.end_epoch(architecture, False, True, evaluate)
    assert all(cost_of(cell, model, 10).params <= limit for cell in evaluated)
    assert len(set(evaluated)) == len(evaluated) == strategy.evaluations  # nothing twice
    best = strategy.notes()["best_top1"]
    assert best == sorted(best) and len(best) == 7
    assert best[-1] > best[0]
    cells = [entry.cell for entry in strategy.evaluated_cells()]
    assert cells == sorted(evaluated, key=lambda cell: -strategy.scores[" ".join(cell.ops)])
    assert [tuple(entry["ops"]) for entry in strategy.notes()["cells"]] == [cell.ops for cell in cells]


def test_evolution_weighs_operations_by_what_their_cells_reached() -> None:
    """Every operation keeps a weight, and one whose cells did better than another's the larger one."""
    strategy, _, architecture = parts("evolution", search={"evolution": {"population": 40, "generations": 0}})

    def evaluate(weights: Tensor) -> float:
        return 100 * float(weights[0, 3])  # the first edge's operation decides alone

    strategy.end_epoch(architecture, False, True, evaluate)
    strengths = architecture.strengths()
    assert (strengths > 0).all()
    others = [o for o in range(strengths.shape[1]) if o != 3]
    assert strengths[0, 3] > 1.5 * strengths[0, others].max()


def test_evolution_goes_on_within_a_generation() -> None:
    def evaluate(weights: Tensor) -> float:
        return float((weights.argmax(dim=1) * torch.tensor([1, 3, 5, 7, 11])).sum() % 17)

    whole = parts("evolution")[0]
    assert isinstance(whole, Evolution)
    found = whole.evolve(evaluate)
    cut = parts("evolution")[0]
    assert isinstance(cut, Evolution)
    cut.load_state_dict({"scores": dict(list(whole.scores.items())[:8])})
    asked: list[Tensor] = []

    def ask(weights: Tensor) -> float:
        asked.append(weights)
        return evaluate(weights)

    assert cut.evolve(ask) == found
    assert cut.state_dict() == whole.state_dict() and len(asked) == len(whole.scores) - 8
