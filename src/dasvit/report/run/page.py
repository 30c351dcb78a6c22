"""The page of one run: what stands in its folder, as one HTML file that needs nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dasvit.report.drawing.cells import describe_cell, found_cell, warnings_of
from dasvit.report.rendering import render, write_page
from dasvit.report.run.candidates import candidate_section
from dasvit.report.run.confusions import class_section, confusion_section, label_section, mistake_section
from dasvit.report.run.images import image_section
from dasvit.report.run.plots import all_charts, operations_of, shown_in
from dasvit.report.run.reading import Run, outcome_remark, read_run
from dasvit.report.run.sections import choices, cost_section, facts, mixture, reference_cost, settings
from dasvit.report.run.tokens import token_section
from dasvit.report.tables import number
from dasvit.report.words import Tile, duration, known_interval, memory, percent, ratio

PAGE = "report.html"


def write_report(folder: Path, live: bool = False, out: Path | None = None) -> Path:
    """Write a run folder's `report.html`, whole or not at all.

    Args:
        folder: The run folder; whatever cannot be read in it is left out.
        live: The run goes on: the page reloads itself.
        out: The page's file, where it shall not be the folder's `report.html`.

    Returns:
        The page.

    Raises:
        UserError: The folder holds no run, or another file stands in the page's place.
        OSError: The page cannot be written.
    """
    run = read_run(folder)
    path = out or folder / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(path, render("run.html.j2", page_of(run, live)))
    return path


def refresh_report(folder: Path, say: Callable[[str], None], live: bool = True) -> None:
    """Write a run's page in the course of the run, which nothing about a page may stop.

    Args:
        folder: The run folder.
        say: Told why the page could not be written, once for a folder.
        live: See `write_report`.
    """
    try:
        write_report(folder, live)
    except Exception as error:  # a page is never worth a run
        if folder not in _warned:
            _warned.add(folder)
            say(f"the report could not be written, the run goes on ({type(error).__name__}: {error})")


_warned: set[Path] = set()


def page_of(run: Run, live: bool) -> dict[str, Any]:
    """Return what the template is given."""
    index = operations_of([run])
    weights = run.weights
    live = live and not run.ended
    other = run.unconstrained if run.unconstrained != run.genotype else None
    return {
        "run": run,
        "title": run.name,
        "operations": index,
        "legend_of": {name: index[name] for name in shown_in(run)},
        "live": live,
        "status": describe_status(run, live),
        "state": "live" if live else "ended" if run.ended else "stopped",
        "written": time.time(),
        "pace": pace_of(run),
        "tiles": tiles(run),
        "warnings": warnings_of(weights) if weights else [],
        "cell": found_cell(run.genotype, weights, index, "The cell") if run.genotype else None,
        "words": describe_cell(run.genotype) if run.genotype else "",
        "alternative": found_cell(other, weights, index, "The strongest cell") if other else None,
        "choices": choices(run, weights),
        "candidates": candidate_section(run),
        "mixture": mixture(run, index),
        "charts": all_charts(run, index),
        "tokens": token_section(run),
        "cost": cost_section(run, index),
        "remark": outcome_remark(run),
        "classes": class_section(run),
        "labels": label_section(run),
        "confusion": confusion_section(run),
        "mistakes": mistake_section(run),
        "images": image_section(run),
        "settings": settings(run),
        "facts": facts(run),
    }


def pace_of(run: Run) -> float:
    """Return the seconds of the last epoch, by which a live page asks to be loaded again."""
    return run.column("seconds")[-1][1] if run.column("seconds") else 10.0


def describe_status(run: Run, live: bool) -> str:
    """Return where the run stands, in a sentence."""
    done, planned = run.done, run.planned
    if run.rungs:
        epochs = run.rungs[-1].get("epochs", 0.0)
        return f"a candidate of a search, trained for {epochs:g} of {planned} epochs"
    if run.ended:
        return f"ended after {done} epochs" if done else "ended"
    stage = next((stage for stage in reversed(run.stages) if done > stage.start), None) if done else None
    several = f", stage {stage.number} of {len(run.stages)}" if stage and len(run.stages) > 1 else ""
    place = f"epoch {done} of {planned}{several}" if done else "before the first epoch's end"
    if run.drawn:
        place = "before the finals' end"
    if not live:
        return f"not ended: {place}"
    left = 0.0  # where a stage of unknown speed is to come
    if stage and stage.number == len(run.stages):
        recent = [seconds for epoch, seconds in run.column("seconds") if epoch > stage.start][-5:]
        left = (planned - done) * sum(recent) / len(recent) if recent else 0.0
    return f"running: {place}{f', about {duration(left)} left' if left else ''}"


def tiles(run: Run) -> list[Tile]:
    """Return the figures at the top."""
    found, reference = accuracy_tiles(run), reference_cost(run)
    for key, name in (("params", "parameters"), ("macs", "multiply-adds")):
        if key in run.result:
            of_vit = getattr(reference, key) if reference else 0
            remark = f"{ratio(run.result[key], of_vit)} the ViT's" if of_vit and run.subject != "vit" else ""
            found.append(Tile(name, number(run.result[key]), remark))
    if run.seconds:
        rest = ", finals not counted" if run.candidates else ""
        found.append(Tile("time", duration(run.seconds), f"{run.done} of {run.planned} epochs{rest}"))
    if run.peak_memory:
        device = str(run.environment.get("device") or "")
        found.append(
            Tile("peak memory", memory(run.peak_memory), "of the process" if device.startswith("cpu") else device)
        )
    return found


def accuracy_tiles(run: Run) -> list[Tile]:
    """Return how good it is: of the trained network on test images, of a supernet on its validation half."""
    judged = run.trained.result if run.trained else run.result
    found = []
    if "top1" in judged:
        images, bounds = judged.get("images", 0.0), known_interval(judged)
        where = "trained: " if run.trained else ""
        spread = [f"95 %: {bounds[0]:.1f} to {bounds[1]:.1f}"] if bounds else []
        spread += [f"majority {percent(judged['majority'])}"] if "majority" in judged else []
        spread += [f"epoch {judged['epoch']:.0f} kept"] if "epoch" in judged else []
        found.append(Tile(f"{where}test top-1", percent(judged["top1"]), "; ".join(spread)))
        others = {"top5": "test top-5", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1", "ece": "ECE"}
        before = judged.get("ece_uncalibrated")
        calibration = "of its probabilities" if before is None else f"{percent(before)} without temperature"
        remarks = {"top5": f"{images:,.0f} images" if images else "", "ece": calibration}
        found += [
            Tile(f"{where}{name}", percent(judged[key]), remarks.get(key, "over the classes"))
            for key, name in others.items()
            if key in judged
        ]
    elif run.column("test_top1") and not run.rungs:
        epoch, top1 = run.column("test_top1")[-1]
        majority = "".join(f", majority {percent(share)}" for _, share in run.column("test_majority")[-1:])
        found.append(Tile("test top-1", percent(top1), f"after epoch {epoch}{majority}"))
    if "map" in judged:
        found += map_tiles(run, judged)
    elif run.column("test_map") and not run.rungs:
        epoch, mean = run.column("test_map")[-1]
        found.append(Tile("test mAP", percent(mean), f"after epoch {epoch}"))
    for rung in run.rungs:
        if {"epochs", "loss", "top1"} <= rung.keys():
            name = f"val top-1 after {rung['epochs']:g} epoch{'s' * (rung['epochs'] != 1)}"
            found.append(Tile(name, percent(rung["top1"]), f"val loss {rung['loss']:.4f}"))
        elif {"epochs", "loss", "map"} <= rung.keys():
            name = f"val mAP after {rung['epochs']:g} epoch{'s' * (rung['epochs'] != 1)}"
            found.append(Tile(name, percent(rung["map"]), f"val loss {rung['loss']:.4f}"))
    if run.kind == "search" and run.column("val_top1"):
        epoch, top1 = run.column("val_top1")[-1]
        found.append(Tile("supernet top-1", percent(top1), f"validation, epoch {epoch}"))
    return found


def map_tiles(run: Run, judged: Mapping[str, float]) -> list[Tile]:
    """Return how good a network of several labels an image is on test images."""
    where = "trained: " if run.trained else ""
    spread = [f"a constant's {percent(judged['prevalence'])}"] if "prevalence" in judged else []
    spread += [f"epoch {judged['epoch']:.0f} kept"] if "epoch" in judged else []
    found = [Tile(f"{where}test mAP", percent(judged["map"]), "; ".join(spread))]
    before = judged.get("ece_uncalibrated")
    calibration = "of its probabilities" if before is None else f"{percent(before)} without temperature"
    others = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "exact_match": "all labels right", "ece": "ECE"}
    remarks = {"micro_f1": "at 0.5", "exact_match": "of the images", "ece": calibration}
    found += [
        Tile(f"{where}{name}", percent(judged[key]), remarks.get(key, "over the classes"))
        for key, name in others.items()
        if key in judged
    ]
    return found
