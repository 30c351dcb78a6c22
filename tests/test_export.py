"""Exports: what is written runs elsewhere and gives the same, or is not there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import nn

from dasvit.cell.genotype import PUBLISHED, Genotype
from dasvit.config import ModelConfig
from dasvit.data import Preprocess, predict_transform
from dasvit.errors import UserError
from dasvit.inference.export import WRITERS, export_file
from dasvit.models import export
from dasvit.models.baselines import make_model, make_network
from dasvit.models.folder import read_model_config, save_model
from dasvit.report.run.card import card_text, write_card
from dasvit.report.run.reading import read_run
from helpers import call_cli, tree

CONFIG = ModelConfig(image_size=16, patch_size=4, width=16, layers=2, heads=2)
SEARCHED = Genotype.from_ops(2, ["identity", "msa_4", "mlp_1", "zero", "msa_2"])
CONVOLVED = Genotype.from_ops(2, ["conv_1", "msa_4", "mlp_1", "zero", "conv_0.5"])
SHIFTED = Genotype.from_ops(2, ["shift_1", "msa_4", "mlp_1", "zero", "shift_0.5"])
FACTS = {"architecture": "a", "labels": ["cat", "ü\n"], "mean": [0.5, 0.5, 0.5]}


def unread(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: images


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    cells = {"published": PUBLISHED["dasvit_cifar10"], "searched": SEARCHED, "shifted": SHIFTED, "convolved": CONVOLVED}
    model = make_network(cells[name], CONFIG, 3) if name in cells else make_model(name, CONFIG, 3)
    return model.eval()


def numbers(model: Callable[[torch.Tensor], torch.Tensor], batch: int = 5) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.linspace(-2, 2, batch * 3 * 16 * 16).reshape(batch, 3, 16, 16))


@pytest.mark.parametrize("name", ["published", "searched", "shifted", "convolved", "vit", "vit_shift"])
def test_files_give_what_the_network_gives(name: str, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    model = make(name)
    program = export.make_program(model, 16)
    path = tmp_path / "m.onnx"
    export.write_onnx(program, path, FACTS)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"], "all in one file"
    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 16, 16] and session.get_outputs()[0].shape == ["batch", 3]
    for batch in (1, 4):
        images = np.random.default_rng(batch).standard_normal((batch, 3, 16, 16), dtype=np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, rtol=1e-4, atol=1e-5)
    kept = session.get_modelmeta().custom_metadata_map
    assert kept["architecture"] == "a" and json.loads(kept["labels"]) == ["cat", "ü\n"]
    export.write_torch(program, tmp_path / "m.pt2", FACTS)
    extra = {export.FACTS: ""}
    loaded = torch.export.load(tmp_path / "m.pt2", extra_files=extra)
    assert json.loads(extra[export.FACTS]) == FACTS
    for batch in (1, 5):
        torch.testing.assert_close(numbers(loaded.module(), batch), numbers(model, batch))
    here = str(Path(export.__file__).parents[2]).encode()
    assert here not in path.read_bytes() and here not in (tmp_path / "m.pt2").read_bytes(), "names this machine"


def test_a_difference_is_noticed() -> None:
    model, other = make("published"), make("published")
    assert export.largest_difference(model, other, 16) == 0
    with torch.no_grad():
        other.get_parameter("head.bias")[1] += 0.25
    with pytest.raises(UserError, match=r"differ by 0\.25"):
        export.largest_difference(model, other, 16)
    with pytest.raises(UserError, match="differ by nan"):
        export.largest_difference(model, lambda images: model(images) * torch.nan, 16)


def test_too_large_for_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = export.make_program(make("published"), 16)
    monkeypatch.setattr(export, "LARGEST_ONNX", 100)
    with pytest.raises(UserError, match="--to torch"):
        export.write_onnx(program, tmp_path / "m.onnx", {})
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_traced() -> None:
    class Whimsical(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    with pytest.raises(UserError, match=r"torch\.export cannot take"):
        export.make_program(Whimsical(), 16)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "r"))


@pytest.fixture
def constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracer takes seconds; the test is about files."""
    monkeypatch.setattr("dasvit.inference.export.make_program", lambda model, side: None)
    monkeypatch.setattr("dasvit.inference.export.largest_difference", lambda *arguments: 0.0)


def test_export_to_onnx(run: Path) -> None:
    import onnxruntime

    status, out, err = call_cli("export", run, "--to", "onnx", "--json")
    assert status == 0, err
    told = json.loads(out)
    path = run / "train" / "export" / "model.onnx"
    assert told["out"] == str(path) and told["bytes"] == path.stat().st_size and 0 <= told["difference"] < 1e-4
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]
    facts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    config = read_model_config(run / "train" / "model")
    assert json.loads(facts["labels"]) == [str(i) for i in range(10)]
    assert json.loads(facts["input_size"]) == [3, 8, 8] and json.loads(facts["mean"]) == [0.5, 0.5, 0.5]
    assert json.loads(facts["model_args"]) == config["model_args"]


def test_export_to_torch(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "my.pt2"
    status, said, err = call_cli("export", run / "train" / "model", "--to", "torch", "--out", out)
    assert status == 0 and f"{out}: " in said and "logits differ by 0 at most" in said, err
    loaded = torch.export.load(out).module()
    model = timm.create_model(f"local-dir:{run}/train/model", pretrained=True).eval()
    images = torch.linspace(-1, 1, 4 * 3 * 64).reshape(4, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model(images))


def test_export_to_the_hub(run: Path) -> None:
    status, out, err = call_cli("export", run, "--to", "hub")
    folder, model = run / "train" / "export" / "hub", run / "train" / "model"
    assert status == 0 and f"hf upload USER/NAME {folder}" in out, err
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "cell.png"}
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
    state, kept = loaded.state_dict(), load_file(model / "model.safetensors")
    assert all(torch.equal(state[name], value) for name, value in kept.items()) and set(state) == set(kept)
    for path in folder.iterdir():
        assert str(run).encode() not in path.read_bytes(), "names a place of this machine"
    with Image.open(folder / "cell.png") as picture:
        assert min(picture.size) > 100
    assert call_cli("predict", folder, folder / "cell.png")[0] == 0
    before = tree(run)
    status, out, err = call_cli("export", run, "--to", "hub")
    assert status == 0 and "there already" in out and tree(run) == before, err


@pytest.mark.usefixtures("constant")
@pytest.mark.parametrize("failure", ["differs", "cut off", "other"])
def test_nothing_is_left_of_an_export_that_fails(failure: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = run / "train" / "export"

    def written(program: None, path: Path, facts: Any) -> None:
        path.write_bytes(b"half")
        if failure == "cut off":
            raise OSError(28, "No space left on device", str(path))

    def compared(*arguments: object) -> float:
        if failure == "differs":
            raise UserError("the results differ")
        return 0.0

    writer = export_file(written, unread)
    monkeypatch.setitem(WRITERS, "torch", writer)
    monkeypatch.setattr("dasvit.inference.export.largest_difference", compared)
    if failure == "other":
        place.mkdir()
        (place / "model.pt2").write_bytes(b"mine")
    status, out, err = call_cli("export", run, "--to", "torch")
    assert status == 2 and out == "" and "Traceback" not in err
    left = {path.name: path.read_bytes() for path in place.iterdir()}
    assert left == ({"model.pt2": b"mine"} if failure == "other" else {})
    assert failure != "other" or "--out" in err


@pytest.mark.usefixtures("constant")
def test_the_same_again_is_well(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written(program: None, path: Path, facts: Any) -> None:
        path.write_bytes(b"x")

    monkeypatch.setitem(WRITERS, "torch", export_file(written, unread))
    for said in ("model.pt2: 0.00 MB.", "as it was there already"):
        status, out, err = call_cli("export", run, "--to", "torch")
        assert status == 0 and said in out, err


def test_mistakes(small_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for arguments, sentence in (
        ([small_run, "--to", "onxx"], "Did you mean 'onnx'?"),
        ([small_run], "onnx, torch, hub"),
        ([tmp_path / "nowhere", "--to", "hub"], "there is no model"),
        ([tmp_path, "--to", "hub"], "holds no trained model"),
    ):
        status, out, err = call_cli("export", *arguments)
        assert (status, out) == (2, "") and sentence in err, err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = call_cli("export", small_run, "--to", "onnx")
    assert status == 2 and "onnxruntime: pip install 'dasvit[export]'" in err


def test_weights_that_are_no_numbers(run: Path) -> None:
    from safetensors.torch import save_file

    path = run / "train" / "model" / "model.safetensors"
    save_file({name: value * torch.nan for name, value in load_file(path).items()}, path)
    status, _, err = call_cli("export", run, "--to", "hub")
    assert status == 2 and "no finite numbers" in err and not (run / "train" / "export").exists()


@pytest.mark.parametrize("side, crop_pct", [(16, 1.0), (28, 0.875)])
def test_timms_transform_sees_what_predict_sees(side: int, crop_pct: float, tmp_path: Path) -> None:
    """The metadata say how images are to be prepared: with timm's reading of them comes what our own code does."""
    half = (0.5, 0.5, 0.5)
    size = (3, side, side)
    names = ["a", "b", "c"]
    config = ModelConfig(image_size=side, patch_size=4, width=16, layers=1, heads=2)
    network = make_network(SEARCHED, config, 3)
    save_model(network, tmp_path, class_names=names, input_size=size, mean=half, std=half, crop_pct=crop_pct)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    rows, columns = np.mgrid[0:120, 0:120]  # of an oblong one they cut out squares that differ by half a pixel
    waves = [np.sin(rows / 17 + columns / c) for c in (9, 14, 23)]
    image = Image.fromarray(np.rint(127.5 * (1 + np.stack(waves, axis=-1))).astype(np.uint8))
    theirs = create_transform(**resolve_data_config(model=model))(image)
    ours = Preprocess(side).eval()(predict_transform(side, crop_pct)(image)[None])[0]
    assert float((torch.as_tensor(theirs) - ours).abs().max()) < 0.02


# --- the card ---------------------------------------------------------------------------------------------------------


def test_the_card_says_what_was_measured(small_run: Path) -> None:
    folder = small_run / "train"
    config, run = read_model_config(folder / "model"), read_run(folder)
    result = json.loads((folder / "result.json").read_text())
    genotype = Genotype.from_json((folder / "genotype.json").read_text())
    text = card_text(config, run, genotype)
    data: Any = ModelCard(text).data
    assert data.library_name == "timm"
    assert [entry.metric_value for entry in data.eval_results] == pytest.approx(
        [result[key] / 100 for key in ("top1", "top5", "balanced_accuracy", "macro_f1")], abs=1e-6
    )
    # Wilson's interval of scipy, independently.
    from scipy.stats import binomtest

    hits = round(result["top1"] / 100 * result["images"])
    bounds = binomtest(hits, result["images"]).proportion_ci(method="wilson")
    assert f"(95 % interval {100 * bounds.low:.2f}".rstrip("0").rstrip(".") in text
    assert f" to {100 * bounds.high:.2f}".rstrip("0").rstrip(".") in text
    assert str(genotype) in text and f"({result['params']:,})" in text and "epochs: 1" in text
    assert "data: {name: digits, limit: 60" in text and "torch 2" in text


def test_a_card_of_a_baseline_and_of_a_model_alone(tmp_path: Path) -> None:
    half = (0.5, 0.5, 0.5)
    save_model(make("vit"), tmp_path, class_names=["a|b", "<b>", "c"], input_size=(3, 16, 16), mean=half, std=half)
    config = read_model_config(tmp_path)
    write_card(tmp_path, config, None)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "## Cell" not in text and "import dasvit" not in text and "holds no results" in text
    assert r"a\|b, \<b\>, c" in text and "model-index" not in text
    assert not (tmp_path / "cell.png").exists()


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.95), ("int8", 0.95)])
def test_files_of_another_precision_keep_what_the_model_knows(precision: str, share: float, run: Path) -> None:
    import onnx

    status, out, err = call_cli("export", run, "--to", "onnx", "--precision", precision, "--json")
    assert status == 0, err
    made = json.loads(out)
    assert made["out"] == f"{run}/train/export/model-{precision}.onnx" and made["precision"] == precision
    assert made["accuracy"]["images"] > 0 and made["accuracy"]["exported"] >= share * made["accuracy"]["float32"]
    file = onnx.load(made["out"])
    kinds = {tensor.data_type for tensor in file.graph.initializer}
    assert {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision] in kinds
    assert json.loads({prop.key: prop.value for prop in file.metadata_props}["labels"]), "lost what it takes"
    inputs = file.graph.input[0].type.tensor_type.elem_type
    assert inputs == onnx.TensorProto.FLOAT
    status, out, _ = call_cli("export", run, "--to", "onnx", "--precision", precision)
    assert status == 0 and f"% in {precision}," in out


def test_other_precisions_are_onnx_alone(run: Path) -> None:
    status, _, err = call_cli("export", run, "--to", "torch", "--precision", "int8")
    assert status == 2 and "--precision int8 is for --to onnx" in err
    status, _, err = call_cli("export", run, "--to", "onnx", "--precision", "int4")
    assert status == 2 and "one of float32, fp16, int8" in err
