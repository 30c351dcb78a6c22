"""`train.balance`: classes of few images count as much; runs go on to the bit, processes share batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.data import Loader, load_data
from dasvit.data.given import give
from dasvit.data.image_set import HeldPixels, ImageSet
from dasvit.models.baselines import make_model
from dasvit.runtime.distributed import seed_everything
from dasvit.runtime.progress import Reporter
from dasvit.session import load_session
from dasvit.training.evaluation import Evaluation
from dasvit.training.loop import class_weights, make_loss, say_unbalanced, train
from helpers import TINY_TRAINING, cut_off, merge, untimed


def images(labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> ImageSet:
    return ImageSet(HeldPixels(np.zeros((len(labels), 4, 4, 3), dtype=np.uint8)), labels)


def loader(labels: np.ndarray[tuple[int], np.dtype[np.int64]], seed: int = 0, rank: int = 0, world: int = 1) -> Loader:
    return Loader(
        images(labels),
        None,
        batch_size=30,
        transform=None,
        seed=seed,
        shuffle=True,
        drop_last=True,
        balance=True,
        rank=rank,
        world=world,
    )


def test_all_classes_are_drawn_as_often() -> None:
    labels = np.repeat(np.arange(3), [900, 90, 10])
    order = loader(labels).batches.order(0)
    counts = np.bincount(labels[order], minlength=3)
    assert len(order) == 1000 and abs(counts - 1000 / 3).max() < 5 * np.sqrt(1000 * 2 / 9)  # five deviations
    assert (order == loader(labels).batches.order(0)).all()
    assert (order != loader(labels).batches.order(1)).any() and (order != loader(labels, seed=1).batches.order(0)).any()


def test_processes_share_the_batches_of_one() -> None:
    labels = np.repeat(np.arange(3), [900, 90, 10])
    whole = [batch for _, batch in loader(labels)]
    for rank in range(2):
        for mine, all_of_it in zip((batch for _, batch in loader(labels, 0, rank, 2)), whole, strict=True):
            assert torch.equal(mine, all_of_it[rank::2])


def test_weights_make_classes_count_alike() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = class_weights(labels.numpy(), 4)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 0, 10 / 3])
    assert float(weights[labels].mean()) == pytest.approx(1)
    logits = torch.randn(10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    config = recipes.from_dict({"train": {"smoothing": 0.0}}, searching=False).train
    _, criterion = make_loss(config, 4, weights)
    losses = F.cross_entropy(logits, labels, reduction="none")
    means = torch.stack([losses[labels == label].mean() for label in (0, 1, 3)])
    assert float(criterion(logits, labels)) == pytest.approx(float(means.mean()))
    halves = (criterion(logits[:4], labels[:4]) * 4 + criterion(logits[4:], labels[4:]) * 6) / 10
    assert float(criterion(logits, labels)) == pytest.approx(float(halves))
    soft = F.one_hot(labels, 4).double()
    mixed = replace(config, batch_size=10, augment=replace(config.augment, mixup=0.5))
    assert float(make_loss(mixed, 4, weights)[1](logits, soft)) == pytest.approx(float(means.mean()))


def config_of(balance: str, seed: int = 0) -> Config:
    """Return a recipe of overlapping classes, 90 of each hundred images in the first."""
    chance = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 0, 1], [540, 60, 270, 30])
    means = np.where(labels == 1, 150, 100)[:, None, None]
    pixels = np.clip(chance.normal(means, 60, (900, 4, 4)), 0, 255).astype(np.uint8)
    data = give(((pixels[:600], labels[:600]), (pixels[600:], labels[600:])))
    return recipes.from_dict(
        {
            "data": vars(data),
            "model": {"image_size": 4, "patch_size": 2, "width": 8, "layers": 1, "heads": 2},
            "train": {"epochs": 2, "batch_size": 30, "balance": balance, "optim": {"lr": 1e-3}},
            "runtime": {"seed": seed, "device": "cpu", "precision": "float32"},
        },
        searching=False,
    )


def reached(config: Config, folder: Path) -> Evaluation:
    session = load_session(config, str(folder), "train", Reporter(quiet=True))
    session.claim("vit")
    seed_everything(config.runtime.seed)
    return train(make_model("vit", config.model, session.classes), session).evaluation


def test_balanced_sampling_raises_macro_f1_in_five_seeds_of_five(tmp_path: Path) -> None:
    for seed in range(5):
        plain, balanced = (reached(config_of(how, seed), tmp_path / f"{how}{seed}") for how in ("none", "sampler"))
        assert plain.majority == 90 and balanced.macro_f1 > plain.macro_f1 + 1, (seed, plain, balanced)


@pytest.mark.parametrize("balance", ["sampler", "weights"])
def test_a_balanced_training_cut_off_ends_as_if_it_had_not(
    balance: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipes.from_dict(merge(TINY_TRAINING, {"train": {"balance": balance}}), searching=False)
    whole = reached(config, tmp_path / "whole")
    cut_off(monkeypatch, 1, lambda: reached(config, tmp_path / "cut"))
    assert reached(config, tmp_path / "cut") == whole
    assert untimed(tmp_path / "cut" / "metrics.jsonl") == untimed(tmp_path / "whole" / "metrics.jsonl")


def test_unbalanced_classes_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Reporter, "say", lambda self, text: said.append(text))
    config = config_of("none")
    session = load_session(config, str(tmp_path), "train", Reporter(quiet=True))
    say_unbalanced(session)
    assert not any("largest class" in line for line in said)  # nine times is less than ten
    rows = np.flatnonzero(session.data.train.labels == 1)[:54]
    data = replace(session.data, train=session.data.train.select(np.r_[np.arange(540), rows]))
    say_unbalanced(replace(session, data=data))
    assert said[-1].startswith("the largest class has 540 training images, the smallest 54: look at")
    balanced = replace(config, train=replace(config.train, balance="sampler"))
    count = len(said)
    say_unbalanced(replace(session, data=data, config=balanced))
    assert len(said) == count and len(load_data(config.data, 4, 0).classes) == 2
