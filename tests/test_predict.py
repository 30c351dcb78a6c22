"""`dasvit predict` on files and folders."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from dasvit.errors import UserError
from dasvit.inference.predict import ImageBatches
from dasvit.runtime.progress import Reporter
from dasvit.training.classifier import Classifier
from helpers import call_cli

pytestmark = pytest.mark.fault("what is judged is not what was asked")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images, some in folders of folders, and what is none of them."""
    home = tmp_path / "images"
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.PNG", "x/2.png", "x/1.jpg", "x/y/z.png", "line\nbreak,.png", "é.webp"):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(path)
    for name in ("notes.txt", ".hidden.png", ".cache/c.png"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text("no image")
    return home


ORDER = ["a.PNG", "b.png", "line\nbreak,.png", "é.webp", "x/1.jpg", "x/2.png", "x/y/z.png"]


def test_folders_come_in_order_and_batches_change_nothing(small_run: Path, folder: Path) -> None:
    found = []
    for size in (1, 3, 64):
        status, out, err = call_cli("predict", small_run, folder, "--json", "--top", 10, "--batch-size", size)
        assert status == 0, err
        rows = json.loads(out)["images"]
        assert [row["image"] for row in rows] == [str(folder / name) for name in ORDER]
        shares = [{p["label"]: p["probability"] for p in row["predictions"]} for row in rows]
        found.append(torch.tensor([[share[str(label)] for label in range(10)] for share in shares]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-6)
    # Independently, one image after another.
    classifier = Classifier(small_run / "train" / "model", torch.device("cpu"))
    for name, row in zip(ORDER, found[0], strict=True):
        pixels = classifier.described.shown(str(folder / name)).float()
        with torch.no_grad():
            expected = classifier.model(((pixels / 255 - 0.5) / 0.5)[None]).softmax(dim=1)[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-6)


def test_csv(small_run: Path, folder: Path) -> None:
    status, out, err = call_cli("predict", small_run, folder / "b.png", folder, "--format=csv", "--top=2")
    assert status == 0, err
    head, *rows = csv.reader(io.StringIO(out))
    assert head == ["image", "label_1", "probability_1", "label_2", "probability_2"]
    assert [row[0] for row in rows] == [str(folder / name).replace("\n", "\\n") for name in ["b.png", *ORDER]]
    for row in rows:
        assert row[1] in set("0123456789") and 1 >= float(row[2]) >= float(row[4]) > 0
    _, text, _ = call_cli("predict", small_run, folder, "--top=2")
    assert len(text.splitlines()) == len(ORDER) and text.startswith(f"{folder}/a.PNG: {rows[1][1]} ")


def test_broken_images_are_named_and_the_others_answered(small_run: Path, folder: Path) -> None:
    (folder / "x" / "broken.png").write_bytes(b"no image")
    for form in ("text", "csv", "json"):
        status, out, err = call_cli("predict", small_run, folder, "--format", form, "--batch-size", "1")
        assert status == 2 and "broken.png" in err and f"1 of {len(ORDER) + 1} images cannot be read" in err
        assert "--on-error skip" in err
        answers = json.loads(out)["images"] if form == "json" else out.splitlines()[form == "csv" :]
        assert len(answers) == len(ORDER)
    status, out, err = call_cli("predict", small_run, folder, "--on-error=skip", "--json")
    told = json.loads(out)
    assert status == 0 and "1 broken images left out" in err and "broken.png" in err
    assert [row["image"] for row in told["skipped"]] == [str(folder / "x" / "broken.png")]
    assert "no known image format" in told["skipped"][0]["reason"] and len(told["images"]) == len(ORDER)
    status, out, err = call_cli("predict", small_run, folder / "x" / "broken.png", "nowhere.png", "--on-error=skip")
    assert status == 2 and out == "" and "none of the images can be read" in err and "nowhere.png" in err


def test_a_batch_of_broken_images_alone(tmp_path: Path) -> None:
    def read(path: str) -> torch.Tensor:
        if path < "c":
            raise UserError(path)
        return torch.zeros(3, 2, 2, dtype=torch.uint8)

    batches = ImageBatches(["a", "b", "c"], 2, read)
    assert [(names, len(images)) for names, images in batches] == [([], 0), (["c"], 1)]
    assert len(batches) == 2 and batches.skipped == {"a": "a", "b": "b"}


def test_the_bar_does_not_swallow_the_output(small_run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a file, standard error a terminal with a bar on it."""
    terminal = io.StringIO()

    def reporter(self: Reporter, quiet: bool = False) -> None:
        self.console = Console(file=terminal, force_terminal=True)

    monkeypatch.setattr(Reporter, "__init__", reporter)
    status, out, err = call_cli("predict", small_run, folder, "--format", "csv", "--batch-size", "2")
    assert status == 0 and len(list(csv.reader(io.StringIO(out)))) == 1 + len(ORDER), err
    assert "predicting" in terminal.getvalue() and "label_1" not in terminal.getvalue()
    assert sys.stdout is not None


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--format", "cvs"], "Did you mean 'csv'?"),
        (["--top", "0"], "--top must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--on-error", "ignore"], "--on-error is stop or skip"),
    ],
)
def test_mistakes(arguments: list[str], sentence: str, small_run: Path, folder: Path) -> None:
    status, out, err = call_cli("predict", small_run, folder, *arguments)
    assert (status, out) == (2, "") and sentence in err


def test_a_folder_without_images(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, out, err = call_cli("predict", small_run, tmp_path / "empty")
    assert (status, out) == (2, "") and "holds no image" in err
