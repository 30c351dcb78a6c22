"""A study made up for tests: two methods and a control with three searches each, six random cells, two trainings."""

from __future__ import annotations

import copy
import statistics
from typing import Any

from dasvit.cell.genotype import PUBLISHED, Genotype
from dasvit.report.run.collapse import describe_epochs
from run_folders import OPERATIONS, snapshot

FOUND = {"dasvit": (81.0, 82.0, 83.0), "darts": (70.0, 75.0, 80.0)}
CONTROL = (77.0, 77.5, 78.5)
"""What the control's searches found."""
LUCK = (76.0, 77.0, 78.0, 79.0, 80.0, 81.5)


def made_up(changed: bool = True) -> dict[str, Any]:
    """Return what `dasvit study` gathers; with changed, an ablation and a sweep as well."""
    cells: dict[str, Any] = {"vit": described("vit", None, 78.0)}
    cells["vit_shift"] = described("vit_shift", None, 80.0)
    cells["published"] = described("published", PUBLISHED["dasvit_cifar10"], 79.0)
    luck = []
    for i, top1 in enumerate(LUCK):
        luck.append(f"random{i}")
        ops = [OPERATIONS[1 + (i + e) % 7] for e in range(4)]
        cells[luck[-1]] = described(luck[-1], Genotype.from_ops(2, [*ops, "msa_8"]), top1)
    variants = [variant(name, name, "methods") for name in FOUND]
    if changed:
        variants += [
            variant("without-stages", "without stages", "ablation"),
            variant("lambda-0", "λ = 0", "lambda", 0.0),
            variant("dasvit", "λ = 1", "lambda", 1.0),
            variant("rho-1", "ρ = 1", "rho", 1.0),
        ]
    variants.append(variant("control", "best of 4 drawn evenly", "control"))
    searches = []
    for key in dict.fromkeys(row["key"] for row in variants):
        for seed, top1 in enumerate({**FOUND, "control": CONTROL}.get(key, (74.0, 75.0, 76.0))):
            name = f"{key}{seed}"
            cells[name] = described(
                name, Genotype.from_ops(2, ["mlp_1", OPERATIONS[seed + 1], "msa_8", "mlp_2", "zero"]), top1
            )
            searches.append(search(key, seed, name))
    ranked = [*luck, "dasvit0", "dasvit1", "dasvit2"]
    for row in searches:
        if row["variant"] == "control":
            continue
        # dasvit's supernets rank all cells right, the others' the wrong way round.
        sign = 1 if row["variant"] == "dasvit" else -1
        scores = {key: 40 + sign * (cells[key]["top1"] - 70) for key in ranked}
        row["ranking"] = {"stage": 1, "layers": 2, "supernet_top1": scores, "log_weight": dict(scores)}
    return copy.deepcopy(
        {
            "format": "dasvit-study/2",
            "name": "made <up>",
            "options": {
                "searches": 3,
                "trainings": 2,
                "control": 3,
                "random": 6,
                "ablate": changed,
                "sweep": changed,
            },
            "seeds": {"search": 0, "train": 1000},
            "control": {"finalists": 4, "rungs": [1.0], "matched": "finals"},
            "data": "digits",
            "machine": {
                "machine": "Linux x86_64",
                "device": "cpu",
                "precision": "float32",
                "versions": {"torch": "2.15"},
            },
            "epochs": {"search": 5, "train": 4},
            "test_images": 360,
            "variants": variants,
            "searches": searches,
            "cells": cells,
            "random": {"cells": luck, "macs": 4.2e6, "tolerance": 0.05},
            "vit": "vit",
            "vit_shift": "vit_shift",
            "published": "published",
        }
    )


def variant(key: str, label: str, group: str, value: float | None = None) -> dict[str, Any]:
    """Return a variant."""
    return {"key": key, "label": label, "group": group, "value": value}


def described(key: str, cell: Genotype | None, top1: float) -> dict[str, Any]:
    """Return a network whose two trainings reach one point less and one more."""
    values = [top1 - 1, top1 + 1]
    trainings = [
        {"run": f"trainings/{key}/seed{1000 + i}", "seed": 1000 + i, "top1": value, "top5": 99.0}
        for i, value in enumerate(values)
    ]
    genotype = cell.to_dict() if cell else None
    return {
        "genotype": genotype,
        "params": 200_000,
        "macs": 4_200_000,
        "trainings": trainings,
        "top1": statistics.fmean(values),
    }


def search(key: str, seed: int, cell: str) -> dict[str, Any]:
    """Return a search of five epochs, or of none (the control's); darts ends with identity the strongest everywhere."""
    lines = [snapshot(1, epoch, epoch, 2) for epoch in range(1, 6) if key != "control"]
    for epoch, line in enumerate(lines):
        line["monitor"] = {"mixture_top1": 60.0 + epoch, "derived_top1": 50.0 + 2 * epoch + seed}
        if key == "darts":
            line["weights"] = {edge: {**ops, "identity": 0.1 + 0.2 * epoch} for edge, ops in line["weights"].items()}
            line["mean_weights"]["identity"] = 0.1 + 0.2 * epoch
    return {
        "run": f"searches/{key}/seed{seed}",
        "variant": key,
        "seed": seed,
        "cell": cell,
        "derivation": "",
        "images": 1000 if key == "control" else 3000,
        "seconds": 61.5 + 2 * seed,
        "core_seconds": 2 * (61.5 + 2 * seed),
        "peak_memory_mib": 700.0 + seed if key == "dasvit" else None,
        "epochs": describe_epochs(lines),
        "ranking": None,
    }
