"""The model of candidates' losses, against Gaussian processes of scikit-learn and what it was made from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import BayesianRidge

from dasvit.cell.genotype import Genotype, is_viable
from dasvit.cell.space import Space
from dasvit.config import Config, ModelConfig, SpaceConfig
from dasvit.search.expected import best_cell
from dasvit.search.halving import Candidate, Rung
from dasvit.search.surrogate import GROUPS, PRIOR_SPREAD, Features, LinearModel, common_losses

SPACE = Space(2, ("zero", "identity", "msa_2", "msa_4", "mlp_1", "mlp_2"))
MACS = {"zero": 0.0, "identity": 0.0, "msa_2": 4.0, "msa_4": 4.0, "mlp_1": 2.0, "mlp_2": 4.0}


def some_cells(count: int, seed: int = 0) -> list[Genotype]:
    chance = np.random.default_rng(seed)
    return [Genotype.from_ops(2, [SPACE.operations[i] for i in chance.integers(0, 6, 5)]) for _ in range(count)]


def losses_of(cells: list[Genotype], noise: float, seed: int = 1) -> np.ndarray:
    """mlp_2 anywhere helps, msa_4 on the second edge helps, identity harms."""
    chance = np.random.default_rng(seed)
    true = [
        -0.3 * cell.ops.count("mlp_2") - 0.5 * (cell.ops[1] == "msa_4") + 0.2 * cell.ops.count("identity")
        for cell in cells
    ]
    return 2.0 + np.array(true) + noise * chance.standard_normal(len(cells))


def test_rows_are_counts() -> None:
    """Against a loop over the edges."""
    features = Features(SPACE, MACS)
    cells = some_cells(20)
    rows = features.rows(cells)
    macs = np.array([MACS[op] for op in SPACE.operations])
    for cell, row in zip(cells, rows, strict=True):
        for edge, op in itertools.product(range(5), range(6)):
            assert row[edge * 6 + op] == (cell.ops[edge] == SPACE.operations[op])
        for op, name in enumerate(SPACE.operations):
            assert row[30 + op] == cell.ops.count(name)
        assert row[36] == pytest.approx(sum((MACS[op] - macs.mean()) / macs.std() for op in cell.ops))
    assert rows.shape == (20, 37) and np.bincount(features.groups).tolist() == [30, 6, 1]


def test_the_posterior_is_that_of_bayes() -> None:
    """Against the textbook's normal equations, (X'X / s² + D⁻¹)⁻¹ X'y / s², in float64."""
    cells = some_cells(15)
    losses = losses_of(cells, 0.1)
    model = LinearModel(Features(SPACE, MACS), cells, losses)
    x = np.column_stack([model.features.rows(cells), np.ones(15)])
    prior = np.append(model.scales[model.features.groups] ** 2, 1.0)
    precision = x.T @ x / model.scales[-1] ** 2 + np.diag(1 / prior)
    y = (losses - losses.mean()) / losses.std()
    mean, covariance = model.posterior
    np.testing.assert_allclose(mean, np.linalg.solve(precision, x.T @ y / model.scales[-1] ** 2), atol=1e-8)
    np.testing.assert_allclose(covariance, np.linalg.inv(precision), atol=1e-7)
    expected, sd = model.predict(cells)
    np.testing.assert_allclose(expected, losses.mean() + losses.std() * (x @ mean), atol=1e-10)
    variance = np.einsum("nf,fg,ng->n", x, covariance, x) + model.scales[-1] ** 2
    np.testing.assert_allclose(sd, losses.std() * np.sqrt(variance), atol=1e-10)


def test_scales_are_the_most_probable() -> None:
    """No step away from them is better, by scipy's own density of what was seen and of the scales."""
    cells = some_cells(24)
    model = LinearModel(Features(SPACE, MACS), cells, losses_of(cells, 0.1))
    x, groups = model.features.rows(cells), model.features.groups
    y = (model.losses - model.losses.mean()) / model.losses.std()

    def density(scales: np.ndarray) -> float:
        covariance = np.ones((24, 24)) + scales[-1] ** 2 * np.eye(24)
        for group, scale in enumerate(scales[:-1]):
            covariance += scale**2 * x[:, groups == group] @ x[:, groups == group].T
        prior = stats.norm(np.log(0.5), PRIOR_SPREAD).logpdf(np.log(scales)).sum()
        return float(stats.multivariate_normal(np.zeros(24), covariance).logpdf(y) + prior)

    best = density(model.scales)
    for place, factor in itertools.product(range(len(GROUPS) + 1), (0.8, 1.25)):
        other = model.scales.copy()
        other[place] *= factor
        assert density(other) < best + 1e-6


def test_it_predicts_cells_that_it_has_not_seen() -> None:
    """Better than scikit-learn's Bayesian ridge on the same rows, which has one scale for all features, or as well."""
    taus, ridge = [], []
    unseen = some_cells(300, seed=99)
    truth = losses_of(unseen, 0.0)
    for seed in range(8):
        cells = some_cells(24, seed)
        losses = losses_of(cells, 0.15, seed)
        model = LinearModel(Features(SPACE, MACS), cells, losses)
        taus.append(stats.kendalltau(model.predict(unseen)[0], truth).statistic)
        plain = BayesianRidge().fit(model.features.rows(cells), losses)
        ridge.append(stats.kendalltau(plain.predict(model.features.rows(unseen)), truth).statistic)
    assert np.mean(taus) > 0.6 and np.mean(taus) > np.mean(ridge) - 0.03


def test_its_uncertainty_is_honest() -> None:
    """Of unseen losses 90 % lie within its 90 % interval, give or take."""
    inside = []
    for seed in range(20):
        cells, unseen = some_cells(24, seed), some_cells(50, seed + 1000)
        model = LinearModel(Features(SPACE, MACS), cells, losses_of(cells, 0.2, seed))
        mean, sd = model.predict(unseen)
        inside += (np.abs(losses_of(unseen, 0.2, seed + 50) - mean) < 1.645 * sd).tolist()
    assert 0.82 < np.mean(inside) < 0.97


def test_a_supernet_that_knows_nothing_gets_no_weight() -> None:
    """A useless prior has a coefficient near 0, a good one does not."""
    cells = some_cells(30)
    losses = losses_of(cells, 0.1)
    effect = np.zeros((5, 6))
    effect[:, SPACE.operations.index("mlp_2")] = 0.3
    effect[1, SPACE.operations.index("msa_4")] += 0.5
    effect[:, SPACE.operations.index("identity")] = -0.2

    def weight(supernet: np.ndarray) -> float:
        return float(LinearModel(Features(SPACE, MACS, supernet), cells, losses).posterior[0][-2])

    spreads = [
        LinearModel(Features(SPACE, MACS, scores), cells, losses).spreads()
        for scores in (effect, *(np.random.default_rng(seed).standard_normal((5, 6)) for seed in range(5)))
    ]
    useless = np.mean([one["supernet"] for one in spreads[1:]])
    assert list(spreads[0]) == [*GROUPS, "noise"] and spreads[0]["supernet"] > 4 * useless
    rows, model = Features(SPACE, MACS).rows(cells), LinearModel(Features(SPACE, MACS), cells, losses)
    by_hand = (rows[:, -1] * model.posterior[0][-2]).std() * losses.std()
    assert "supernet" not in model.spreads() and model.spreads()["multiply-adds"] == pytest.approx(by_hand)

    luck = [weight(np.random.default_rng(seed).standard_normal((5, 6))) for seed in range(20)]
    assert weight(effect) < -0.2 and np.std(luck) < abs(weight(effect)) / 4


def test_draws_are_of_the_posterior() -> None:
    cells = some_cells(12)
    model = LinearModel(Features(SPACE, MACS), cells, losses_of(cells, 0.2))
    chance = np.random.default_rng(0)
    tables = np.stack([model.draw(chance) for _ in range(2000)])
    expected = model.table(model.posterior[0])
    error = tables.std(axis=0) / np.sqrt(len(tables))
    assert np.abs((tables.mean(axis=0) - expected) / error).max() < 4.5
    mean, sd = model.effects()
    centred = tables.mean(axis=1) - tables.mean(axis=(1, 2))[:, None]
    np.testing.assert_allclose(centred.mean(axis=0), mean, atol=4 * sd.max() / np.sqrt(2000))
    np.testing.assert_allclose(centred.std(axis=0), sd, rtol=0.1)


def test_the_best_cell_of_a_table_is_the_best_of_all() -> None:
    """Within a budget, against all cells of the space."""
    config = Config(
        model=ModelConfig(image_size=8, patch_size=2, width=16, layers=2, heads=2),
        space=SpaceConfig(nodes=2, heads=[2], ratios=[0.5, 1.0]),
    )
    space = Space.from_config(config.space)
    from dasvit.models.cost import cost_of

    table = np.random.default_rng(5).standard_normal((5, len(space.operations)))
    for rule in ("darts", "strongest"):
        config.search.derive.rule = rule
        cells = [Genotype.from_ops(2, ops) for ops in itertools.product(space.operations, repeat=5)]
        cells = [cell for cell in cells if is_viable(cell)]
        if rule == "darts":
            cells = [cell for cell in cells if "zero" not in cell.ops[:2] and cell.ops[2:].count("zero") == 1]
        costs = {cell: cost_of(cell, config.model, 10).macs for cell in cells[:: max(1, len(cells) // 60)]}
        config.search.derive.max_macs = sorted(costs.values())[len(costs) // 2]

        def loss(cell: Genotype) -> float:
            return float(sum(table[edge, space.operations.index(op)] for edge, op in enumerate(cell.ops)))

        found = best_cell(table, config, 10, config.search.derive).genotype
        limit = config.search.derive.max_macs
        assert cost_of(found, config.model, 10).macs <= limit
        better = [cell for cell in cells if loss(cell) < loss(found) - 1e-9]
        assert all(cost_of(cell, config.model, 10).macs > limit for cell in better)


def test_later_rungs_on_the_scale_of_the_first() -> None:
    """By hand: the best two of four go on, change places, and keep their mean and spread."""
    cell = Genotype.from_ops(1, ["msa_2", "mlp_1"])
    values = [[2.0, 1.2], [2.2, 1.0], [2.6], [3.0]]
    candidates = [Candidate(cell, [Rung(1.0 + i, loss, 0.0) for i, loss in enumerate(row)]) for row in values]
    np.testing.assert_allclose(common_losses(candidates), [2.2, 2.0, 2.6, 3.0])
    assert common_losses(candidates[2:]).tolist() == [2.6, 3.0]
