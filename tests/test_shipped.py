"""Models that come with the package: small, in half precision, found by name, with ten drawings to show."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from dasvit.api import _about
from dasvit.api.model import TrainedModel
from dasvit.io.run_folder import find_model
from dasvit.io.shipped import drawings_of, find_shipped, shipped_names
from dasvit.training.distillation import find_teacher
from helpers import call_cli

DRAWN_RIGHT = 9
"""Of the ten drawings: docs/predict.md says so."""


def test_a_shipped_model_is_small_and_says_what_it_is() -> None:
    assert shipped_names() == ["cifar10"]
    folder = find_model("cifar10")
    assert folder == find_shipped("cifar10") and find_shipped("cifar") is None
    weights = folder / "model.safetensors"
    assert weights.stat().st_size < 2**20
    with safe_open(weights, framework="pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert "run" not in described["dasvit"]["result"], "nobody's path"
    assert "# DASViT for cifar10" in (folder / "README.md").read_text(encoding="utf-8")


def test_predict_shows_the_drawings_of_a_shipped_model() -> None:
    status, out, err = call_cli("predict", "cifar10", "--json")
    assert status == 0, err
    rows = json.loads(out)["images"]
    drawn = [Path(row["image"]).stem for row in rows]
    classes = json.loads((find_model("cifar10") / "config.json").read_text(encoding="utf-8"))
    assert drawn == classes["pretrained_cfg"]["label_names"]
    told = [row["predictions"][0]["label"] for row in rows]
    assert sum(label == name for label, name in zip(told, drawn, strict=True)) == DRAWN_RIGHT


def test_a_folder_of_ones_own_comes_before_a_shipped_model(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run / "train" / "model", tmp_path / "cifar10")
    assert find_model("cifar10") == Path("cifar10")
    (tmp_path / "cifar10" / "drawings").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cifar10" / "drawings" / "a.png")
    assert drawings_of(find_model("cifar10")) == []
    status, _, err = call_cli("predict", "cifar10")
    assert status == 2 and "give the images too" in err


def test_what_is_made_of_a_shipped_model_goes_below_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never into the package, which need not even be writable."""
    monkeypatch.chdir(tmp_path)
    status, out, err = call_cli("export", "cifar10", "--to", "hub", "--json")
    assert status == 0, err
    made = Path(json.loads(out)["out"])
    assert made == Path("runs/cifar10/export/hub") and (made / "model.safetensors").is_file()
    assert not (find_model("cifar10") / "export").exists()
    assert _about(TrainedModel("cifar10")) == ("cifar10", "runs/cifar10/finetune", "folder-small")


def test_a_shipped_model_teaches_by_its_name() -> None:
    assert find_teacher("cifar10").classes == find_teacher(str(find_model("cifar10"))).classes
