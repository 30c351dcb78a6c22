r"""What is a network worth that is trained as one would train it? Accuracy, cost and core-hours, a table and a picture.

    python benchmarks/accuracy.py DIR OUT NETWORK:SEED ... [--epochs 10] [--data cifar10] [--init] \
        [--teacher RUN] [--study FOLDER] [--work FOLDER] [--picture FILE]

trains by the recipe `cifar10`, on all training images of the data set in DIR, and evaluates on the test images every
second epoch. NETWORK is what `dasvit compare` takes: a cell's name or file, `vit`, a model's name; with --init a
trained model, as a run's folder or `cifar10`, whose weights are trained on. With --teacher they learn from the training
in RUN. One file a training in OUT/DATA, with its curve; what is there is not done again. Run folders are kept in FOLDER
(OUT/work): the same command goes on where it stopped. Prints the table of all files as Markdown, with --study the rank
correlation of their accuracies with those of short trainings (`benchmarks/searches.py`, its OUT), and draws the curves
against core-hours into FILE. For one row alone:
dasvit train --config cifar10 --cell CELL --data.path DIR --runtime.seed SEED --run RUN.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bench import cpu_units
from dasvit.api.recipe import make_config
from dasvit.compare.networks import find_networks
from dasvit.config.fields import Config
from dasvit.io.run_folder import find_model
from dasvit.models.finetune import sizes_of
from dasvit.runtime.progress import Reporter
from dasvit.training.pipeline import Subject, run_training
from dasvit.training.start import FirstWeights, Start
from rungs import DATA

UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX512", "avx2": "AVX2"}
"""A processor's flags and what they are called, the best first."""
SEARCHED = {("cifar10", "searched"): "sized-0"}
"""Files of `benchmarks/searches.py` that networks come from, by data and name here, where these names differ."""


def processor() -> str:
    """Return what the processor multiplies with, which says more of its speed than its name does."""
    flags = cpu_units()
    return next((words for flag, words in UNITS.items() if flag in flags), platform.machine())


def prepare(name: str, seed: int, args: argparse.Namespace) -> tuple[str, Config, Subject | FirstWeights]:
    """Return what a row is called, its recipe, and what is trained."""
    options = {**DATA[args.data], "data.path": str(args.dir), "runtime.seed": seed, "train.epochs": args.epochs}
    options |= {"train.eval_every": 2, "train.teacher": args.teacher}
    taught = " taught" if args.teacher else ""
    if not args.init:
        network = find_networks([name], "", "full")[0]
        return network.key + taught, make_config("cifar10", options=options, searching=False), network.subject
    folder = find_model(name)
    options |= {f"model.{field}": value for field, value in sizes_of(folder).items()}
    config = make_config("cifar10", options=options, searching=False)
    return f"{Path(name).name} fine-tuned{taught}", config, Start.read(str(folder), config)


def train(entry: str, args: argparse.Namespace) -> None:
    """Train a network, or go on with its training, and write its file."""
    name, _, seed = entry.partition(":")
    key, config, subject = prepare(name, int(seed), args)
    label = f"{key.replace(' ', '-')}-e{args.epochs}-s{seed}"
    file, folder = args.out / args.data / f"{label}.json", args.work / args.data / label
    if file.exists():
        return
    result = run_training(config, subject, str(folder), Reporter(quiet=True), expected=True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    notes = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    hours = np.cumsum([row["seconds"] for row in rows]) * notes["threads"] / 3600
    curve = [
        [row["epoch"], round(float(spent), 4), row["test_top1"]]
        for row, spent in zip(rows, hours, strict=True)
        if "test_top1" in row
    ]
    about = {"network": key, "seed": int(seed), "epochs": args.epochs, "top1": result.evaluation.top1}
    about |= {"images": result.evaluation.images, "params": result.cost.params, "macs": result.cost.macs}
    about |= {"core_hours": round(float(hours[-1]), 3), "curve": curve, "precision": notes["precision"]}
    about |= {"processor": processor(), "torch": notes["versions"]["torch"], "date": time.strftime("%Y-%m-%d")}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(about) + "\n", encoding="utf-8")


def table(records: list[dict[str, Any]]) -> str:
    """Return a line a network and length of training, the best first.

    The interval of one training is Wilson's, of its test images; of several, Student's, of the trainings.
    """
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["network"], record["epochs"]].append(record)
    lines = ["| network | epochs | trainings | top-1 | parameters | multiply-adds | core-hours of a training |"]
    lines.append("|---|---|---|---|---|---|---|")
    for (network, epochs), group in sorted(groups.items(), key=lambda item: -_mean(item[1])):
        first = group[0]
        machines = ", ".join(sorted({record["processor"] for record in group}))
        hours = f"{np.mean([record['core_hours'] for record in group]):.2f} ({machines})"
        costs = f"{first['params'] / 1e6:.2f}M | {first['macs'] / 1e6:.1f}M"
        lines.append(
            f"| {network} | {epochs} | {len(group)} | {_mean(group):.2f} {interval(group)} | {costs} | {hours} |"
        )
    return "\n".join(lines)


def agreement(records: list[dict[str, Any]], data: str, study: Path) -> str:
    """Return Kendall's tau between the networks' accuracies here and after short trainings, over those in both.

    Args:
        records: Of trainings of one length.
        data: What the data set is called.
        study: The folder with the short trainings; a search's file counts for the network that it found.
    """
    short: dict[str, float] = {}
    for file in sorted((study / data).glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["tests"]:
            short[file.stem] = float(np.mean([test["top1"] for test in record["tests"].values()]))
    files = {one["network"]: SEARCHED.get((data, one["network"]), one["network"]) for one in records}
    both = [
        (short[file], _mean([one for one in records if one["network"] == name]))
        for name, file in files.items()
        if file in short
    ]
    if len(both) < 3:
        return f"{len(both)} networks have a short training too: too few to rank."
    found = stats.kendalltau(*zip(*both, strict=True))
    about = f"over {len(both)} networks (p {found.pvalue:.3f})"
    return f"Kendall's tau with the short trainings: {found.statistic:.2f} {about}"


def _mean(group: list[dict[str, Any]]) -> float:
    return float(np.mean([record["top1"] for record in group]))


def interval(group: list[dict[str, Any]]) -> str:
    """Return the interval of 95 % of a network's accuracy, in words."""
    values = [record["top1"] for record in group]
    if len(values) > 1:
        half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
        return f"± {half:.2f}"
    images = group[0]["images"]
    low, high = stats.binomtest(round(values[0] / 100 * images), images).proportion_ci(method="wilson")
    return f"({100 * low:.1f} to {100 * high:.1f})"


def draw(records: list[dict[str, Any]], file: Path) -> None:
    """Draw accuracy on the test images against core-hours, a line a training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    networks = sorted({record["network"] for record in records}, key=lambda name: -_best(records, name))
    for record in sorted(records, key=lambda record: -record["top1"]):
        colour = f"C{networks.index(record['network'])}"
        _, hours, reached = zip(*record["curve"], strict=True)
        axes.plot(hours, reached, color=colour, marker=".", label=record["network"])
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys(), frameon=False, fontsize=8)
    axes.set(xlabel="core-hours of training", ylabel="test top-1, %")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def _best(records: list[dict[str, Any]], name: str) -> float:
    return max(float(record["top1"]) for record in records if record["network"] == name)


def main() -> None:
    """Train what is asked for and not there; print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dir", type=Path, help="folder with the parquet files")
    parser.add_argument("out", type=Path, help="where the files go")
    parser.add_argument("entries", nargs="*", help="NETWORK:SEED")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--data", choices=list(DATA), default="cifar10")
    parser.add_argument("--init", action="store_true", help="the networks are trained models, and are fine-tuned")
    parser.add_argument("--teacher", default="", help="run folder of the training that they learn from")
    parser.add_argument("--study", type=Path, help="folder with what benchmarks/searches.py measured")
    parser.add_argument("--work", type=Path, help="where run folders go")
    parser.add_argument("--picture", type=Path, help="where the curves are drawn")
    args = parser.parse_args()
    args.work = args.work or args.out / "work"
    if seedless := [entry for entry in args.entries if not entry.partition(":")[2].isdecimal()]:
        parser.error(f"a training is NETWORK:SEED, as vit:0, not {seedless[0]}")
    for entry in args.entries:
        train(entry, args)
    files = sorted((args.out / args.data).glob("*.json"))
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    print(table(records))
    if args.study:
        alike = [record for record in records if record["epochs"] == args.epochs]
        print(f"\n{agreement(alike, args.data, args.study)}")
    if args.picture and records:
        draw(records, args.picture)


if __name__ == "__main__":
    main()
