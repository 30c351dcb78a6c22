"""The speed and memory of search and training, against what a user would otherwise run: `make bench`.

    python benchmarks/bench.py                     # CPU, and the GPU where there is one; bfloat16 and float32
    python benchmarks/bench.py --device cpu --precisions bfloat16 --repeats 5

Prints one JSON object. Every speed is a ratio of medians over repetitions that alternate between the two sides in one
run; figures over several sizes are geometric means. A search step is an alpha step and a weight step with their
optimisers, ours the search loop's own (`search/probe.py`); the same fused AdamW on both sides.

* search_speedup_*: time of plain DARTS (`search/plain_darts.py`, always with all tokens) over ours at ratio 1 and 0.5.
* activation_ratio_*: bytes that autograd keeps at the end of the forward pass, ours over plain, parameters not counted,
  the larger of the two steps on each side.
* train_speedup_vs_vit: images/s of the published cell over timm's ViT, the same width, depth, batch and optimiser.
  train_speedup_vs_fast_vit: the same, the ViT's attention set to the path that is faster here.
* input_headroom: images/s of the input pipeline alone over what a search step consumes, the smallest of three recipes.
* On a GPU also the share of the measured bfloat16 matrix rate, and the paper's search at batch 64.
"""

import argparse
import json
import math
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dasvit.cell.genotype import PUBLISHED
from dasvit.cell.space import Space
from dasvit.config import Config, ModelConfig, OptimConfig, SpaceConfig
from dasvit.config import recipe as recipes
from dasvit.data import Loader, Preprocess, load_data, train_transform
from dasvit.data.image_set import HeldPixels, ImageSet
from dasvit.latency.measure import processor_name
from dasvit.models.baselines import make_network, prefer_fast_attention
from dasvit.runtime.distributed import bfloat16_slowdown
from dasvit.search.bilevel import frozen
from dasvit.search.loop import train_loss, val_loss
from dasvit.search.plain_darts import PlainStep, PlainSupernet
from dasvit.search.probe import LoneRuntime, SearchStep
from dasvit.session import SLOW
from dasvit.training.optim import make_optimizer

CLASSES, LAYERS, PATCH = 10, 2, 4
SPACE = Space.from_config(SpaceConfig())
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
RATIOS = {"ours_rho1": 1.0, "ours_rho05": 0.5}
Step = Callable[[], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """Width D, side of the grid of patches, and batch B."""

    dim: int
    grid: int
    batch: int

    @property
    def tokens(self) -> int:
        """N, the class token included."""
        return self.grid**2 + 1

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return self.grid * PATCH


SIZES = (Size(192, 8, 64), Size(384, 14, 16), Size(768, 14, 8))


def saved_bytes(step: SearchStep | PlainStep) -> dict[str, int]:
    """Return what autograd keeps for the backward pass of either step, parameters not counted."""
    if isinstance(step, PlainStep):
        train, val = step.batches
        return {
            "alpha": saved(lambda: step.loss(val, step.alpha), list(step.supernet.parameters())),
            "weights": saved(lambda: step.loss(train, step.alpha.detach()), list(step.supernet.parameters())),
        }
    stage, (train, val) = step.stage, step.batches
    weights = stage.edge_weights().detach()
    with frozen(stage.params):
        alpha = saved(val_loss(stage, val), stage.params)
    return {"alpha": alpha, "weights": saved(train_loss(stage, train, lambda: weights), stage.params)}


def saved(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> int:
    """Return the bytes that autograd keeps of a loss for its backward pass, parameters not counted."""
    owned = {p.untyped_storage().data_ptr() for p in parameters}
    storages: dict[int, int] = {}
    kept = []  # alive to the end, or a storage's address could serve twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            storages[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss()
    return sum(storages.values())


class TrainStep:
    """One step of training a network on noise."""

    def __init__(self, net: nn.Module, size: Size, device: torch.device, dtype: torch.dtype) -> None:
        self.net, self.device, self.dtype = net.to(device), device, dtype
        self.optimizer = make_optimizer(net, OptimConfig())
        self.images = torch.randn(size.batch, 3, size.side, size.side, device=device)
        self.labels = torch.arange(size.batch, device=device) % CLASSES

    def __call__(self) -> None:
        """Do a forward and a backward pass, and move the weights."""
        with autocast(self.device, self.dtype):
            logits = self.net(self.images)
        F.cross_entropy(logits.float(), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context of mixed precision; none in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def alternate(steps: dict[str, Step], device: torch.device, repeats: int) -> dict[str, float]:
    """Time the steps in turn, after one round that warms up; return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            start = now(device)
            step()
            times[name].append(now(device) - start)
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


def now(device: torch.device) -> float:
    """Return a time, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def bench_size(size: Size, device: torch.device, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """Measure search and training at one size."""
    searches = make_searches(size, device, dtype)
    saved = {kind: saved_bytes(step) for kind, step in searches.items()}
    seconds = alternate(dict(searches), device, repeats)
    del searches
    networks = make_networks(size, device, dtype)
    trainings: dict[str, Step] = {name: TrainStep(net, size, device, dtype) for name, net in networks.items()}
    trained = alternate(trainings, device, max(5, repeats))
    return {
        "dim": size.dim,
        "tokens": size.tokens,
        "batch": size.batch,
        "search_step_seconds": seconds,
        "saved_megabytes": {k: {s: b / 1e6 for s, b in v.items()} for k, v in saved.items()},
        "train_images_per_second": {name: size.batch / s for name, s in trained.items()},
    }


def make_searches(size: Size, device: torch.device, dtype: torch.dtype) -> dict[str, SearchStep | PlainStep]:
    """Return a step of plain DARTS, and ours with all tokens and with half of them, of the same weights."""
    runtime = LoneRuntime(device, lambda: autocast(device, dtype))
    ours = {
        kind: SearchStep(search_config(size, ratio), CLASSES, size.batch, runtime) for kind, ratio in RATIOS.items()
    }
    with device:
        plain = PlainSupernet(
            SPACE,
            image_size=size.side,
            patch_size=PATCH,
            dim=size.dim,
            layers=LAYERS,
            num_classes=CLASSES,
        )
    first = ours["ours_rho1"]
    plain.load_state_dict(first.stage.supernet.state_dict())
    alpha = first.stage.architecture.alpha.detach().clone().requires_grad_()
    return {"plain": PlainStep(plain, alpha, first.batches, first.config.search, runtime), **ours}


def search_config(size: Size, ratio: float) -> Config:
    """Return the recipe of a search of one stage at a size, which keeps a share of the tokens."""
    return recipes.from_dict(
        {
            "model": {"image_size": size.side, "patch_size": PATCH, "width": size.dim},
            "search": {
                "tokens": {"ratio": ratio},
                "stages": {"layers": [LAYERS], "keep": [0], "epochs": [2], "weight_epochs": [1]},
            },
        }
    )


def make_networks(size: Size, device: torch.device, dtype: torch.dtype) -> dict[str, nn.Module]:
    """Return the published cell's network, and timm's ViT as it comes and with the attention that is fast here."""
    model = ModelConfig(image_size=size.side, patch_size=PATCH, width=size.dim, layers=LAYERS, heads=size.dim // 64)
    networks: dict[str, nn.Module] = {"dasvit": make_network(PUBLISHED["dasvit_cifar10"], model, CLASSES)}
    for name in ("vit", "fast_vit"):
        networks[name] = timm.create_model(
            "vit_base_patch16_224",
            img_size=size.side,
            patch_size=PATCH,
            embed_dim=size.dim,
            depth=LAYERS,
            num_heads=model.heads,
            num_classes=CLASSES,
        )
    prefer_fast_attention(networks["fast_vit"], device, dtype)
    return networks


def summarise(sizes: list[dict[str, Any]], headroom: dict[str, Any]) -> dict[str, Any]:
    """Return the six figures, and the raw medians that they come from."""

    def mean(figure: Callable[[dict[str, Any]], float]) -> float:
        return round(statistics.geometric_mean(figure(row) for row in sizes), 3)

    def speedup(kind: str) -> float:
        return mean(lambda row: row["search_step_seconds"]["plain"] / row["search_step_seconds"][kind])

    def memory(kind: str) -> float:
        return mean(
            lambda row: max(row["saved_megabytes"][kind].values()) / max(row["saved_megabytes"]["plain"].values())
        )

    def training(rival: str) -> float:
        return mean(lambda row: row["train_images_per_second"]["dasvit"] / row["train_images_per_second"][rival])

    return {
        "search_speedup_rho1": speedup("ours_rho1"),
        "search_speedup_rho05": speedup("ours_rho05"),
        "activation_ratio_rho1": memory("ours_rho1"),
        "activation_ratio_rho05": memory("ours_rho05"),
        "train_speedup_vs_vit": training("vit"),
        "train_speedup_vs_fast_vit": training("fast_vit"),
        "input_headroom": round(min(row["headroom"] for row in headroom.values()), 2),
        "sizes": sizes,
        "input": headroom,
    }


def bench_input(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Measure the input pipeline of three recipes against their search step in the first stage."""
    noise = np.random.default_rng(0).integers(0, 256, (4096, 32, 32, 3), dtype=np.uint8)
    cifar = ImageSet(HeldPixels(noise), np.arange(len(noise)) % CLASSES)
    rows = {}
    for name in ("digits", "cifar10-small", "cifar10-paper"):
        config = recipes.from_dict(recipes.read_recipe(name))
        images = load_data(config.data, config.model.image_size, 0).train if name == "digits" else cifar
        supplied = input_rate(images, config, device)
        consumed = consumption(config, device, dtype)
        rows[name] = {"supplied": supplied, "consumed": consumed, "headroom": supplied / consumed}
    return rows


def input_rate(images: ImageSet, config: Config, device: torch.device, seconds: float = 2.0) -> float:
    """Return the images per second that reach the device ready for the network, half augmented and half not."""
    options = config.search
    transform = train_transform(options.augment, config.model.image_size, images.size)
    common: dict[str, Any] = {"batch_size": options.batch_size, "seed": 0, "shuffle": True, "drop_last": True}
    loaders = [Loader(images, None, transform=t, workers=config.runtime.workers, **common) for t in (transform, None)]
    preprocess = Preprocess(config.model.image_size).to(device)
    done, start, epoch = 0, math.inf, 0
    while True:
        for loader in loaders:
            loader.set_epoch(epoch)
        for pair in zip(*loaders, strict=True):
            for pixels, _ in pair:
                done += len(preprocess(pixels.to(device)))
            if start == math.inf:  # the first batches start the workers, and do not count
                done, start = 0, now(device)
            elif now(device) - start > seconds:
                return done / (now(device) - start)
        epoch += 1


def consumption(config: Config, device: torch.device, dtype: torch.dtype, repeats: int = 2) -> float:
    """Return the images per second that the first stage of a recipe's search consumes, where steps are fastest."""
    small = config.model.image_size < 64 or device.type == "cuda"
    batch = config.search.batch_size if small else 8  # a large batch gains nothing there
    step = SearchStep(config, CLASSES, batch, LoneRuntime(device, lambda: autocast(device, dtype)))
    return 2 * batch / alternate({"step": step}, device, repeats)["step"]


def in_fresh_process(function: Callable[..., T], *arguments: object) -> T:
    """Return what a function gives in a process of its own, which leaves no memory behind, fragmented or not."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def bench_device(device: torch.device, precisions: list[str], sizes: list[Size], repeats: int) -> dict[str, Any]:
    """Measure everything on one device."""
    figures: dict[str, Any] = {}
    for name in precisions:
        rows = []
        for size in sizes:
            rows.append(in_fresh_process(bench_size, size, device, PRECISIONS[name], repeats))
            print(f"{device} {name} D {size.dim}: {rows[-1]['search_step_seconds']}", file=sys.stderr, flush=True)
        figures[name] = summarise(rows, in_fresh_process(bench_input, device, PRECISIONS[name]))
    return figures


def bench_paper(device: torch.device, config: Config, batch: int, images: int, repeats: int = 5) -> dict[str, Any]:
    """Measure the search of a recipe stage by stage, and project the whole of it; what a GPU is asked.

    The operations that stay after pruning are taken to be the dearest, so the projection errs upwards.

    Args:
        device: Where it runs.
        config: The recipe, as cifar10-paper.
        batch: Images of a step.
        images: Training images, half of which the weights see in an epoch.
        repeats: Timed repetitions.
    """
    rate, stages, total = matrix_rate(device), [], 0.0
    space, runtime = Space.from_config(config.space), LoneRuntime(device, lambda: autocast(device, torch.bfloat16))
    for number, stage in enumerate(config.search.stages):
        dearest = len(space.operations) - stage.keep if stage.keep else 0
        alive = tuple(tuple(o >= dearest for o in range(len(space.operations))) for _ in space.edges)
        step = SearchStep(config, CLASSES, batch, runtime, number, alive)
        with FlopCounterMode(display=False) as counter:
            step()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        times = alternate({"alpha": step.alpha_step, "weights": step.weight_step}, device, repeats)
        steps = images // 2 // batch
        total += steps * (stage.epochs * times["weights"] + (stage.epochs - stage.weight_epochs) * times["alpha"])
        stages.append(
            {
                "layers": stage.layers,
                "seconds": times,
                "share_of_matrix_rate": counter.get_total_flops() / sum(times.values()) / rate,
                "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
            }
        )
    return {"matrix_tflops": rate / 1e12, "batch": batch, "stages": stages, "projected_minutes": total / 60}


def matrix_rate(device: torch.device, side: int = 8192) -> float:
    """Return the floating-point operations a second of a square matrix product in bfloat16."""
    side = side if device.type == "cuda" else 1024
    one, other = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / alternate({"product": lambda: one @ other}, device, 20)["product"]


def cpu_units() -> list[str]:
    """Return the flags of the processor's vector and matrix units; none where the system does not say."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return [flag for flag in flags if flag.startswith(("avx", "amx", "fma"))]


def describe_machine() -> dict[str, Any]:
    """Return what a reader needs to compare these figures with others."""
    cpu, units = processor_name(), " ".join(cpu_units())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = {"cpu": cpu, "cpu_units": units, "bfloat16_slowdown": bfloat16_slowdown(torch.device("cpu")), "gpu": gpu}
    versions = {"torch": torch.__version__, "timm": timm.__version__, "python": platform.python_version()}
    return {"date": date.today().isoformat(), **machine, "threads": torch.get_num_threads(), **versions}


def comparable_precisions(device: torch.device, wanted: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the precisions to time on a device, and why others are left out.

    Where bfloat16 is emulated, ratios in it say what the emulation costs, not what either side does.
    """
    slowdown = bfloat16_slowdown(device)
    if "bfloat16" not in wanted or slowdown <= SLOW:
        return list(wanted), {}
    reason = f"a matrix product takes {slowdown:.1f} times as long as in float32: there are no units for it"
    return [name for name in wanted if name != "bfloat16"], {"bfloat16": reason}


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description="Speed and memory of search and training; prints one JSON object.")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: all there are")
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--sizes", nargs="+", type=int, choices=[s.dim for s in SIZES], default=[s.dim for s in SIZES])
    parser.add_argument("--repeats", type=int, default=3, help="timed repetitions; the median counts")
    options = parser.parse_args()
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    devices = devices if options.device == "auto" else [options.device]
    sizes = [size for size in SIZES if size.dim in options.sizes]
    figures: dict[str, Any] = {"cpu": None, "cuda": None}
    for name in devices:
        precisions, left_out = comparable_precisions(torch.device(name), options.precisions)
        figures[name] = {**bench_device(torch.device(name), precisions, sizes, options.repeats), "left_out": left_out}
        if name == "cuda":
            paper = recipes.from_dict(recipes.read_recipe("cifar10-paper"))
            figures[name]["paper_search"] = bench_paper(torch.device(name), paper, paper.search.batch_size, 50_000)
    figures["machine"] = describe_machine()
    json.dump(figures, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
