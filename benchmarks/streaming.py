"""Images a second of an epoch's batches: from the cache, and streamed from parquet and tar shards of the same images.

    python benchmarks/streaming.py PARQUET_FOLDER WORK_FOLDER [images]

The folder holds CIFAR-10 or another set as parquet files. Its training images are written once as tar files of 1,000
and as parquet files with row groups of 1,000, into WORK_FOLDER; then every way is read in turn, five times, after one
epoch that is not timed. One JSON object on standard output: medians, and each way's ratio to the cache.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dasvit.config import AugmentConfig, DataConfig
from dasvit.data import Loader, load_data, train_transform
from dasvit.data.sources import find_source

SHARD, BATCH, ROUNDS = 1000, 64, 5


def write_shards(source: str, folder: Path, most: int) -> None:
    """Write the first training images of a parquet set as tar files and as parquet files of small row groups."""
    content = find_source(DataConfig(name="parquet", path=source)).read()
    train = content.train
    assert train is not None
    train = train.select(np.arange(min(most, len(train.labels))))
    rows: list[tuple[bytes, int]] = []
    for (_, encoded), label in zip(train.records, train.labels.tolist(), strict=True):
        assert isinstance(encoded, bytes)
        rows.append((encoded, label))
    for kind in ("tar", "parquet"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(rows), SHARD)):
        part = rows[start : start + SHARD]
        with tarfile.open(folder / "tar" / f"train-{number:05d}.tar", "w") as shard:
            for place, (image, label) in enumerate(part):
                for ending, data in (("png", image), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{start + place:08d}.{ending}")
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))
    image = pa.array([{"bytes": data, "path": None} for data, _ in rows])
    table = pa.table({"image": image, "label": pa.array([label for _, label in rows])})
    pq.write_table(table, folder / "parquet" / "train.parquet", row_group_size=SHARD)


def main(source: str, work: str, most: int = 20_000) -> None:
    folder = Path(work)
    if not (folder / "parquet").exists():
        write_shards(source, folder, most)
    augment = AugmentConfig(crop_padding=4, flip=0.5)
    ways = {
        "cache": DataConfig(name="parquet", path=str(folder / "parquet"), cache=str(folder / "cache")),
        "parquet": DataConfig(name="parquet", path=str(folder / "parquet"), stream=True),
        "tar": DataConfig(name="webdataset", path=str(folder / "tar"), stream=True),
    }
    loaders, opening = {}, {}
    for name, config in ways.items():
        began = time.perf_counter()
        data = load_data(config, 32, 0)
        opening[name] = time.perf_counter() - began
        transform = train_transform(augment, 32, data.train.size)
        loaders[name] = Loader(
            data.train, None, batch_size=BATCH, transform=transform, seed=0, shuffle=True, drop_last=True
        )
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in range(ROUNDS + 1):
        for name, loader in loaders.items():
            loader.set_epoch(epoch)
            began = time.perf_counter()
            images = sum(len(labels) for _, labels in loader)
            if epoch:
                speeds[name].append(images / (time.perf_counter() - began))
    median = {name: round(statistics.median(found), 1) for name, found in speeds.items()}
    ratio = {name: round(median[name] / median["cache"], 3) for name in ways}
    found = {"images": len(loaders["cache"].batches.indices), "images_per_second": median, "ratio_to_cache": ratio}
    print(
        json.dumps({**found, "seconds_to_open": {name: round(value, 2) for name, value in opening.items()}}, indent=2)
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
