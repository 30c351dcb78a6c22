"""The metrics of several labels an image against scikit-learn's, and what is written of them."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import optimize
from sklearn import metrics

from dasvit.data.image_set import HeldPixels, ImageSet
from dasvit.data.thumbnail import encode
from dasvit.report.label_scores import average_precision, label_metrics, label_rows
from dasvit.report.scores import calibration_error
from dasvit.training.evaluation import Evaluation, LabelEvaluation, fit_temperature, joined
from dasvit.training.predictions import label_mistakes, write_predictions

NAMES = ("ant", "bee", "cow", "dog")
Labels = NDArray[np.int64]


def random_case(seed: int, count: int = 80, ties: bool = False) -> tuple[Labels, NDArray[np.float32]]:
    """Return labels [N, 4] and shares; ties: of a few values, so that many are equal."""
    chance = np.random.default_rng(seed)
    labels = (chance.random((count, 4)) < [0.05, 0.3, 0.5, 0.9]).astype(np.int64)
    shares = np.clip(0.4 * labels + 0.7 * chance.random((count, 4)), 0.001, 0.999)
    return labels, (np.round(shares, 1) if ties else shares).astype(np.float32)


def judged(labels: Labels, shares: NDArray[np.float32]) -> LabelEvaluation:
    logits = torch.from_numpy(np.log(shares / (1 - shares + 1e-12)).astype(np.float32))
    found = Evaluation.of(logits, torch.from_numpy(labels))
    assert isinstance(found, LabelEvaluation)
    return found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_they_are_scikit_learns(seed: int, ties: bool) -> None:
    labels, shares = random_case(seed, ties=ties)
    labels[:, 0] *= seed % 2  # a class without images, every other time
    has = labels.sum(axis=0) > 0
    named = (shares > 0.5).astype(int)
    found = label_metrics(labels, shares)
    precision = metrics.average_precision_score(labels[:, has], shares[:, has], average=None)
    assert found["map"] == pytest.approx(100 * precision.mean(), abs=1e-9)
    assert found["prevalence"] == pytest.approx(100 * labels[:, has].mean())
    assert found["micro_f1"] == pytest.approx(100 * metrics.f1_score(labels, named, average="micro"))
    known = [i for i in range(4) if has[i] or named[:, i].any()]
    macro = metrics.f1_score(labels[:, known], named[:, known], average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(100 * macro)
    assert found["exact_match"] == pytest.approx(100 * metrics.accuracy_score(labels, named))
    rows = label_rows(labels, shares, NAMES)
    theirs = metrics.precision_recall_fscore_support(labels, named, average=None, zero_division=0)
    for key, values in zip(("precision", "recall", "f1"), theirs[:3], strict=True):
        assert [row[key] for row in rows] == pytest.approx(100 * values)
    assert [row["images"] for row in rows] == theirs[3].tolist()
    assert [row["ap"] for row in rows if row["images"]] == pytest.approx(100 * precision)


def test_a_constant_reaches_the_prevalence() -> None:
    labels, shares = random_case(0)
    found = label_metrics(labels, np.full_like(shares, 0.3))
    assert found["map"] == pytest.approx(found["prevalence"])
    assert average_precision(labels[:, 1] > 0, np.zeros(80)) == pytest.approx(labels[:, 1].mean())
    constant = judged(labels, np.full_like(shares, 0.3))
    assert "no better than a constant, whose mAP is the mean prevalence" in constant.remark(NAMES)
    assert judged(labels, shares).remark(NAMES) == ""
    assert "predicts no labels" in judged(labels, shares * np.float32(0.4)).remark(NAMES)


def test_the_record_of_an_evaluation() -> None:
    labels, shares = random_case(1)
    found = judged(labels, shares)
    assert (found.head, found.score, found.images) == ("map", found.map, 80)
    assert found.confusion == [] and math.isnan(found.top1)
    assert np.abs(found.shares - shares).max() < 1e-6
    assert found.loss == pytest.approx(
        np.mean([metrics.log_loss(labels[:, i], shares[:, i].astype(np.float64), labels=[0, 1]) for i in range(4)]),
        abs=1e-5,
    )
    assert found.ece == pytest.approx(calibration_error(found.shares.ravel().astype(float), labels.ravel() > 0))
    record = found.record(NAMES)
    assert list(record)[:8] == ["map", "prevalence", "micro_f1", "macro_f1", "exact_match", "loss", "images", "ece"]
    assert "top1" not in record and "confusion" not in record and len(record["by_class"]) == 4
    assert f"mAP {found.map:.2f} %" in found.describe()
    nothing = Evaluation.of(torch.empty(0, 4), torch.empty((0, 4), dtype=torch.int64))
    assert nothing.images == 0 and nothing.score == 0 and nothing.loss == 0 and nothing.remark(NAMES) == ""
    broken = Evaluation.of(torch.full((2, 4), math.nan), torch.ones((2, 4), dtype=torch.int64))
    assert math.isnan(broken.loss)


def test_the_calibration_error_bins_all_probabilities() -> None:
    # 0.9 said of ten pairs, nine of them right; 0.1 of ten, none right: |0.1 - 0| of half of them.
    labels = np.array([[1] * 9 + [0] + [0] * 10])
    shares = np.array([[0.9] * 10 + [0.1] * 10], dtype=np.float32)
    assert judged(labels, shares).ece == pytest.approx(5.0, abs=1e-4)


def test_the_temperature_is_that_of_the_least_binary_cross_entropy() -> None:
    labels, shares = random_case(2, 300)
    logits = 4 * torch.from_numpy(np.log(shares / (1 - shares)))
    found = Evaluation.of(logits, torch.from_numpy(labels))

    def loss(log: float) -> float:
        return float(np.logaddexp(0, (1 - 2 * labels) * logits.double().numpy() / math.exp(log)).mean())

    expected = math.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)
    temperature = fit_temperature(found)
    assert temperature == pytest.approx(expected, rel=1e-3) and temperature > 1
    after = found.calibrated(temperature)
    assert isinstance(after, LabelEvaluation) and after.loss < found.loss and after.ece_uncalibrated == found.ece
    assert isinstance(found, LabelEvaluation)
    assert after.map == pytest.approx(found.map) and after.exact_match == found.exact_match


def test_rows_of_several_processes_come_together() -> None:
    labels, shares = random_case(3, 7)
    logits, truth = torch.from_numpy(shares), torch.from_numpy(labels)
    parts = [[(logits[rank:4:2], truth[rank:4:2]), (logits[4:][rank::2], truth[4:][rank::2])] for rank in (0, 1)]
    whole, names = joined(parts, 4)
    assert torch.equal(whole, logits) and torch.equal(names, truth)


def test_predictions_and_mistakes_are_written(tmp_path: Path) -> None:
    labels, shares = random_case(4, 30)
    labels[0], shares[0] = [0, 1, 1, 0], [0.99, 0.01, 0.9, 0.1]
    found, files = judged(labels, shares), [f"{i}.png" for i in range(30)]
    images = ImageSet(HeldPixels(np.arange(30 * 48, dtype=np.uint8).reshape(30, 4, 4, 3)), labels)
    write_predictions(tmp_path, found, NAMES, files, images)
    assert not (tmp_path / "confusion.csv").exists()
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["labels"] == "bee;cow" and rows[0]["predicted"] == "ant;cow"
    written = np.array([[float(row[f"p({name})"]) for name in NAMES] for row in rows])
    theirs = metrics.average_precision_score(labels, written, average="macro")
    assert found.map == pytest.approx(100 * theirs)
    wrong = label_mistakes(found, NAMES, files, images)
    assert [row["probability"] for row in wrong] == sorted((row["probability"] for row in wrong), reverse=True)
    assert {(row["prediction"], row["class"]) for row in wrong if row["file"] == "0.png"} == {
        ("ant", "bee + cow"),
        ("not bee", "bee + cow"),
    }
    assert all(row["probability"] > 0.5 for row in wrong)
    assert wrong[0].items() >= encode(images.images[np.array([int(wrong[0]["file"][:-4])])][0]).items()
