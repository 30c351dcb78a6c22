"""What the run folders of a study say: a search's cell, ranking and compute, and a network's trainings."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.cell.space import Space
from dasvit.cell.subnet import Found, Subnet, cell_key, load_found
from dasvit.config import Config
from dasvit.errors import UserError
from dasvit.io.run_folder import RunFolder
from dasvit.models.cost import cost_of
from dasvit.report.run.collapse import describe_epochs
from dasvit.report.tables import SHARES
from dasvit.search.candidates import FOLDER as FINALS
from dasvit.search.candidates import read_rungs
from dasvit.search.ranking import weight_scores
from dasvit.search.stages import read_stages
from dasvit.study.compute import images_for_weights, spent_images
from dasvit.study.jobs import Job


def describe_search(root: Path, job: Job, images: int) -> dict[str, Any]:
    """Return what a search's folder says, and how its supernet and its weights rank cells."""
    run = RunFolder(root / job.folder, "search")
    _, variant, seed = job.folder.split("/")
    folders = sorted((run.path / FINALS).glob("*/"))
    reached = [rungs[-1] for rungs in map(read_rungs, folders) if rungs]
    own = run.rows("metrics.jsonl")
    others = [row for folder in folders for row in RunFolder(folder, "train").rows("metrics.jsonl")]
    seconds = sum(row["seconds"] for row in own) + sum(rung.seconds for rung in reached)
    epochs = [rung.epochs for rung in reached]
    return {
        "run": job.folder,
        "variant": variant,
        "seed": int(seed.removeprefix("seed")),
        "cell": cell_key(load_found(run.path)),
        "derivation": str(read_json(run.path / "derivation.json").get("reason", "")),
        "images": spent_images(job.config, images_for_weights(job.config, images), own, epochs),
        "seconds": seconds,
        "core_seconds": core_seconds(seconds, run.notes()),
        "peak_memory_mib": max((row.get("peak_memory_mib") or 0 for row in [*own, *others]), default=0) or None,
        "epochs": describe_epochs(run.rows("architecture.jsonl")),
        "ranking": describe_ranking(root, job),
    }


def core_seconds(seconds: float, notes: Mapping[str, Any]) -> float | None:
    """Return the seconds of all cores, or of all devices that are no CPU; None where a run did not note its cores."""
    cores = notes.get("threads") if notes.get("device") == "cpu" else 1
    return seconds * cores * notes.get("processes", 1) if cores else None


def describe_ranking(root: Path, job: Job) -> dict[str, Any] | None:
    """Return how a search's supernet and its edge weights rank the study's cells; None where there was no supernet."""
    ranking = read_json(root / ranking_file(job.folder))
    cells = {key: load_genotype(root / f"cells/{key}.json") for key in ranking.get("supernet_top1", {})}
    if cells:
        space = Space.from_config(job.config.space)
        stages = read_stages(RunFolder(root / job.folder, "search"), space)
        scores = weight_scores(stages, space, job.config.search.derive.rule, list(cells.values()))
        ranking["log_weight"] = dict(zip(cells, scores, strict=True))
    return ranking or None


def describe_cell(
    root: Path, key: str, subject: Found | str, config: Config, classes: int, seeds: Iterable[int], figure: str
) -> dict[str, Any]:
    """Return what is known of a network: its cost, and its trainings so far.

    Args:
        root: The study's folder.
        key: The network's.
        subject: It.
        config: The study's recipe.
        classes: Classes of the data.
        seeds: Of the trainings.
        figure: The share that the study compares, which stands under `top1`.
    """
    cost = cost_of(subject, config.model, classes)
    trainings = []
    for seed in seeds:
        folder = f"trainings/{key}/seed{seed}"
        if (root / folder / "model" / "config.json").is_file():
            result = read_json(root / folder / "result.json")
            shares = {key: result[key] for key in SHARES if key in result}
            trainings.append({"run": folder, "seed": seed, **shares, "top1": shares[figure]})
    top1 = [training["top1"] for training in trainings]
    return {
        "genotype": subject.to_dict() if isinstance(subject, Genotype) else None,
        **({"network": subject.to_dict()} if isinstance(subject, Subnet) else {}),
        "params": cost.params,
        "macs": cost.macs,
        "trainings": trainings,
        "top1": statistics.fmean(top1) if top1 else None,
    }


def ranking_file(folder: str) -> str:
    """Return where a search's ranking is kept, within the study's folder."""
    return f"rankings/{folder.removeprefix('searches/').replace('/', '_')}.json"


def read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file of ours, an empty one where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError(f"{path} is damaged: delete it, and give the command again.") from None
    return dict(content)
