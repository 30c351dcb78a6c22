"""Training on several labels an image: the loss and its gradient, weights, mixed targets, and going on to the bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.loss.binary_cross_entropy import BinaryCrossEntropy
from torch import Tensor

import dasvit
from dasvit.api.recipe import make_config
from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.config.fields import TrainConfig
from dasvit.errors import UserError
from dasvit.runtime.distributed import seed_everything
from dasvit.runtime.progress import Reporter
from dasvit.search.halving import Rung
from dasvit.search.loop import search
from dasvit.search.metric import ranking_of, score_of, ties, value_of
from dasvit.session import load_session
from dasvit.training.evaluation import Evaluation
from dasvit.training.loop import loss_of, say_unbalanced
from dasvit.training.multilabel import (
    LARGEST_WEIGHT,
    LabelMixup,
    label_hits,
    label_loss,
    make_label_loss,
    positive_weights,
    smoothed,
)
from helpers import cut_off, untimed
from label_shapes import recipe_of, shapes
from runs import newest, same
from test_balance import reached


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of 200 images with splits; not to be changed."""
    return shapes(tmp_path_factory.mktemp("shapes"), 200, split=True)


def config_of(file: Path, **sections: Any) -> Config:
    return recipes.from_dict(recipe_of(file, **sections), searching=False)


def case(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits [6, 4] in float64 and labels [6, 4]."""
    torch.manual_seed(seed)
    return torch.randn(6, 4, dtype=torch.float64, requires_grad=True), torch.randint(0, 2, (6, 4))


def test_the_gradient_is_that_of_the_closed_form() -> None:
    logits, labels = case()
    smoothing, weights = 0.1, torch.tensor([3.0, 1.0, 0.5, 7.0])
    _, criterion = make_label_loss(TrainConfig(smoothing=smoothing), weights)
    criterion(logits, labels).backward()
    target, weight = labels.double() * (1 - smoothing) + smoothing / 4, weights.double()
    p = logits.detach().sigmoid()
    # d/dx of -(w t log p + (1 - t) log(1 - p)) is (1 - t) p - w t (1 - p), in the mean over 24 pairs.
    expected = ((1 - target) * p - weight * target * (1 - p)) / 24
    assert logits.grad is not None and torch.allclose(logits.grad, expected, rtol=0, atol=1e-15)
    loss = -(weight * target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert float(criterion(logits, labels).detach()) == pytest.approx(float(loss), abs=1e-14)


def test_it_is_timms_loss() -> None:
    logits, labels = case(1)
    theirs = BinaryCrossEntropy(smoothing=0.0)
    assert label_loss(logits, labels).item() == pytest.approx(theirs(logits, labels.double()).item())
    # timm smooths class numbers alone: those of one label each, as targets of ours.
    numbers = torch.tensor([0, 3, 2, 1, 1, 0])
    one = torch.nn.functional.one_hot(numbers, 4)
    theirs = BinaryCrossEntropy(smoothing=0.2)
    assert label_loss(logits, one, 0.2).item() == pytest.approx(theirs(logits, numbers).item(), abs=1e-7)
    assert smoothed(one.double(), 0.2).unique().tolist() == pytest.approx([0.05, 0.85])


def test_one_label_is_as_it_was() -> None:
    logits, _ = case(2)
    numbers = torch.tensor([0, 3, 2, 1, 1, 0])
    assert torch.equal(
        label_loss(logits, numbers, 0.1), torch.nn.functional.cross_entropy(logits, numbers, label_smoothing=0.1)
    )
    assert torch.equal(label_hits(logits, numbers), (logits.argmax(1) == numbers).double().mean())


def test_hits_are_images_all_of_whose_labels_are_right() -> None:
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, 1.0]])
    labels = torch.tensor([[1, 0], [1, 0], [0, 0], [1, 0]])
    assert float(label_hits(logits, labels)) == 0.5


def test_micro_batches_add_up() -> None:
    logits, labels = case(3)
    _, criterion = make_label_loss(TrainConfig(smoothing=0.1), torch.tensor([2.0, 1.0, 1.0, 5.0]))
    parts = (criterion(logits[:2], labels[:2]) * 2 + criterion(logits[2:], labels[2:]) * 4) / 6
    assert parts.item() == pytest.approx(criterion(logits, labels).item(), abs=1e-14)


def test_positive_weights_are_the_ratios_within_bounds() -> None:
    labels = np.zeros((100, 5), dtype=np.int64)
    labels[:20, 0], labels[:80, 1], labels[:1, 2], labels[:, 3] = 1, 1, 1, 1
    assert positive_weights(labels).tolist() == pytest.approx([4.0, 0.25, LARGEST_WEIGHT, 1.0, 1.0])


def test_targets_are_mixed_as_images_are() -> None:
    np.random.seed(0)
    mixup = LabelMixup(mixup_alpha=1.0)  # type: ignore[no-untyped-call]
    targets = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]])
    images = targets.float()[:, :, None, None].expand(4, 3, 2, 2).clone()  # a channel is 1 where its label is there
    mixed, soft = mixup(images, targets)
    assert torch.allclose(mixed[:, :, 0, 0], soft) and 0 < float(soft[0, 0]) < 1
    cutmix = LabelMixup(mixup_alpha=0.0, cutmix_alpha=1.0)  # type: ignore[no-untyped-call]
    images = targets.float()[:, :, None, None].expand(4, 3, 16, 16).clone()
    mixed, soft = cutmix(images, targets)
    assert torch.allclose(mixed.mean(dim=(2, 3)), soft, atol=1e-6)


def test_a_small_network_learns_the_task_and_goes_on_to_the_bit(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {
        "epochs": 14,
        "batch_size": 15,
        "balance": "weights",
        "monitor": "map",
        "ema": 0.5,
        "smoothing": 0.05,
        "optim": {"lr": 3e-3, "warmup_epochs": 1},
        "augment": {"mixup": 0.1, "cutmix": 0.1},
    }
    config = config_of(listed, train={**train, "batch_size": 16})
    whole = reached(config, tmp_path / "whole")
    assert whole.score > 85 and whole.temperature is not None
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    best = rows[int(np.argmax([row["val_map"] for row in rows]))]
    assert whole.score == pytest.approx(best["test_map"]) and newest(tmp_path / "whole")["best_epoch"] == best["epoch"]
    cut_off(monkeypatch, 5, lambda: reached(config, tmp_path / "cut"))
    assert reached(config, tmp_path / "cut") == whole
    assert same(newest(tmp_path / "cut"), newest(tmp_path / "whole"))
    assert untimed(tmp_path / "cut" / "metrics.jsonl") == untimed(tmp_path / "whole" / "metrics.jsonl")


def test_a_search_goes_on_to_the_bit(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections: dict[str, Any] = {
        "space": {"heads": [2], "ratios": [1.0]},
        "search": {
            "batch_size": 16,
            "smoothing": 0.1,
            "monitor": 20,
            "tokens": {"dim": 4},
            "stages": {"layers": [1], "keep": [0], "epochs": [3], "weight_epochs": [1]},
        },
    }
    config = recipes.from_dict(recipe_of(listed, **sections))

    def run(folder: Path) -> list[list[list[float]]]:
        session = load_session(config, str(folder), "search", Reporter(quiet=True))
        session.run.open(config, "dasvit")
        seed_everything(config.runtime.seed)
        return [stage.weights for stage in search(session).stages]

    whole = run(tmp_path / "whole")
    cut_off(monkeypatch, 3, lambda: run(tmp_path / "cut"))
    assert run(tmp_path / "cut") == whole
    assert untimed(tmp_path / "cut" / "metrics.jsonl") == untimed(tmp_path / "whole" / "metrics.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert "val_exact_match" in rows[-1] and "val_top1" not in rows[-1] and rows[-1]["val_loss"] > 0


def evaluation(seed: int, skill: float) -> Evaluation:
    chance = torch.Generator().manual_seed(seed)
    labels = (torch.rand(200, 5, generator=torch.Generator().manual_seed(0)) < 0.3).long()
    return Evaluation.of(skill * (labels - 0.5) + torch.randn(200, 5, generator=chance), labels)


def test_candidates_are_ranked_by_loss_map_or_macro_f1() -> None:
    good, bad = evaluation(1, 3.0), evaluation(2, 0.5)
    assert ranking_of("auto", good, "loss") == ranking_of("auto", good, "top1") == "loss"
    assert value_of(good, "map") == pytest.approx(100 - good.score) and value_of(good, "map") < value_of(bad, "map")
    assert score_of(good, "map") == good.score > score_of(bad, "map")
    assert score_of(good, "auto") == pytest.approx(100 * np.exp(-good.loss))
    assert ties({0: good, 1: bad}, 0, "map", 0) == [0] and ties({0: good, 1: good}, 0, "auto", 0) == [0, 1]


def test_a_rung_of_several_labels_is_written_and_read() -> None:
    rung = Rung(1.0, 0.4, float("nan"), 2.0, macro_f1=50.0, value=0.4, map=80.0, prevalence=40.0)
    row = rung.reached()
    assert "top1" not in row and row["map"] == 80.0 and json.loads(json.dumps(row, allow_nan=False)) == row
    again = Rung.read({**row, "seconds": 2.0})
    assert again._replace(top1=0.0) == rung._replace(top1=0.0) and again.score == 80.0 and not again.is_constant
    assert str(rung) == "loss 0.4000, mAP 80.00 % (a constant's 40.00 %), macro-F1 50.00 %"
    assert rung._replace(map=40.0).is_constant
    assert Rung(1.0, 0.4, 50.0, majority=50.0).is_constant and not Rung(1.0, 0.4, 50.0).is_constant


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train.balance": "sampler"}, "train.balance sampler draws images by their class.*take weights"),
        ({"train.monitor": "top1"}, "train.monitor top1 is for one label an image.*map, macro_f1 or loss"),
        ({"train.monitor": "balanced_accuracy"}, "train.monitor balanced_accuracy is for one label an image"),
    ],
)
def test_what_several_labels_do_not_have_is_refused_before_images_are_decoded(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    listed = shapes(tmp_path / "broken", 40, split=True)
    for image in listed.parent.glob("*.png"):
        image.write_bytes(b"no image")
    small = {"train.batch_size": 8, "search.batch_size": 8}
    with pytest.raises(UserError, match=words):
        dasvit.train("vit", str(listed), recipe="digits", options={**small, **options}, run=tmp_path / "run")
    with pytest.raises(UserError, match=r"search.metric top1 is for one label an image"):
        dasvit.search(str(listed), recipe="digits", options={**small, "search.metric": "top1"}, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_map_is_not_for_one_label(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.monitor map is for images of several labels"):
        dasvit.train("vit", recipe="digits", options={"train.monitor": "map"}, run=tmp_path / "run")
    with pytest.raises(UserError, match=r"search.metric map is for images of several labels"):
        dasvit.search(recipe="digits", options={"search.metric": "map"}, run=tmp_path / "run")


def test_rare_classes_and_their_weights_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shapes(tmp_path / "shapes", 60)
    lines = file.read_text().splitlines()
    rare = [lines[0], *(line.split(",")[0] + "," + "blue bar" * (n % 2) for n, line in enumerate(lines[1:]))]
    rare[1] = rare[1].split(",")[0] + ",red square;blue bar"
    rare[2] = rare[2].split(",")[0] + ",red square"
    file.write_text("\n".join(rare) + "\n")
    for balance, words in (("none", "red square is lacked by"), ("weights", "n_without / n_with times as much")):
        config = config_of(file, train={"balance": balance})
        session = load_session(config, str(tmp_path / "run"), "train", Reporter())
        capsys.readouterr()
        say_unbalanced(session)
        said = capsys.readouterr()
        assert words in said.err + said.out
        mixup, criterion = loss_of(session.data, config.train)
        labels = torch.tensor([[0, 1]])
        plain = float(label_loss(torch.zeros(1, 2), labels, 0.1))
        assert mixup is None and (float(criterion(torch.zeros(1, 2), labels)) > plain + 0.5) == (balance == "weights")


def test_make_config_reads_the_option() -> None:
    assert make_config("digits", None, {"data.label_separator": "space"}).data.label_separator == "space"
