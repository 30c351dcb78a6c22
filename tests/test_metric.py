"""What candidates are ranked by, and when the validation images cannot tell them apart."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from dasvit.cell.genotype import Genotype
from dasvit.config import recipe as recipes
from dasvit.io.run_folder import RunFolder
from dasvit.search.candidates import choose_best, folder_of, settle
from dasvit.search.derive import Derivation
from dasvit.search.halving import Candidate, Rung
from dasvit.search.metric import Metric, keep, kept, ranking_of, resampled, score_of, ties, value_of
from dasvit.session import Session
from dasvit.training.evaluation import Evaluation
from helpers import TINY

LABELS = torch.from_numpy(np.repeat([0, 1, 2], [710, 200, 90]))


def seen(strength: float, noise: float = 1.0, seed: int = 0, labels: torch.Tensor = LABELS) -> Evaluation:
    """Return what a network says that leans to the largest class, and knows of the others by so much."""
    chance = np.random.default_rng(seed)
    logits = noise * chance.normal(size=(len(labels), 3)) + strength * np.eye(3)[labels] + np.log([0.71, 0.2, 0.09])
    return Evaluation.of(torch.from_numpy(logits.astype(np.float32)), labels)


def test_auto_is_the_loss_where_classes_are_unbalanced() -> None:
    even = seen(1.0, labels=torch.arange(999) % 3)
    assert ranking_of("auto", even, "loss") == "loss" and ranking_of("auto", even, "top1") == "top1"
    assert ranking_of("auto", seen(1.0), "loss") == ranking_of("auto", seen(1.0), "top1") == "loss"
    assert ranking_of("macro_f1", seen(1.0), "loss") == "macro_f1"


@pytest.mark.parametrize("metric", ["auto", "loss", "balanced_accuracy", "macro_f1"])
def test_a_constant_is_beaten_by_who_tells_classes_apart(metric: Metric) -> None:
    constant, knows = seen(0.0, noise=0.01), seen(2.5, noise=1.0)
    ranking = ranking_of(metric, knows, "loss")
    assert constant.top1 == constant.majority == 71.0
    assert value_of(knows, ranking) < value_of(constant, ranking)
    assert score_of(knows, metric) > score_of(constant, metric)
    assert value_of(constant, "macro_f1") == pytest.approx(100 - constant.macro_f1)


def test_of_constants_the_loss_decides() -> None:
    rungs = [Rung(1.0, loss, 71.0, value=79.0) for loss in (1.5, 0.9, 1.2)]
    cells = [Genotype.from_ops(1, [op, "mlp_1"]) for op in ("mlp_2", "identity", "zero")]
    ranked = sorted((Candidate(c, [r]) for c, r in zip(cells, rungs, strict=True)), key=lambda one: one.rank)
    assert [one.last.loss for one in ranked] == [0.9, 1.2, 1.5]


def test_a_score_of_losses_is_the_geometric_mean_of_the_right_probabilities() -> None:
    found = seen(1.0)
    right = found.shares[np.arange(1000), LABELS.numpy()].astype(np.float64)
    assert score_of(found, "loss") == pytest.approx(100 * np.exp(np.log(right).mean()), rel=1e-5)


def test_the_bootstraps_deviation_is_the_standard_error_of_a_mean() -> None:
    found = seen(1.0)
    losses = -np.log(found.shares[np.arange(1000), LABELS.numpy()].astype(np.float64))
    assert resampled(found, "loss", 0).std() == pytest.approx(losses.std() / np.sqrt(1000), rel=0.15)
    assert (resampled(found, "loss", 0) == resampled(found, "loss", 0)).all()


def test_who_is_within_a_standard_error_is_tied_and_others_are_not() -> None:
    best = seen(2.0)
    change = torch.where(torch.arange(1000) % 2 == 0, 1e-4, -1e-4)[:, None] * torch.eye(3)[LABELS]  # up, down, up, …
    alike = Evaluation.of(best.logits + change, LABELS)
    found = {0: best, 1: seen(0.5), 2: alike}
    for metric in ("auto", "loss", "top1", "balanced_accuracy", "macro_f1"):
        assert ties(found, 0, metric, 0) == [0, 2]
    # Paired: a network that is a little worse on every image is worse, though each loss alone has a wide spread.
    worse = {0: best, 1: Evaluation.of(best.logits - 0.05 * torch.eye(3)[LABELS], LABELS)}
    assert worse[1].loss - best.loss < resampled(best, "loss", 0).std() * 2 and ties(worse, 0, "loss", 0) == [0]


def test_what_was_said_is_kept(tmp_path: Path) -> None:
    found = seen(1.0)
    keep(tmp_path, found)
    again = kept(tmp_path)
    assert again == found and again is not None and torch.equal(again.logits, found.logits)
    (tmp_path / "validation.npz").write_bytes(b"damaged")
    assert kept(tmp_path) is None and kept(tmp_path / "none") is None


def test_of_ties_the_cheaper_cell_is_taken(tmp_path: Path) -> None:
    """Two candidates that said the same, and one that did much worse: the cheaper one of the two is the search's."""
    said: list[str] = []
    config = recipes.from_dict(TINY, searching=False)
    cells = [Genotype.from_ops(1, [op, "mlp_1"]) for op in ("mlp_2", "identity", "zero")]
    session = SimpleNamespace(
        config=config, classes=3, run=RunFolder(tmp_path, "search"), reporter=SimpleNamespace(say=said.append)
    )
    candidates = [Candidate(cell, [Rung(1.0, loss, 70.0)]) for cell, loss in zip(cells, (1.0, 1.0, 2.0), strict=True)]
    for candidate, evaluation in zip(candidates, (seen(2.0), seen(2.0), seen(0.2)), strict=True):
        folder = folder_of(candidate.cell, cast(Session, session))
        folder.mkdir(parents=True)
        keep(folder, evaluation)
    found = settle(candidates, cast(Session, session))
    assert [one.cell for one in found] == [cells[1], cells[0], cells[2]]
    assert [one.tied for one in found] == [True, True, False]
    assert said[0].startswith("2 candidates are within the noise of 1,000 validation images: the cheapest of them")
    moved = choose_best(Derivation(cells[0], cells[0], ""), found)
    assert moved.genotype == cells[1] and "this is the cheapest of them" in moved.reason
