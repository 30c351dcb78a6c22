"""Weights that timm publishes: found on the disk, never fetched unasked, fine-tuned in `train` and `compare`."""

import json
from pathlib import Path

import pytest
import timm
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

import dasvit
from dasvit.config import ModelConfig
from dasvit.data import Preprocess
from dasvit.models.baselines import make_model
from dasvit.models.pretrained import has_weights, make_pretrained, published_input, weights_name
from helpers import call_cli
from test_cli import fails

NAME, FULL = "resnet10t", "resnet10t.c3_in1k"
TINY = ["--config=digits", "--data.limit=60", "--data.eval_limit=40", "--train.batch_size=30", "--train.epochs=1"]
STILL = ["--train.optim.lr=0", "--train.optim.min_lr=0", "--train.optim.warmup_lr=0"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on this machine, empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def published(hub: Path) -> dict[str, torch.Tensor]:
    """The hub's cache with weights of a small network, as fetching leaves them."""
    torch.manual_seed(3)
    state = timm.create_model(NAME).state_dict()
    place = hub / f"models--timm--{FULL}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    (place / "snapshots" / ("a" * 40)).mkdir(parents=True)
    save_file(state, place / "snapshots" / ("a" * 40) / "model.safetensors", metadata={"format": "pt"})
    return state


def test_names() -> None:
    assert weights_name(NAME) == FULL and has_weights("resnet18") and has_weights("resnet18.a1_in1k")
    assert not any(map(has_weights, ("vit", "resnet50_small", "nothing")))
    side, mean, _ = published_input(NAME)
    assert side == 176 and mean == (0.485, 0.456, 0.406)


def test_weights_that_are_not_here_are_not_fetched(hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))
    status, _, err = call_cli("compare", NAME, "vit", "--pretrained", *TINY, "--run", tmp_path / "r")
    assert status == 2 and f"{FULL} are not on this machine" in err and "--download true" in err and "22 MB" in err
    assert not (tmp_path / "r").exists()


def test_body_is_taken_over_and_the_normalisation_kept(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Steps of length nothing show what the training began with."""
    run = tmp_path / "run"
    status, _, err = call_cli("train", "--model", NAME, "--pretrained", *TINY, *STILL, "--run", run)
    assert status == 0, err
    assert f"begins with timm's weights {FULL}" in err and "trained on images of 176 pixels; here they see 8" in err
    after = load_file(run / "model" / "model.safetensors")
    same = [name for name in after if name.endswith("weight") and not name.startswith("fc")]
    assert len(same) > 20 and all(torch.equal(after[name], published[name]) for name in same)
    assert after["fc.weight"].shape[0] == 10
    config = json.loads((run / "model" / "config.json").read_text())
    assert tuple(config["pretrained_cfg"]["mean"]) == published_input(NAME)[1]
    environment = json.loads((run / "environment.json").read_text())
    assert environment["init_model"] == FULL and len(environment["init"]) == 64
    # It goes on as every trained model does: fine-tuned with its own normalisation, and shown in a card.
    status, _, err = call_cli("train", "--init", run, *TINY, "--run", tmp_path / "more")
    assert status == 0, err
    more = json.loads((tmp_path / "more" / "model" / "config.json").read_text())
    assert more["pretrained_cfg"]["mean"] == config["pretrained_cfg"]["mean"]
    status, _, err = call_cli("export", run, "--to", "hub", "--out", tmp_path / "hub-folder")
    card = (tmp_path / "hub-folder/README.md").read_text().replace("\\_", "_")
    assert status == 0 and f"began with the weights {FULL} that timm publishes (SHA-256" in card


def test_training_and_predicting_see_the_same_numbers(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """The normalisation is that of the weights in training, evaluation and prediction: accuracies agree."""
    run = tmp_path / "run"
    status, _, err = call_cli("train", "--model", NAME, "--pretrained", *TINY, "--run", run)
    assert status == 0, err
    result = json.loads((run / "result.json").read_text())
    status, out, err = call_cli("evaluate", run, "--json", "--out", tmp_path / "out")
    assert status == 0, err
    assert json.loads(out)["loss"] == pytest.approx(result["loss"], abs=1e-5)
    side, mean, std = published_input(NAME)
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    expected = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(Preprocess(side, mean, std)(images).double(), expected, rtol=1e-5, atol=1e-5)


def test_compare(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    run = tmp_path / "r"
    small = ["--model.width=16", "--model.layers=2", "--model.heads=2"]
    command = ["compare", "vit", NAME, "--pretrained", *TINY, *small, "--run", run, "--json"]
    status, out, err = call_cli(*command)
    assert status == 0, err
    assert f"fine-tunes {FULL} at a tenth" in err and "trained from scratch: " in err
    rows = json.loads(out)["networks"]
    assert [row["network"] for row in rows][1] == f"{NAME}, pretrained"
    recipe = yaml.safe_load((run / "vit/seed0/config.yaml").read_text())["train"]["optim"]["lr"]
    tuned = yaml.safe_load((run / f"{NAME}-pretrained/seed0/config.yaml").read_text())["train"]["optim"]["lr"]
    assert tuned == pytest.approx(recipe / 10)
    status, again, err = call_cli(*command)
    assert status == 0 and err.count("is done") == 2 and json.loads(again)["networks"] == rows
    # The same in Python.
    table = dasvit.compare(
        ["vit", NAME], recipe=str(run / "vit/seed0/config.yaml"), run=tmp_path / "p", pretrained=True, quiet=True
    )
    assert [row["name"] for row in table.rows] == ["vit", f"{NAME}-pretrained"]


def test_positions_are_resampled(hub: Path) -> None:
    """A ViT's weights serve images of another size."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224")
    hub.mkdir()
    save_file(model.state_dict(), hub / "w.safetensors", metadata={"format": "pt"})
    small = make_pretrained("vit_tiny_patch16_224", hub / "w.safetensors", 64, 5)
    assert small(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert small.get_parameter("pos_embed").shape[1] == 17
    assert torch.equal(small.get_parameter("blocks.0.attn.qkv.weight"), model.get_parameter("blocks.0.attn.qkv.weight"))
    fresh = make_model("vit_tiny_patch16_224", ModelConfig(image_size=64), 5)
    assert {k: v.shape for k, v in fresh.state_dict().items()} == {k: v.shape for k, v in small.state_dict().items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "vit", "--pretrained"), "is for names of timm's with published weights"),
        (("compare", "vit", "--download", "true"), "--download goes with --pretrained"),
        (("compare", "vit", "--pretrained", "--download", "yes"), "--download is true or false"),
        (("train", "--model", "vit", "--pretrained"), "there are no published weights for vit"),
        (("train", "--model", "resnet50_small", "--pretrained"), "no published weights for resnet50_small"),
        (("train", "--cell", "dasvit_shift", "--pretrained"), "--pretrained goes with --model NAME"),
    ],
)
def test_mistakes(hub: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    assert message in fails(capsys, *arguments, *TINY)
