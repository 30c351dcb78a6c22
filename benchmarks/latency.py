"""Latency as the table predicts it against what is measured, for networks drawn from a recipe's space.

    python benchmarks/latency.py                          # twenty networks of cifar10-study, one thread, torch
    python benchmarks/latency.py --runtime onnx --networks 10
    python benchmarks/latency.py --figure docs/images/latency.svg

Prints one JSON object. The drawn networks, at the recipe's depth, are timed in turns with those that the table is
fitted to, so that whatever else the machine does meets all of them alike; none of the drawn ones is fitted to.

* median_error, largest_error: relative errors of the predicted latencies; bias: their mean, with its sign.
* by_macs: the median error of the best straight line through the multiply-adds of the same drawn networks.
* rank_correlation: Kendall's tau of predicted and measured latency; rank_correlation_macs: of multiply-adds and the
  measured latency.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from dasvit.cell.cost import network_cost
from dasvit.cell.space import Space
from dasvit.config import Config, LatencyConfig
from dasvit.config import recipe as recipes
from dasvit.latency.measure import in_turns, inference, this_machine
from dasvit.latency.table import fit_table, sample, sizes_of
from dasvit.models.baselines import make_network
from dasvit.search.cost import make_budget
from dasvit.search.sampling import Cells

CLASSES = 10


def compare(config: Config, count: int, seconds: float) -> dict[str, Any]:
    """Return predicted and measured latencies of drawn networks, in seconds, and how they agree."""
    how, space, layers = config.search.latency, Space.from_config(config.space), config.model.layers
    pool, chance = Cells(space, 2, make_budget(config, CLASSES)), random.Random(1)
    drawn = [pool.draw(chance) for _ in range(count)]
    fitted, machine = sample(space, layers), this_machine(how)
    stacks = [*fitted, *((cell, layers) for cell in drawn)]
    models = [replace(config.model, layers=depth) for _, depth in stacks]
    networks = [make_network(cell, model, CLASSES) for (cell, _), model in zip(stacks, models, strict=True)]
    measured = in_turns([inference(one, config.model.image_size, how) for one in networks], machine, seconds)
    times = [latency.median for latency in measured]
    table = fit_table(fitted, times[: len(fitted)], space.operations, machine, sizes_of(config.model))
    found = np.array(times[len(fitted) :])
    predicted = np.array([table.predict(cell, layers) for cell in drawn])
    macs = np.array([network_cost(cell, config.model, CLASSES).macs for cell in drawn])
    errors, line = predicted / found - 1, np.polyval(np.polyfit(macs, found, 1), macs)
    return {
        "median_error": float(np.median(abs(errors))),
        "largest_error": float(abs(errors).max()),
        "bias": float(errors.mean()),
        "by_macs": float(np.median(abs(line / found - 1))),
        "rank_correlation": float(kendalltau(predicted, found).statistic),
        "rank_correlation_macs": float(kendalltau(macs, found).statistic),
        "error_of_the_fit": table.error,
        "machine": asdict(machine),
        "table": {"skeleton": table.skeleton, "layer": table.layer, **table.operations},
        "networks": [
            {"ops": list(cell.ops), "macs": int(cost), "predicted": float(p), "measured": float(m), "iqr": latency.iqr}
            for cell, cost, p, m, latency in zip(drawn, macs, predicted, found, measured[len(fitted) :], strict=True)
        ],
    }


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw predicted against measured latency, in milliseconds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dasvit"
    from matplotlib import pyplot as plt

    found, predicted = ([1e3 * row[key] for row in rows] for key in ("measured", "predicted"))
    spread = [1e3 * row["iqr"] / 2 for row in rows]
    figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
    axes.errorbar(found, predicted, xerr=spread, fmt="o", markersize=4, linewidth=0.8)
    ends = [0.95 * min(*found, *predicted), 1.05 * max(*found, *predicted)]
    axes.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
    axes.set(xlabel="measured, ms (bars: IQR)", ylabel="predicted by the table, ms", aspect="equal")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="cifar10-study")
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--runtime", choices=["torch", "onnx"], default="torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=2.0, help="what a network's repetitions take, about")
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    how = LatencyConfig(runtime=args.runtime, threads=args.threads, batch=args.batch, device=args.device)
    config = recipes.load(args.config)
    torch.manual_seed(0)
    result = compare(replace(config, search=replace(config.search, latency=how)), args.networks, args.seconds)
    print(json.dumps(result, indent=2))
    if args.figure:
        draw(result["networks"], args.figure)


if __name__ == "__main__":
    main()
