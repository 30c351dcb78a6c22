"""Images that stay in their shards: parquet and webdataset's tar files, read whenever they are needed."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from dasvit.config import DataConfig
from dasvit.data import Data, Loader, load_data
from dasvit.data.shards import RowGroups, windowed_order
from dasvit.errors import UserError
from helpers import call_cli, interrupt_after_an_epoch, untimed

COUNT, CLASSES = 60, ("ant", "bee", "cow")
TINY = ["--model.image_size=16", "--model.patch_size=8", "--model.width=8", "--model.layers=1", "--model.heads=2"]
TRAIN = ["--model=vit", "--config=folder-small", "--train.epochs=3", "--train.batch_size=8", "--train.eval_every=1"]
TRAIN += ["--runtime.precision=float32", *TINY]


def pictures(side: int, count: int, seed: int) -> list[bytes]:
    """Return PNG files whose class can be seen: its place in CLASSES is their colour."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        pixels = rng.integers(0, 100, (side, side, 3), dtype=np.uint8)
        pixels[..., number % 3] += 120
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        found.append(file.getvalue())
    return found


def write_parquet(folder: Path, side: int) -> Path:
    folder.mkdir(parents=True)
    for part, count, seed in (("train", COUNT, 0), ("test", 12, 1)):
        rows = pictures(side, count, seed)
        for number in range(2):
            own = range(number * count // 2, (number + 1) * count // 2)
            image = pa.array([{"bytes": rows[i], "path": None} for i in own])
            table = pa.table({"image": image, "label": pa.array([i % 3 for i in own])})
            pq.write_table(table, folder / f"{part}-{number:05d}.parquet", row_group_size=7)
    return folder


def add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def write_tar(folder: Path, side: int, label: str = "cls") -> Path:
    folder.mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    for part, count, seed in (("train", COUNT, 0), ("test", 12, 1)):
        rows = pictures(side, count, seed)
        for number in range(2):
            with tarfile.open(folder / f"{part}-{number:05d}.tar", "w") as shard:
                for i in range(number * count // 2, (number + 1) * count // 2):
                    add(shard, f"./{part}/{i:06d}.png", rows[i])
                    text = json.dumps({"label": i % 3}) if label == "json" else str(i % 3)
                    add(shard, f"./{part}/{i:06d}.{label}", text.encode())
    return folder


def count_reads(patch: pytest.MonkeyPatch) -> list[int]:
    """Return the row groups that are read from now on, in order."""
    reads: list[int] = []
    read = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
        reads.append(group)
        return read(file, group, columns=columns)

    patch.setattr(pq.ParquetFile, "read_row_group", counted)
    return reads


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shards")
    return {"parquet": write_parquet(root / "parquet", 16), "webdataset": write_tar(root / "tar", 16)}


def opened(path: Path, name: str, cache: Path, **fields: object) -> Data:
    given = {"name": name, "path": str(path), "cache": str(cache), **fields}
    return load_data(DataConfig(**given), 16, 0)  # type: ignore[arg-type] # checked by the test


def pixels(data: Data) -> NDArray[np.uint8]:
    return np.concatenate([part.images[np.arange(len(part))] for part in (data.train, data.test)])


@pytest.mark.parametrize("side", [16, 40])
@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_the_same_images_as_from_the_cache(name: str, side: int, tmp_path: Path) -> None:
    folder = (write_parquet if name == "parquet" else write_tar)(tmp_path / "set", side)
    cached = opened(folder, name, tmp_path / "cache")
    before = sorted((tmp_path / "cache").rglob("*"))
    streamed = opened(folder, name, tmp_path / "cache", stream=True, shuffle_buffer=20)
    assert np.array_equal(pixels(streamed), pixels(cached))
    assert np.array_equal(streamed.train.labels, cached.train.labels) and streamed.classes == cached.classes
    assert streamed.crop_pct == cached.crop_pct and streamed.fingerprint != cached.fingerprint
    assert sorted((tmp_path / "cache").rglob("*")) == before, "nothing is copied"


def test_both_kinds_of_shards_hold_the_same(shards: dict[str, Path], tmp_path: Path) -> None:
    one, other = (opened(path, name, tmp_path, stream=True) for name, path in shards.items())
    assert np.array_equal(pixels(one), pixels(other)) and np.array_equal(one.train.labels, other.train.labels)
    assert other.classes == CLASSES and one.train.chunks is not None and other.train.chunks is not None
    assert len(np.unique(one.train.chunks)) == 10 and len(np.unique(other.train.chunks)) == 2


def test_order_shuffles_windows_of_shuffled_chunks() -> None:
    chunks = np.arange(1000) // 50
    used = np.flatnonzero(np.arange(1000) % 3 > 0)
    orders = [windowed_order(used, chunks, 200, np.random.default_rng([0, epoch, 0])) for epoch in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])
    for order in orders:
        assert np.array_equal(np.sort(order), used)
        seen = [set(chunks[order[start : start + 100]]) for start in range(0, len(order), 100)]
        assert all(len(some) <= 8 for some in seen), "a stretch of the order reads few chunks"
        assert not set.intersection(*seen) and len(set.union(*seen)) == 20
        assert not np.array_equal(order[:100], np.sort(order[:100]))
    first = [windowed_order(used, chunks, 200, np.random.default_rng(seed))[0] for seed in range(200)]
    assert len(np.unique(chunks[first])) == 20, "every chunk can be the first"


def test_each_row_group_is_read_once_an_epoch(shards: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a part of the rows is used alone."""
    files = sorted(shards["parquet"].glob("train-*"))
    groups = RowGroups(files, "image", np.arange(COUNT), held=2 * 14)
    reads = count_reads(monkeypatch)
    for used in (np.arange(COUNT), np.arange(0, COUNT, 3)):
        reads.clear()
        groups._read.clear()
        for row in windowed_order(used, groups.chunks, 14, np.random.default_rng(1)).tolist():
            groups[row]
        assert len(reads) == len(np.unique(groups.chunks[used]))


def test_a_window_of_all_is_a_permutation_of_all() -> None:
    chance = np.random.default_rng(0)
    places = np.array([windowed_order(np.arange(6), np.arange(6) // 2, 6, chance) for _ in range(3000)])
    counts = np.array([[(places[:, place] == row).sum() for row in range(6)] for place in range(6)])
    assert np.abs(counts - 500).max() < 5 * (3000 * 1 / 6 * 5 / 6) ** 0.5


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_processes_share_batches_and_workers_give_the_same(shards: dict[str, Path], name: str, tmp_path: Path) -> None:
    images = opened(shards[name], name, tmp_path, stream=True, shuffle_buffer=16).train

    def batches(workers: int = 0, skip: int = 0, rank: int = 0, world: int = 1) -> list[NDArray[np.uint8]]:
        loader = Loader(
            images,
            None,
            batch_size=8,
            transform=None,
            seed=0,
            shuffle=True,
            drop_last=True,
            workers=workers,
            rank=rank,
            world=world,
        )
        loader.set_epoch(1)
        loader.skip(skip)
        return [batch.numpy() for batch, _ in loader]

    alone = batches()
    halves = [batches(rank=rank, world=2) for rank in range(2)]
    for batch, one, other in zip(alone, *halves, strict=True):
        assert np.array_equal(batch[::2], one) and np.array_equal(batch[1::2], other)
    assert all(map(np.array_equal, batches(skip=3), alone[3:])) and len(batches(skip=3)) == len(alone) - 3
    assert all(map(np.array_equal, batches(workers=2), alone))


def test_row_groups_are_held_within_their_limit(shards: dict[str, Path]) -> None:
    files = sorted(shards["parquet"].glob("train-*"))
    groups = RowGroups(files, "image", np.arange(COUNT), held=14)
    expected = pictures(16, COUNT, 0)
    for row in np.random.default_rng(0).permutation(COUNT).tolist():
        assert groups[row][1] == expected[row]
        assert sum(map(len, groups._read.values())) <= 14 + 7
    again = pickle.loads(pickle.dumps(groups))
    assert not again._read and again[3] == groups[3]


@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    shards: dict[str, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ["train", *TRAIN, "--data.path", shards[name], "--data.stream=true", "--data.shuffle_buffer=20"]
    status, _, err = call_cli(*how, "--run", tmp_path / "whole")
    assert status == 0 and f"data: {COUNT} training and 12 test images" in err, err
    interrupt_after_an_epoch(monkeypatch)
    assert call_cli(*how, "--run", tmp_path / "parts")[0] != 0
    monkeypatch.undo()
    status, _, err = call_cli(*how, "--run", tmp_path / "parts", "--resume")
    assert status == 0, err
    one, other = (load_file(tmp_path / run / "model/model.safetensors") for run in ("whole", "parts"))
    assert one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)
    assert untimed(tmp_path / "whole/metrics.jsonl") == untimed(tmp_path / "parts/metrics.jsonl")


def test_a_search_and_an_evaluation(shards: dict[str, Path], tmp_path: Path) -> None:
    data = ["--data.path", shards["webdataset"], "--data.stream=true"]
    finals = ["--search.finals.cells=2", "--search.finals.rungs=[1]", "--train.batch_size=8", "--search.batch_size=8"]
    status, _, err = call_cli(
        "search", "--method=finals", "--config=folder-small", *data, *TINY, *finals, "--run", tmp_path / "run"
    )
    assert status == 0, err
    status, _, err = call_cli("train", "--cell", tmp_path / "run", "--train.epochs=1", "--train.batch_size=8", *data)
    assert status == 0, err
    status, out, err = call_cli("evaluate", tmp_path / "run/train", "--json")
    assert status == 0 and json.loads(out)["classes"] == list(CLASSES), err
    assert (tmp_path / "run/train/predictions.csv").read_text().count("\n") == 13


def test_a_part_of_the_rows_reads_its_row_groups_once(
    shards: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a set that is limited, or held out from, no others are held."""
    images = opened(shards["parquet"], "parquet", tmp_path, stream=True, shuffle_buffer=7).train
    expected = images.images[np.arange(COUNT)]
    few = images.select(np.arange(0, COUNT, 4))
    assert np.array_equal(few.images[np.arange(15)], expected[::4])
    again = few.select(np.arange(0, 15, 2))
    assert np.array_equal(again.images[np.arange(8)], expected[::8])
    mixed = few.select(np.array([3, 1, 2]))  # not rising: read one by one
    assert np.array_equal(mixed.images[np.arange(3)], expected[[12, 4, 8]])
    few = images.select(np.arange(0, COUNT, 4))
    reads = count_reads(monkeypatch)
    loader = Loader(few, None, batch_size=5, transform=None, seed=0, shuffle=True, drop_last=False)
    assert few.chunks is not None and sum(len(labels) for _, labels in loader) == 15
    assert len(reads) == len(np.unique(few.chunks))


def test_held_out_images_are_named_and_other_data_judged_whole(tmp_path: Path) -> None:
    """Without reading an image for its name; and a model of streamed images is judged on all of other ones."""
    folders = {part: write_tar(tmp_path / part, 16) for part in ("own", "other")}
    for folder in folders.values():
        for file in folder.glob("test-*"):
            file.unlink()
    for file in folders["other"].glob("train-*"):
        file.rename(file.with_name(file.name.replace("train", "part")))
    run = tmp_path / "run"
    how = [*TRAIN, "--train.epochs=1", "--data.path", folders["own"], "--data.stream=true", "--run", run]
    status, _, err = call_cli("train", *how)
    assert status == 0 and "held out: 12 images (at byte " in err, err
    assert len((run / "held_out.txt").read_text().splitlines()) == 12
    names = [line.split(",")[0] for line in (run / "predictions.csv").read_text().splitlines()[1:]]
    assert len(set(names)) == 12 and all(name.startswith("at byte ") for name in names)
    status, out, err = call_cli("evaluate", run, "--data.path", folders["other"], "--json")
    assert status == 0 and json.loads(out)["images"] == COUNT, err
    for name in CLASSES:
        (tmp_path / "plain" / name).mkdir(parents=True)
        for i, row in enumerate(pictures(16, 3, 0)):
            (tmp_path / "plain" / name / f"{i}.png").write_bytes(row)
    status, out, err = call_cli("evaluate", run, "--data.path", tmp_path / "plain", "--json")
    assert status == 0 and json.loads(out)["images"] == 9, err  # a folder is not streamed because the run's data were


@pytest.mark.parametrize(
    ("label", "options", "sentence"),
    [
        ("0,1", {}, "0,1 is no label: an image has one"),
        ("-1", {}, "-1 is no label"),
        ("0.5", {}, "0.5 is no label"),
        ("1000000000", {}, "classes at most"),
        ("1", {"group_column": "patient"}, "--data.group_column is not read from tar files"),
        ("1", {"label_separator": ";"}, "--data.label_separator is not read from tar files"),
    ],
)
def test_labels_that_are_none(label: str, options: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar", "w") as shard:
        for i, row in enumerate(pictures(16, 4, 0)):
            add(shard, f"{i}.png", row)
            add(shard, f"{i}.cls", (label if i else "0").encode())
    with pytest.raises(UserError, match=sentence):
        opened(tmp_path, "webdataset", tmp_path / "cache", **options)


def test_json_beside_a_label_is_not_asked_for_one(tmp_path: Path) -> None:
    """As sets are published: the label in .cls, and what else is known of the image in .json."""
    with tarfile.open(tmp_path / "all.tar", "w") as shard:
        for i, row in enumerate(pictures(16, 12, 0)):
            add(shard, f"{i}.json", json.dumps({"width": 16, "url": "x"}).encode())
            add(shard, f"{i}.png", row)
            add(shard, f"{i}.cls", str(i % 3).encode())
    assert opened(tmp_path, "webdataset", tmp_path / "cache", stream=True).classes == ("0", "1", "2")


def test_a_key_that_is_named_is_of_json(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar", "w") as shard:
        for i, row in enumerate(pictures(16, 12, 0)):
            add(shard, f"{i}.png", row)
            add(shard, f"{i}.cls", b"0")
            add(shard, f"{i}.json", json.dumps({"fine": CLASSES[i % 3]}).encode())
    data = opened(tmp_path, "webdataset", tmp_path / "cache", label_column="fine", stream=True)
    assert data.classes == CLASSES


def test_tar_files_are_read_without_streaming_too(tmp_path: Path) -> None:
    folder = write_tar(tmp_path / "set", 16, "json")
    status, out, err = call_cli("data", folder)
    assert status == 0 and "ant 20, bee 20, cow 20" in out and "classes named by classes.txt" in out, out + err
    assert "sizes: 16×16 (72)" in out
    status, _, err = call_cli("train", *TRAIN, "--data.path", folder, "--run", tmp_path / "run")
    assert status == 0 and "ant 20" in err, err


def test_labels_by_name_and_other_members(tmp_path: Path) -> None:
    rows = pictures(16, 12, 0)
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set/all.tar", "w") as shard:
        for i, row in enumerate(rows):
            add(shard, f"{i}.jpg.txt", b"a note")
            add(shard, f"{i}.json", json.dumps({"species": CLASSES[i % 3], "x": 1}).encode())
            add(shard, f"{i}.png", row)
            add(shard, f"{i}.seg.png", row)
    given = {"label_column": "species", "image_column": "png", "stream": True}
    data = opened(tmp_path / "set", "webdataset", tmp_path, **given)
    assert data.classes == CLASSES and len(data.train) + len(data.test) == 12
    for change, sentence in (
        ({"image_column": ""}, "several images, png, seg.png: which is meant? --data.image_column png"),
        ({"label_column": ""}, "cannot be read (no label under cls, label, class"),
    ):
        with pytest.raises(Exception, match=sentence.replace("(", r"\(").replace("?", r"\?")):
            opened(tmp_path / "set", "webdataset", tmp_path, **{**given, **change})


def test_mistakes(shards: dict[str, Path], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in CLASSES:
        (photos / name).mkdir(parents=True)
        for i, row in enumerate(pictures(16, 6, 0)):
            (photos / name / f"{i}.png").write_bytes(row)
    bare, cut, packed = (tmp_path / name for name in ("bare", "cut", "packed"))
    for folder in (bare, cut, packed):
        folder.mkdir()
    with tarfile.open(bare / "a.tar", "w") as shard:
        add(shard, "1.png", pictures(16, 1, 0)[0])
    whole = (shards["webdataset"] / "train-00000.tar").read_bytes()
    (cut / "train.tar").write_bytes(whole[: len(whole) // 2])
    with tarfile.open(packed / "a.tar", "w:gz") as shard:
        add(shard, "1.png", pictures(16, 1, 0)[0])
    for path, more, sentence in (
        (photos, [], "data.stream reads parquet files and webdataset's tar files"),
        (shards["parquet"], ["--data.on_error=skip"], "data.stream does not: leave out one"),
        (shards["parquet"], ["--train.balance=sampler"], "--train.balance weights goes with it"),
        (bare, [], "the image 1 in"),
        (cut, [], "cannot read the shard"),
        (packed, [], "is it a tar file, not compressed?"),
    ):
        status, _, err = call_cli(
            "train", *TRAIN, "--data.path", path, "--data.stream=true", *more, "--run", tmp_path / "run"
        )
        assert status == 2 and sentence in err, (path, err)
