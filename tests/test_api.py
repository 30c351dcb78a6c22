"""dasvit in Python: the same as the commands, on the same folders, with images as people have them in memory."""

import dataclasses
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import dasvit
from dasvit.commands import COMMANDS as SUMMARIES
from dasvit.config.recipe import load
from dasvit.errors import UserError
from helpers import SMALL, call_cli, untimed

OPTIONS: dict[str, Any] = {
    "data.limit": 60,
    "data.eval_limit": 20,
    "model.width": 8,
    "model.layers": 1,
    "model.heads": 2,
    "space.heads": [2],
    "space.ratios": [1],
    "space.shifts": [],
    "search.finals.cells": 0,
    "search.batch_size": 10,
    "search.tokens.dim": 4,
    "train.batch_size": 20,
    "train.epochs": 1,
    "search.stages": {"layers": [1], "keep": [0], "epochs": [2], "weight_epochs": [1]},
    "runtime.device": "cpu",
    "runtime.precision": "float32",
}
"""`helpers.SMALL`, by dotted names."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dasvit.FoundCell:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASVIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        run = tmp_path_factory.mktemp("api") / "run"
        return dasvit.search(recipe="digits", run=run, options=OPTIONS, quiet=True)


@pytest.fixture(scope="module")
def model(found: dasvit.FoundCell) -> dasvit.TrainedModel:
    return dasvit.train(found, quiet=True)


def said(*arguments: object) -> Any:
    status, out, err = call_cli(*arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def read(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def without(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


# --- each command and its function ------------------------------------------------------------------------------------


def test_search(found: dasvit.FoundCell, small_run: Path) -> None:
    for name in ("genotype.json", "derivation.json"):
        assert (found.run / name).read_text() == (small_run / name).read_text()
    assert load(found.run / "config.yaml") == load(small_run / "config.yaml")
    assert untimed(found.run / "metrics.jsonl") == untimed(small_run / "metrics.jsonl")
    assert found.report.is_file() and found.cost == dasvit.cost(found)


def test_train(model: dasvit.TrainedModel, small_run: Path) -> None:
    theirs = json.loads((small_run / "train/result.json").read_text())
    assert without(model.result, "run") == without(theirs, "run")


def test_derive(found: dasvit.FoundCell, small_run: Path, tmp_path: Path) -> None:
    for limits in ({"max_macs": "1M"}, {"rule": "strongest"}):
        options = [part for name, value in limits.items() for part in (f"--{name.replace('_', '-')}", value)]
        theirs = said("derive", small_run, *options, "--out", tmp_path / f"{len(options[1])}.json")
        assert found.derive(**limits).to_dict() == theirs["genotype"]  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown rule"):
        found.derive(rule="perturbation")


def test_evaluate(model: dasvit.TrainedModel, small_run: Path) -> None:
    assert without(model.evaluate(quiet=True).to_dict(), "model") == without(said("evaluate", small_run), "model")


def test_predict(model: dasvit.TrainedModel, small_run: Path, tmp_path: Path) -> None:
    pixels = np.rint(load_digits().images[:3] * (255 / 16)).astype(np.uint8)
    paths = [str(tmp_path / f"{place}.png") for place in range(3)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    theirs = said("predict", small_run, *paths, "--top", 3)["images"]
    assert model.predict(paths, top=3) == theirs
    for given in (pixels, list(pixels), [read(path) for path in paths]):
        assert [row["predictions"] for row in model.predict(given, top=3)] == [row["predictions"] for row in theirs]
    assert [row["image"] for row in model.predict(tmp_path)] == paths
    assert len(model.predict(read(paths[0]))) == len(model.predict(pixels[0])) == 1
    with pytest.raises(UserError, match="without transforms"):
        model.predict([np.zeros((8, 8))])


def test_export(model: dasvit.TrainedModel, small_run: Path, tmp_path: Path) -> None:
    ours = model.export("torch", tmp_path / "a.pt2")
    theirs = said("export", small_run, "--to", "torch", "--out", tmp_path / "b.pt2")
    assert ours.out.is_file() and ours.difference == theirs["difference"]


def test_cost() -> None:
    for name in ("dasvit_cifar10", "vit"):
        assert dasvit.cost(name).to_dict() == without(said("cost", name), "name", "classes")


def test_report(found: dasvit.FoundCell, model: dasvit.TrainedModel, tmp_path: Path) -> None:
    page = dasvit.report(found, out=tmp_path / "page.html")
    assert page.read_text().startswith("<!DOCTYPE html>") and dasvit.report(found, model, out=tmp_path / "two.html")


def test_compare(found: dasvit.FoundCell, small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(small_run)
    ours = dasvit.compare([found, "vit"], seeds=2, run=tmp_path / "ours", quiet=True)
    theirs = said(
        *("compare", tmp_path / "run", "vit", "--config", small_run / "config.yaml", "--seeds", 2),
        *("--ptflops", "no", "--run", tmp_path / "theirs"),
    )["networks"]
    kept = ("params", "macs", "top1", "top1_sd")
    assert [row["name"] for row in ours.rows] == ["run", "vit"]
    assert [{key: row[key] for key in kept} for row in ours.rows] == [{key: row[key] for key in kept} for row in theirs]
    frame = ours.to_frame()
    assert list(frame["name"]) == ["run", "vit"] and not ours.failures


def test_study(tmp_path: Path) -> None:
    """One search, one training, one random cell and no control: what the command says, and the same page."""
    few: dict[str, Any] = {"searches": 1, "trainings": 1, "random": 1, "control": 0}
    ours = dasvit.study(recipe="digits", run=tmp_path / "ours", methods=["darts"], options=OPTIONS, quiet=True, **few)
    options = [part for name, value in few.items() for part in (f"--{name}", value)]
    theirs = said("study", *SMALL, *options, "--methods", "darts", "--run", tmp_path / "theirs")
    assert ours.verdicts == theirs["verdicts"] and not ours.failures
    assert (tmp_path / "ours/report.html").is_file() and list(ours.to_frame()["key"]) == ["darts"]
    with pytest.raises(UserError, match="searches must be at least 1"):
        dasvit.study(recipe="digits", run=tmp_path / "none", searches=0, quiet=True)


COMMANDS: dict[str, Callable[..., Any]] = {
    "search": dasvit.search,
    "derive": dasvit.FoundCell.derive,
    "train": dasvit.train,
    "evaluate": dasvit.TrainedModel.evaluate,
    "predict": dasvit.TrainedModel.predict,
    "export": dasvit.TrainedModel.export,
    "cost": dasvit.cost,
    "report": dasvit.report,
    "compare": dasvit.compare,
    "study": dasvit.study,
}
"""Each is held against its command above."""


def test_every_command_has_its_function() -> None:
    """But for programs: a page that is served, tables of memory and latency, the path of the README; data's own."""
    assert set(SUMMARIES) - set(COMMANDS) == {"cache", "data", "demo", "latency", "memory", "quickstart"}
    assert all(f"def test_{name}(" in Path(__file__).read_text(encoding="utf-8") for name in COMMANDS)


def test_defaults_are_those_of_the_command_line() -> None:
    """But for what has another form there: a list, a choice, or nothing where a run is named by what is trained."""
    for name in ("search", "train", "compare", "study", "predict", "export"):
        options = {field.name: field.default for field in dataclasses.fields(SUMMARIES[name].options)}
        ours = {one.name: one.default for one in inspect.signature(COMMANDS[name]).parameters.values()}
        shared = (
            (ours.keys() & options.keys())
            - {"track", "methods", "images", "download"}
            - ({"run"} if name == "compare" else set())
        )
        assert shared and {key: ours[key] for key in shared} == {key: options[key] for key in shared}, name


def test_options_are_those_of_the_command_line(tmp_path: Path) -> None:
    """The method, a budget in words, and what the user set against the method."""
    ours = dasvit.search(
        recipe="digits", run=tmp_path / "a", method="gdas", max_macs="2M", options=OPTIONS, seed=3, quiet=True
    )
    options = ["--method", "gdas", "--search.derive.max_macs", "2M", "--runtime.seed", 3, "--run", tmp_path / "b"]
    assert call_cli("search", *SMALL, *options)[0] == 0
    assert load(ours.run / "config.yaml") == load(tmp_path / "b/config.yaml")
    assert (ours.run / "derivation.json").read_text() == (tmp_path / "b/derivation.json").read_text()


# --- images in memory -------------------------------------------------------------------------------------------------


class Digits:
    """A data set of torchvision's kind."""

    def __init__(self, count: int) -> None:
        digits = load_digits()
        self.images, self.targets = digits.images[:count], digits.target[:count].tolist()
        self.classes = [f"digit {number}" for number in range(10)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        return Image.fromarray(np.rint(self.images[row] * (255 / 16)).astype(np.uint8)), self.targets[row]


def test_images_in_memory_are_searched_trained_and_gone_on_with(tmp_path: Path) -> None:
    digits = Digits(100)
    pixels = np.stack([np.asarray(digits[row][0]) for row in range(100)])
    options = {key: value for key, value in OPTIONS.items() if not key.startswith("data.")}
    cells = []
    for place, images in enumerate([(pixels, np.array(digits.targets)), digits]):
        run = tmp_path / str(place)
        cells.append(dasvit.search(images, recipe="digits", run=run, options=options, quiet=True))
        again = dasvit.search(images, recipe="digits", run=run, options=options, resume=True, quiet=True)
        assert again.cell == cells[-1].cell
    assert cells[0].cell == cells[1].cell
    assert untimed(cells[0].run / "metrics.jsonl") == untimed(cells[1].run / "metrics.jsonl")
    model = dasvit.train(cells[1], epochs=2, quiet=True)
    assert model.classes == tuple(digits.classes) and model.evaluate(quiet=True).evaluation.images == 20
    tuned = dasvit.train(model, (pixels[:60], np.array(digits.targets[:60])), epochs=1, run=tmp_path / "t", quiet=True)
    assert tuned.classes == tuple(map(str, range(10)))


def test_splits_of_hugging_face_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "y": datasets.ClassLabel(names=["zero", "one"])})

    def split(count: int) -> Any:
        rows = [{"img": Image.new("L", (8, 8), 40 * (row % 2) + row), "y": row % 2} for row in range(count)]
        return datasets.Dataset.from_list(rows, features=features)

    from dasvit.data.given import give
    from dasvit.data.load import load_data

    data = load_data(give({"train": split(12), "validation": split(6)}), 8, 0)
    assert (len(data.train), len(data.test), data.classes) == (12, 6, ("zero", "one"))


def test_two_sets_are_aligned_by_the_names_of_their_classes() -> None:
    from dasvit.data.given import give
    from dasvit.data.load import load_data

    pixels = np.arange(8 * 64, dtype=np.uint8).reshape(8, 8, 8)
    train, test = np.array(["b", "a", "c", "a", "b", "c", "a", "b"]), np.array(["c", "c", "b", "b"])
    data = load_data(give(((pixels, train), (pixels[:4], test))), 8, 0)
    assert data.classes == ("a", "b", "c")
    assert data.train.labels.tolist() == [1, 0, 2, 0, 1, 2, 0, 1] and data.test.labels.tolist() == [2, 2, 1, 1]
    with pytest.raises(UserError, match="classes d, which are none of a, b, c"):
        give(((pixels, train), (pixels[:4], np.array(["d", "a", "b", "c"]))))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((np.zeros((4, 8, 8)), np.zeros(4)), "must be uint8"),
        ((np.zeros((4, 3, 8, 8), np.uint8), np.zeros(4)), "put the colours last"),
        ((np.zeros((4, 8, 8), np.uint8), np.zeros(3)), "one is needed each"),
        (42, "no images can be read from a int"),
        ({"validation": (np.zeros((4, 8, 8), np.uint8), np.zeros(4))}, "no split called train"),
    ],
)
def test_images_that_are_none(images: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dasvit.search(images, recipe="digits", quiet=True)


def test_another_process_does_not_have_them(tmp_path: Path) -> None:
    status, _, err = call_cli("search", "--config", "digits", "--data.name", "given", "--run", tmp_path / "run")
    assert status == 2 and "were given in Python" in err


# --- what a notebook shows --------------------------------------------------------------------------------------------


def test_a_found_cell_is_a_table_and_a_drawing(found: dasvit.FoundCell, tmp_path: Path) -> None:
    options = {**OPTIONS, "search.finals.cells": 3, "space.ratios": [1, 2]}
    run = tmp_path / "run"
    with_candidates = dasvit.search(recipe="digits", run=run, method="finals", options=options, quiet=True)
    frame = with_candidates.to_frame()
    assert len(frame) == 3 and frame["val_top1"].is_monotonic_decreasing
    assert frame["cell"][0] == " ".join(with_candidates.cell.ops)
    assert len(found.to_frame()) == 1
    drawing = found._repr_svg_()
    assert drawing and "<svg" in drawing and str(found.run) in str(found)


def test_fields_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"search\.tokens\.ratios.*ratio"):
        dasvit.search(recipe="digits", run=tmp_path, options={"search.tokens.ratios": 1}, quiet=True)
    with pytest.raises(UserError, match="max_macs takes a number such as 6M"):
        dasvit.search(recipe="digits", run=tmp_path, max_macs="many", quiet=True)
    with pytest.raises(UserError, match="under which recipe"):
        dasvit.compare(["vit"], quiet=True)


@pytest.mark.parametrize("name", ["search", "compare", "report", "study"])
def test_a_function_is_the_package_of_its_name_too(name: str) -> None:
    """Whatever is asked for first, in a process of its own: the package, its modules, and the call."""
    code = f"""
import inspect, types, dasvit
first = dasvit.{name}
assert isinstance(first, types.ModuleType) and first is dasvit.{name} and first.__path__
from dasvit import {name}
assert {name} is first and 'run' in str(inspect.signature(first)) or '{name}' == 'report'
import dasvit.search.pipeline as pipeline
assert dasvit.search.pipeline is pipeline
import pydoc
assert ("quiet: Show no progress." in pydoc.render_doc(first)) != ('{name}' == 'report')
assert 'run' in pydoc.render_doc(first)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_fields_of_data_without_a_name_are_images_in_a_folder(tmp_path: Path) -> None:
    from dasvit.api.recipe import make_config

    (tmp_path / "owl").mkdir()
    assert make_config("digits", {"path": str(tmp_path)}).data.name == "imagefolder"
    assert make_config("digits", {"path": str(tmp_path), "name": "parquet"}).data.name == "parquet"
    assert make_config("cifar10-small", None, {"data.path": str(tmp_path)}).data.name == "imagefolder"


def test_a_training_says_which_limit_it_takes_over(
    found: dasvit.FoundCell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dasvit.train(found, run=tmp_path / "run")
    assert f"data.limit 60 is taken over from {found.run}" in capsys.readouterr().err
