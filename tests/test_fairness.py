import pytest
import torch

from dasvit.cell.space import Space
from dasvit.config import FairnessConfig
from dasvit.search.fairness import fairness

SPACE = Space(2, ("zero", "identity", "msa_4", "msa_8", "msa_12", "mlp_0.5", "mlp_1", "mlp_2"))
EVERYTHING = torch.ones(5, 8, dtype=torch.bool)


def test_uniform_weights_by_hand() -> None:
    terms = fairness(torch.full((5, 8), 1 / 8), EVERYTHING, SPACE, FairnessConfig(skip=2.0))
    assert terms.skip.item() == pytest.approx(1 / 8)
    assert terms.types.item() == 0  # 3/8 lies within [0.3, 0.5]
    assert terms.total.item() == pytest.approx(2 / 8)


def test_one_hot_weights_by_hand() -> None:
    # identity on three edges, mlp_1 on two: skip 0.6; msa 0, 0.3 too little; mlp 0.4, within the bounds
    weights = torch.zeros(5, 8)
    weights[:3, 1] = 1
    weights[3:, 6] = 1
    config = FairnessConfig(skip=0.5, types=2.0, under=3.0, over=5.0)
    terms = fairness(weights, EVERYTHING, SPACE, config)
    assert terms.skip.item() == pytest.approx(0.6)
    assert terms.types.item() == pytest.approx(3 * 0.3)
    assert terms.total.item() == pytest.approx(0.5 * 0.6 + 2 * 0.9)


def test_too_much_of_a_type() -> None:
    weights = torch.zeros(5, 8)
    weights[:, 2] = 1  # msa 1, 0.5 too much; mlp 0, 0.3 too little
    terms = fairness(weights, EVERYTHING, SPACE, FairnessConfig(under=3.0, over=5.0))
    assert terms.types.item() == pytest.approx(5 * 0.5 + 3 * 0.3)
    assert {name: w.item() for name, w in terms.type_weights.items()} == {"msa": 1.0, "mlp": 0.0}


def test_a_type_with_no_operation_left_is_skipped() -> None:
    alive = EVERYTHING.clone()
    alive[:, 5:] = False
    weights = torch.zeros(5, 8)
    weights[:, 2] = 0.4
    weights[:, 0] = 0.6
    terms = fairness(weights, alive, SPACE, FairnessConfig())
    assert set(terms.type_weights) == {"msa"}
    assert terms.types.item() == 0


def test_no_skip_left() -> None:
    alive = EVERYTHING.clone()
    alive[:, 1] = False
    assert fairness(torch.full((5, 8), 1 / 8), alive, SPACE, FairnessConfig()).skip.item() == 0
