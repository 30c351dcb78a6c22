"""How sources are understood: splits, classes, columns, what is left out, and what is refused with a question."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import dasvit
from dasvit.config import DataConfig
from dasvit.config.implied import with_implied_name
from dasvit.data import Data, cache, find_images, load_data
from dasvit.data.description import describe_data
from dasvit.data.given import give
from dasvit.data.understanding import LeftOut, image_endings, split_in
from dasvit.errors import UserError
from helpers import SMALL, call_cli

pytestmark = pytest.mark.fault("data that can be misunderstood")

COLOURS = {"red": 0, "green": 1, "blue": 2}


def picture(colour: str, number: int, side: int = 24) -> Image.Image:
    """Return noise in a colour."""
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[..., COLOURS[colour]] = np.random.default_rng(number).integers(256, size=(side, side))
    return Image.fromarray(pixels)


def encoded(colour: str, number: int) -> bytes:
    file = io.BytesIO()
    picture(colour, number).save(file, "png")
    return file.getvalue()


def fill(folder: Path, images: int, classes: Iterable[str] = "abc", ending: str = "png", start: int = 0) -> Path:
    """Make a folder for each class, with so many images in it, no two of which are alike."""
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(start, start + images):
            picture(list(COLOURS)[place % 3], 1000 * place + i).save(folder / name / f"{i}.{ending}")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that holds nothing but train/{a,b,c} with 12 images each and val/{a,b,c} with 4."""
    fill(tmp_path / "set" / "train", 12)
    fill(tmp_path / "set" / "val", 4, start=500)
    return tmp_path / "set"


def load(path: Path | str, name: str = "imagefolder", judged: Sequence[str] | None = None, **options: Any) -> Data:
    return load_data(DataConfig(name=name, path=str(path), **options), 24, seed=0, judged=judged)


def sizes(data: Data) -> tuple[int, int]:
    return len(data.train), len(data.test)


def left_out(data: Data) -> dict[str, int]:
    return dict(data.understood.left_out.counts)


def table(
    rows: Sequence[str], names: Sequence[str] = tuple(COLOURS), start: int = 0, **columns: Sequence[Any]
) -> pa.Table:
    """Return a table as the hub's tools write it: images in the colours of the rows, further columns before them."""
    images = [{"bytes": encoded(colour, start + i), "path": ""} for i, colour in enumerate(rows)]
    labels = [list(names).index(colour) for colour in rows]
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    made = pa.table({**columns, "image": images, "label": pa.array(labels, pa.int64())})
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def photos(made: pa.Table) -> pa.Table:
    """Return a table whose images stand in the column photo."""
    renamed = made.rename_columns(["photo" if name == "image" else name for name in made.column_names])
    return renamed.replace_schema_metadata(made.schema.metadata)


def colours(images: int) -> list[str]:
    return [list(COLOURS)[i % 3] for i in range(images)]


def shown_colours(data: Data) -> list[str]:
    """Return the colours of the test images, seen."""
    pixels = data.test.images[np.arange(len(data.test))]
    return [list(COLOURS)[place] for place in pixels.sum((1, 2)).argmax(1)]


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("birds-train-00000", "birds-test-00000"),
        ("my_train", "my_test"),
        ("default/partial-train/0000", "default/partial-validation/0000"),
        ("Training", "DEV"),
        ("train01", "val2017"),
        ("devices", "devices.test"),
    ],
)
def test_splits_of_parquet_files_are_words_of_their_names(tmp_path: Path, train: str, test: str) -> None:
    for name, rows, start in ((train, 18, 0), (test, 6, 100)):
        (tmp_path / f"{name}.parquet").parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(colours(rows), start=start), tmp_path / f"{name}.parquet")
    data = load(tmp_path, "parquet")
    assert sizes(data) == (18, 6) and train in data.understood.parts["train"] and test in data.understood.parts["test"]


def test_parquet_files_of_no_split_or_two(tmp_path: Path) -> None:
    pq.write_table(table(colours(18)), tmp_path / "devices.parquet")
    assert sizes(load(tmp_path, "parquet")) == (14, 4)  # no "dev": a fifth is held out
    pq.write_table(table(colours(9), start=50), tmp_path / "train.parquet")
    data = load(tmp_path, "parquet", val_fraction=1 / 3)
    assert sizes(data) == (6, 3) and left_out(data) == {"parquet files whose names say no split": 1}
    pq.write_table(table(colours(9)), tmp_path / "train_test.parquet")
    with pytest.raises(UserError, match=r"train_test.parquet names two splits, test and train"):
        load(tmp_path, "parquet")


@pytest.mark.parametrize(
    ("path", "split"),
    [("constraints", ""), ("a/latest", ""), ("test/part", "test"), ("x.valid", "validation"), ("TESTING-1", "test")],
)
def test_words_of_splits(path: str, split: str) -> None:
    assert split_in(path) == split


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Val"),
        ("training", "validation"),
        ("TRAIN", "Testing"),
        ("train", "dev"),
        ("birds_train", "birds_val"),
        ("seg-train", "seg-test"),
    ],
)
def test_folders_of_splits_whatever_the_case(root: Path, train: str, test: str) -> None:
    (root / "train").rename(root / "between")
    (root / "between").rename(root / train)
    (root / "val").rename(root / "between")
    (root / "between").rename(root / test)
    data = load(root)
    assert sizes(data) == (36, 12) and data.classes == ("a", "b", "c")
    described = describe_data(data, 24)
    assert described["train"]["by_class"] == {"a": 12, "b": 12, "c": 12} and train in described["train"]["from"]
    assert described["test"]["images"] == 12 and test in described["test"]["from"]


def test_two_folders_of_one_split_are_asked_about(root: Path) -> None:
    shutil.copytree(root / "val", root / "valid")
    with pytest.raises(UserError, match=r"val and valid, which are both names of the validation split: which is meant"):
        load(root)


def test_a_test_split_goes_before_validation_where_it_has_classes(root: Path) -> None:
    (root / "test").mkdir()
    picture("red", 7).save(root / "test" / "7.png")
    data = load(root)
    assert sizes(data) == (36, 12) and left_out(data) == {"in a split without class folders": 1}
    fill(root / "test", 2, start=900)
    data = load(root)
    assert len(data.test) == 6 and left_out(data)["validation images: the test split is evaluated on"] == 12
    assert left_out(data)["images beside the class folders"] == 1


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path / "set", 10, ("bus", "car", "train"))
    data = load(tmp_path / "set")
    assert data.classes == ("bus", "car", "train") and sizes(data) == (24, 6)
    fill(tmp_path / "set" / "train", 3)
    with pytest.raises(UserError, match=r"holds train, which has class folders in it .* beside it bus, car"):
        load(tmp_path / "set")


def test_a_split_without_class_folders_is_asked_about(tmp_path: Path) -> None:
    fill(tmp_path / "set", 4, ("train", "test"))
    with pytest.raises(UserError, match=r"holds images in test, train, but no folder for every class in it"):
        load(tmp_path / "set")


def test_what_lies_beside_the_splits_is_counted(root: Path) -> None:
    (root / "annotations").mkdir()
    (root / "annotations" / "all.csv").write_text("")
    picture("red", 1).save(root / "overview.png")
    data = load(root)
    assert sizes(data) == (36, 12)
    assert left_out(data) == {"in folders without images": 1, "images beside the class folders": 1}


def test_the_training_folder_given_alone_is_remarked_on(root: Path) -> None:
    (remark,) = load(root / "train").understood.remarks
    assert "val beside" in remark and f"give --data.path {root}" in remark
    assert load(root).understood.remarks == ()


# --- names of classes -------------------------------------------------------------------------------------------------


def test_files_that_number_the_classes_otherwise_are_aligned_by_name(tmp_path: Path) -> None:
    pq.write_table(table(colours(18)), tmp_path / "train.parquet")
    pq.write_table(table(colours(6), ("green", "red", "blue"), start=50), tmp_path / "test.parquet")
    data = load(tmp_path, "parquet")
    assert [data.classes[label] for label in data.test.labels] == shown_colours(data) == colours(6)
    assert "aligned by name" in data.understood.remarks[0]
    assert load(tmp_path, "parquet").understood.remarks == data.understood.remarks  # from the cache, too


def test_training_files_that_number_the_classes_otherwise(tmp_path: Path) -> None:
    pq.write_table(table(colours(6)), tmp_path / "train-0.parquet")
    pq.write_table(table(colours(6), ("blue", "green", "red"), start=50), tmp_path / "train-1.parquet")
    data = load(tmp_path, "parquet", val_fraction=0.5)
    assert [data.classes[label] for label in data.test.labels] == shown_colours(data)


def test_files_of_other_classes_are_refused(tmp_path: Path) -> None:
    pq.write_table(table(colours(6)), tmp_path / "train.parquet")
    other = table([], ("rot", "green", "blue")).schema.metadata
    pq.write_table(table(colours(3), start=50).replace_schema_metadata(other), tmp_path / "test.parquet")
    with pytest.raises(UserError, match=r"test.parquet has the classes rot, which are none of those of .*train"):
        load(tmp_path, "parquet")


def test_files_that_do_not_name_their_classes_are_remarked_on(tmp_path: Path) -> None:
    pq.write_table(table(colours(6)), tmp_path / "train.parquet")
    pq.write_table(table(colours(6), start=50).replace_schema_metadata({}), tmp_path / "test.parquet")
    (remark,) = load(tmp_path, "parquet").understood.remarks
    assert "test.parquet does not name its classes" in remark


class Folder:
    """A data set of torchvision's kind."""

    def __init__(self, names: Sequence[str], rows: Sequence[str], start: int = 0) -> None:
        self.classes, self.rows, self.start = list(names), rows, start
        self.targets = [self.classes.index(row) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        colour = self.rows[row] if self.rows[row] in COLOURS else "red"
        return picture(colour, self.start + row), self.targets[row]


def test_given_data_sets_are_aligned_by_name_or_refused() -> None:
    train = Folder(tuple(COLOURS), colours(9))
    data = load_data(give((train, Folder(("green", "red", "blue"), colours(6), 50))), 24, 0)
    assert [data.classes[label] for label in data.test.labels] == shown_colours(data)
    with pytest.raises(UserError, match="classes rouge, which are none of red, green, blue"):
        give((train, Folder(("rouge", "green", "blue"), ["rouge", "green", "blue"])))


def test_splits_that_are_given_have_names_in_words() -> None:
    train, test = Folder(tuple(COLOURS), colours(9)), Folder(tuple(COLOURS), colours(3), 50)
    assert sizes(load_data(give({"my_train": train, "Val": test}), 24, 0)) == (9, 3)
    with pytest.raises(UserError, match="val and dev are both splits of validation images"):
        give({"train": train, "val": test, "dev": test})


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["mask", "audio"])
def test_the_column_of_images_is_found_by_name(tmp_path: Path, other: str) -> None:
    content = encoded("blue", 0) if other == "mask" else b"RIFF\x00\x00WAVE"
    columns: dict[str, Any] = {other: [{"bytes": content, "path": ""}] * 18}
    pq.write_table(table(colours(18), **columns), tmp_path / "train.parquet")
    data = load(tmp_path, "parquet")
    assert shown_colours(data) == [data.classes[label] for label in data.test.labels]
    assert "column label" in data.understood.labels and f"not used: {other}" in data.understood.labels


def test_the_column_of_images_is_found_by_content(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"sound": [{"bytes": b"RIFF\x00\x00WAVE", "path": ""}] * 18}
    made = table(colours(18), **columns)
    made = photos(made)
    pq.write_table(made, tmp_path / "train.parquet")
    assert "column photo" in load(tmp_path, "parquet").understood.labels


def test_columns_that_could_both_be_meant_are_asked_about(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "mask": [{"bytes": encoded("blue", i), "path": ""} for i in range(18)],
        "breed": list(range(18)),
    }
    made = table(colours(18), **columns)
    made = photos(made)
    pq.write_table(made, tmp_path / "train.parquet")
    with pytest.raises(
        UserError, match=r"several columns of images \(mask, photo\): which is meant\? Say it with --data"
    ):
        load(tmp_path, "parquet")
    data = load(tmp_path, "parquet", image_column="photo")
    assert shown_colours(data) == [data.classes[label] for label in data.test.labels]
    assert set(shown_colours(load(tmp_path, "parquet", image_column="mask"))) == {"blue"}
    with pytest.raises(
        UserError, match=r"--data.image_column foto cannot be read .* not there. Its columns: mask, breed"
    ):
        load(tmp_path, "parquet", image_column="foto")
    with pytest.raises(UserError, match=r"--data.image_column breed cannot be read .* type int64"):
        load(tmp_path, "parquet", image_column="breed")


def test_columns_of_labels_that_could_both_be_meant(tmp_path: Path) -> None:
    pq.write_table(table(colours(18), labels=[1, 0] * 9), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"several columns of labels \(labels, label\): which is meant"):
        load(tmp_path, "parquet")
    assert load(tmp_path, "parquet", label_column="label").classes == tuple(COLOURS)
    assert load(tmp_path, "parquet", label_column="labels").classes == ("0", "1")


# --- what is an image -------------------------------------------------------------------------------------------------


HOUSEKEEPING = (".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX")


@pytest.mark.parametrize("name", HOUSEKEEPING)
def test_housekeeping_folders_do_not_count_at_any_depth(root: Path, name: str) -> None:
    for place in (root, root / "train", root / "train" / "a", root / "train" / "a" / "below"):
        (place / name).mkdir(parents=True)
        picture("blue", 1).save(place / name / "x.png")
    data = load(root)
    assert sizes(data) == (36, 12) and data.classes == ("a", "b", "c")
    assert left_out(data) == {"in hidden or housekeeping folders": 4}
    others = LeftOut()
    assert len(find_images([str(root / "train" / "a")], others)) == 12
    assert others.counts == {"in hidden or housekeeping folders": 2}


def test_hidden_files_and_parquet_files_in_housekeeping_folders(root: Path, tmp_path: Path) -> None:
    for name in ("._0.png", "Thumbs.db"):
        (root / "train" / "a" / name).write_bytes(b"")
    data = load(root)
    assert len(data.train) == 36 and left_out(data) == {"hidden or housekeeping files": 2}
    (tmp_path / "p" / "__MACOSX").mkdir(parents=True)
    pq.write_table(table(colours(9)), tmp_path / "p" / "train.parquet")
    (tmp_path / "p" / "__MACOSX" / "test.parquet").write_bytes(b"nothing")
    assert sizes(load(tmp_path / "p", "parquet", val_fraction=1 / 3)) == (6, 3)


@pytest.mark.parametrize("ending", ["jfif", "gif", "avif", "jp2", "GIF"])
def test_images_of_all_endings_that_can_be_read_count(tmp_path: Path, ending: str) -> None:
    if f".{ending.lower()}" not in image_endings():
        pytest.skip("this build of PIL does not read it")
    fill(tmp_path / "set", 10, ending=ending)
    assert sizes(load(tmp_path / "set")) == (24, 6)


def test_images_that_cannot_be_read_are_counted_and_named(root: Path) -> None:
    for name in ("photo.heic", "other.HEIC", "notes.txt", "README"):
        (root / "train" / "b" / name).write_bytes(b"content")
    data = load(root)
    assert sizes(data) == (36, 12)
    assert left_out(data) == {"ending in .heic": 2, "ending in .txt": 1, "without an ending": 1}
    assert any("photo.heic" in said for said in data.understood.left_out.sentences())
    shutil.rmtree(root / "val")
    for file in (root / "train" / "b").glob("*.png"):
        file.unlink()
    with pytest.raises(UserError, match=r"class folders b in .* hold no image .*there are 2 ending in .heic"):
        load(root)


def test_links_that_lead_nowhere_are_named(root: Path) -> None:
    (root / "train" / "a" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "train" / "a" / "self.png").symlink_to(root / "train" / "a" / "self.png")
    with pytest.raises(UserError, match=r"gone.png is a link that leads nowhere: .* --data.on_error skip"):
        load(root)
    for _ in range(2):  # decoded, and from the cache
        data = load(root, on_error="skip")
        assert sizes(data) == (36, 12) and [Path(name).name for name in data.skipped] == ["gone.png", "self.png"]
    picture("red", 77).save(root / "nowhere.png")
    assert len(load(root, on_error="skip").train) == 37


def test_links_to_folders_are_followed_but_not_round_and_round(root: Path) -> None:
    (root / "train" / "a" / "loop").symlink_to(root / "train")
    (root / "elsewhere").mkdir()
    (root / "train" / "b").rename(root.parent / "b")
    (root / "train" / "b").symlink_to(root.parent / "b")
    data = load(root)
    assert sizes(data) == (36 + 12 + 12, 12)  # a/loop/b and a/loop/c lie below a, a/loop/a is a itself
    assert left_out(data)["links to folders that they lie in"] == 1


def test_a_pipe_is_no_image(root: Path) -> None:
    os.mkfifo(root / "train" / "a" / "pipe.png")
    data = load(root)
    assert sizes(data) == (36, 12) and left_out(data) == {"that are no files but devices or pipes": 1}


def test_files_of_one_name_and_two_endings_are_asked_about(tmp_path: Path) -> None:
    fill(tmp_path / "set", 10, ending="jpg")
    fill(tmp_path / "set", 10, ending="png")
    with pytest.raises(
        UserError, match=r"30 images have one name and two endings, .*Say --data.endings jpg, or png, or jpg"
    ):
        load(tmp_path / "set")
    data = load(tmp_path / "set", endings="jpg")
    assert sizes(data) == (24, 6) and left_out(data) == {"ending in .png": 30}
    assert sum(sizes(load(tmp_path / "set", endings=".JPG, png"))) == 60
    with pytest.raises(UserError, match=r"--data.endings names .heic, which cannot be read"):
        load(tmp_path / "set", endings="heic")


@pytest.mark.parametrize("names", [("images", "masks"), ("Images", "Annotations")])
def test_folders_of_kinds_of_files_are_no_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    fill(tmp_path / "set", 10, names)
    with pytest.raises(UserError, match=r"kinds of files rather than classes"):
        load(tmp_path / "set")


# --- classes ----------------------------------------------------------------------------------------------------------


def test_one_class_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "set" / "train", 12, "a")
    fill(tmp_path / "set" / "val", 4, "a")
    with pytest.raises(UserError, match=r"all 12 training images of .* are of one class, a: there is nothing to tell"):
        load(tmp_path / "set")
    pq.write_table(table(["red"] * 9), tmp_path / "all.parquet")
    with pytest.raises(UserError, match=r"of one class, red"):
        load(tmp_path, "parquet")
    with pytest.raises(UserError, match=r"of one class, red"):
        load_data(give(Folder(tuple(COLOURS), ["red"] * 9)), 24, 0)


def test_classes_of_hardly_an_image_are_said(root: Path) -> None:
    for i in range(1, 12):
        (root / "train" / "a" / f"{i}.png").unlink()
    shutil.rmtree(root / "val" / "c")
    assert load(root).understood.remarks == (
        "no folder in val for c: these classes are not tested",
        "a single training image of a",
        "no test image of c",
    )
    with pytest.raises(UserError, match="class a has a single image, too few"):
        load(root / "train")
    pq.write_table(table(["red", "green"] * 5), root / "train.parquet")
    assert "no training image of blue" in load(root, "parquet").understood.remarks


@pytest.mark.parametrize("depth", [1, 2])
def test_a_folder_above_the_classes_is_refused(tmp_path: Path, depth: int) -> None:
    below = tmp_path / "set" / Path(*["dataset", "inner"][:depth])
    fill(below, 10, ("cat", "dog", "fish"))
    with pytest.raises(UserError, match=rf"\(cat, dog, fish\) look like what is meant: give --data.path {below}\."):
        load(tmp_path / "set")
    assert sizes(load(below)) == (24, 6)


def test_a_folder_above_the_splits_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=rf"give --data.path {root}\."):
        load(root.parent)
    shutil.rmtree(root / "val")
    with pytest.raises(UserError, match=rf"give --data.path {root}\."):
        load(root.parent)


def test_a_folder_of_one_class_says_what_may_be_meant(root: Path) -> None:
    with pytest.raises(UserError, match=rf"holds no folders: .* give the folder that it lies in, {root}/train"):
        load(root / "train" / "a")


def test_folders_of_the_same_names_in_every_class_are_remarked_on(tmp_path: Path) -> None:
    for place in ("day", "night"):
        fill(tmp_path / "set" / place, 10, ("cat", "dog"), start=100 * len(place))
    data = load(tmp_path / "set")
    assert data.classes == ("day", "night") and "in the folders cat, dog in each of them" in data.understood.remarks[0]


# --- copies -----------------------------------------------------------------------------------------------------------


def test_copies_across_parts_and_classes_are_said(root: Path) -> None:
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", root / "val")
    (remark,) = load(root).understood.remarks
    assert remark.startswith("36 test images are copies of training images, byte by byte (")
    assert load(root).understood.remarks == (remark,)  # from the cache, too
    shutil.rmtree(root / "val")
    shutil.copy(root / "train" / "a" / "0.png", root / "train" / "b" / "twin.png")
    shutil.copy(root / "train" / "c" / "0.png", root / "train" / "c" / "twin.png")
    remarks = load(root / "train", val_fraction=0.1, endings="png").understood.remarks
    assert any(r.startswith("1 images lie under several classes (") and r.endswith("a and b)") for r in remarks)
    assert len([r for r in remarks if "twin.png" in r]) == 2


def test_files_of_one_size_are_no_copies(tmp_path: Path) -> None:
    fill(tmp_path / "set", 10, ending="bmp")
    assert load(tmp_path / "set").understood.remarks == ()


# --- where only a folder is given -------------------------------------------------------------------------------------


def test_a_folder_alone_means_what_lies_in_it(root: Path, tmp_path: Path) -> None:
    def name(before: str, path: Path, *fields: str, **options: Any) -> str:
        config = DataConfig(name=before, path=str(path), **options)
        return with_implied_name(config, {"data.path", *fields}).name

    assert name("cifar10", root) == name("digits", root) == name("imagenet100", root) == "imagefolder"
    assert name("cifar10", root, "data.name") == "cifar10"
    assert name("cifar10", tmp_path / "new", download=True) == "cifar10"
    (root / "cifar-10-batches-py").mkdir()
    assert name("cifar10", root) == "cifar10" and name("cifar100", root) == "imagefolder"
    (tmp_path / "p").mkdir()
    pq.write_table(table(colours(3)), tmp_path / "p" / "x.parquet")
    assert name("digits", tmp_path / "p") == name("imagefolder", tmp_path / "p") == "parquet"
    config = DataConfig(name="parquet", path=str(root), image_column="photo")
    assert with_implied_name(config, {"data.path"}).image_column == ""


def test_digits_do_not_ignore_a_folder(root: Path) -> None:
    with pytest.raises(UserError, match=r"is not looked at: give --data.name imagefolder"):
        load(root, "digits")


# --- the cache --------------------------------------------------------------------------------------------------------


def test_caches_of_other_rules_are_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = load(root)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT - 1)
    assert load(root).fingerprint != now.fingerprint


def test_what_is_left_out_is_told_anew_where_the_cache_is_read(root: Path) -> None:
    before = load(root)
    (root / "train" / "a" / "notes.txt").write_text("")
    after = load(root)
    assert after.fingerprint == before.fingerprint and left_out(after) == {"ending in .txt": 1}


# --- judging a model --------------------------------------------------------------------------------------------------


def test_all_images_of_other_data_are_judged(tmp_path: Path) -> None:
    fill(tmp_path / "new", 20)
    data = load(tmp_path / "new", judged=("a", "b", "c"))
    assert sizes(data) == (0, 60) and data.understood.parts == {
        "test": f"all of {tmp_path}/new, a folder for each class"
    }
    shutil.rmtree(tmp_path / "new" / "b")
    data = load(tmp_path / "new", judged=("c", "b", "a"))
    assert np.bincount(data.test.labels, minlength=3).tolist() == [20, 0, 20] and data.classes == ("c", "b", "a")
    assert data.understood.remarks == ("no image of b: the model is judged on its other classes alone",)
    with pytest.raises(UserError, match=r"holds images of c, which the model does not know: its classes are a, b\."):
        load(tmp_path / "new", judged=("a", "b"))


def test_a_test_split_alone_is_judged(root: Path, tmp_path: Path) -> None:
    assert sizes(load(root, judged=("a", "b", "c"))) == (0, 12)
    shutil.rmtree(root / "train")
    assert sizes(load(root, judged=("a", "b", "c"))) == (0, 12)
    with pytest.raises(UserError, match=r"holds val, but no images to train on"):
        load(root)
    pq.write_table(table(colours(6), ("green", "red", "blue")), tmp_path / "birds-test.parquet")
    data = load(tmp_path, "parquet", judged=tuple(COLOURS))
    assert [data.classes[label] for label in data.test.labels] == shown_colours(data)
    with pytest.raises(UserError, match=r"none of the parquet files .* is one of training images"):
        load(tmp_path, "parquet")


@pytest.mark.parametrize("limit", [0, 100])
def test_images_that_are_read_on_the_way_are_judged(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LARGEST", limit)
    pq.write_table(table(colours(6)), tmp_path / "all.parquet")
    assert sizes(load(tmp_path, "parquet", judged=tuple(COLOURS))) == (0, 6)


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the classes a, b and c, trained on a folder without test images."""
    folder = tmp_path_factory.mktemp("model")
    fill(folder / "set", 10)
    (folder / "set" / "a" / "notes.txt").write_text("")
    options = ["--data.path", folder / "set", "--data.limit=0", "--model.image_size=24", "--model.patch_size=8"]
    status, _, err = call_cli("train", *SMALL, *options, "--model", "vit", "--run", folder / "run")
    assert status == 0, err
    assert "train: " in err and "a 8, b 8, c 8" in err and "a share of 0.2 of each class" in err and "held out" in err
    assert "left out: 1 ending in .txt (notes.txt)" in err
    return folder / "run"


def test_how_the_data_were_understood_is_kept(model: Path) -> None:
    kept = json.loads((model / "data.json").read_text())
    assert kept["train"]["by_class"] == {"a": 8, "b": 8, "c": 8} and kept["test"]["images"] == 6
    (reason,) = kept["left_out"]
    assert (reason["reason"], reason["count"]) == ("ending in .txt", 1) and "notes.txt" in reason["examples"][0]


def evaluated(model: Path, *options: object) -> tuple[int, str]:
    status, out, err = call_cli("evaluate", model, "--json", *options)
    assert status == 0, err
    return json.loads(out)["images"], err


def test_evaluate_judges_what_is_given(model: Path, tmp_path: Path) -> None:
    assert evaluated(model)[0] == evaluated(model, "--data.path", model.parent / "set")[0] == 6
    fill(tmp_path / "new", 20, start=300)
    images, err = evaluated(model, "--data.path", tmp_path / "new")
    assert images == 60 and f"test: all of {tmp_path}/new" in err
    fill(tmp_path / "tests" / "val", 4, "ab", start=700)
    images, err = evaluated(model, "--data.path", tmp_path / "tests")
    assert images == 8 and "no image of c: the model is judged on its other classes alone" in err


def test_predict_says_what_it_leaves_out(model: Path, root: Path) -> None:
    (root / "val" / "a" / "photo.heic").write_bytes(b"")
    status, out, err = call_cli("predict", model, root / "val" / "a", "--top", "1")
    assert status == 0 and len(out.splitlines()) == 4 and "left out: 1 ending in .heic (photo.heic)" in err


def test_data_shows_a_folder_on_one_screen(root: Path) -> None:
    picture("red", 5, side=32).save(root / "train" / "a" / "large.png")
    Image.fromarray(np.full((24, 24), 5, np.uint16) * np.arange(24, dtype=np.uint16)).save(
        root / "val" / "b" / "deep.png"
    )
    (root / "train" / "c" / "broken.png").write_bytes(b"nothing")
    (root / "train" / "c" / "photo.heic").write_bytes(b"nothing")
    picture("green", 1003).save(root / "val" / "b" / "alike.bmp")  # another file, the same picture
    status, out, err = call_cli("data", root)
    assert status == 0, err
    assert "train: " in out and "a 13, b 12, c 13" in out and "left out: 1 ending in .heic" in out
    assert "sizes: 24×24 (50), 32×32 (1)" in out and "modes: RGB, 8 bit (50), I;16, 16 bit (1)" in out
    assert "broken: 1 images cannot be read" in out and "broken.png" in out
    assert "alike: 2 images in one group look alike" in out and "1 of the groups across train and test" in out
    status, out, _ = call_cli("data", root, "--json")
    found = json.loads(out)
    assert found["test"]["by_class"] == {"a": 4, "b": 6, "c": 4} and len(found["alike"]) == 1
    assert call_cli("data", root.parent)[0] == 2
    assert dict(dasvit.inspect_data(str(root)).sizes) == {(24, 24): 50, (32, 32): 1}
