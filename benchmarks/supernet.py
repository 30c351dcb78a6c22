"""Can the weights of a supernet rank cells, give them a start, or teach alphas anything?

    python benchmarks/supernet.py DIR OUT MEASURED [train|rank|start|alphas ...]

MEASURED holds the cells of `benchmarks/rungs.py`, trained alone: the truth that every score is held against.

train   a supernet at full width and depth, all tokens, no weights shared between operations, under strict fairness
        (FairNAS, Chu et al. 2021, arXiv:1907.01845): an update sums the gradients of as many paths as there are
        operations, and every operation of an edge stands in one of them. 5,500 updates of eleven paths of 32 images:
        forty-eight times a cell's training. Saved after every 1,100 updates; the same command goes on there.
rank    each saved supernet's loss for every cell, on the images that `rungs.py` judges by.
start   every cell's network inherits the supernet's weights and trains for 100 steps.
alphas  a supernet for each depth of 2 and 6 and each share of tokens of 0.5 and 1 (2,200 updates; the first one
        where it fits), frozen; alphas by straight-through Gumbel on other training images, two seeds each, 2,000 steps.

Prints one JSON object with Kendall's tau of each score. About five hours on one core with bfloat16 units.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.api.recipe import make_config
from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Space
from dasvit.data import Data, ImageSet, Loader, Preprocess, load_data
from dasvit.models.baselines import make_network
from dasvit.runtime.distributed import Runtime, reseed
from dasvit.search.supernet import ForwardMode, Supernet
from dasvit.training.evaluation import evaluate
from dasvit.training.loop import training_loader
from rungs import SEED, split

UPDATES, EVERY, SHORT = 5_500, 1_100, 2_200  # of eleven paths each: 60,500, 12,100 and 24,200
START_STEPS = (50, 100)
ALPHA_STEPS, ALPHA_SEEDS = 2_000, (0, 1)
BATCH = 32


class Bench:
    """Recipe, images and cells that all parts share."""

    def __init__(self, path: str, measured: str) -> None:
        self.config = make_config("cifar10-study", {"name": "cifar10", "path": path}, {"runtime.seed": SEED})
        self.data, self.val = split(load_data(self.config.data, self.config.model.image_size, 0))
        self.runtime = Runtime(self.config.runtime, "bfloat16")
        self.space = Space.from_config(self.config.space)
        files = sorted(Path(measured).glob("cell*.json"))
        self.records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        self.cells = [Genotype.from_ops(self.space.nodes, record["ops"]) for record in self.records]
        self.preprocess = Preprocess(self.config.model.image_size)

    def tau(self, scores: list[float]) -> float:
        """Return Kendall's tau of the cells' scores, larger is better, with their test accuracies."""
        truth = [record["test_top1"] for record in self.records]
        return round(float(stats.kendalltau(scores, truth).statistic), 3)

    def batches(self, seed: int, data: Data | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented training batches, epoch after epoch."""
        config = replace(self.config, runtime=replace(self.config.runtime, seed=seed))
        loader = training_loader(data or self.data, config, self.runtime)
        epoch = 0
        while True:
            loader.set_epoch(epoch)
            yield from loader
            epoch += 1

    def loss(self, network: nn.Module) -> float:
        """Return the loss on the images that cells are judged by."""
        return evaluate(network, self.preprocess, in_order(self.val), self.runtime, 10).loss

    def supernet(self, layers: int, ratio: float) -> Supernet:
        """Return a new supernet of the target's width."""
        model, tokens = self.config.model, replace(self.config.search.tokens, ratio=ratio)
        sizes: Any = {"image_size": model.image_size, "patch_size": model.patch_size, "dim": model.width}
        return Supernet(self.space, self.space.everything(), **sizes, layers=layers, num_classes=10, tokens=tokens)

    def logits(self, network: nn.Module, images: Tensor, *args: Any) -> Tensor:
        """Return logits [B, 10] in float32."""
        with self.runtime.autocast():
            out: Tensor = network(images, *args)
        return out.float()


def in_order(images: ImageSet) -> Loader:
    """Return the images in order, not augmented."""
    order = np.arange(len(images))
    return Loader(images, order, batch_size=250, transform=None, seed=0, shuffle=False, drop_last=False)


def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW with the study's numbers."""
    return torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)


def set_rate(optimizer: torch.optim.Optimizer, done: float, warmup: float) -> None:
    """Set the learning rate of a share of the training: linear warm-up, cosine to 0."""
    share = min(1.0, done / warmup) if done < warmup else (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 * share


def one_hot(ops: list[int], operations: int) -> Tensor:
    """Return edge weights [E, O] of 1 for the chosen operations."""
    return F.one_hot(torch.tensor(ops), operations).float()


def train_supernet(bench: Bench, folder: Path, layers: int, ratio: float, updates: int) -> list[Path]:
    """Train a supernet under strict fairness; return its saved states, one after every EVERY updates."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"updates{done:04d}.pt" for done in range(EVERY, updates + 1, EVERY)]
    done = sum(file.exists() for file in files)
    if done == len(files):
        return files
    torch.manual_seed(SEED)
    net, edges, ops = bench.supernet(layers, ratio), len(bench.space.edges), len(bench.space.operations)
    optimizer = optimizer_of(net)
    if done:
        state = torch.load(files[done - 1], weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
    batches = bench.batches(SEED + done)
    net.train()
    bench.preprocess.train()
    for update in range(done * EVERY, updates):
        reseed(SEED, update)
        set_rate(optimizer, (update + 1) / updates, 0.03)
        orders = torch.stack([torch.randperm(ops) for _ in range(edges)])
        for turn in range(ops):
            images, labels = next(batches)
            active = orders[:, turn].tolist()
            logits = bench.logits(net, bench.preprocess(images), one_hot(active, ops), ForwardMode(active))
            F.cross_entropy(logits, labels, label_smoothing=0.1).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (update + 1) % EVERY == 0:
            file = files[(update + 1) // EVERY - 1]
            torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file.with_suffix(".tmp"))
            os.replace(file.with_suffix(".tmp"), file)
            print(file, flush=True, file=sys.stderr)
    return files


def loaded(bench: Bench, file: Path, layers: int, ratio: float) -> Supernet:
    """Return a supernet that was saved."""
    net = bench.supernet(layers, ratio)
    net.load_state_dict(torch.load(file, weights_only=True)["net"])
    return net


class OneCell(nn.Module):
    """A supernet as the network of one cell."""

    def __init__(self, net: Supernet, ops: list[int]) -> None:
        super().__init__()
        self.net, self.ops = net, ops

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 10]."""
        out: Tensor = self.net(images, one_hot(self.ops, len(self.net.space.operations)), ForwardMode(self.ops))
        return out


def indices(bench: Bench, cell: Genotype) -> list[int]:
    """Return a cell's operations by their places."""
    return [bench.space.operations.index(op) for op in cell.ops]


def rank(bench: Bench, files: list[Path], layers: int = 6, ratio: float = 1.0) -> dict[str, Any]:
    """Return tau of each saved supernet's loss, and the losses of the last."""
    found: dict[str, Any] = {}
    for file in files:
        kept = file.with_suffix(".losses.json")
        losses = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
        if len(losses) != len(bench.cells):
            net = loaded(bench, file, layers, ratio)
            losses = [bench.loss(OneCell(net, indices(bench, cell))) for cell in bench.cells]
            kept.write_text(json.dumps(losses), encoding="utf-8")
        found[file.stem] = bench.tau([-loss for loss in losses])
    return {**found, "mean_loss": round(float(np.mean(losses)), 3)}


def start(bench: Bench, file: Path, folder: Path) -> dict[str, Any]:
    """Return tau of what cells reach some steps after they have inherited the supernet's weights."""
    folder.mkdir(exist_ok=True)
    net, rows = loaded(bench, file, 6, 1.0), []
    for place, cell in enumerate(bench.cells):
        kept = folder / f"cell{place:02d}.json"
        if not kept.exists():
            kept.write_text(json.dumps(short_training(bench, net, cell)), encoding="utf-8")
        rows.append(json.loads(kept.read_text(encoding="utf-8")))
    return {str(step): bench.tau([-row[str(step)] for row in rows]) for step in START_STEPS}


def short_training(bench: Bench, net: Supernet, cell: Genotype) -> dict[str, float]:
    """Return a cell's losses at START_STEPS, from the supernet's weights."""
    torch.manual_seed(SEED)
    network = make_network(cell, bench.config.model, 10)
    network.load_state_dict(net.state_of(cell))
    optimizer, batches, found = optimizer_of(network), bench.batches(SEED), {}
    for step in range(1, START_STEPS[-1] + 1):
        network.train()
        bench.preprocess.train()
        reseed(SEED, step)
        set_rate(optimizer, step / START_STEPS[-1], 0.2)
        images, labels = next(batches)
        loss = F.cross_entropy(bench.logits(network, bench.preprocess(images)), labels, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step in START_STEPS:
            found[str(step)] = bench.loss(network)
    return found


def alphas(bench: Bench, file: Path, layers: int, ratio: float, seed: int) -> dict[str, Any]:
    """Return tau of the summed logarithms of a cell's probabilities under alphas learned on a frozen supernet."""
    kept = file.with_name(f"alphas{seed}.json")
    if not kept.exists():
        net = loaded(bench, file, layers, ratio).eval().requires_grad_(False)
        alpha = (1e-3 * torch.randn(len(bench.space.edges), len(bench.space.operations))).requires_grad_()
        optimizer = torch.optim.Adam([alpha], lr=1e-2, betas=(0.5, 0.999))
        batches = bench.batches(seed, replace(bench.data, train=bench.val))
        bench.preprocess.eval()
        for step in range(ALPHA_STEPS):
            reseed(seed, step)
            hot = F.gumbel_softmax(alpha, tau=5 - 4.9 * step / ALPHA_STEPS, hard=True)
            images, labels = next(batches)
            logits = bench.logits(net, bench.preprocess(images), hot, ForwardMode(hot.argmax(1).tolist()))
            F.cross_entropy(logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        kept.write_text(json.dumps(alpha.detach().log_softmax(1).tolist()), encoding="utf-8")
    table = np.array(json.loads(kept.read_text(encoding="utf-8")))
    scores = [float(table[np.arange(len(table)), indices(bench, cell)].sum()) for cell in bench.cells]
    return {"tau": bench.tau(scores), "largest_probability": round(float(np.exp(table).max(1).mean()), 2)}


def main(path: str, out: str, measured: str, *parts: str) -> None:
    """Do the parts, and print what they found."""
    bench, folder = Bench(path, measured), Path(out)
    found: dict[str, Any] = {"cells": len(bench.cells)}
    parts = parts or ("train", "rank", "start", "alphas")
    first = folder / "layers6-tokens1"
    files = train_supernet(bench, first, 6, 1.0, UPDATES)
    if "rank" in parts:
        found["rank"] = rank(bench, files)
    if "start" in parts:
        found["start"] = start(bench, files[-1], folder / "start")
    for layers, ratio in ((6, 1.0), (2, 1.0), (2, 0.5), (6, 0.5)) if "alphas" in parts else ():
        name = f"layers{layers}-tokens{ratio:g}"
        updates = UPDATES if folder / name == first else SHORT
        states = train_supernet(bench, folder / name, layers, ratio, updates)
        one = {"rank": rank(bench, states[-1:], layers, ratio)}
        for seed in ALPHA_SEEDS:
            one[f"alphas {seed}"] = alphas(bench, states[-1], layers, ratio, seed)
        found[name] = one
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
