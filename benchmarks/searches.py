"""Is a search worth its time? Searches of several kinds at equal compute, and what their networks reach.

    python benchmarks/searches.py DATA DIR OUT NAME:SEED ... [--trainings 3] [--prior FILE] [--work FOLDER]

DATA is cifar10 or tiny (Tiny ImageNet at 64 pixels in patches of 8), DIR its parquet files; the recipe is
`cifar10-study` (Tiny ImageNet: three epochs). NAME:SEED is a search of a kind (see ARMS) with that seed, or NAME alone
a network that nothing is searched for: a cell's file or name, `vit`, a model of `dasvit compare`. What a search chose,
or the network, is trained with the seeds 1000 to 1002, which no search has, and evaluated on the test images. One file
DATA/NAME-SEED.json in OUT for each, which holds all candidates' rungs, the chosen network and the trainings; what is
in it is not done again. Run folders are kept in FOLDER (OUT/work), so that the same command goes on where it stopped.
Prints a JSON object of all files in OUT/DATA: means, and differences from the control with their intervals. A search
takes a quarter of an hour of one core, a training three to five minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import dasvit
from dasvit.api.recipe import make_config
from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.runtime.progress import Reporter
from dasvit.training.pipeline import Subject, run_training
from rungs import DATA

EPOCHS = {"cifar10": 2, "tiny": 3}
"""Of the trainings."""
CONTROL = "even"
ARMS: dict[str, dict[str, Any]] = {
    CONTROL: {"search.finals.learn": False},
    "model": {},
    "prior": {},
    "convs": {"space.convs": [0.5, 1.0, 2.0]},
    "sized": {"space.convs": [0.5, 1.0, 2.0]},
    "tuned-vit": {"space.cell": "vit"},
}
"""What searches of a kind have beside COMMON: even draws; the model; with what cells reached on other data (--prior);
convolutions among the operations; that and sizes together; sizes of a plain ViT alone. All train as many candidates for
as long."""
WITH_PRIOR, WITH_SIZES = ("prior",), ("sized", "tuned-vit")
SIZES: dict[str, Any] = {
    "space.widths": [64, 96, 128, 160, 192],
    "space.depths": [3, 4, 5, 6, 8],
    "space.stems": ["patch", "cct"],
    "space.pools": ["token", "avg"],
}
PATCHES = {"cifar10": [4, 8], "tiny": [8, 16]}
COMMON: dict[str, Any] = {"search.finals.shipped": False}
SEEDS = (1000, 1001, 1002)


def search(
    name: str, seed: int, options: dict[str, Any], folder: Path, data: str, prior: Path | None
) -> dict[str, Any]:
    """Search, or go on with a search; return what it chose, and all that it trained."""
    own = {**options, **COMMON, **ARMS[name], "runtime.seed": seed}
    if name in WITH_SIZES:
        own |= {**SIZES, "space.patches": PATCHES[data]}
    if name in WITH_PRIOR:
        own["search.finals.prior"] = [str(prior)]
    start = time.process_time()
    found = dasvit.search(recipe="cifar10-study", run=folder, method="finals", options=own)
    rows = [
        {
            "ops": list(one.cell.ops),
            **({"sizes": one.cell.sizes.brief} if one.cell.sizes else {}),
            "macs": cost[1],
            "expected": list(one.expected) if one.expected else None,
            "rungs": [rung.reached() for rung in one.rungs],
            "seconds": one.last.seconds,
        }
        for one, cost in zip(found.candidates, found.costs, strict=True)
    ]
    about = {"arm": name, "seed": seed, "seconds": round(time.process_time() - start)}
    return {**about, "genotype": found.cell.to_dict(), "candidates": rows}


def trained(subject: Subject, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train a network, or go on with its training; return what it reached, and what it costs."""
    config = make_config("cifar10-study", options=options, searching=False)
    result = run_training(config, subject, str(folder), Reporter(), expected=True)
    reached = {"top1": result.evaluation.top1, "loss": result.evaluation.loss}
    return {"params": result.cost.params, "macs": result.cost.macs, **reached}


def run(entry: str, args: argparse.Namespace) -> None:
    """Make one file, or what it lacks."""
    name, _, seed = entry.partition(":")
    stem = f"{Path(name).stem}-{seed}" if seed else Path(name).stem
    file, folder = args.out / args.data / f"{stem}.json", args.work / args.data / stem
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    options: dict[str, Any] = {"data.path": str(args.dir), **DATA[args.data], "train.epochs": EPOCHS[args.data]}
    file.parent.mkdir(parents=True, exist_ok=True)
    subject: Subject = load_genotype(name) if name.startswith("dasvit_") or "." in name else name
    if seed:
        found = found or search(name, int(seed), options, folder / "search", args.data, args.prior)
        subject = Genotype.from_dict(found["genotype"])
    found = {"arm": name, "tests": {}, **found}
    file.write_text(json.dumps(found) + "\n", encoding="utf-8")
    for own in SEEDS[: args.trainings]:
        if str(own) not in found["tests"]:
            about = trained(subject, {**options, "runtime.seed": own}, folder / f"train-{own}")
            found["tests"][str(own)] = about
            file.write_text(json.dumps(found) + "\n", encoding="utf-8")


def summarise(folder: Path) -> dict[str, Any]:
    """Return the mean of every kind, over searches of the means of their trainings, and how far it is from the control.

    The interval is Welch's, of 95 %, over searches; a network that is not searched for counts its trainings.
    """
    means: dict[str, list[float]] = {}
    losses: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        reached = [test["top1"] for test in record["tests"].values()]
        if "candidates" in record:
            losses.setdefault(record["arm"], {})[record["seed"]] = record["candidates"][0]["rungs"][-1]["loss"]
            reached = [float(np.mean(reached))] if len(reached) == len(SEEDS) else []
        means.setdefault(record["arm"], []).extend(reached)
    found: dict[str, Any] = {}
    for name, values in means.items():
        row: dict[str, Any] = {"validation_losses": losses[name]} if name in losses else {}
        if values:
            row |= {"n": len(values), "mean": round(float(np.mean(values)), 2)}
        if len(values) > 1:
            row["sd"] = round(float(np.std(values, ddof=1)), 2)
        if name != CONTROL and min(len(values), len(means.get(CONTROL, []))) > 1:
            test = stats.ttest_ind(values, means[CONTROL], equal_var=False)
            low, high = test.confidence_interval()
            row |= {"above_control": round(float(np.mean(values) - np.mean(means[CONTROL])), 2)}
            row |= {"interval": [round(float(low), 2), round(float(high), 2)]}
        found[name] = row
    return found


def main() -> None:
    """Make the files that are asked for, and print what all files say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", choices=list(DATA))
    parser.add_argument("dir", type=Path, help="folder with the parquet files")
    parser.add_argument("out", type=Path, help="where the files go")
    parser.add_argument("entries", nargs="*", help="NAME:SEED of a search, or NAME of a network")
    parser.add_argument("--trainings", type=int, default=len(SEEDS), help="seeds that are trained now")
    parser.add_argument("--prior", type=Path, help="file of what cells reached on the other data, for `prior`")
    parser.add_argument("--work", type=Path, help="where run folders go")
    args = parser.parse_args()
    args.work = args.work or args.out / "work"
    if args.prior is None and any(entry.partition(":")[0] in WITH_PRIOR for entry in args.entries):
        parser.error(f"{' and '.join(WITH_PRIOR)}: say --prior FILE")
    for entry in args.entries:
        run(entry, args)
    print(json.dumps(summarise(args.out / args.data), indent=1))


if __name__ == "__main__":
    main()
