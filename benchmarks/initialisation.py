"""Train the published cell and ViT from two initialisations (method, section 15).

    python benchmarks/initialisation.py                                   # scikit-learn's digits, enlarged
    python benchmarks/initialisation.py --data FOLDER --limit 2000        # images in parquet files

Prints one JSON object: test top-1 of every network after a few epochs, and the standard deviation of the
tokens behind the first and the last layer before training. The question: cells without a residual
lose the signal with ViT's usual truncated normal; how much does that cost?
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.genotype import load_genotype
from dasvit.config import DataConfig, ModelConfig
from dasvit.models.baselines import make_model, make_network

Split = tuple[Tensor, Tensor, Tensor, Tensor]
CELL = load_genotype("dasvit_cifar10")


def digits() -> Split:
    """Return images [N, 3, 16, 16] and labels [N], for training and for testing."""
    content = load_digits()
    images = torch.tensor(content.images, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    images = F.interpolate(images, size=(16, 16), mode="bilinear") / 8 - 1
    labels = torch.tensor(content.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1400], order[1400:]
    return images[train], labels[train], images[test], labels[test]


def parquet(folder: str, limit: int) -> Split:
    """Return images [N, 3, 32, 32] and labels [N] from a folder of parquet files."""
    from dasvit.data import ImageSet, load_data

    def tensors(images: ImageSet) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(images.images[np.arange(len(images))]).permute(0, 3, 1, 2)
        return pixels.float() / 127.5 - 1, torch.from_numpy(np.array(images.labels))

    data = load_data(DataConfig(name="parquet", path=folder, limit=limit, eval_limit=1000), 32, seed=0)
    return (*tensors(data.train), *tensors(data.test))


def xavier(module: nn.Module) -> None:
    """Initialise a linear layer by Xavier uniform."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def truncated(module: nn.Module) -> None:
    """Initialise a linear layer by ViT's truncated normal of 0.02."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def zero_head(module: nn.Module) -> None:
    """Initialise the network's layers by Xavier uniform, and its head (told by its ten outputs) by zeros."""
    xavier(module)
    if isinstance(module, nn.Linear) and module.out_features == 10:
        nn.init.zeros_(module.weight)


RUNS: dict[str, tuple[str, Callable[[nn.Module], None]]] = {
    "vit, truncated normal": ("vit", truncated),
    "vit, xavier": ("vit", xavier),
    "cell, truncated normal": ("cell", truncated),
    "cell, xavier": ("cell", xavier),
    "cell, xavier, zero head": ("cell", zero_head),
}


def train(model: nn.Module, data: Split, epochs: int) -> float:
    """Train with AdamW and a cosine; return the top-1 on the test images, in percent."""
    images, labels, test_images, test_labels = data
    batch, steps = 64, epochs * (len(labels) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        place = step * batch % (len(labels) // batch * batch)
        if place == 0:
            order = torch.randperm(len(labels))
        rows = order[place : place + batch]
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        guesses = torch.cat([model(chunk).argmax(1) for chunk in torch.split(test_images, 256)])
    return round((guesses == test_labels).float().mean().item() * 100, 1)


def signal(model: nn.Module, images: Tensor) -> list[float]:
    """Return the standard deviation of what the first and the last layer give."""
    spread: list[float] = []
    blocks = list(model.get_submodule("blocks").children())
    hooks = [
        block.register_forward_hook(lambda _m, _i, out: spread.append(round(out.std().item(), 4)))
        for block in (blocks[0], blocks[-1])
    ]
    with torch.inference_mode():
        model(images[:64])
    for hook in hooks:
        hook.remove()
    return spread


def main() -> None:
    """Measure, and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="folder of parquet files, 32 px; empty: digits")
    parser.add_argument("--limit", type=int, default=2000, help="training images taken from it")
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    data = parquet(args.data, args.limit) if args.data else digits()
    config = ModelConfig(image_size=data[0].shape[-1], patch_size=4, width=128, layers=6, heads=4)
    rows: dict[str, dict[str, object]] = {}
    for name, (kind, init) in RUNS.items():
        torch.manual_seed(0)
        start = time.perf_counter()
        model = make_model("vit", config, 10) if kind == "vit" else make_network(CELL, config, 10)
        model.apply(init)
        rows[name] = {"first_and_last_layer_std": signal(model, data[0])}
        rows[name] |= {
            "top1": train(model, data, args.epochs),
            "seconds": round(time.perf_counter() - start, 1),
        }
        print(name, rows[name], file=sys.stderr)
    machine = platform.processor() or platform.machine()
    print(json.dumps({"images": len(data[1]), "epochs": args.epochs, "machine": machine, "runs": rows}, indent=2))


if __name__ == "__main__":
    main()
