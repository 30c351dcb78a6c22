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


def test_the_seed_draws_among_equal_weights() -> None:
    """Each as often, the same at every call and as derivation draws."""
    equal = [[0.25] * 4] * 5
    drawn = [prune(equal, SPACE.everything(), 1, SPACE, seed) for seed in range(300)]
    assert drawn == [prune(equal, SPACE.everything(), 1, SPACE, seed) for seed in range(300)]
    for edge in range(5):
        kept = [names(alive)[edge].pop() for alive in drawn]
        counts = [kept.count(op) for op in SPACE.operations]
        assert counts[0] == 0 and all(70 < count < 130 for count in counts[1:]), (edge, counts)
    for seed, alive in enumerate(drawn):
        chosen = derive(equal, SPACE.everything(), SPACE, rule="strongest", seed=seed).unconstrained.ops
        if "msa_2" in chosen:  # no attention had to stay in another's place
            assert all(op in kept for op, kept in zip(chosen, names(alive), strict=True) if op != "zero")


def test_the_seed_draws_the_attention_that_stays() -> None:
    weights = [[0.2, 0.3, 0.1, 0.4]] * 5
    places = []
    for seed in range(200):
        alive = names(prune(weights, SPACE.everything(), 1, SPACE, seed))
        assert sorted(map(sorted, alive)) == [["mlp_1"]] * 4 + [["msa_2"]]
        places.append(alive.index({"msa_2"}))
    assert all(20 < places.count(edge) < 60 for edge in range(5))


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
