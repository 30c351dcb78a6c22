"""Images of several labels through every command: search, train, evaluate, predict, export, compare, study, Python."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

import dasvit
from dasvit.inference.demo import look
from dasvit.models.export import open_torch
from helpers import SMALL, call_cli
from label_shapes import LABELS, shapes

SIZE = ("--model.image_size", 16, "--model.patch_size", 4, "--search.batch_size", 8, "--train.batch_size", 8)
FINALS = ("--search.finals.cells=3", "--search.finals.rungs=[1]", "--search.monitor=8")
NAMES = tuple(sorted(LABELS))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of 80 images; not to be changed."""
    return shapes(tmp_path_factory.mktemp("images"), 80)


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with candidates, and the training of its cell; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "mine"
    small = (*SMALL, *SIZE, *FINALS, "--data.csv", images)
    status, _, err = call_cli("search", *small, "--search.metric", "map", "--run", run)
    assert status == 0, err
    status, out, err = call_cli("train", "--cell", run, "--train.epochs", 2, "--train.val_fraction", 0.2)
    assert status == 0 and "prevalence" in out, err
    assert "multi-label: 3 classes, " in err and "parted by ';'" in err
    return run


def test_the_search_and_its_candidates(run: Path) -> None:
    found = json.loads((run / "derivation.json").read_text())
    assert len(found["finals"]) == 3
    for one in found["finals"]:
        assert one["map"] > 0 and "top1" not in one and one["value"] == pytest.approx(100 - one["map"])
    assert json.loads((run / "data.json").read_text())["multilabel"]["classes"] == 3
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert "val_exact_match" in rows[-1]
    page = (run / "report.html").read_text()
    assert "val mAP" in page and "val top-1" not in page and "trained: test mAP" in page


def test_the_training_is_shown_alike_everywhere(run: Path) -> None:
    result = json.loads((run / "train" / "result.json").read_text())
    with (run / "train" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    truth = [[name in row["labels"].split(";") for name in NAMES] for row in rows]
    shares = [[float(row[f"p({name})"]) for name in NAMES] for row in rows]
    assert result["map"] == pytest.approx(100 * average_precision_score(truth, shares))
    assert not (run / "train" / "confusion.csv").exists() and "temperature" in result
    status, out, err = call_cli("evaluate", run, "--json")
    judged = json.loads(out)
    assert status == 0, err
    for key in ("map", "micro_f1", "exact_match", "ece", "ece_uncalibrated", "loss"):
        assert judged[key] == pytest.approx(result[key], rel=1e-5)
    assert judged["by_class"] == [pytest.approx(row) for row in result["by_class"]]
    status, out, err = call_cli("evaluate", run)
    assert status == 0 and f"mAP {result['map']:.2f} %" in out and "AP" in out and "taken for" not in out, err
    page = (run / "train" / "report.html").read_text()
    shown = f"{result['map']:.2f} %"
    assert shown in page and 'aria-label="Labels"' in page and 'aria-label="Confusion matrix"' not in page
    for row in result["by_class"]:
        assert f"{row['ap']:.2f} %" in page
    assert "taken for what they are not" in page or not json.loads((run / "train/mistakes.json").read_text())["images"]


def test_predict_gives_what_is_above_a_half(run: Path, images: Path) -> None:
    files = [images.parent / f"{number}.png" for number in range(6)]
    status, out, err = call_cli("predict", run, *files, "--json")
    rows = json.loads(out)["images"]
    assert status == 0 and len(rows) == 6, err
    for row in rows:
        above = {name: share for name, share in row["probabilities"].items() if share > 0.5}
        assert {one["label"]: one["probability"] for one in row["predictions"]} == above
        assert list(row["probabilities"]) == list(NAMES)
    status, out, err = call_cli("predict", run, *files)
    lines = out.splitlines()
    assert status == 0 and len(lines) == 6, err
    assert all(("none (nearest: " in line) == (not row["predictions"]) for line, row in zip(lines, rows, strict=True))
    status, out, err = call_cli("predict", run, *files, "--format", "csv")
    table = list(csv.DictReader(out.splitlines()))
    assert status == 0 and list(table[0]) == ["image", "labels", *(f"p({name})" for name in NAMES)], err
    for line, row in zip(table, rows, strict=True):
        assert line["labels"] == ";".join(one["label"] for one in row["predictions"])


def test_exports_are_the_model_and_say_it(run: Path, images: Path, tmp_path: Path) -> None:
    model = dasvit.TrainedModel(run)
    pixels = model.classifier.described.shown(str(images.parent / "0.png"))[None]
    inputs, expected = model.classifier.inputs(pixels), model.classifier.shares(pixels)
    for target, name in (("onnx", "a.onnx"), ("torch", "a.pt2"), ("hub", "hub")):
        status, out, err = call_cli("export", run, "--to", target, "--out", tmp_path / name)
        assert status == 0 and "Checked against the model" in out, err
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["multilabel"]) is True
    logits = torch.from_numpy(session.run(None, {"images": inputs.numpy()})[0])
    assert torch.allclose(logits.sigmoid(), expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(open_torch(tmp_path / "a.pt2")(inputs).sigmoid(), expected, atol=1e-5)
    card = (tmp_path / "hub" / "README.md").read_text()
    assert ".sigmoid()" in card and "softmax" not in card and "test mAP" in card and "mean_average_precision" in card
    status, out, err = call_cli("export", run, "--to", "onnx", "--precision", "int8", "--out", tmp_path / "b.onnx")
    assert status == 0 and "test images: mAP" in out, err


def test_one_kind_of_model_is_not_judged_on_the_other(run: Path, images: Path, tmp_path: Path) -> None:
    rows = [f"{images.parent}/{number}.png,{LABELS[number % 3]}" for number in range(9)]
    (tmp_path / "one.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    status, _, err = call_cli("evaluate", run, "--data.csv", tmp_path / "one.csv", "--out", tmp_path / "out")
    assert status == 2 and "several labels an image" in err and "--data.label_separator" in err
    more = ("--data.label_separator", ";", "--out", tmp_path / "out", "--json")
    status, out, err = call_cli("evaluate", run, "--data.csv", tmp_path / "one.csv", *more)
    assert status == 0 and json.loads(out)["images"] == 9, err
    (tmp_path / "new.csv").write_text(
        "\n".join(["image,labels", *rows, f"{images.parent}/9.png,red square;cat"]) + "\n"
    )
    status, _, err = call_cli("evaluate", run, "--data.csv", tmp_path / "new.csv", "--out", tmp_path / "out")
    assert status == 2 and "holds images of cat, which the model does not know" in err


def test_a_trained_model_is_gone_on_with(run: Path, images: Path, tmp_path: Path) -> None:
    small = (*SMALL, *SIZE, "--data.csv", images)
    status, _, err = call_cli("train", *small, "--init", run, "--run", tmp_path / "on")
    assert status == 0 and "its head as well" in err, err
    rows = [f"{images.parent}/{number}.png,{LABELS[number % 3]}" for number in range(60)]
    (tmp_path / "one.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    one = (*SMALL, *SIZE, "--data.csv", tmp_path / "one.csv")
    status, _, err = call_cli("train", *one, "--init", run, "--run", tmp_path / "fresh")
    assert status == 0 and "with a fresh head" in err, err
    assert "multilabel" not in json.loads((tmp_path / "fresh/model/config.json").read_text())["dasvit"]


@pytest.mark.parametrize("method", ["evolution", "autoformer", "random", "gdas"])
def test_other_methods_search_on_it(method: str, images: Path, tmp_path: Path) -> None:
    options: dict[str, tuple[object, ...]] = {
        "evolution": ("--search.evolution.population=4", "--search.evolution.generations=1"),
        "autoformer": ("--search.autoformer.space=scaled", "--search.autoformer.population=4"),
    }
    more = (*options.get(method, ()), *(("--search.autoformer.generations=1",) if method == "autoformer" else ()))
    small = (*SMALL, *SIZE, "--data.csv", images, "--search.method", method)
    status, _, err = call_cli("search", *small, *more, "--run", tmp_path / "run")
    assert status == 0, err
    found = json.loads((tmp_path / "run" / "derivation.json").read_text())
    if method == "autoformer":
        assert "score (100 exp(-loss))" in err and 0 < found["val_top1"] < 100


def test_perturbation_and_second_order(images: Path, tmp_path: Path) -> None:
    small = (*SMALL, *SIZE, "--data.csv", images, "--search.derive.rule=perturbation", "--search.order=2")
    status, _, err = call_cli("search", *small, "--run", tmp_path / "run")
    assert status == 0, err


def test_networks_are_compared(images: Path, tmp_path: Path) -> None:
    small = (*SMALL, *SIZE, "--data.csv", images)
    status, out, err = call_cli("compare", *small, "vit", "vit_shift", "--run", tmp_path / "table", "--json")
    assert status == 0, err
    rows = json.loads(out)["networks"]
    assert len(rows) == 2 and all(0 < row["map"] <= 100 and "top1" not in row for row in rows)


def test_a_study_tests_the_map(images: Path, tmp_path: Path) -> None:
    study = ("--searches=1", "--trainings=1", "--random=2", "--control=1", "--methods=dasvit")
    small = (*SMALL, *SIZE, "--data.csv", images)
    status, _, err = call_cli("study", *small, *study, "--run", tmp_path / "study")
    assert status == 0, err
    content = json.loads((tmp_path / "study" / "study.json").read_text())
    trained = [training for cell in content["cells"].values() for training in cell["trainings"]]
    assert content["figure"] == "map" and all(one["top1"] == one["map"] for one in trained)
    for name in ("study.md", "report.html"):
        text = (tmp_path / "study" / name).read_text()
        assert "mAP" in text and "top-1" not in text


def test_python(images: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {
        option.removeprefix("--").split("=")[0]: json.loads(value) if value[0] in "[{0123456789" else value
        for option, value in (text.split("=", 1) for text in SMALL[1:])
    }
    size = {"model.image_size": 16, "model.patch_size": 4, "train.batch_size": 8}
    model = dasvit.train(
        "vit", str(images), recipe="digits", options={**small, **size}, run=tmp_path / "run", quiet=True
    )
    assert "test mAP" in repr(model) and model.result["map"] > 0
    found = model.evaluate(quiet=True)
    assert found.evaluation.score == pytest.approx(model.result["map"])
    frame = found.to_frame()
    assert list(frame.columns) == ["file", "labels", "predicted", *(f"p({name})" for name in NAMES)]
    assert frame["p(blue bar)"].dtype == np.float64
    row = model.predict(Image.new("RGB", (16, 16)), top=1)[0]
    assert set(row["probabilities"]) == set(NAMES)
    inspected = dasvit.inspect_data(str(images))
    assert inspected.multilabel["classes"] == 3 and inspected.labels.startswith("multi-label: 3 classes")


def test_runs_are_set_side_by_side(run: Path, small_run: Path, tmp_path: Path) -> None:
    result = json.loads((run / "train" / "result.json").read_text())
    status, _, err = call_cli("report", run, run / "train", "--out", tmp_path / "page.html", "--figures")
    page = (tmp_path / "page.html").read_text()
    assert status == 0 and f"{result['map']:.2f} %" in page and "Test mAP" in page and "prevalence" in page, err
    assert r"mAP (\%)" in (tmp_path / "figures" / "networks.tex").read_text()
    status, _, err = call_cli("report", small_run, small_run / "train", "--out", tmp_path / "one.html")
    assert status == 0 and "prevalence" not in (tmp_path / "one.html").read_text(), err


def test_a_demo_shows_sigmoids(run: Path, images: Path) -> None:
    model = dasvit.TrainedModel(run)
    path = str(images.parent / "0.png")
    assert look(model.classifier, path).shares == pytest.approx(model.predict(path)[0]["probabilities"], abs=1e-5)
