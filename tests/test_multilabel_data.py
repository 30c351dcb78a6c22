"""Images of several labels: how lists are read, what is refused, how images are split, chosen, kept and described."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import dasvit
from dasvit.config import DataConfig
from dasvit.data import load_data, split_indices
from dasvit.data.multilabel import subset_of_several
from dasvit.data.splits import balanced_subset
from dasvit.errors import UserError
from helpers import SMALL, call_cli
from label_shapes import LABELS, shapes


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASVIT_CACHE", str(tmp_path / "cache"))


def listed(folder: Path, head: Sequence[str], cells: Sequence[Sequence[str]], repeat: int = 4) -> Path:
    """Write grey images, and a list of what stands beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(f"{number}.png", *row) for number, row in enumerate([*cells] * repeat)]
    for number, (name, *_) in enumerate(rows):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name)
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", *head), *rows])
    return folder / "list.csv"


def config(file: Path, **fields: Any) -> DataConfig:
    return DataConfig(name="csv", csv=str(file), **fields)


PETS = (("cat; dog",), ("dog",), ("",), ("bird;cat",), ("cat",))


@pytest.mark.parametrize("separator", [";", "|", " "])
@pytest.mark.parametrize("head", ["labels", "Tags"])
def test_what_parts_labels_is_found_and_said(separator: str, head: str, tmp_path: Path) -> None:
    cells = [(text.replace("; ", ";").replace(";", separator),) for (text,) in PETS]
    data = load_data(config(listed(tmp_path, [head], cells)), 8, 0)
    assert data.multilabel and data.classes == ("bird", "cat", "dog")
    both = np.concatenate([data.train.labels, data.test.labels])
    assert both.dtype == np.int64 and both.sum(axis=0).tolist() == [4, 12, 8] and (both.sum(axis=1) == 0).sum() == 4
    assert ("blanks" if separator == " " else f"'{separator}'") in data.understood.labels
    assert data.labels() == ["multi-label: 3 classes, 1.2 labels an image on average, 4 images with none"]


def test_labels_stand_with_their_images(tmp_path: Path) -> None:
    data = load_data(config(listed(tmp_path, ["labels"], PETS)), 8, 0)
    expected = [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]]
    for part in (data.train, data.test):
        numbers = part.images[np.arange(len(part))][:, 0, 0, 0].tolist()
        assert part.labels.tolist() == [expected[number % 5] for number in numbers]
    again = load_data(config(listed(tmp_path / "again", ["labels"], PETS)), 8, 0)
    assert again.train.labels.tolist() == data.train.labels.tolist()


def test_a_column_for_each_class(tmp_path: Path) -> None:
    cells = [("1", "0", "p1"), ("0", "0", "p2"), ("1", "1", "p3"), ("0.0", "1.0", "p4")]
    file = listed(tmp_path, ["cat", "dog", "patient"], cells)
    data = load_data(config(file, group_column="patient"), 8, 0)
    assert data.classes == ("cat", "dog") and data.train.groups is not None
    assert np.concatenate([data.train.labels, data.test.labels]).sum(axis=0).tolist() == [8, 8]
    named = load_data(config(file, label_column="dog,cat"), 8, 0)
    assert named.classes == ("dog", "cat") and "the columns dog, cat" in named.understood.labels
    with pytest.raises(UserError, match=r"no column called label.*--data\.label_column a,b"):
        load_data(config(file), 8, 0)
    with pytest.raises(UserError, match=r"the column patient of a class must hold 0 or 1, not 'p1'"):
        load_data(config(file, label_column="cat,patient"), 8, 0)
    with pytest.raises(UserError, match="has no column bird"):
        load_data(config(file, label_column="cat,bird"), 8, 0)


def test_classes_that_exclude_one_another_are_said(tmp_path: Path) -> None:
    data = load_data(config(listed(tmp_path, ["cat", "dog"], [("1", "0"), ("0", "1")])), 8, 0)
    assert any("every image has exactly one label" in remark for remark in data.understood.remarks)


def test_a_column_of_one_label_stays_one_label(tmp_path: Path) -> None:
    file = listed(tmp_path, ["label"], [("cat",), ("dog;cat",)])
    data = load_data(config(file), 8, 0)
    assert not data.multilabel and data.classes == ("cat", "dog;cat") and data.labels() == []
    assert any("--data.label_separator ';'" in remark for remark in data.understood.remarks)
    assert load_data(config(file, label_separator=";"), 8, 0).classes == ("cat", "dog")
    sure = load_data(config(file, label_separator="none"), 8, 0)
    assert not sure.multilabel and not any("label_separator" in remark for remark in sure.understood.remarks)
    numbers = load_data(config(listed(tmp_path / "a", ["Target"], [("3",), ("3 17",)])), 8, 0)
    assert any("hold blanks (3 17)" in remark for remark in numbers.understood.remarks)
    plural = load_data(config(listed(tmp_path / "b", ["labels"], [("cat",), ("dog",)])), 8, 0)
    assert not plural.multilabel  # one each


@pytest.mark.parametrize(
    ("cells", "fields", "words"),
    [
        ([("a;b",), ("a|b",)], {}, r"both ; and \|.*--data\.label_separator ';'"),
        ([("a, b",), ("a",)], {}, r"'a, b': several labels, or a name with a comma\?.*label_separator , or none"),
        ([("red fox",), ("red dog",)], {}, r"'red fox': several labels, or one name.*label_separator space or none"),
        ([("a",), ("b",), ("",)], {}, r"4 rows have nothing in column labels.*label_separator ';'.*none"),
        ([("a;b",), ("a",)], {"label_separator": "ab"}, "must be one character"),
        ([("a;b",), ("a;b",)], {}, "training images of .* have the same labels: there is nothing to tell apart"),
        ([("",), ("",)], {"label_separator": ";"}, "none of the images of .* has a label"),
        ([("0.3;0.7",), ("1.5",)], {}, r"holds numbers as 0\.3.*regression"),
        ([("0.73",), ("0.21",)], {}, r"holds numbers as 0\.73.*regression"),
    ],
)
def test_what_could_mean_two_things_is_refused(
    cells: list[tuple[str]], fields: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        load_data(config(listed(tmp_path, ["labels"], cells), **fields), 8, 0)


@pytest.mark.parametrize(
    ("head", "cells"),
    [
        (["label"], [("0.73",), ("1",)]),
        (["target"], [("12 40",), ("3 7",)]),
        (["x", "y"], [("3", "7.5"), ("1", "2")]),
    ],
)
def test_numbers_to_predict_are_refused(head: list[str], cells: list[tuple[str, ...]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not predict numbers \(regression\)"):
        load_data(config(listed(tmp_path, head, cells)), 8, 0)
    assert load_data(config(listed(tmp_path / "ids", ["label"], [("3",), ("12",)])), 8, 0).classes == ("12", "3")


def test_numbers_in_arrays_and_lists_in_parquet_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fractions, as 0\.5.*regression"):
        dasvit.train("vit", (np.zeros((4, 8, 8), dtype=np.uint8), np.array([0.5, 1.0, 2.0, 0.5])), run=tmp_path / "r")
    images = pa.array([{"bytes": b"x", "path": ""}] * 2)
    for column, words in (([[0, 1], [1]], r"a list of labels.*--data\.csv"), ([0.5, 1.5], "fractions.*regression")):
        pq.write_table(pa.table({"image": images, "labels": pa.array(column)}), tmp_path / "train.parquet")
        for named in ("", "labels"):
            with pytest.raises(UserError, match=words):
                load_data(DataConfig(name="parquet", path=str(tmp_path), label_column=named), 8, 0)


def test_splits_of_the_list_and_classes_of_test_images(tmp_path: Path) -> None:
    cells = [("a;b", "train"), ("a", "val"), ("", "train"), ("b", "train")]
    data = load_data(config(listed(tmp_path, ["labels", "split"], cells)), 8, 0)
    assert data.train.labels.sum(axis=0).tolist() == [4, 8] and data.test.labels.tolist() == [[1, 0]] * 4
    assert any("no test image of b" in remark for remark in data.understood.remarks)
    with pytest.raises(UserError, match="test images of classes that no training image has: c"):
        load_data(config(listed(tmp_path / "c", ["labels", "split"], [*cells, ("a;c", "test")])), 8, 0)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("seed", [0, 1])
def test_classes_are_split_evenly(fraction: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    labels = (chance.random((600, 12)) < np.linspace(0.01, 0.6, 12)).astype(np.int64)
    first, second = split_indices(labels, fraction, seed)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(600))
    wanted, found = fraction * labels.sum(axis=0), labels[second].sum(axis=0)
    assert np.abs(found - wanted).max() <= 3  # of classes of 6 to 360 images; images have several
    none = labels.sum(axis=1) == 0
    assert abs(none[second].sum() - fraction * none.sum()) <= 2
    # At random they are further from it, as the mean over draws of as many images.
    rows = [chance.permutation(600)[: len(second)] for _ in range(50)]
    spread = np.mean([np.abs(labels[some].sum(axis=0) - wanted).mean() for some in rows])
    assert np.abs(found - wanted).mean() < spread / 2
    again = split_indices(labels, fraction, seed)
    assert (again[0] == first).all() and (split_indices(labels, fraction, seed + 7)[1][:20] != second[:20]).any()


def test_groups_are_split_whole_and_rare_classes_stay_in_training() -> None:
    chance = np.random.default_rng(0)
    labels, groups = (chance.random((300, 4)) < 0.3).astype(np.int64), np.arange(300) // 5
    first, second = split_indices(labels, 0.25, 0, groups=groups)
    assert not set(groups[first]) & set(groups[second])
    assert np.abs(labels[second].sum(axis=0) / labels.sum(axis=0) - 0.25).max() < 0.05
    rare = np.zeros((20, 2), dtype=np.int64)
    rare[::2, 0], rare[3, 1] = 1, 1
    first, second = split_indices(rare, 0.5, 0)
    assert rare[first].sum(axis=0).tolist() == [5, 1]
    with pytest.raises(UserError, match="1 images are too few"):
        split_indices(rare[:1], 0.5, 0)


def test_a_limit_keeps_classes_even() -> None:
    labels = np.zeros((500, 4), dtype=np.int64)
    labels[:400, 0], labels[400:430, 1], labels[425:445, 2], labels[450:455, 3] = 1, 1, 1, 1
    few, more = balanced_subset(labels, 20, 0, "limit"), balanced_subset(labels, 60, 0, "limit")
    assert len(few) == 20 and set(few) < set(more) and (np.diff(few) > 0).all()
    counts = [*labels[few].sum(axis=0), (labels[few].sum(axis=1) == 0).sum()]
    assert min(counts) >= 4 and max(counts) <= 6
    assert labels[more].sum(axis=0)[3] == 5  # all that there are
    assert subset_of_several(labels, 500, 0).tolist() == list(range(500))
    assert balanced_subset(labels, 0, 0, "limit").tolist() == list(range(500))


def test_limits_and_broken_images_keep_labels_with_images(tmp_path: Path) -> None:
    file = shapes(tmp_path / "shapes", 60)
    data = load_data(config(file, limit=20, eval_limit=6), 16, 0)
    assert (len(data.train), len(data.test)) == (20, 6) and data.train.labels.shape == (20, 3)
    (file.parent / "3.png").write_bytes(b"no image")
    whole = load_data(config(file, on_error="skip"), 16, 0)
    assert len(whole.train) + len(whole.test) == 59 and len(whole.skipped) == 1
    with file.open(newline="") as stream:
        said = {row["image"]: row["labels"] for row in csv.DictReader(stream)}
    for part in (whole.train, whole.test):  # a red square, a green disc, a blue bar: seen by colour
        pixels = part.images[np.arange(len(part))]
        seen = [((pixels[..., one] > 200) & (pixels[..., two] < 90)).any(axis=(1, 2)) for one, two in ((0, 1), (1, 0))]
        order = [whole.classes.index(name) for name in LABELS[:2]]
        assert (part.labels[:, order] == np.stack(seen, axis=1)).all()
    assert sum(bool(text) for name, text in said.items() if name != "3.png") == sum(
        int((part.labels.sum(axis=1) > 0).sum()) for part in (whole.train, whole.test)
    )


def test_dasvit_data_says_it(tmp_path: Path) -> None:
    file = shapes(tmp_path / "shapes", 40)
    status, out, err = call_cli("data", file, "--report", tmp_path / "page.html")
    assert status == 0 and "parted by ';'" in out and "multi-label: 3 classes, " in out, err
    assert "multi-label" in (tmp_path / "page.html").read_text()
    status, out, err = call_cli("data", file, "--json")
    found = json.loads(out)
    assert status == 0 and found["multilabel"]["classes"] == 3, err
    assert sum(found["train"]["by_class"].values()) + sum(found["test"]["by_class"].values()) == round(
        40 * found["multilabel"]["labels_an_image"]
    )


def test_copies_of_several_labels_are_named(tmp_path: Path) -> None:
    file = listed(tmp_path, ["labels"], PETS)
    for name in ("0.png", "1.png"):
        Image.new("RGB", (8, 8), (99, 99, 99)).save(tmp_path / name)
    data = load_data(config(file, val_fraction=0.3), 8, 0)
    assert any("dog and cat + dog" in remark for remark in data.understood.remarks)


def test_arrays_and_data_sets_of_several_labels(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    pixels, labels = chance.integers(0, 256, (40, 8, 8), dtype=np.uint8), chance.integers(0, 2, (40, 3))
    options = {
        "model.image_size": 8,
        "model.patch_size": 4,
        "model.width": 8,
        "model.layers": 1,
        "model.heads": 2,
        "train.epochs": 1,
        "train.batch_size": 8,
        "runtime.device": "cpu",
    }

    class Pairs:
        classes = ("a", "b", "c")
        targets = tuple(labels)

        def __len__(self) -> int:
            return 40

        def __getitem__(self, row: int) -> tuple[Any, Any]:
            return Image.fromarray(pixels[row]), labels[row]

    for place, (given, names) in enumerate((((pixels, labels), ("0", "1", "2")), (Pairs(), Pairs.classes))):
        model = dasvit.train("vit", given, recipe="digits", options=options, run=tmp_path / f"run{place}", quiet=True)
        assert model.classes == names and 0 < model.result["map"] <= 100
    for wrong in (labels * 2, labels + 0.5):
        with pytest.raises(UserError, match=r"must be 0 or 1, a column for each of 3 classes.*regression"):
            dasvit.train("vit", (pixels, wrong), run=tmp_path / "wrong")


def test_a_run_does_not_change_its_kind(tmp_path: Path) -> None:
    file = shapes(tmp_path / "shapes", 40)
    run = tmp_path / "run"
    size = ("--model.image_size", 16, "--model.patch_size", 4, "--train.batch_size", 8)
    command = ("train", *SMALL, *size, "--data.csv", file, "--baseline", "vit", "--run", run)
    assert call_cli(*command)[0] == 0
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    lines = [f"{row['image']},{LABELS[number % 3]}" for number, row in enumerate(rows)]
    file.write_text("\n".join(["image,label", *lines]) + "\n")
    status, _, err = call_cli(*command)
    assert status == 2 and "one label each now, and had several when the run" in err
