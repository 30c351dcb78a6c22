"""`dasvit train --init`: a trained model goes on with other data."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from dasvit.cell.genotype import PUBLISHED
from dasvit.config import ModelConfig
from dasvit.errors import UserError
from dasvit.models.baselines import make_model, make_network
from dasvit.models.finetune import load_start, sizes_of, subject_of
from dasvit.models.folder import load_model, save_model
from helpers import call_cli, interrupt_after_an_epoch, untimed

STILL = ("--train.optim.lr=0", "--train.optim.min_lr=0", "--train.optim.warmup_lr=0")
"""Steps that move nothing."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of eight images each, larger than those of the model."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 4)):
        for name in ("ant", "bee", "cow"):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_body_and_positions_are_taken_over_and_the_head_is_new(small_run: Path, photos: Path, tmp_path: Path) -> None:
    """Steps of length nothing show what the training began with."""
    run = tmp_path / "run"
    data = ("--data.name=imagefolder", "--data.path", photos, "--model.image_size=16")
    status, out, err = call_cli("train", "--init", small_run, *data, *STILL, "--run", run, "--json")
    assert status == 0, err
    assert "with a fresh head" in err and "60 training and 12 test images" in err, "limits were the other data's"
    before, after = weights(small_run / "train"), weights(run)
    special = {"head.weight", "head.bias", "embed.pos_embed"}
    assert before.keys() == after.keys()
    for name in before.keys() - special:
        assert torch.equal(before[name], after[name]), name
    assert after["head.weight"].shape == (3, before["head.weight"].shape[1])
    old, new = before["embed.pos_embed"], after["embed.pos_embed"]
    side = int((old.shape[1] - 1) ** 0.5)
    grid = old[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    grid = F.interpolate(grid, scale_factor=2, mode="bicubic", antialias=True)
    torch.testing.assert_close(new, torch.cat([old[:, :1], grid.flatten(2).transpose(1, 2)], dim=1))
    # What the run says of itself, and that it can be used.
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["width"] == 8 and config["data"]["limit"] == 0
    assert (run / "genotype.json").read_text() == (small_run / "genotype.json").read_text()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["init_model"] == str(small_run / "train" / "model") and len(environment["init"]) == 64
    assert "began with" in (run / "report.html").read_text()
    image = photos / "val" / "bee" / "0.png"
    status, out, err = call_cli("predict", run, image, "--json")
    assert status == 0 and {p["label"] for p in json.loads(out)["images"][0]["predictions"]} == {"ant", "bee", "cow"}


def test_the_same_classes_keep_their_head(small_run: Path, tmp_path: Path) -> None:
    status, _, err = call_cli("train", "--init", small_run / "train", *STILL, "--run", tmp_path / "run")
    assert status == 0 and "its head as well" in err, err
    before, after = weights(small_run / "train"), weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_cut_off_and_resumed_it_ends_as_if_it_had_not(
    small_run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["train", "--init", small_run, "--data.name=imagefolder", "--data.path", photos, "--train.epochs=2"]
    monkeypatch.setattr("dasvit.runtime.saver.Saver._is_due", lambda self: True)
    assert call_cli(*options, "--run", tmp_path / "whole")[0] == 0
    before = weights(tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupt_after_an_epoch(patched)
        assert call_cli(*options, "--run", tmp_path / "cut")[0] == 130
    assert not (tmp_path / "cut" / "result.json").exists()
    status, _, err = call_cli(*options, "--run", tmp_path / "cut", "--resume")
    assert status == 0, err
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path / "cut").items())
    assert untimed(tmp_path / "cut" / "metrics.jsonl") == untimed(tmp_path / "whole" / "metrics.jsonl")
    # A run that began with other weights is another run.
    status, _, err = call_cli(
        "train", "--cell", small_run, "--config", tmp_path / "cut" / "config.yaml", "--run", tmp_path / "cut"
    )
    assert status == 2 and "already holds another run" in err


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--cell", "dasvit_cifar10"], "give one of --cell"),
        (["--model", "vit"], "give one of --cell"),
        (["--model.width", "16"], "has model.width 8, not 16: leave out --model.width"),
        (["--model.patch_size", "4"], "has model.patch_size 2, not 4"),
        (["--model.image_size", "9"], "not divisible into patches"),
        (["--resume"], "no run in"),
    ],
)
def test_mistakes(arguments: list[str], sentence: str, small_run: Path, tmp_path: Path) -> None:
    status, out, err = call_cli("train", "--init", small_run, "--run", tmp_path / "run", *arguments)
    assert (status, out) == (2, "") and sentence in err
    assert not (tmp_path / "run").exists()


def test_no_model_to_begin_with(tmp_path: Path) -> None:
    assert "there is no model" in call_cli("train", "--init", tmp_path / "nowhere")[2]
    assert "holds no trained model" in call_cli("train", "--init", tmp_path)[2]


CONFIG = ModelConfig(image_size=16, patch_size=4, width=24, layers=2, heads=4)
HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", ["cell", "vit", "vit_shift", "test_resnet"])
def test_every_kind_of_model_can_be_begun_with_again_and_again(name: str, tmp_path: Path) -> None:
    cell = PUBLISHED["dasvit_cifar10"]
    torch.manual_seed(0)
    model = make_network(cell, CONFIG, 3) if name == "cell" else make_model(name, CONFIG, 3)
    for size, classes in ((16, 3), (32, 5), (8, 5)):
        names = [str(i) for i in range(classes)]
        folder = tmp_path / str(size)
        save_model(model, folder, class_names=names, input_size=(3, size, size), mean=HALF, std=HALF)
        assert subject_of(model, folder) == (cell if name == "cell" else name)
        assert sizes_of(folder)["image_size"] == size
        again, model = model, load_start(folder, 2 * size, 5, keep_head=classes == 5)
        assert model.eval()(torch.zeros(2, 3, 2 * size, 2 * size)).shape == (2, 5)
        if name == "test_resnet":  # no positions: nothing but the head can differ
            with torch.no_grad():
                images = torch.randn(2, 3, 16, 16)
                assert torch.equal(model.forward_features(images), again.eval().forward_features(images))  # type: ignore[operator]
        model = load_start(folder, {16: 32, 32: 8, 8: 8}[size], 5)
    assert load_model(folder).eval()(torch.zeros(1, 3, 8, 8)).shape == (1, 5)


def test_models_that_cannot_be_gone_on_with(tmp_path: Path) -> None:
    save_model(
        make_network(PUBLISHED["dasvit_cifar10"], CONFIG, 3),
        tmp_path,
        class_names="abc",
        input_size=(3, 16, 16),
        mean=HALF,
        std=HALF,
    )
    config = json.loads((tmp_path / "config.json").read_text())
    for change, sentence in (
        ({"model_args": {**config["model_args"], "in_chans": 1}}, "1 channels"),
        ({"model_args": {**config["model_args"], "img_size": [16, 8]}}, "oblong"),
        ({"pretrained_cfg": {**config["pretrained_cfg"], "input_size": "x"}}, "what sizes"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match=sentence):
            sizes_of(tmp_path)
