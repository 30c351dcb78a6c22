from dasvit.cell.space import Space
from dasvit.search.derive import derive
from dasvit.search.stages import StageWeights, prune, with_pruned

SPACE = Space(2, ("zero", "identity", "msa_2", "mlp_1"))


def names(alive: tuple[tuple[bool, ...], ...]) -> list[set[str]]:
    return [{op for op, a in zip(SPACE.operations, row, strict=True) if a} for row in alive]


def test_the_strongest_survive() -> None:
    weights = [[0.1, 0.2, 0.3, 0.4]] * 4 + [[0.4, 0.3, 0.2, 0.1]]
    assert names(prune(weights, SPACE.everything(), 2, SPACE)) == [{"msa_2", "mlp_1"}] * 4 + [{"zero", "identity"}]


def test_keep_0_keeps_all() -> None:
    assert prune([[1.0, 0, 0, 0]] * 5, SPACE.everything(), 0, SPACE) == SPACE.everything()


def test_the_dead_stay_dead() -> None:
    weights = [[0.1, 0.2, 0.3, 0.4]] * 5
    once = prune(weights, SPACE.everything(), 3, SPACE)
    assert names(prune([[1.0, 0.2, 0.3, 0.4]] * 5, once, 2, SPACE)) == [{"msa_2", "mlp_1"}] * 5


def test_zero_is_never_alone() -> None:
    weights = [[0.9, 0.2, 0.3, 0.1]] * 5
    assert names(prune(weights, SPACE.everything(), 1, SPACE)) == [{"msa_2"}] * 5


def test_the_last_attention_stays_so_that_a_cell_can_be_derived() -> None:
    weights = [[0.2, 0.3, 0.05, 0.4] for _ in range(5)]
    weights[3][2] = 0.1
    alive = prune(weights, SPACE.everything(), 2, SPACE)
    assert names(alive) == [{"identity", "mlp_1"}] * 3 + [{"msa_2", "mlp_1"}] + [{"identity", "mlp_1"}]
    assert "msa_2" in derive(weights, alive, SPACE).genotype.ops


def test_pruned_operations_come_back_below_the_survivors() -> None:
    first = [[0.1, 0.2, 0.3, 0.4]] * 5
    second = [[0.0, 0.4, 0.3, 0.3]] * 5
    third = [[0.0, 0.0, 0.8, 0.2]] * 5
    alive = [tuple((w > 0) for w in row) for row in (first[0], second[0], third[0])]
    stages = [StageWeights(weights, (mask,) * 5) for weights, mask in zip((first, second, third), alive, strict=True)]
    # identity weighed more than the weakest survivor when it was pruned: it comes back at the least survivor's weight;
    # zero at half of that, as it weighed half of the weakest survivor of its time
    assert with_pruned(stages)[0] == [0.1, 0.2, 0.8, 0.2]
    assert with_pruned(stages[:1]) == first
