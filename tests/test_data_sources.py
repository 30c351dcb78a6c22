"""Every source of images, what it makes of odd files, and what it says of wrong ones."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from dasvit.config import DataConfig
from dasvit.data import load_data, open_image, sources, split_indices
from dasvit.data.parquet import parquet_source
from dasvit.data.splits import balanced_subset
from dasvit.errors import UserError


def noise(number: int, height: int = 8, width: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(256, size=(height, width, 3), dtype=np.uint8)


def image_folder(root: Path, classes: Sequence[str] = ("cat", "dog"), images: int = 4, start: int = 0) -> Path:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            Image.fromarray(noise(start + 100 * label + i)).save(root / name / f"{i}.png")
    return root


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(number)).save(file, "png")
    return file.getvalue()


def hub_table(
    labels: Sequence[int | None], names: Sequence[str] = ("ape", "bee"), label: str = "label", start: int = 0
) -> pa.Table:
    """Return a table as the hub's tools write it, with an image of noise in each row."""
    images = [{"bytes": png(start + i), "path": f"{i}.png"} for i in range(len(labels))]
    features = {"img": {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
    schema = pa.schema(
        [("img", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), (label, pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    return pa.table({"img": images, label: labels}, schema=schema)


def config_of(tmp_path: Path, name: str, path: Path | str = "", **options: Any) -> DataConfig:
    return DataConfig(name=name, path=str(path), cache=str(tmp_path / "cache"), **options)


def test_digits_have_all_ten_classes_in_both_parts(tmp_path: Path) -> None:
    data = load_data(config_of(tmp_path, "digits"), 8, seed=0)
    assert len(data.train) + len(data.test) == 1797 and len(data.test) == 360
    assert data.train.images.shape == (1437, 8, 8, 3) and data.crop_pct == 1.0
    assert data.classes == tuple("0123456789")
    assert set(data.test.labels.tolist()) == set(data.train.labels.tolist()) == set(range(10))
    pixels = data.train.images[np.arange(1437)]
    assert pixels.dtype == np.uint8 and pixels.max() == 255 and (pixels[..., 0] == pixels[..., 2]).all()
    other = load_data(config_of(tmp_path, "digits"), 8, seed=1)
    assert not np.array_equal(other.test.labels, data.test.labels) and other.fingerprint != data.fingerprint


def test_image_folder_with_its_own_test_images(tmp_path: Path) -> None:
    image_folder(tmp_path / "set" / "train")
    image_folder(tmp_path / "set" / "val", images=2, start=50)
    data = load_data(config_of(tmp_path, "imagefolder", tmp_path / "set"), 8, seed=0)
    assert data.classes == ("cat", "dog") and len(data.train) == 8 and data.test.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(np.asarray(data.train.image(5)), noise(101))
    assert np.array_equal(np.asarray(data.test.image(1)), noise(51))


def test_image_folder_without_test_images_holds_some_out(tmp_path: Path) -> None:
    image_folder(tmp_path / "set", images=10)
    data = load_data(config_of(tmp_path, "imagefolder", tmp_path / "set", val_fraction=0.3), 8, seed=3)
    assert np.bincount(data.train.labels).tolist() == [7, 7] and np.bincount(data.test.labels).tolist() == [
        3,
        3,
    ]
    seen = {data_set.image(i).tobytes() for data_set in (data.train, data.test) for i in range(len(data_set))}
    assert len(seen) == 20


@pytest.mark.parametrize("below", ["", "data"])
@pytest.mark.parametrize("test_file", ["test-00000-of-00001", "validation-00000-of-00001", "valid"])
def test_parquet_in_the_layout_of_the_hub(tmp_path: Path, below: str, test_file: str) -> None:
    folder = tmp_path / "set" / below
    folder.mkdir(parents=True)
    pq.write_table(hub_table([0, 1, 0]), folder / "train-00000-of-00002.parquet")
    pq.write_table(hub_table([1, 1], start=3), folder / "train-00001-of-00002.parquet")
    pq.write_table(hub_table([1, 0], start=5), folder / f"{test_file}.parquet")
    data = load_data(config_of(tmp_path, "parquet", tmp_path / "set"), 8, seed=0)
    assert data.classes == ("ape", "bee")
    assert data.train.labels.tolist() == [0, 1, 0, 1, 1] and data.test.labels.tolist() == [1, 0]
    assert np.array_equal(np.asarray(data.train.image(4)), noise(4))
    assert np.array_equal(np.asarray(data.test.image(0)), noise(5))


def test_parquet_without_test_file_or_names_or_usual_columns(tmp_path: Path) -> None:
    labels = [0, 1, 2] * 4
    table = pa.table({"image": [png(i) for i in range(12)], "fine_label": pa.array(labels, pa.int16())})
    (tmp_path / "set").mkdir()
    pq.write_table(table, tmp_path / "set" / "all.parquet", row_group_size=5)
    data = load_data(config_of(tmp_path, "parquet", tmp_path / "set", val_fraction=0.25), 8, seed=0)
    assert data.classes == ("0", "1", "2") and len(data.train) == 9 and len(data.test) == 3
    for images in (data.train, data.test):
        for i in range(len(images)):
            number = next(n for n in range(12) if np.array_equal(noise(n), np.asarray(images.image(i))))
            assert labels[number] == images.labels[i]


def test_hidden_test_labels_give_way_to_validation(tmp_path: Path) -> None:
    pq.write_table(hub_table([0, 1]), tmp_path / "train.parquet")
    pq.write_table(hub_table([-1, -1]), tmp_path / "test.parquet")
    with pytest.raises(UserError, match="have no labels"):
        load_data(config_of(tmp_path, "parquet", tmp_path), 8, seed=0)
    pq.write_table(hub_table([1]), tmp_path / "validation.parquet")
    assert load_data(config_of(tmp_path, "parquet", tmp_path), 8, seed=0).test.labels.tolist() == [1]


def test_cifar_folder_may_hold_parquet(tmp_path: Path) -> None:
    names = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    for split, labels in (("train", range(10)), ("test", (1, 0))):
        pq.write_table(hub_table(list(labels), names), tmp_path / f"{split}.parquet")
    assert load_data(config_of(tmp_path, "cifar10", tmp_path), 8, seed=0).classes == names
    with pytest.raises(UserError, match=r"10 classes, and cifar100 has 100: give --data\.name parquet"):
        load_data(config_of(tmp_path, "cifar100", tmp_path), 8, seed=0)


def test_torchvision_reads_fashion_mnist(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        head = np.array([0x803, count, 28, 28], dtype=">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + bytes(range(196)) * 4 * count)
        head = np.array([0x801, count], dtype=">i4").tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + bytes(range(10)) * (count // 10))
    data = load_data(config_of(tmp_path, "fashion_mnist", tmp_path, limit=10), 28, seed=0)
    assert data.train.images.shape == (10, 28, 28, 3) and len(data.test) == 10 and data.classes[9] == "Ankle boot"
    assert sorted(data.train.labels.tolist()) == list(range(10))


def test_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Split:
        """Stands in for a `datasets.Dataset`."""

        def __init__(self, table: pa.Table) -> None:
            self.table = table
            self.features = SimpleNamespace(arrow_schema=table.schema)
            self._fingerprint = str(table.num_rows)

        def select_columns(self, names: list[str]) -> Split:
            return Split(self.table.select(names))

        def with_format(self, name: str) -> Split:
            assert name == "arrow"
            return self

        def iter(self, batch_size: int) -> Any:
            return (self.table.slice(i, 2) for i in range(0, self.table.num_rows, 2))

        def __getitem__(self, rows: slice) -> pa.Table:
            return self.table

    splits = {"train": Split(hub_table([0, 1, 1])), "test": Split(hub_table([1], start=9)), "extra": None}
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda name: splits))
    data = load_data(config_of(tmp_path, "parquet", "owner/name", limit=2), 8, seed=0)
    assert len(data.train) == 2 and set(data.train.labels.tolist()) == {0, 1}
    assert np.array_equal(np.asarray(data.test.image(0)), noise(9))


def test_imagenet100_takes_its_own_hundred_classes(tmp_path: Path) -> None:
    names = Path(sources.__file__).with_name("imagenet100.txt").read_text().split()
    assert len(set(names)) == 100
    for part in ("train", "val"):
        image_folder(tmp_path / "set" / part, [*names, "n00000001"], images=1)
    data = load_data(config_of(tmp_path, "imagenet100", tmp_path / "set"), 8, seed=0)
    assert data.classes == tuple(sorted(names)) and data.train.labels.tolist() == list(range(100))


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    grey = Image.new("L", (4, 4), 102)
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    deep = Image.fromarray(np.full((4, 4), 102 * 257, dtype=np.uint16))
    cases: dict[str, tuple[Image.Image, tuple[int, int, int]]] = {
        "l.png": (grey, (102, 102, 102)),
        "one.png": (Image.new("1", (4, 4), 1), (255, 255, 255)),
        "la.png": (Image.merge("LA", (grey, Image.new("L", (4, 4), 255))), (102, 102, 102)),
        "rgba.png": (clear, (255, 255, 255)),
        "p.png": (palette, (10, 20, 30)),
        "cmyk.tif": (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
        "deep.png": (deep, (102, 102, 102)),
        "deep.tif": (deep, (102, 102, 102)),
        "float.tif": (Image.fromarray(np.full((4, 4), 0.4, dtype=np.float32)), (102, 102, 102)),
    }
    for name, (image, colour) in cases.items():
        image.save(tmp_path / name)
        opened = open_image(tmp_path / name)
        assert opened.mode == "RGB" and opened.getpixel((1, 1)) == colour, name
    palette.save(tmp_path / "clear.png", transparency=1)
    assert open_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 3)).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (3, 6)


def test_splits_are_stratified_disjoint_and_repeatable() -> None:
    labels = np.repeat(np.arange(3), [10, 20, 30])
    first, second = split_indices(labels, 0.4, seed=1)
    assert first.dtype == second.dtype == np.int64
    assert sorted([*first, *second]) == list(range(60))
    assert np.bincount(labels[second]).tolist() == [4, 8, 12]
    assert np.array_equal(second, split_indices(labels, 0.4, seed=1)[1])
    assert not np.array_equal(second, split_indices(labels, 0.4, seed=2)[1])
    for few in ([0, 0, 1], [0, 0, 1, 1], [0] * 30 + [1] * 2):
        with pytest.raises(UserError, match="too few"):
            split_indices(np.array(few), 0.1, seed=0)


def test_limits_balance_the_classes(tmp_path: Path) -> None:
    data = load_data(config_of(tmp_path, "digits", limit=35, eval_limit=10**6), 8, seed=0)
    assert set(np.bincount(data.train.labels)) == {3, 4} and len(data.test) == 360
    labels = np.random.default_rng(0).integers(3, size=50)
    small, large = (set(balanced_subset(labels, n, 0, "limit").tolist()) for n in (9, 20))
    assert small < large
    with pytest.raises(UserError, match=r"--data.eval_limit 9 is less than the number of classes, 10"):
        load_data(config_of(tmp_path, "digits", eval_limit=9), 8, seed=0)


def test_wrong_places_and_names_are_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    image_folder(tmp_path / "few", ["n02869837", "n01749939"], images=1)
    cases: list[tuple[str, Path | str, str]] = [
        ("digit", "", "unknown data set 'digit'. Did you mean 'digits'"),
        ("imagefolder", "", "--data.path FOLDER"),
        ("imagefolder", tmp_path / "gone", "no folder .*gone"),
        ("imagefolder", tmp_path / "empty", "holds no folders"),
        ("imagenet100", tmp_path / "few", "100 of the 100 synset folders .*n01558993"),
        ("cifar10", tmp_path / "empty", "--data.path, or fetch it with --data.download true"),
        ("fashion_mnist", "", "--data.download true"),
        ("parquet", "", "--data.path"),
        ("parquet", tmp_path / "empty", "no parquet file"),
        ("parquet", tmp_path / "gone", "no folder"),
    ]
    for name, path, message in cases:
        with pytest.raises(UserError, match=message):
            load_data(config_of(tmp_path, name, path), 8, seed=0)


def test_hub_without_its_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"install dasvit\[hub\]"):
        parquet_source(DataConfig(name="parquet", path="owner/name"))


def test_wrong_class_folders_are_named(tmp_path: Path) -> None:
    image_folder(tmp_path / "a" / "train")
    (tmp_path / "a" / "train" / "emu").mkdir()
    with pytest.raises(UserError, match=r"class folders emu in .* hold no image"):
        load_data(config_of(tmp_path, "imagefolder", tmp_path / "a"), 8, seed=0)
    image_folder(tmp_path / "b" / "train")
    image_folder(tmp_path / "b" / "val", ["cat"])
    data = load_data(config_of(tmp_path, "imagefolder", tmp_path / "b"), 8, seed=0)
    assert "no folder in val for dog" in data.understood.remarks[0]
    image_folder(tmp_path / "b" / "val", ["dog", "gnu"])
    with pytest.raises(UserError, match="that no training image has: gnu"):
        load_data(config_of(tmp_path, "imagefolder", tmp_path / "b"), 8, seed=0)


def test_wrong_parquet_is_said(tmp_path: Path) -> None:
    good = hub_table([0, 1])
    for number, (table, message) in enumerate(
        [
            (good.drop_columns(["img"]), "no column of images"),
            (good.drop_columns(["label"]), "no integer column label or labels"),
            (good.slice(0, 0), "no row"),
            (hub_table([0, 2]), "label 2, but there are 2 classes"),
            (hub_table([0, -1]), "label -1"),
            (hub_table([0, None]), "1 rows without a label"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        pq.write_table(table, folder / "train.parquet")
        pq.write_table(good, folder / "test.parquet")
        with pytest.raises(UserError, match=message):
            load_data(config_of(tmp_path, "parquet", folder), 8, seed=0)
    (tmp_path / "0" / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"cannot read the parquet file .*train.parquet"):
        load_data(config_of(tmp_path, "parquet", tmp_path / "0"), 8, seed=0)


def test_broken_images_stop_the_run_or_are_counted(tmp_path: Path) -> None:
    image_folder(tmp_path / "set" / "train")
    image_folder(tmp_path / "set" / "val", images=1)
    (tmp_path / "set" / "train" / "cat" / "0.png").write_bytes(b"nothing")
    whole = (tmp_path / "set" / "train" / "dog" / "2.png").read_bytes()
    (tmp_path / "set" / "train" / "dog" / "2.png").write_bytes(whole[:100])
    with pytest.raises(UserError, match=r"cannot read the image .*cat/0.png \(no known image format\)"):
        load_data(config_of(tmp_path, "imagefolder", tmp_path / "set"), 8, seed=0)
    for _ in range(2):  # decoded, and from the cache
        data = load_data(config_of(tmp_path, "imagefolder", tmp_path / "set", on_error="skip"), 8, seed=0)
        assert [Path(name).name for name in data.skipped] == ["0.png", "2.png"]
        assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert np.array_equal(np.asarray(data.train.image(5)), noise(103))
    for file in (tmp_path / "set" / "val").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="none of the images for test"):
        load_data(config_of(tmp_path, "imagefolder", tmp_path / "set", on_error="skip"), 8, seed=0)


def test_absurdly_large_and_missing_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(0)).save(tmp_path / "a.png")
    monkeypatch.setattr("dasvit.data.decode.LARGEST_IMAGE", 63)
    with pytest.raises(UserError, match="more pixels than is safe"):
        open_image(tmp_path / "a.png")
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # PIL itself refuses twice as many
    with pytest.raises(UserError, match="more pixels than is safe"):
        open_image(tmp_path / "a.png")
    with pytest.raises(UserError, match="there is no image"):
        open_image(tmp_path / "b.png")
