"""How a search step grows with tokens, width, operations, nodes and depth; and how long derivation takes.

    python benchmarks/growth.py --markdown growth.md

Prints one JSON object, and writes its tables as Markdown. A step is one alpha step and one weight step. Times are
medians over repetitions in which the sizes take turns, so that a busy machine disturbs them alike; memory is counted
as by `dasvit memory`. Exponents are slopes of straight lines through the logarithms, with their standard errors.
"""

import argparse
import json
import math
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from scipy.stats import linregress

from dasvit.cell.cost import operation_cost, skeleton_cost, token_count
from dasvit.cell.space import Space
from dasvit.config import Config, recipe
from dasvit.errors import UserError
from dasvit.memory.live_bytes import Kind
from dasvit.memory.search_step import Subject, count
from dasvit.search.derive import Budget, derive
from dasvit.search.probe import LoneRuntime, SearchStep

BASE: dict[str, Any] = {"side": 32, "width": 192, "each": 3, "nodes": 2, "layers": 2}
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "tokens": ("side", (16, 24, 32, 48)),
    "width": ("width", (96, 192, 288, 384)),
    "operations": ("each", (1, 3, 5)),
    "nodes": ("nodes", (2, 3, 4)),
    "depth": ("layers", (1, 2, 4, 6)),
}
"""What grows, the entry of BASE that makes it grow, and its values."""
TINY = {"side": 8, "width": 48, "batch": 2, "repeats": 1}
HEADS, RATIOS = [4, 8, 12, 6, 2], [1.0, 0.75, 1.25, 0.5, 1.5]
"""Taken one, three or five each, ratios have the same mean: what grows is the number of operations alone."""
COLUMNS = {"seconds": "time, ms", "bytes": "peak memory, MiB", "bytes_an_image": "memory an image, MiB"}


def make_config(size: Mapping[str, Any], batch: int, ratio: float) -> Config:
    """Return the recipe of a size."""
    return recipe.from_dict(
        {
            "model": {"image_size": size["side"], "patch_size": 4, "width": size["width"]},
            "space": {
                "nodes": size["nodes"],
                "heads": HEADS[: size["each"]],
                "ratios": RATIOS[: size["each"]],
            },
            "search": {
                "batch_size": batch,
                "tokens": {"ratio": ratio},
                "stages": {"layers": [size["layers"]], "keep": [0], "epochs": [2], "weight_epochs": [1]},
            },
        }
    )


def along(axis: str, size: Mapping[str, Any], config: Config) -> int:
    """Return how large a size is along an axis; operations are those that have parameters."""
    known = {"tokens": token_count(config.model), "operations": 2 * size["each"], "depth": size["layers"]}
    return int(known.get(axis) or size[axis])


def grow(axis: str, sizes: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Return time and memory of every size along an axis, and the exponents."""
    device, bfloat16 = torch.device(args.device), args.precision == "bfloat16"
    kind: Kind = "cpu" if device.type == "cpu" else "cuda"
    rows, steps = [], []

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)

    for size in sizes:
        config = make_config(size, args.batch, args.ratio)
        space = Space.from_config(config.space)
        subject = Subject(1, size["layers"], space.everything(), args.ratio, plain=False)
        memory = count(subject, config, 10, kind, bfloat16)
        peak = memory.peak(args.batch)
        an_image = (memory.peak(1000 * args.batch) - memory.peak(999 * args.batch)) / args.batch
        rows.append({axis: along(axis, size, config), "bytes": peak, "bytes_an_image": an_image})
        steps.append(SearchStep(config, 10, args.batch, LoneRuntime(device, autocast)))
    for row, seconds in zip(rows, time_steps(steps, device, args.repeats), strict=True):
        row["seconds"] = seconds
    return {"rows": rows, "exponents": {name: fit(rows, axis, name) for name in COLUMNS}}


def time_steps(steps: Sequence[SearchStep], device: torch.device, repeats: int) -> list[float]:
    """Return each step's median seconds; they take turns, and a first round warms up."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats + 1):
        for step, seconds in zip(steps, times, strict=True):
            start = now(device)
            step()
            seconds.append(now(device) - start)
    return [statistics.median(seconds[1:]) for seconds in times]


def now(device: torch.device) -> float:
    """Return the time when the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def fit(rows: Sequence[Mapping[str, float]], axis: str, name: str) -> dict[str, float]:
    """Return the exponent e of name ~ axis^e, and its standard error."""
    line = linregress([math.log(row[axis]) for row in rows], [math.log(row[name]) for row in rows])
    return {"exponent": round(float(line.slope), 3), "error": round(float(line.stderr), 3)}


def time_derivation(nodes: int, repeats: int) -> dict[str, Any]:
    """Return seconds of a derivation under two budgets at the paper's size, from random weights, rule by rule."""
    config = recipe.from_dict(recipe.read_recipe("cifar10-paper"))
    space = Space(nodes, Space.from_config(config.space).operations)
    model = config.model
    costs = {op: operation_cost(op, model.width, token_count(model)) * model.layers for op in space.operations}
    base = skeleton_cost(model, 10)
    table = {op: (cost.params, cost.macs) for op, cost in costs.items()}
    result: dict[str, Any] = {"nodes": nodes, "edges": len(space.edges)}
    for rule in ("darts", "strongest"):
        times = []
        for seed in range(repeats):
            draw = random.Random(seed)
            weights = [[draw.random() for _ in space.operations] for _ in space.edges]
            budget = Budget(table, (base.params, base.macs))
            free = budget.cost(derive(weights, space.everything(), space, rule=rule, budget=budget).genotype)
            budget = Budget(table, (base.params, base.macs), free[0] * 2 // 3, free[1] * 2 // 3)
            start = time.perf_counter()
            with suppress(UserError):  # where nothing fits, that was found out exactly, too
                derive(weights, space.everything(), space, rule=rule, budget=budget)
            times.append(time.perf_counter() - start)
        result[rule] = {"median_seconds": statistics.median(times), "most_seconds": max(times)}
    return result


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the tables."""
    lines = []
    for axis, found in result["growth"].items():
        lines += [f"| {axis} | {' | '.join(COLUMNS.values())} |", "|---" * (1 + len(COLUMNS)) + "|"]
        for row in found["rows"]:
            cells = [
                f"{row['seconds'] * 1e3:.0f}",
                f"{row['bytes'] / 2**20:.0f}",
                f"{row['bytes_an_image'] / 2**20:.2f}",
            ]
            lines.append(f"| {row[axis]} | {' | '.join(cells)} |")
        fits = (found["exponents"][name] for name in COLUMNS)
        cells = [f"{line['exponent']:.2f} ± {line['error']:.2f}" for line in fits]
        lines += [f"| exponent | {' | '.join(cells)} |", ""]
    lines += ["| nodes | edges | darts, ms (most) | strongest, ms (most) |", "|---|---|---|---|"]
    for row in result["derivation"]:
        cells = [
            f"{row[rule]['median_seconds'] * 1e3:.1f} ({row[rule]['most_seconds'] * 1e3:.1f})"
            for rule in ("darts", "strongest")
        ]
        lines.append(f"| {row['nodes']} | {row['edges']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="images of a step")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the tokens that is kept")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions that count")
    parser.add_argument("--markdown", default="", metavar="FILE", help="where the tables go (default: standard error)")
    parser.add_argument("--tiny", action="store_true", help="sizes that take seconds, to see that it works")
    args = parser.parse_args()
    base, axes = dict(BASE), dict(AXES)
    if args.tiny:
        base |= {"side": TINY["side"], "width": TINY["width"]}
        args.batch, args.repeats = TINY["batch"], TINY["repeats"]
        axes |= {"tokens": ("side", (8, 12, 16)), "width": ("width", (24, 48, 96)), "depth": ("layers", (1, 2, 3))}
    result: dict[str, Any] = {
        "base": {**base, "batch": args.batch, "ratio": args.ratio, "precision": args.precision},
        "machine": {
            "device": torch.cuda.get_device_name(args.device) if args.device != "cpu" else platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "growth": {},
    }
    for axis, (entry, values) in axes.items():
        result["growth"][axis] = grow(axis, [base | {entry: value} for value in values], args)
    result["derivation"] = [time_derivation(nodes, 2 if args.tiny else 20) for nodes in (2, 3, 4)]
    print(json.dumps(result, indent=2))
    if args.markdown:
        Path(args.markdown).write_text(to_markdown(result), encoding="utf-8")
    else:
        sys.stderr.write(to_markdown(result))


if __name__ == "__main__":
    main()
