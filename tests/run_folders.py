"""Run folders made up for tests: small, quick, and with numbers that are easy to find again."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from dasvit.cell.genotype import Genotype, edge_list
from dasvit.config import recipe

OPERATIONS = ("zero", "identity", "msa_2", "msa_4", "msa_8", "mlp_0.5", "mlp_1", "mlp_2")
CELL = Genotype.from_ops(2, ["mlp_1", "msa_2", "msa_8", "mlp_2", "zero"])
COST = {"params": 1408650, "macs": 102830336, "macs_linear": 89851136}
CLASSES = [f"class {i}" for i in range(10)]


def write_search(
    folder: Path,
    epochs: tuple[int, ...] = (3, 2),
    nodes: int = 2,
    ended: bool = True,
    done: int | None = None,
    train: bool = False,
) -> Path:
    """Write the folder of a search.

    Args:
        folder: Made where it is not there.
        epochs: Of every stage; the first epoch of each trains weights alone.
        nodes: Of the cell.
        ended: Whether a cell was derived.
        done: Epochs that have ended; all of them where it is None.
        train: Put a training inside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stages = {
        "layers": [2 * (i + 1) for i in range(len(epochs))],
        "keep": [0, *([3] * (len(epochs) - 1))],
        "epochs": list(epochs),
        "weight_epochs": [1] * len(epochs),
        "inherit": "none",
    }
    config = base_config()
    config["search"]["stages"] = stages
    config["space"]["nodes"] = nodes
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    write_json(folder / "environment.json", environment("search", "dasvit"))
    metrics, lines = [], []
    place = [(stage, epoch) for stage, count in enumerate(epochs, 1) for epoch in range(1, count + 1)]
    for i, (stage, epoch) in enumerate(place[:done]):
        metrics.append(metric(stage, epoch, i))
        lines.append(snapshot(stage, epoch, i, nodes))
    write_lines(folder / "metrics.jsonl", metrics)
    write_lines(folder / "architecture.jsonl", lines)
    write_json(folder / "token_images.json", {"grid": 8, "images": [picture(name) for name in ("cat", "a <dog>")]})
    write_lines(folder / "tokens.jsonl", [tokens(*position) for position in place[:done]])
    if ended:
        (folder / "genotype.json").write_text(CELL.to_json())
        other = Genotype.from_ops(2, ["identity"] * 5)
        outcome: dict[str, Any] = {"genotype": CELL.to_dict(), "unconstrained": other.to_dict()}
        outcome["reason"] = "It was <too> plain."
        reached = [(CELL, 41.25), (other, 12.5)]
        outcome["finals"] = [{"genotype": cell.to_dict(), "top1": top1, **COST} for cell, top1 in reached]
        write_json(
            folder / "derivation.json", {**outcome, "params": 1408650, "macs": 102830336, "macs_linear": 89851136}
        )
    if train:
        write_train(folder / "train")
    return folder


def write_train(folder: Path, epochs: int = 4, ended: bool = True, classes: list[str] | None = None) -> Path:
    """Write the folder of a training of the cell."""
    folder.mkdir(parents=True, exist_ok=True)
    names = CLASSES if classes is None else classes
    config = base_config()
    config["train"]["epochs"] = epochs
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    write_json(folder / "environment.json", {**environment("train", CELL.to_json()), "classes": len(names)})
    rows = [
        {**metric("train", epoch, epoch), "test_loss": 1.5, "test_top1": 40.0 + epoch, "test_top5": 90.0}
        for epoch in range(1, epochs + 1)
    ]
    write_lines(folder / "metrics.jsonl", rows)
    if ended:
        (folder / "genotype.json").write_text(CELL.to_json())
        confusion = [[90 if i == j else 1 for j in range(len(names))] for i in range(len(names))]
        judged = {"top1": 56.23, "top5": 95.25, "loss": 1.25, "images": 10000, "confusion": confusion}
        write_json(folder / "result.json", {"run": str(folder), **COST, **judged})
        (folder / "model").mkdir(exist_ok=True)
        write_json(folder / "model" / "config.json", {"pretrained_cfg": {"label_names": names}})
    return folder


def base_config() -> dict[str, Any]:
    """Return the recipe cifar10-small, resolved."""
    return recipe.to_dict(recipe.from_dict(recipe.read_recipe("cifar10-small")))


def environment(kind: str, subject: str) -> dict[str, Any]:
    """Return what environment.json holds."""
    return {
        "kind": kind,
        "subject": subject,
        "command": ["dasvit", kind, "--run", "runs/with space"],
        "seed": 0,
        "machine": "Linux x86_64, 2 cores",
        "versions": {"torch": "2.15.0"},
        "device": "cpu",
        "precision": "bfloat16",
        "classes": 10,
    }


def metric(stage: int | str, epoch: int, i: int) -> dict[str, Any]:
    """Return a line of metrics.jsonl; the i-th has losses, seconds and memory that no other has."""
    row = {"stage": stage, "epoch": epoch, "lr": 0.001 / (i + 1), "train_loss": 2.0 - 0.013 * i, "seconds": 60.0 + i}
    if stage != "train" and epoch > 1:
        row |= {"val_loss": 2.1 - 0.017 * i, "val_top1": 30.25 + i}
    return {**row, "images_per_second": 100.0 + i, "peak_memory_mib": 1000.0 + i}


def snapshot(stage: int, epoch: int, i: int, nodes: int) -> dict[str, Any]:
    """Return a line of architecture.jsonl; from stage 2 on every edge has identity and two MLPs left."""
    alive = OPERATIONS if stage == 1 else ("identity", *OPERATIONS[6:])
    weights = {}
    for e, (source, target) in enumerate(edge_list(nodes)):
        raw = {op: math.exp(0.1 * i * ((o + e) % 4)) for o, op in enumerate(alive)}
        total = sum(raw.values())
        weights[f"{source}→{target}"] = {op: value / total for op, value in raw.items()}
    mean = {op: sum(edge.get(op, 0.0) for edge in weights.values()) / len(weights) for op in OPERATIONS}
    return {
        "stage": stage,
        "epoch": epoch,
        "layers": 2 * stage,
        "temperature": 1.0,
        "weights": weights,
        "mean_weights": mean,
        "fairness": {
            "total": 0.25,
            "skip": 0.125,
            "types": 0.125,
            "type_weights": {kind: sum(w for op, w in mean.items() if op.startswith(kind)) for kind in ("msa", "mlp")},
        },
        "entropy": 1.75,
    }


def picture(name: str) -> dict[str, Any]:
    """Return an entry of token_images.json."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).convert("RGB").save(file, "png")
    return {"class": name, "number": 3, "format": "png", "data": base64.b64encode(file.getvalue()).decode()}


def tokens(stage: int, epoch: int) -> dict[str, Any]:
    """Return a line of tokens.jsonl: two layers a stage; the epoch-th keeps four rows of patches from that one on."""
    kept = "".join("ff" if (row - epoch) % 8 < 4 else "00" for row in range(8))
    return {"stage": stage, "epoch": epoch, "kept": [[kept, kept]] * (2 * stage)}


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, ensure_ascii=False))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSON-lines file."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
