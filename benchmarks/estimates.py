"""Is what a search and a training say of their time true? What is estimated, against what it took.

    python benchmarks/estimates.py OUT [DIR]

runs ten searches and trainings of other recipes, sizes and numbers of images, on scikit-learn's digits and, with DIR,
on the CIFAR-10 in it, each in a process of its own, and prints one JSON object: seconds estimated and taken, and their
ratio. Run it on a machine that does nothing else: what others take is not in an estimate. One run folder a case in OUT;
the same command goes on with those that are not there. About half an hour on two cores.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

TRAIN = ("train", "--cell", "dasvit_shift")
SEARCH = ("search",)
STUDY = ("--config", "cifar10-study", "--data.limit")
FINALS = ("search", "--method", "finals")
CASES: dict[str, tuple[str, ...]] = {
    "digits, training": (*TRAIN, "--config", "digits"),
    "digits, training, 80 epochs": (*TRAIN, "--config", "digits", "--train.epochs", "80"),
    "digits, ViT": ("train", "--model", "vit", "--config", "digits"),
    "digits, search": (*SEARCH, "--config", "digits"),
    "digits, candidates alone": (*FINALS, "--config", "digits"),
    "digits, GDAS": ("search", "--method", "gdas", "--config", "digits"),
}
IMAGES: dict[str, tuple[str, ...]] = {
    "CIFAR-10, training, 4,000 images": (*TRAIN, *STUDY, "4000"),
    "CIFAR-10, ResNet-10, 1,000 images": ("train", "--model", "resnet10t", *STUDY, "1000"),
    "CIFAR-10, candidates, 2,000 images": (*FINALS, *STUDY, "2000"),
    "CIFAR-10, search, 1,000 images": (*SEARCH, *STUDY, "1000"),
}


def measure(command: tuple[str, ...], folder: Path) -> dict[str, float]:
    """Return what was estimated of a command, and what it took."""
    if not (folder / "report.html").exists() or "seconds" not in read(folder):
        argv = [sys.executable, "-m", "dasvit", *command, "--run", str(folder)]
        subprocess.run(argv, check=True, stdout=sys.stderr)
    notes = read(folder)
    estimated, took = float(notes["estimate"]["seconds"]), float(notes["seconds"])
    return {"estimated": estimated, "took": took, "ratio": round(estimated / took, 2)}


def read(folder: Path) -> dict[str, Any]:
    """Return what a run keeps about itself."""
    found: dict[str, Any] = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return found


def main(out: str, path: str = "") -> None:
    """Run the cases that are not there yet, and print all."""
    cases = dict(CASES)
    if path:
        cases |= {name: (*command, "--data.path", path) for name, command in IMAGES.items()}
    found = {name: measure(command, Path(out) / name.replace(" ", "-")) for name, command in cases.items()}
    off = {name: max(row["ratio"], 1 / row["ratio"]) for name, row in found.items()}
    print(json.dumps({"cases": found, "largest_factor": max(off.values()), "median": statistics.median(off.values())}))


if __name__ == "__main__":
    main(*sys.argv[1:])
