"""The metrics of docs/tasks.md against scikit-learn, a naive loop and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from dasvit.report import scores
from dasvit.training.evaluation import Evaluation, joined

pytestmark = pytest.mark.fault("a constant among networks")


def example(seed: int, count: int, classes: int, skew: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels of unbalanced classes, some of which may have no image or never be named."""
    chance = np.random.default_rng(seed)
    shares = np.arange(1, classes + 1) ** -skew
    labels = chance.choice(classes, count, p=shares / shares.sum())
    logits = chance.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels] + np.log(shares)
    return torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(labels)


# scikit-learn warns of classes that are named and have no image, which are wanted here.
@pytest.mark.filterwarnings("ignore::UserWarning:sklearn", "ignore::sklearn.exceptions.UndefinedMetricWarning")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 80), st.integers(2, 9), st.floats(0, 4))
def test_the_record_is_scikit_learns(seed: int, count: int, classes: int, skew: float) -> None:
    logits, truth = example(seed, count, classes, skew)
    found = Evaluation.of(logits, truth)
    labels, named = truth.numpy(), found.shares.argmax(1)
    shares = logits.double().softmax(1).numpy()
    # scikit-learn leaves classes out of account that nothing is of, and warns where a class that is named has no image.
    present = np.union1d(labels, named)
    recall = precision_recall_fscore_support(labels, named, labels=np.unique(labels), zero_division=0)[1]
    assert found.balanced_accuracy == pytest.approx(100 * recall.mean())
    if np.isin(named, labels).all():
        assert found.balanced_accuracy == pytest.approx(100 * balanced_accuracy_score(labels, named))
    assert found.macro_f1 == pytest.approx(100 * f1_score(labels, named, average="macro", zero_division=0))
    assert found.majority == pytest.approx(100 * np.bincount(labels).max() / count)
    assert found.loss == pytest.approx(log_loss(labels, shares, labels=range(classes)), rel=1e-6)
    assert found.confusion == confusion_matrix(labels, named, labels=range(classes)).tolist()
    rows = found.record([str(i) for i in range(classes)])["by_class"]
    expected = precision_recall_fscore_support(labels, named, labels=range(classes), zero_division=0)
    for key, column in zip(("precision", "recall", "f1"), expected, strict=False):
        assert [row[key] for row in rows] == pytest.approx((100 * column).tolist())
    assert [row["images"] for row in rows] == expected[3].tolist() and len(present) <= classes
    if classes > 5:
        top5 = top_k_accuracy_score(labels, logits.numpy(), k=5, labels=range(classes))
        assert found.summary()["top5"] == pytest.approx(100 * top5)
    else:
        assert "top5" not in found.summary()


def test_calibration_error_is_the_naive_loops() -> None:
    logits, labels = example(1, 500, 4, 1.0)
    shares = logits.double().softmax(1).numpy()
    total = 0.0
    for place in range(15):
        low, high = place / 15, (place + 1) / 15
        rows = [i for i, row in enumerate(shares) if low < row.max() <= high]
        if rows:
            accuracy = np.mean([shares[i].argmax() == labels[i] for i in rows])
            total += len(rows) / 500 * abs(accuracy - np.mean([shares[i].max() for i in rows]))
    assert Evaluation.of(logits, labels).ece == pytest.approx(100 * total)
    assert total > 0.01


def test_calibration_error_of_what_is_sure_and_wrong_half_the_time() -> None:
    assert scores.calibration_error(np.ones(10), np.arange(10) < 5) == 50.0
    assert scores.calibration_error(np.full(10, 0.5), np.arange(10) < 5) == 0.0


def test_a_constant_is_called_one() -> None:
    constant = [[71, 0, 0], [20, 0, 0], [9, 0, 0]]
    assert scores.metrics(constant) == pytest.approx(
        {"top1": 71.0, "majority": 71.0, "balanced_accuracy": 100 / 3, "macro_f1": 100 * (142 / 171) / 3}
    )
    names = ["field", "forest", "town"]
    assert "calls every image field" in scores.remark(constant, names)
    worse = [[69, 2, 0], [20, 0, 0], [9, 0, 0]]
    assert scores.remark(worse, names) == (
        "The network is no better than a constant that calls every image field (71.00 %)."
    )
    assert "On 100 images the network cannot be told" in scores.remark([[70, 1, 0], [15, 5, 0], [9, 0, 0]], names)
    assert scores.remark([[7000, 100, 0], [1500, 500, 0], [400, 0, 500]], names) == ""
    assert scores.remark([[50, 0], [5, 45]], names[:2]) == ""


@pytest.mark.parametrize("world", [1, 2, 3])
def test_rows_of_several_processes_come_together_in_the_order_of_the_images(world: int) -> None:
    logits, labels = torch.arange(20.0).reshape(10, 2), torch.arange(10)
    batches = [range(0, 4), range(4, 8), range(8, 10)]
    parts = [
        [(logits[list(batch)[rank::world]], labels[list(batch)[rank::world]]) for batch in batches]
        for rank in range(world)
    ]
    found, names = joined(parts, 2)
    assert torch.equal(found, logits) and torch.equal(names, labels)
