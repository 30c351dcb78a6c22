"""How early does a candidate's training say how good its cell is? Kendall's tau at several steps of one training.

    python benchmarks/rungs.py DIR OUT [CELLS [DATA]]

trains CELLS (48) cells of `cifar10-study` within a band of cost (40.0 to 48.3M multiply-adds) as the study does, on
20,000 images of the CIFAR-10 in DIR, and looks at 4,000 other training images after 50 to 1,250 steps. What a cell
reaches on the test images at the end is held against what was seen before. DATA tiny: the same cells on Tiny ImageNet,
64 pixels in patches of 8. One file a cell in OUT; the same command goes on with the cells that are not there, and
prints one JSON object. About two minutes a cell on one core with bfloat16 units.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.linear_model import BayesianRidge

from dasvit.api.recipe import make_config
from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.data import Data, ImageSet, Loader, Preprocess, load_data
from dasvit.models.baselines import make_network, prefer_fast_attention
from dasvit.runtime.distributed import Runtime, reseed, seed_everything
from dasvit.runtime.progress import Reporter
from dasvit.search.cost import make_budget
from dasvit.search.expected import make_features
from dasvit.search.sampling import Cells
from dasvit.search.surrogate import LinearModel
from dasvit.training.evaluation import evaluate
from dasvit.training.loop import TrainState, make_loss, training_loader, weight_step
from dasvit.training.steps import Steps

STEPS = (50, 100, 200, 312, 624, 936, 1250)
SEED = 200
BAND = (40_000_000, 48_300_000)
TRAIN, VAL = 20_000, 4_000
"""Images."""
DATA: dict[str, dict[str, Any]] = {
    "cifar10": {},
    "tiny": {"data.name": "parquet", "model.image_size": 64, "model.patch_size": 8},
}
"""What differs from the recipe, by the name of the data."""


def draw(config: Config, count: int) -> list[Genotype]:
    """Return different cells within the band of cost, each drawn with the same probability."""
    budget = replace(make_budget(config, 10), max_macs=BAND[1])
    pool, chance = Cells(Space.from_config(config.space), 2, budget, BAND[0]), random.Random(SEED)
    cells: list[Genotype] = []
    while len(cells) < count:
        cell = pool.draw(chance)
        cells += [cell] if cell not in cells else []
    return cells


def split(data: Data) -> tuple[Data, ImageSet]:
    """Return the data with as many training images of every class, and others of every class."""
    chance, train, val = np.random.default_rng(SEED), [], []
    classes = len(data.classes)
    most, others = TRAIN // classes, VAL // classes
    for label in range(classes):
        rows = chance.permutation(np.flatnonzero(data.train.labels == label))
        train.append(rows[:most])
        val.append(rows[most : most + others])
    chosen = replace(data, train=data.train.select(np.sort(np.concatenate(train))))
    return chosen, data.train.select(np.sort(np.concatenate(val)))


def curve(cell: Genotype, config: Config, data: Data, val: ImageSet) -> dict[str, Any]:
    """Train a cell's network, and return what was seen on the way and at the end."""
    seed_everything(SEED)
    runtime = Runtime(config.runtime, "bfloat16")
    classes = len(data.classes)
    network = make_network(cell, config.model, classes)
    prefer_fast_attention(network, runtime.device, torch.bfloat16)
    loader, preprocess = training_loader(data, config, runtime), Preprocess(config.model.image_size)
    state = TrainState(network, config.train, len(loader), runtime, Steps(runtime, Reporter(quiet=True)))
    _, criterion = make_loss(config.train, classes)
    rows, seconds = [], 0.0

    def judged(images: ImageSet) -> Any:
        order = np.arange(len(images))
        batches = Loader(images, order, batch_size=250, transform=None, seed=0, shuffle=False, drop_last=False)
        return evaluate(network, preprocess, batches, runtime, classes)

    for state.epoch in range(config.train.epochs):
        state.step = 0
        loader.set_epoch(state.epoch)
        for images, labels in loader:
            start = time.process_time()
            network.train()
            preprocess.train()
            reseed(SEED, state.done, 0)
            weight_step(state, preprocess(images), labels, criterion, config, runtime)
            state.step += 1
            state.schedule.step_update(state.done)
            seconds += time.process_time() - start
            if state.done in STEPS:
                seen, total = judged(val), float(state.metrics.means()["train_loss"]) * state.done
                row = {"step": state.done, "seconds": seconds, "train_loss_sum": total}
                rows.append({**row, "val_loss": seen.loss, "val_top1": seen.top1})
    seen = judged(data.test)
    return {"ops": list(cell.ops), "rows": rows, "test_top1": seen.top1, "test_loss": seen.loss}


def ratios(ops: list[str], kinds: tuple[str, ...]) -> float:
    """Return the sum of a cell's ratios of some kinds: what counting already knows."""
    return sum(float(op.split("_")[1]) for op in ops if op.startswith(kinds))


def summarise(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return Kendall's tau of what was seen at each step, and of counting, with the accuracies at the end."""
    truth = [cell["test_top1"] for cell in cells]

    def tau(scores: list[float]) -> float:
        return round(float(stats.kendalltau(scores, truth).statistic), 2)

    steps = {}
    for place, step in enumerate(STEPS):
        seen = [cell["rows"][place] for cell in cells]
        steps[step] = {
            "val_loss": tau([-row["val_loss"] for row in seen]),
            "val_top1": tau([row["val_top1"] for row in seen]),
            "train_loss_sum": tau([-row["train_loss_sum"] for row in seen]),
            "seconds": round(float(np.mean([row.get("seconds", row.get("cpu_s")) for row in seen])), 1),
        }
    counting = {
        "shift ratios": tau([ratios(cell["ops"], ("shift",)) for cell in cells]),
        "MLP and shift ratios": tau([ratios(cell["ops"], ("shift", "mlp")) for cell in cells]),
    }
    about = {"mean": float(np.mean(truth)), "sd": float(np.std(truth, ddof=1)), "cells": len(cells)}
    return {**about, "tau_of_counting": counting, "tau_by_step": steps, "tau_of_others": taught(cells, truth, tau)}


def taught(
    cells: list[dict[str, Any]], truth: list[float], tau: Callable[[list[float]], float]
) -> dict[str, dict[str, float]]:
    """Return how well what other cells reached at a step ranks a cell: each is left out once, and expected by the rest.

    By the model of a search's candidates; by the same with the cell's own loss at that step taken in (its posterior);
    and by scikit-learn's Bayesian ridge on the same features.
    """
    space = Space.from_config(make_config("cifar10-study").space)
    features = make_features(make_config("cifar10-study"), 10, None)
    genotypes = [Genotype.from_ops(space.nodes, cell["ops"]) for cell in cells]
    rows, found = features.rows(genotypes), {}
    for place, step in enumerate(STEPS):
        losses = np.array([cell["rows"][place]["val_loss"] for cell in cells])
        model, ridge = [], []
        for left in range(len(cells)):
            others = np.arange(len(cells)) != left
            known = [genotype for genotype, keep in zip(genotypes, others, strict=True) if keep]
            model.append(-float(LinearModel(features, known, losses[others]).predict([genotypes[left]])[0][0]))
            ridge.append(-float(BayesianRidge().fit(rows[others], losses[others]).predict(rows[[left]])[0]))
        whole = LinearModel(features, genotypes, losses)
        own = (-whole.predict(genotypes)[0]).tolist()
        found[str(step)] = {"model": tau(model), "model and own loss": tau(own), "ridge": tau(ridge)}
    return found


def main(path: str, out: str, count: str = "48", name: str = "cifar10") -> None:
    """Train the cells that are not there yet, and print the summary."""
    options = {"data.path": path, "data.limit": 0, "runtime.seed": SEED}
    config = make_config("cifar10-study", options=options | DATA[name])
    data, val = split(load_data(config.data, config.model.image_size, 0))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for place, cell in enumerate(draw(make_config("cifar10-study"), int(count))):
        files.append(folder / f"cell{place:02d}.json")
        if not files[-1].exists():
            files[-1].write_text(json.dumps(curve(cell, config, data, val)), encoding="utf-8")
    print(json.dumps(summarise([json.loads(file.read_text(encoding="utf-8")) for file in files])))


if __name__ == "__main__":
    main(*sys.argv[1:])
