"""Lists of images: columns, splits, files that are missing, and every command on one."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dasvit
from dasvit.config import DataConfig
from dasvit.config.implied import with_implied_name
from dasvit.data import load_data
from dasvit.errors import UserError
from helpers import SMALL, call_cli

pytestmark = pytest.mark.fault("data that can be misunderstood")

COLOURS = {"rust": 0, "healthy": 1, "blight": 2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASVIT_CACHE", str(tmp_path / "cache"))


def photos(folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Write noise in the colour of each row's class."""
    for number, (name, label) in enumerate(rows):
        pixels = np.zeros((16, 16, 3), dtype=np.uint8)
        pixels[..., COLOURS[label]] = np.random.default_rng(number).integers(100, 256, size=(16, 16))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def many(train: int = 6, test: int = 2) -> list[tuple[str, str, str]]:
    """Return rows of file, label and split."""
    return [
        (f"{'a b' if split == 'Training' else 'c'}/{label} {split} {number}.png", label, split)
        for split, count in (("Training", train), ("VAL", test))
        for label in COLOURS
        for number in range(count)
    ]


def write(file: Path, rows: Sequence[Sequence[str]], head: str = "image,label,split", delimiter: str = ",") -> Path:
    lines = [head.replace(",", delimiter), *(delimiter.join(row) for row in rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def listed(folder: Path, **how: str) -> Path:
    rows = many()
    photos(folder, [row[:2] for row in rows])
    return write(folder / "labels.csv", rows, **how)


def config(file: Path, **fields: object) -> DataConfig:
    return DataConfig(name="csv", csv=str(file), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [("image,label,split", ","), ("FileName,Class,Subset", ";"), ("\ufefffile,target,set", "\t")],
)
def test_files_labels_and_splits_are_read(head: str, delimiter: str, tmp_path: Path) -> None:
    data = load_data(config(listed(tmp_path, head=head, delimiter=delimiter)), 16, 0)
    assert data.classes == ("blight", "healthy", "rust")
    assert np.bincount(data.train.labels).tolist() == [6, 6, 6] and np.bincount(data.test.labels).tolist() == [2, 2, 2]
    colours = [COLOURS[name] for name in data.classes]
    for part in (data.train, data.test):
        pixels = np.asarray(part.images[np.arange(len(part))])  # [N, h, w, 3]
        assert pixels.mean(axis=(1, 2)).argmax(axis=1).tolist() == [colours[label] for label in part.labels]


def test_without_splits_a_share_is_held_out(tmp_path: Path) -> None:
    rows = [(file, label) for file, label, _ in many(10, 0)]
    photos(tmp_path, rows)
    data = load_data(config(write(tmp_path / "labels.csv", rows, head="image,label")), 16, 0)
    assert (len(data.train), len(data.test)) == (24, 6)


def test_names_begin_in_the_lists_folder_or_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = listed(tmp_path / "photos")
    elsewhere = tmp_path / "lists" / "labels.csv"
    elsewhere.parent.mkdir()
    file.rename(elsewhere)
    with pytest.raises(UserError, match=r"24 of the 24 files .* are not there, .* say with --data\.path"):
        load_data(config(elsewhere), 16, 0)
    assert len(load_data(config(elsewhere, path=str(tmp_path / "photos")), 16, 0).train) == 18


def test_files_that_are_not_there_are_named_or_left_out(tmp_path: Path) -> None:
    file = listed(tmp_path)
    (tmp_path / "a b/rust Training 0.png").unlink()
    with pytest.raises(UserError, match=r"1 of the 24 files .*rust Training 0\.png.*--data\.on_error skip"):
        load_data(config(file), 16, 0)
    data = load_data(config(file, on_error="skip"), 16, 0)
    assert len(data.train) == 17 and data.understood.left_out.counts == {"that are not there": 1}


@pytest.mark.parametrize(
    ("rows", "head", "words"),
    [
        ([("a.png", "x", "fold3")], "image,label,split", "line 2: the split is 'fold3'"),
        (
            [("a.png", "x", "y")],
            "image,label,class",
            r"several columns of labels \(label, class\).*_column label",
        ),
        ([("a.png", "x", "y")], "photo,label,class", "no column called image"),
        ([("a.png", "x")], "image,species", r"no column called label.*--data\.label_column"),
        ([("a.png", "x"), ("a.png", "y")], "image,label", "lists 1 files more than once, as a.png"),
        ([("a.png", "x, y")], "image,label", "line 2 has not as many fields"),
        ([], "image,label", "lists no images"),
        ([("a.png", "x", "train", "val")], "image,label,split,set", r"several columns of splits \(split, set\)"),
        ([("a.png", "x", "x")], "image,label,label", "two columns called label"),
        ([("a.png", "x", "test")], "image,label,split", "lists no training images: its splits are test"),
    ],
)
def test_what_is_ambiguous_or_wrong_is_refused(
    rows: list[tuple[str, ...]], head: str, words: str, tmp_path: Path
) -> None:
    photos(tmp_path, [("a.png", "rust")])
    with pytest.raises(UserError, match=words):
        load_data(config(write(tmp_path / "labels.csv", rows, head=head)), 16, 0)


def test_options_name_the_columns(tmp_path: Path) -> None:
    rows = [(file, label, "x", split) for file, label, split in many()]
    photos(tmp_path, [row[:2] for row in rows])
    file = write(tmp_path / "labels.csv", rows, head="photo,species,label,split")
    data = load_data(config(file, image_column="photo", label_column="species"), 16, 0)
    assert data.classes == ("blight", "healthy", "rust")


def test_test_images_of_unknown_classes_are_refused(tmp_path: Path) -> None:
    file = listed(tmp_path)
    photos(tmp_path, [("new.png", "rust")])
    file.write_text(file.read_text() + "new.png,mildew,test\n")
    with pytest.raises(UserError, match="test images of classes that no training image has: mildew"):
        load_data(config(file), 16, 0)


def test_a_list_is_implied_by_its_name(tmp_path: Path) -> None:
    file = listed(tmp_path)
    recipe = DataConfig(name="imagefolder", path="else", endings="jpg")
    assert with_implied_name(DataConfig(csv=str(file)), {"data.csv"}).name == "csv"
    found = with_implied_name(DataConfig(name="imagefolder", path=str(file), endings="jpg"), {"data.path"})
    assert found == DataConfig(name="csv", csv=str(file))
    assert with_implied_name(recipe, {"data.limit"}) == recipe


def test_every_command_reads_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = listed(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    size = ("--model.image_size", 16, "--model.patch_size", 4, "--search.batch_size", 4, "--train.batch_size", 4)
    small = [*SMALL, *size, "--data.csv", "photos/labels.csv"]
    status, out, err = call_cli("search", *small, "--run", "mine")
    assert status == 0, err
    assert "files of column image of" in err
    status, out, err = call_cli("train", *small, "--cell", "mine", "--run", "net", "--json")
    assert status == 0, err
    monkeypatch.chdir("/")  # the run knows where its list is
    status, out, err = call_cli("evaluate", tmp_path / "net", "--json")
    assert status == 0 and json.loads(out)["images"] == 6, err
    other = write(tmp_path / "photos" / "more.csv", [row[:2] for row in many()], head="image,label")
    status, out, err = call_cli("evaluate", tmp_path / "net", "--data.csv", other, "--json")
    assert status == 0 and json.loads(out)["images"] == 24, err
    status, out, err = call_cli("data", file)
    assert status == 0 and "column label" in out, err
    assert dasvit.inspect_data(str(file)).counts["train"] == {"blight": 6, "healthy": 6, "rust": 6}


def test_groups_of_a_list_are_held_out_whole(tmp_path: Path) -> None:
    rows = [(file, label, f"p{number % 6}") for number, (file, label, _) in enumerate(many(12, 0))]
    photos(tmp_path, [row[:2] for row in rows])
    file = write(tmp_path / "labels.csv", rows, head="image,label,patient")
    data = load_data(config(file, group_column="patient"), 16, 0)
    held_out = {str(Path(name).relative_to(tmp_path)) for name in data.held_out}
    patients = {
        name: {row[2] for row in rows if (row[0] in held_out) == (name == "test")} for name in ("train", "test")
    }
    assert len(data.held_out) == len(data.test) and not patients["train"] & patients["test"] and patients["test"]
    with pytest.raises(UserError, match="group_column doctor is not in"):
        load_data(config(file, group_column="doctor"), 16, 0)


@pytest.mark.parametrize("columns", ["fold", "is_valid", "cat,fold", "flipped"])
def test_flags_are_no_classes_by_themselves(columns: str, tmp_path: Path) -> None:
    """A single column of 0 and 1, or one that keeps books, is not taken for a class unasked."""
    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(tmp_path / f"{i}.png")
    names = columns.split(",")
    lines = [f"{i}.png" + f",{i % 2}" * len(names) for i in range(8)]
    (tmp_path / "list.csv").write_text("\n".join([f"image,{columns}", *lines]))
    status, _, err = call_cli("data", tmp_path, "--data.csv", tmp_path / "list.csv")
    assert status == 2 and "--data.label_column" in err, err
