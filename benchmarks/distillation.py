"""What does a teacher give a small network on CIFAR-10? Trainings with and without one, all else alike.

    python benchmarks/distillation.py DIR OUT [--images 20000] [--epochs 8] [--teacher-epochs 16] [--seeds 3]
        [--arms without hard hard_no_token soft]

trains a convolution, `resnet50_small` (the ResNet that `dasvit compare --scale small` has), by the recipe
`cifar10-study` on images of the CIFAR-10 in DIR; then `dasvit_shift` at that recipe's sizes, on the same images, with
each seed: without a teacher, with hard distillation by the token, with hard distillation by its plain logits, and with
soft distillation by the token (weight 0.1 at temperature 3, as DeiT has it). A run folder and a file NAME.json each in
OUT; the same command goes on where it stopped, within a training too, and prints one JSON object: top-1 of every seed,
means, and paired differences from the trainings without a teacher with their standard errors.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from dasvit.api.recipe import make_config
from dasvit.cell.genotype import load_genotype
from dasvit.io.run_folder import RunFolder
from dasvit.runtime.progress import Reporter
from dasvit.training.pipeline import Subject, run_training

TEACHER, PLAIN = "resnet50_small", "without"
ARMS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "hard": {"train.teacher_mode": "hard"},
    "hard_no_token": {"train.teacher_mode": "hard", "train.teacher_token": False},
    "soft": {"train.teacher_mode": "soft", "train.teacher_weight": 0.1, "train.teacher_temperature": 3.0},
}
"""What the trainings differ in, beside having the teacher at all."""


def trained(name: str, subject: Subject, options: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Train a network, or go on with its training, and write what it reached; return that."""
    file, folder = args.out / f"{name}.json", args.out / name
    common = {"data.path": str(args.data), "data.limit": args.images, "train.eval_every": options["train.epochs"]}
    options = {**common, **options}
    if file.is_file():
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if known["options"] != options:
            raise SystemExit(f"{file} is of a training with {known['options']}, not {options}: give another OUT.")
        return known
    config = make_config("cifar10-study", None, options, searching=False)
    result = run_training(config, subject, str(folder), Reporter(), expected=True)
    seconds = [row["seconds"] for row in RunFolder(folder, "train").rows("metrics.jsonl")]
    found = {**result.to_dict(), "seconds_per_epoch": statistics.median(seconds), "options": options}
    found["precision"] = result.session.runtime.precision
    file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def summarise(rows: dict[str, list[dict[str, Any]]], teacher: dict[str, Any]) -> dict[str, Any]:
    """Return each arm's top-1 by seed, its mean, and its paired difference from the trainings without a teacher."""
    arms: dict[str, Any] = {}
    plain = [row["top1"] for row in rows[PLAIN]]
    for name, runs in rows.items():
        top1 = [row["top1"] for row in runs]
        arms[name] = {"top1": top1, "mean": statistics.fmean(top1)}
        arms[name] |= {key: runs[0][key] for key in ("params", "macs")}
        arms[name]["seconds_per_epoch"] = statistics.median(row["seconds_per_epoch"] for row in runs)
        if name != PLAIN:
            gains = [one - other for one, other in zip(top1, plain, strict=True)]
            arms[name]["gain"] = statistics.fmean(gains)
            arms[name]["gain_se"] = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else None
    known = {key: teacher[key] for key in ("top1", "majority", "params", "macs", "seconds_per_epoch", "precision")}
    return {"teacher": {"network": TEACHER, **known}, "arms": arms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of CIFAR-10, as parquet files or as it is published")
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--teacher-epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="what is trained")
    parser.add_argument("--eval-images", type=int, default=0, help="test images; 0: all")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    limit = {"data.eval_limit": args.eval_images}
    teacher = trained("teacher", TEACHER, {"train.epochs": args.teacher_epochs, **limit}, args)
    arms = {name: ARMS[name] for name in dict.fromkeys([PLAIN, *args.arms])}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    for seed in range(1, args.seeds + 1):
        for name, options in arms.items():
            taught = {} if name == PLAIN else {"train.teacher": str(args.out / "teacher")}
            asked = {"train.epochs": args.epochs, "runtime.seed": seed, "runtime.precision": teacher["precision"]}
            asked |= {**limit, **taught, **options}
            rows[name].append(trained(f"{name}-seed{seed}", load_genotype("dasvit_shift"), asked, args))
    print(json.dumps(summarise(rows, teacher), indent=2))


if __name__ == "__main__":
    main()
