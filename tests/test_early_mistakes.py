"""Sizes that do not go together are found before an image is decoded and a precision timed, and name the field."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers import SMALL, call_cli

pytestmark = pytest.mark.fault("sizes that do not go together")

OPTIONS = [option for option in SMALL if "limit" not in option and "precision" not in option]


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty images of two classes, none of which may be decoded."""
    for number in range(40):
        folder = tmp_path / "birds" / ("owl", "kite")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 6 * number).save(folder / f"{number}.png")

    def refuse(*arguments: Any, **more: Any) -> None:
        raise AssertionError("an image was decoded, or a precision timed")

    monkeypatch.setenv("DASVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("dasvit.data.decoding.Decoding.decode", refuse)
    monkeypatch.setattr("dasvit.session.measure_precision", refuse)
    return tmp_path / "birds"


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        (["train", "--model=vit"], ["--train.batch_size=33"], "train.batch_size is 33, but there are 32"),
        (["compare", "vit"], ["--train.batch_size=33"], "train.batch_size is 33, but there are 32 training images"),
        (["search"], ["--search.batch_size=17"], "search.batch_size is 17, but there are 16 images for the weights"),
        (
            ["search"],
            ["--search.val_fraction=0.25", "--search.batch_size=9"],
            "search.batch_size is 9, but there are 8 images for the alphas (search.val_fraction 0.25)",
        ),
        (["search"], ["--search.val_fraction=0.01"], "32 images of 2 classes are too few to hold out a share of 0.01"),
        (["search", "--method=autoformer"], ["--search.batch_size=17"], "search.batch_size is 17"),
        (
            ["search", "--method=finals"],
            ["--search.finals.cells=2", "--search.finals.images=1"],
            "--search.finals.images 1 is less than the number of classes, 2",
        ),
        (["study"], ["--train.batch_size=33"], "train.batch_size is 33, but there are 32 training images"),
        (["study"], ["--search.batch_size=17"], "search.batch_size is 17, but there are 16 images for the weights"),
        (
            ["train", "--model=vit"],
            ["--train.augment.mixup=1", "--train.batch_size=15"],
            "train.batch_size must be a multiple of 2",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_sizes_are_checked_before_the_work(
    command: list[str], options: list[str], words: str, birds: Path, tmp_path: Path
) -> None:
    folder = ["--data.path", birds, "--run", tmp_path / "run"]
    status, _, err = call_cli(*command, *OPTIONS, "--search.batch_size=8", "--train.batch_size=8", *options, *folder)
    assert status == 2 and words in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
