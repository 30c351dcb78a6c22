"""Three shapes in which people's images come, each through every command: search, train, evaluate, predict, export."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import SMALL, call_cli

pytestmark = pytest.mark.fault("folders of three shapes through all commands")

SIZE = ("--model.image_size", 16, "--model.patch_size", 4, "--search.batch_size", 8, "--train.batch_size", 8)


def noise(shape: tuple[int, ...], number: int, bright: int) -> np.ndarray:
    """Return noise whose channel (or left or right half) of a number is bright."""
    pixels = np.random.default_rng(number).integers(0, 80, size=shape, dtype=np.uint8)
    if len(shape) == 3:
        pixels[..., bright] += 150
    else:
        pixels[:, bright * shape[1] // 4 : (bright + 1) * shape[1] // 4] += 150
    return pixels


def large_photos(folder: Path) -> list[object]:
    """Few large oblong photos, in folders within the class folders, with blanks and capitals in their names."""
    for place, name in enumerate(("rust leaf", "healthy leaf")):
        for number in range(12):
            inner = folder / name / f"2024 May {number % 3}"
            inner.mkdir(parents=True, exist_ok=True)
            photo = Image.fromarray(noise((480, 640, 3), 100 * place + number, place))
            photo.save(inner / f"IMG {number:03d}.JPG")
    (folder / "rust leaf" / "Thumbs.db").write_bytes(b"x")
    return ["--data.path", folder, "--data.fit", "pad"]


def grey_tiles(folder: Path) -> list[object]:
    """Thousands of small grey files in splits, most of them of one class."""
    for split, counts in (("train", (1200, 300, 200, 100)), ("val", (120, 30, 20, 10))):
        for place, count in enumerate(counts):
            (folder / split / f"defect_{place}").mkdir(parents=True)
            for number in range(count):
                tile = Image.fromarray(noise((12, 12), 10_000 * place + number, place))
                tile.save(folder / split / f"defect_{place}" / f"{number}.png")
    return ["--data.path", folder, "--data.limit", 64, "--data.eval_limit", 40]


def image_list(folder: Path) -> list[object]:
    """Files in one folder, and a table of what they show."""
    (folder / "scans").mkdir(parents=True)
    with (folder / "findings.csv").open("w", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["Filename", "Patient", "Class", "Split"])
        for number in range(40):
            Image.fromarray(noise((20, 20, 3), number, number % 2)).save(folder / "scans" / f"scan {number}.png")
            split = "train" if number < 32 else "test"
            table.writerow([f"scans/scan {number}.png", f"p{number // 4}", ["normal", "finding"][number % 2], split])
    return ["--data.csv", folder / "findings.csv", "--data.group_column", "Patient"]


@pytest.mark.parametrize(
    ("make", "target", "classes"), [(large_photos, "onnx", 2), (grey_tiles, "torch", 4), (image_list, "hub", 2)]
)
def test_every_command_takes_it(
    make: Callable[[Path], list[object]], target: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASVIT_CACHE", str(tmp_path / "cache"))
    data = make(tmp_path / "my images")
    search, network = tmp_path / "search", tmp_path / "network"
    for command in (
        ("data", tmp_path / "my images" / "findings.csv" if make is image_list else tmp_path / "my images"),
        ("search", *SMALL, *SIZE, *data, "--run", search),
        ("train", *SMALL, *SIZE, *data, "--cell", search, "--run", network),
    ):
        status, out, err = call_cli(*command)
        assert status == 0, err
    status, out, err = call_cli("evaluate", network, "--json")
    judged = json.loads(out)
    assert status == 0 and len(judged["confusion"]) == classes, err
    assert judged["top1"] == pytest.approx(json.loads((network / "result.json").read_text())["top1"])
    images = [
        str(path) for path in sorted((tmp_path / "my images").rglob("*")) if path.suffix.lower() in (".jpg", ".png")
    ]
    status, out, err = call_cli("predict", network, *images[:3], "--json")
    assert status == 0 and len(json.loads(out)) == 3, err
    status, out, err = call_cli("export", network, "--to", target)
    assert status == 0 and "Checked against the model" in out, err
    page = (network / "report.html").read_text()
    assert "my images" in page or "findings" in page
