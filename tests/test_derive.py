import dataclasses
import itertools
import math
import random

import pytest

from dasvit.cell.cost import network_cost, operation_cost, skeleton_cost, token_count
from dasvit.cell.genotype import PUBLISHED, Genotype, edge_list, is_viable
from dasvit.cell.graph import live_edges
from dasvit.cell.space import Space
from dasvit.config import ModelConfig
from dasvit.errors import UserError
from dasvit.search.derive import Budget, derive

SPACE = Space(2, ("zero", "identity", "msa_8", "mlp_0.5", "mlp_1"))
CONFIG = ModelConfig(image_size=8, patch_size=2, width=16, layers=2, heads=2)


def costs(space: Space) -> dict[str, tuple[int, int]]:
    found = {op: operation_cost(op, CONFIG.width, token_count(CONFIG)) * CONFIG.layers for op in space.operations}
    return {op: (cost.params, cost.macs) for op, cost in found.items()}


def make_budget(space: Space, max_params: int = 0, max_macs: int = 0) -> Budget:
    base = skeleton_cost(CONFIG, 10)
    return Budget(costs(space), (base.params, base.macs), max_params, max_macs)


def random_weights(space: Space, seed: int, attention: float = 1.0) -> list[list[float]]:
    draw = random.Random(seed)
    return [
        [draw.random() * (attention if op.startswith("msa") else 1.0) for op in space.operations] for _ in space.edges
    ]


@pytest.mark.parametrize("genotype", PUBLISHED.values())
def test_published_cells_come_back_from_their_one_hot_weights(genotype: Genotype) -> None:
    space = Space(2, ("zero", "identity", "msa_4", "msa_8", "msa_12", "mlp_0.5", "mlp_1", "mlp_2"))
    for rule in ("darts", "strongest"):
        found = derive(space.one_hot(genotype), space.everything(), space, rule=rule)
        assert found.genotype == found.unconstrained == genotype and not found.reason


def test_every_viable_cell_comes_back_from_its_one_hot_weights() -> None:
    for ops in itertools.product(SPACE.operations, repeat=5):
        genotype = Genotype.from_ops(2, ops)
        found = derive(SPACE.one_hot(genotype), SPACE.everything(), SPACE, rule="strongest")
        assert found.unconstrained == genotype
        if is_viable(genotype):
            assert found.genotype == genotype


def brute_force(
    weights: list[list[float]], rule: str, keep: int, budget: Budget, space: Space = SPACE
) -> tuple[float, Genotype] | tuple[None, None]:
    best: tuple[float, Genotype] | tuple[None, None] = (None, None)
    for ops in itertools.product(space.operations, repeat=len(space.edges)):
        genotype = Genotype.from_ops(space.nodes, ops)
        if not is_viable(genotype) or not budget.fits(budget.cost(genotype)):
            continue
        counted = [i for i, op in enumerate(ops) if rule == "strongest" or op != "zero"]
        if rule == "darts":
            kept = [e for e in genotype.edges if e.op != "zero"]
            incoming = {f"x{node + 1}": node + 2 for node in range(space.nodes)}
            if any(sum(e.target == t for e in kept) != min(keep, n) for t, n in incoming.items()):
                continue
        score = sum(math.log(weights[i][space.operations.index(ops[i])]) for i in counted)
        if best[0] is None or score > best[0]:
            best = (score, genotype)
    return best


@pytest.mark.parametrize("rule", ["darts", "strongest"])
@pytest.mark.parametrize("seed", range(8))
def test_budget_against_brute_force(rule: str, seed: int) -> None:
    draw = random.Random(seed)
    weights = random_weights(SPACE, seed, attention=0.3)
    base = skeleton_cost(CONFIG, 10)
    unit = operation_cost("msa_8", CONFIG.width, token_count(CONFIG)) * CONFIG.layers
    max_params = draw.choice([0, base.params + round(draw.uniform(1, 3) * unit.params)])
    max_macs = draw.choice([0, base.macs + round(draw.uniform(1, 3) * unit.macs)])
    keep = draw.choice([1, 2, 3])
    budget = make_budget(SPACE, max_params, max_macs)
    _, expected = brute_force(weights, rule, keep, budget)
    if expected is None:
        with pytest.raises(UserError, match="no viable cell fits the budget"):
            derive(weights, SPACE.everything(), SPACE, rule=rule, edges_per_node=keep, budget=budget)
        return
    found = derive(weights, SPACE.everything(), SPACE, rule=rule, edges_per_node=keep, budget=budget)
    assert found.genotype == expected
    assert bool(found.reason) == (found.genotype != found.unconstrained)


@pytest.mark.parametrize("rule", ["darts", "strongest"])
@pytest.mark.parametrize("seed", range(6))
def test_a_latency_budget_against_brute_force(rule: str, seed: int) -> None:
    """Latencies of their own, alone and beside a limit on multiply-adds: what is cheap in one is dear in the other."""
    draw = random.Random(seed)
    weights = random_weights(SPACE, seed, attention=0.3)
    base = skeleton_cost(CONFIG, 10)
    parts = {op: (*cost, 0 if op == "zero" else draw.randint(5, 900)) for op, cost in costs(SPACE).items()}
    free = Budget(parts, (base.params, base.macs, 137))
    dearest = free.cost(derive(weights, SPACE.everything(), SPACE, rule=rule).genotype)
    limits = {"max_latency": dearest[2] * 4 // 5, "max_macs": draw.choice([0, dearest[1] * 9 // 10])}
    budget = dataclasses.replace(free, max_latency=limits["max_latency"], max_macs=limits["max_macs"])
    _, expected = brute_force(weights, rule, 2, budget)
    if expected is None:
        with pytest.raises(UserError, match="no viable cell fits the budget"):
            derive(weights, SPACE.everything(), SPACE, rule=rule, budget=budget)
        return
    found = derive(weights, SPACE.everything(), SPACE, rule=rule, budget=budget).genotype
    assert found == expected
    naive = 137 + sum(parts[found.ops[i]][2] for i in live_edges(found))
    assert budget.cost(found)[2] == naive <= limits["max_latency"]


def test_none_is_fast_enough() -> None:
    parts = {op: (*cost, 0 if op == "zero" else 1500) for op, cost in costs(SPACE).items()}
    budget = Budget(parts, (0, 0, 700), max_latency=2000)
    with pytest.raises(UserError, match=r"the fastest takes 2\.20 ms \(limit 2\.00 ms\)"):
        derive(random_weights(SPACE, 0), SPACE.everything(), SPACE, rule="strongest", budget=budget)


@pytest.mark.parametrize(
    ("rule", "space"),
    [
        ("darts", Space(3, ("zero", "msa_8", "mlp_1"))),
        ("strongest", Space(3, ("zero", "msa_8", "mlp_1"))),
        ("strongest", Space(4, ("zero", "msa_8"))),
    ],
)
def test_more_nodes_against_brute_force(rule: str, space: Space) -> None:
    weights = random_weights(space, 5)
    free = derive(weights, space.everything(), space, rule=rule).genotype
    budget = make_budget(space, *(cost * 9 // 10 for cost in make_budget(space).cost(free)))
    _, expected = brute_force(weights, rule, 2, budget, space)
    found = derive(weights, space.everything(), space, rule=rule, budget=budget)
    assert expected is not None and found.genotype == expected != free


def test_budget_costs_are_those_of_the_built_network() -> None:
    budget = make_budget(SPACE)
    for seed in range(20):
        genotype = Genotype.from_ops(2, random.Random(seed).choices(SPACE.operations, k=5))
        cost = network_cost(genotype, CONFIG, 10)
        assert budget.cost(genotype) == (cost.params, cost.macs)


def test_a_cell_without_attention_is_moved_and_the_user_is_told() -> None:
    weights = [[0.1, 0.2, 0.05, 0.5, 0.4] for _ in range(5)]
    weights[4][2] = 0.08
    found = derive(weights, SPACE.everything(), SPACE)
    assert found.unconstrained.ops.count("mlp_0.5") == 4
    assert found.genotype.ops.count("msa_8") == 1 and found.genotype.ops[4] == "msa_8"
    assert "no attention" in found.reason


def test_nothing_viable_is_left() -> None:
    alive = tuple(tuple(not op.startswith("msa") for op in SPACE.operations) for _ in SPACE.edges)
    with pytest.raises(UserError, match=r"search\.stages\.keep"):
        derive(random_weights(SPACE, 0), alive, SPACE)


def test_a_budget_too_small_says_what_the_smallest_needs() -> None:
    with pytest.raises(UserError, match=r"the smallest has [\d,]+ parameters \(limit 10\)"):
        derive(random_weights(SPACE, 0), SPACE.everything(), SPACE, budget=make_budget(SPACE, max_params=10))


def test_pruned_operations_are_never_chosen() -> None:
    alive = tuple(tuple(op != "mlp_1" for op in SPACE.operations) for _ in SPACE.edges)
    weights = [[1.0 if op == "mlp_1" else 0.1 for op in SPACE.operations] for _ in SPACE.edges]
    assert "mlp_1" not in derive(weights, alive, SPACE).genotype.ops


@pytest.mark.parametrize("rule", ["darts", "strongest"])
def test_four_nodes_fit_their_budget(rule: str) -> None:
    space = Space(4, ("zero", "identity", "msa_2", "msa_4", "msa_8", "mlp_0.5", "mlp_1", "mlp_2"))
    assert len(edge_list(4)) == 14
    free = derive(random_weights(space, 1, 0.2), space.everything(), space, rule=rule).genotype
    limit = network_cost(free, CONFIG, 10).params * 2 // 3
    found = derive(
        random_weights(space, 1, 0.2), space.everything(), space, rule=rule, budget=make_budget(space, limit)
    )
    assert is_viable(found.genotype) and network_cost(found.genotype, CONFIG, 10).params <= limit


def test_unknown_rule() -> None:
    with pytest.raises(UserError, match="unknown rule"):
        derive(random_weights(SPACE, 0), SPACE.everything(), SPACE, rule="best")


@pytest.mark.parametrize("rule", ["darts", "strongest"])
def test_ties_are_drawn_by_the_seed(rule: str) -> None:
    """Equal weights: every operation of every edge has its turn, and one seed gives one cell."""
    space = Space(2, ("zero", "identity", "msa_2", "msa_4", "mlp_1"))
    alike = [[0.2] * len(space.operations) for _ in space.edges]

    def cell(seed: int) -> Genotype:
        return derive(alike, space.everything(), space, rule=rule, seed=seed).genotype

    cells = [cell(seed) for seed in range(200)]
    assert cells == [cell(seed) for seed in range(200)]
    names = [op for op in space.operations if rule == "strongest" or op != "zero"]
    for edge in range(len(space.edges)):
        assert {cell.ops[edge] for cell in cells} >= set(names)
    assert sum(cell.ops.count("identity") for cell in cells) < 0.35 * sum(
        sum(op != "zero" for op in cell.ops) for cell in cells
    )


def test_a_seed_does_not_move_a_choice_without_ties() -> None:
    space = Space(2, ("zero", "identity", "msa_2", "mlp_1"))
    chance = random.Random(0)
    for _ in range(50):
        weights = [[chance.random() for _ in space.operations] for _ in space.edges]
        cells = {derive(weights, space.everything(), space, seed=seed).genotype for seed in range(5)}
        assert len(cells) == 1
