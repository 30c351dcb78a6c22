"""`train.monitor`, `train.patience` and the temperature: on training images that are held out, never on test images."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize

import dasvit
from dasvit.api.recipe import make_config
from dasvit.config import recipe as recipes
from dasvit.data.image_set import HeldPixels, ImageSet
from dasvit.errors import UserError
from dasvit.models.export import open_torch
from dasvit.runtime.progress import Reporter
from dasvit.session import load_session
from dasvit.training.evaluation import Evaluation, fit_temperature
from dasvit.training.loop import hold_out
from helpers import TINY_TRAINING, cut_off, merge, untimed
from runs import newest, same
from test_balance import reached

MONITOR = {"monitor": "macro_f1", "val_fraction": 0.2, "epochs": 4, "optim": {"lr": 3e-3}}


def config_of(**train: Any) -> Any:
    return recipes.from_dict(merge(TINY_TRAINING, {"train": MONITOR | train}), searching=False)


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_images_held_out_are_training_images_and_not_trained_on(tmp_path: Path) -> None:
    session = load_session(config_of(), str(tmp_path), "train", Reporter(quiet=True))
    data, held_out = hold_out(session)
    assert held_out is not None and len(held_out) + len(data.train) == len(session.data.train)
    everything = session.data.train.images[np.arange(len(session.data.train))].tobytes()
    assert len(everything) == sum(part.images[np.arange(len(part))].nbytes for part in (held_out, data.train))
    assert data.test is session.data.test
    plain = replace(session, config=config_of(monitor="last", val_fraction=0.0))
    assert hold_out(plain) == (session.data, None)


@pytest.mark.parametrize("monitor", ["macro_f1", "loss"])
def test_the_epoch_that_is_best_on_images_held_out_is_kept(monitor: str, tmp_path: Path) -> None:
    config = config_of(monitor=monitor)
    found = reached(config, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    values = [row[f"val_{monitor}"] * (1 if monitor == "loss" else -1) for row in rows]
    best = rows[int(np.argmin(values))]  # of equal ones the first
    state = newest(tmp_path / "run")
    assert state["best_epoch"] == best["epoch"] and state["best_value"] == min(values)
    assert (found.top1, found.macro_f1) == (best["test_top1"], best["test_macro_f1"])


def test_a_training_that_monitors_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reached(config_of(), tmp_path / "whole")
    cut_off(monkeypatch, 2, lambda: reached(config_of(), tmp_path / "cut"))
    assert reached(config_of(), tmp_path / "cut") == whole
    assert same(newest(tmp_path / "cut"), newest(tmp_path / "whole"))
    assert untimed(tmp_path / "cut" / "metrics.jsonl") == untimed(tmp_path / "whole" / "metrics.jsonl")
    assert reached(config_of(), tmp_path / "whole") == whole  # it has ended


def test_patience(tmp_path: Path) -> None:
    config = config_of(patience=1, epochs=50, optim={"lr": 0.0, "min_lr": 0.0, "warmup_lr": 0.0})
    config = replace(config, train=replace(config.train, ema=0.0))
    found = reached(config, tmp_path / "run")
    assert [row["epoch"] for row in rows_of(tmp_path / "run")] == [1, 2]
    assert reached(config, tmp_path / "run") == found and len(rows_of(tmp_path / "run")) == 2
    with pytest.raises(UserError, match="patience waits"):
        config_of(monitor="last", patience=3)


def test_the_temperature_is_that_of_the_least_loss() -> None:
    chance = np.random.default_rng(0)
    labels = chance.integers(4, size=2000)
    logits = chance.normal(size=(2000, 4)) + 1.5 * np.eye(4)[labels]
    seen = Evaluation.of(torch.from_numpy((3 * logits).astype(np.float32)), torch.from_numpy(labels))

    def loss(t: float) -> float:
        x = 3 * logits / t
        return float((np.log(np.exp(x).sum(1)) - x[np.arange(2000), labels]).mean())

    grid = optimize.brute(lambda t: loss(float(t[0])), [(0.5, 10)], Ns=200)
    temperature = fit_temperature(seen)
    assert temperature == pytest.approx(float(grid[0]), rel=1e-3) and temperature > 1.2
    after = seen.calibrated(temperature)
    assert after.loss < seen.loss and after.ece < seen.ece == after.ece_uncalibrated
    assert after.confusion == seen.confusion and after.macro_f1 == seen.macro_f1


def test_the_temperature_goes_with_the_model_and_what_is_exported(tmp_path: Path) -> None:
    options = {
        "data.limit": 200,
        "data.eval_limit": 60,
        "model.width": 16,
        "model.layers": 1,
        "model.heads": 2,
        "train.epochs": 2,
        "train.batch_size": 20,
        "train.val_fraction": 0.2,
        "runtime.device": "cpu",
        "runtime.precision": "float32",
    }
    model = dasvit.train("vit", recipe="digits", run=tmp_path / "run", options=options, quiet=True)
    result = model.result
    temperature = model.classifier.described.temperature
    assert temperature == result["temperature"] != 1 and "epoch" not in result
    again = model.evaluate(quiet=True).evaluation
    assert again.ece == pytest.approx(result["ece"]) and again.ece_uncalibrated == pytest.approx(
        result["ece_uncalibrated"]
    )
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inputs = model.classifier.inputs(images)
    with torch.no_grad():
        expected = (model.module(inputs) / temperature).softmax(1)
        assert torch.allclose(model.classifier.shares(images), expected)
        exported = open_torch(model.export("torch").out)(inputs)
        assert torch.allclose(exported.softmax(1), expected, atol=1e-5)
    model.export("hub")  # its weights are the model's own, and it is checked against them


def test_groups_are_held_out_whole_for_the_monitor() -> None:
    images = HeldPixels(np.zeros((60, 8, 8, 3), dtype=np.uint8))
    groups = np.arange(60) // 4
    train = ImageSet(images, np.arange(60) % 2, groups)
    config = make_config("digits", options={"train.val_fraction": 0.2})
    session = load_session(config, "unused", "train", Reporter(quiet=True))
    session = replace(session, data=replace(session.data, train=train, classes=("a", "b")))
    data, held_out = hold_out(session)
    assert held_out is not None and held_out.groups is not None and data.train.groups is not None
    assert not set(data.train.groups) & set(held_out.groups) and 8 <= len(held_out) <= 16
