"""The cache: what it keeps and at which size, when it is made anew, and what happens without it."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dasvit.config import DataConfig
from dasvit.config.recipe import CACHE_TAG
from dasvit.data import Data, cache, load, load_data
from dasvit.data.image_set import HeldPixels, LazyPixels, StoredPixels
from dasvit.data.sources import cache_folder
from dasvit.data.view import View
from dasvit.errors import UserError


def smooth(number: int, width: int, height: int) -> Image.Image:
    """Return a picture that survives resizing."""
    small = np.random.default_rng(number).integers(256, size=(3, 3, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of eight training and four test images of 8 × 8 pixels."""
    for part, images in (("train", 4), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for i in range(images):
                smooth(10 * label + i, 8, 8).save(tmp_path / "set" / part / name / f"{i}.png")
    return tmp_path / "set"


def config_of(folder: Path, **options: Any) -> DataConfig:
    return DataConfig(name="imagefolder", path=str(folder), cache=str(folder.parent / "cache"), **options)


def open_again(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Data, bool]:
    """Load the data, and tell whether the source had to be read."""
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return prepare(*args)

    prepare = load.prepare
    with monkeypatch.context() as patch:
        patch.setattr(load, "prepare", counted)
        data = load_data(config_of(folder, **options), 8, seed=0)
    return data, bool(calls)


def all_pixels(data: Data) -> np.ndarray[Any, Any]:
    return data.train.images[np.arange(len(data.train))]


def test_second_load_reads_the_cache_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, read = open_again(folder, monkeypatch)
    assert read and isinstance(first.train.images, StoredPixels)
    second, read = open_again(folder, monkeypatch)
    assert not read and second.fingerprint == first.fingerprint and second.classes == ("cat", "dog")
    assert np.array_equal(all_pixels(first), all_pixels(second))
    kept = {f.name for f in (folder.parent / "cache").iterdir()}
    assert kept == {f"imagefolder-{first.fingerprint}", CACHE_TAG}


def test_a_changed_source_is_decoded_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = open_again(folder, monkeypatch)
    changed = folder / "train" / "cat" / "0.png"
    smooth(99, 8, 8).save(changed)
    os.utime(changed, ns=(1, 1))
    second, read = open_again(folder, monkeypatch)
    assert read and second.fingerprint != first.fingerprint
    assert np.array_equal(np.asarray(second.train.image(0)), np.asarray(smooth(99, 8, 8)))
    (folder / "train" / "cat" / "3.png").unlink()
    third, read = open_again(folder, monkeypatch)
    assert read and len(third.train) == 7
    assert open_again(folder, monkeypatch, limit=4)[1] and not open_again(folder, monkeypatch)[1]


@pytest.mark.parametrize("damage", ["meta", "no meta", "cut", "labels", "missing", "other"])
def test_a_damaged_cache_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    first, _ = open_again(folder, monkeypatch)
    kept = all_pixels(first)
    place = folder.parent / "cache" / f"imagefolder-{first.fingerprint}"
    match damage:
        case "meta":
            (place / "meta.json").write_text("{}")
        case "no meta":
            (place / "meta.json").unlink()
        case "cut":
            whole = (place / "train_images.npy").read_bytes()
            (place / "train_images.npy").unlink()
            (place / "train_images.npy").write_bytes(whole[:-10])
        case "labels":
            np.save(place / "test_labels.npy", np.zeros(3, dtype=np.int64))
        case "missing":
            (place / "test_images.npy").unlink()
        case "other":
            np.save(place / "test_images.npy", np.zeros((4, 8, 9, 3), dtype=np.uint8))
    second, read = open_again(folder, monkeypatch)
    assert read and np.array_equal(all_pixels(second), kept) and len(second.test) == 4
    assert "damaged" in caplog.text
    assert not open_again(folder, monkeypatch)[1]


def test_the_loser_of_a_race_uses_the_winners_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = cache._build

    def build_while_another_does(*args: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_build", build)
            load_data(config_of(folder), 8, seed=0)
        build(*args)

    monkeypatch.setattr(cache, "_build", build_while_another_does)
    assert len(load_data(config_of(folder), 8, seed=0).train) == 8
    assert len(list((folder.parent / "cache").glob("imagefolder-*"))) == 1


def test_without_a_folder_to_write_images_are_held(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder.parent / "cache").write_text("in the way")
    data = load_data(config_of(folder), 8, seed=0)
    assert isinstance(data.train.images, HeldPixels) and len(data.test) == 4
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert np.array_equal(np.asarray(data.train.image(0)), np.asarray(smooth(0, 8, 8)))


def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dasvit.data.decoding.NpyWriter.append", full)
    assert isinstance(load_data(config_of(folder), 8, seed=0).train.images, HeldPixels)
    assert [f.name for f in (folder.parent / "cache").iterdir()] == [CACHE_TAG]


@pytest.mark.parametrize(("image_size", "side", "crop_pct"), [(7, 8, 7 / 8), (8, 8, 1.0), (16, 8, 1.0), (6, 7, 0.875)])
def test_small_images_keep_their_size(folder: Path, image_size: int, side: int, crop_pct: float) -> None:
    data = load_data(config_of(folder), image_size, seed=0)
    assert data.train.size == data.test.size == side and data.crop_pct == crop_pct


def test_images_of_various_sizes_are_cut_square(folder: Path) -> None:
    smooth(5, 40, 30).save(folder / "train" / "dog" / "3.png")
    data = load_data(config_of(folder), 28, seed=0)
    assert data.train.size == 32 and data.crop_pct == 0.875
    assert np.array_equal(np.asarray(data.train.image(0)), np.asarray(View().square(smooth(0, 8, 8), 32)))
    cut = np.asarray(smooth(5, 40, 30).crop((5, 0, 35, 30)).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(np.asarray(data.train.image(7)).astype(int) - cut).max() <= 2


def test_too_large_a_set_is_decoded_on_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smooth(5, 40, 30).save(folder / "train" / "dog" / "3.png")
    stored = load_data(config_of(folder), 28, seed=0)
    expected = all_pixels(stored)
    monkeypatch.setattr(cache, "LARGEST", 100)
    (folder / "train" / "cat" / "0.png").write_bytes(b"")
    lazy = load_data(config_of(folder, on_error="skip"), 28, seed=0)
    assert isinstance(lazy.train.images, LazyPixels) and len(lazy.skipped) == 1 and lazy.crop_pct == 0.875
    assert lazy.train.images.shape == (7, 32, 32, 3) and np.array_equal(all_pixels(lazy), expected[1:])
    with pytest.raises(UserError, match=r"cannot read the image .*0.png"):
        load_data(config_of(folder), 28, seed=0)


def test_too_large_a_parquet_set_is_decoded_on_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted((folder / "train").rglob("*.png"))
    for name in ("train", "test"):
        images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
        pq.write_table(pa.table({"image": images, "label": [0] * 4 + [1] * 4}), folder / f"{name}.parquet")
    config = DataConfig(name="parquet", path=str(folder), cache=str(folder.parent / "cache"))
    expected = all_pixels(load_data(config, 8, seed=0))
    monkeypatch.setattr(cache, "LARGEST", 100)
    config.limit = 6
    lazy = load_data(config, 8, seed=0)
    assert isinstance(lazy.train.images, LazyPixels) and lazy.train.images.shape == (6, 8, 8, 3)
    assert np.array_equal(lazy.test.images[np.arange(8)], expected)
    copy = pickle.loads(pickle.dumps(lazy.test))
    assert np.array_equal(copy.images[np.array([7, 2])], expected[[7, 2]])


def test_a_copy_for_another_process_takes_the_path(folder: Path) -> None:
    data = load_data(config_of(folder), 8, seed=0)
    blob = pickle.dumps(data.train)
    assert len(blob) < 1000 < all_pixels(data).nbytes
    assert np.array_equal(pickle.loads(blob).images[np.arange(8)], all_pixels(data))


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DASVIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder(DataConfig()) == Path.home() / ".cache" / "dasvit"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder(DataConfig()) == Path("/x/dasvit")
    monkeypatch.setenv("DASVIT_CACHE", "/y")
    assert cache_folder(DataConfig()) == Path("/y")
    assert cache_folder(DataConfig(cache="/z")) == Path("/z")
