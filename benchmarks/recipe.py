"""What does each part of a training recipe earn? One change at a time, on images that no result is reported on.

    python benchmarks/recipe.py DIR OUT [NAME ...] [--work FOLDER]

trains networks for 10 epochs of 20,000 images of the CIFAR-10 in DIR, and evaluates on 5,000 other training images:
`dasvit_shift` and the ViT with three learning rates each, then `dasvit_shift` with one change of the recipe at a time,
and with a convolution in place of its shift.
One file a training in OUT, NAME.json; run folders are kept in FOLDER (OUT/work). The same command goes on with what is
not there, or with those of the given NAMEs, and prints one JSON object of all files. A training takes about ten minutes
of one core with bfloat16 units, half an hour of one without (AVX2).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import dasvit
from dasvit.api.recipe import make_config
from dasvit.cell.genotype import Genotype
from dasvit.data import load_data

BASE: dict[str, Any] = {
    "train.epochs": 10,
    "train.batch_size": 128,
    "train.smoothing": 0.1,
    "train.eval_every": 10,
    "train.optim.lr": 2e-3,
    "train.optim.weight_decay": 0.05,
    "train.optim.warmup_epochs": 1.0,
    "train.optim.clip_grad": 1.0,
    "train.augment.crop_padding": 4,
    "train.augment.flip": 0.5,
    "runtime.precision": "auto",
}
NETWORKS = ("dasvit_shift", "vit")
CONV = Genotype.from_ops(2, ["mlp_0.5", "conv_2", "msa_4", "mlp_1", "zero"])
"""`dasvit_shift` with a convolution in place of its shift."""
RATES = (1e-3, 2e-3, 4e-3)
CHANGES: dict[str, dict[str, Any]] = {
    "conv-stem": {"model.stem": "conv"},
    "mean-pooling": {"model.pool": "avg"},
    "conv-stem-mean-pooling": {"model.stem": "conv", "model.pool": "avg"},
    "batch-64": {"train.batch_size": 64},
    "ema": {"train.ema": 0.998},
    "no-smoothing": {"train.smoothing": 0.0},
    "drop-path": {"train.drop_path": 0.1},
    "decay-0.2": {"train.optim.weight_decay": 0.2},
    "no-flip": {"train.augment.flip": 0.0},
    "no-crop": {"train.augment.crop_padding": 0},
    "randaugment": {"train.augment.randaugment": "rand-m5-n2-mstd0.5-inc1"},
    "erasing": {"train.augment.erasing": 0.25},
    "mixup": {"train.augment.mixup": 0.2},
    "cutmix": {"train.augment.cutmix": 1.0},
}
SEED = 300
TRAIN, VAL = 2000, 500
"""Images of a class."""


def split(folder: str) -> dict[str, Any]:
    """Return training images and others to judge by, both of CIFAR-10's training set."""
    config = make_config("cifar10-study", options={"data.path": folder, "data.limit": 0})
    images = load_data(config.data, 32, SEED).train
    chance, train, val = np.random.default_rng(SEED), [], []
    for label in range(10):
        rows = chance.permutation(np.flatnonzero(images.labels == label))
        train.append(rows[:TRAIN])
        val.append(rows[TRAIN : TRAIN + VAL])

    def arrays(rows: list[Any]) -> tuple[Any, Any]:
        chosen = np.sort(np.concatenate(rows))
        return images.images[chosen], images.labels[chosen]

    return {"train": arrays(train), "test": arrays(val)}


def trainings() -> dict[str, tuple[str | Genotype, dict[str, Any]]]:
    """Return the trainings by name: a network and what differs from BASE."""
    pooled: dict[str, Any] = {"model.stem": "cct", "model.pool": "avg", "model.layers": 5}
    convs: dict[str, tuple[str | Genotype, dict[str, Any]]] = {"conv": (CONV, {}), "conv-cct": (CONV, pooled)}
    rates = {f"{network}-lr-{rate:g}": (network, {"train.optim.lr": rate}) for network in NETWORKS for rate in RATES}
    return {**rates, **{name: (NETWORKS[0], change) for name, change in CHANGES.items()}, **convs}


def train(name: str, data: dict[str, Any], run: Path) -> dict[str, Any]:
    """Train by a name, or go on with it; return what it reached and costs, and the processor time of this call."""
    network, change = trainings()[name]
    start = time.process_time()
    model = dasvit.train(
        network, data, recipe="cifar10-study", run=run, seed=SEED, options={**BASE, **change}, quiet=True
    )
    reached = {key: model.result[key] for key in ("top1", "loss", "params", "macs")}
    words = network if isinstance(network, str) else " ".join(network.ops)
    return {"name": name, "network": words, "change": change, **reached, "cpu_s": round(time.process_time() - start)}


def main() -> None:
    """Train what is missing, and print what every training reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dir", type=Path, help="folder with CIFAR-10's parquet files")
    parser.add_argument("out", type=Path, help="where the files go")
    parser.add_argument("names", nargs="*", help="trainings by name (all of them)")
    parser.add_argument("--work", type=Path, help="where run folders go")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in args.names or trainings() if not (args.out / f"{name}.json").exists()]
    data = split(str(args.dir)) if missing else {}
    for name in missing:
        found = train(name, data, (args.work or args.out / "work") / name)
        (args.out / f"{name}.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
        print(name, found["top1"], file=sys.stderr, flush=True)
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(args.out.glob("*.json"))]
    print(json.dumps({row["name"]: {key: row[key] for key in ("top1", "loss", "macs")} for row in rows}, indent=1))


if __name__ == "__main__":
    main()
