"""The model card: what a reader of a model's folder on the hub should know, as its README.md."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from dasvit.cell.genotype import Genotype
from dasvit.errors import UserError, printable
from dasvit.report.label_scores import no_better_map
from dasvit.report.markup import markdown
from dasvit.report.rendering import render_text
from dasvit.report.run.reading import Run, finite, look_up, outcome_remark
from dasvit.report.scores import no_better
from dasvit.report.tables import number
from dasvit.report.words import duration, known_interval, percent, teacher_text

CARD, PICTURE = "README.md", "cell.png"
METRICS = {
    "majority": "majority class (a constant's top-1)",
    "balanced_accuracy": "balanced accuracy",
    "prevalence": "mean prevalence (a constant's mAP)",
    "micro_f1": "micro-F1 at 0.5",
    "macro_f1": "macro-F1",
    "exact_match": "images with all labels right",
    "ece": "expected calibration error",
}
HUB_METRICS = {
    "top1": ("accuracy", "Top-1 accuracy"),
    "top5": ("accuracy", "Top-5 accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "macro_f1": ("f1", "Macro-F1"),
    "map": ("mean_average_precision", "Mean average precision"),
}
"""What the hub calls the metrics."""
MOST_CLASSES = 200
"""Class names that the card lists; `config.json` has them all."""
RECIPE = ("data.name", "data.limit", "data.val_fraction", "data.fit", "data.window", "model", "train", "runtime.seed")
"""What the card shows of a configuration: nothing that names a place on a machine."""


def write_card(folder: Path, config: Mapping[str, Any], run: Run | None) -> None:
    """Write a model's card, README.md, and its cell as a picture.

    Args:
        folder: The model's folder.
        config: Its `config.json`, as read by `read_model_config`.
        run: The training that it comes from, where it still lies beside it.
    """
    try:
        genotype = Genotype.from_dict(look_up(config, "model_args.cell"))
    except UserError:
        genotype = None
    if genotype:
        from dasvit.report.run.figures import save_cell  # matplotlib takes a while

        save_cell(genotype, folder / PICTURE)
    (folder / CARD).write_text(card_text(config, run, genotype), encoding="utf-8", errors="backslashreplace")


def card_text(config: Mapping[str, Any], run: Run | None, genotype: Genotype | None) -> str:
    """Return the text of a card: a head of YAML, which the hub reads, and sections in Markdown."""
    results, data, args = results_of(config, run), data_name(config, run), config.get("model_args") or {}
    title = f"{'DASViT' if genotype else printable(config['architecture'])} for {data}"
    environment = run.environment if run else {}
    versions = environment.get("versions")
    several = look_up(config, "dasvit.multilabel") is True
    takes = f"It takes images of {sides(look_up(config, 'pretrained_cfg.input_size'))} and tells "
    tells = " classes it finds in an image, several or none." if several else " classes apart."
    content = {
        "head": head(title, config, run, genotype, results),
        "title": title,
        "genotype": genotype,
        "args": args,
        "architecture": printable(config["architecture"]),
        "takes": f"{takes}{'which of ' if several else ''}{look_up(config, 'num_classes', 0)}{tells}",
        "several": several,
        "patch": sides(args.get("patch_size")),
        "results": result_rows(results),
        "remark": outcome_remark(run) if run else constant_remark(results),
        "picture": PICTURE,
        "fitted": fitted(look_up(config, "pretrained_cfg.crop_mode"), look_up(config, "pretrained_cfg.crop_pct", 1.0)),
        "window": look_up(config, "dasvit.window"),
        "look_up": partial(look_up, look_up(config, "pretrained_cfg", {})),
        "run": run,
        "data": data,
        "began": environment.get("init"),
        "teacher": teacher_text(environment.get("teacher")),
        "published": published_weights(environment.get("init_model")),
        "took": duration(run.seconds) if run else "",
        "place": [part for key in ("machine", "device", "precision") if (part := environment.get(key))],
        "versions": versions if isinstance(versions, dict) else {},
        "recipe": recipe(run) if run else "",
        "classes": look_up(config, "pretrained_cfg.label_names") or [],
        "most_classes": MOST_CLASSES,
    }
    return render_text("card.md.j2", content) + "\n"


def published_weights(name: Any) -> str:
    """Return the name of timm's weights that a training began with; empty where it began with a folder's."""
    return name if isinstance(name, str) and not {"/", "\\"} & set(name) else ""


def results_of(config: Mapping[str, Any], run: Run | None) -> dict[str, float]:
    """Return the numbers of the training's result: those of the run's folder, else those kept with the model."""
    kept = look_up(config, "dasvit.result", {})
    named = dict(kept) if isinstance(kept, Mapping) else {}
    pairs = {key: finite(value) for key, value in {**named, **(run.result if run else {})}.items()}
    return {key: value for key, value in pairs.items() if value is not None}


def head(
    title: str, config: Mapping[str, Any], run: Run | None, genotype: Genotype | None, results: Mapping[str, float]
) -> str:
    """Return what the hub reads of a card, as YAML."""
    tags = ["image-classification", "timm", *(["dasvit", "neural-architecture-search"] if genotype else [])]
    measured = [
        EvalResult(
            task_type="image-classification",
            dataset_type=data_name(config, None),
            dataset_name=data_name(config, run),
            metric_type=kind,
            metric_name=name,
            metric_value=round(results[key] / 100, 6),
        )
        for key, (kind, name) in HUB_METRICS.items()
        if known_interval(results, key)
    ]
    named: dict[str, Any] = {"model_name": title, "eval_results": measured} if measured else {}
    data = ModelCardData(library_name="timm", pipeline_tag="image-classification", tags=tags, **named)
    return str(data.to_yaml()).strip()


def data_name(config: Mapping[str, Any], run: Run | None) -> str:
    """Return what the data are called: of a folder of the user's own, its name as well where the run is known."""
    name = printable(look_up(config, "dasvit.data") or "unknown")
    field = {"imagefolder": "data.path", "parquet": "data.path", "csv": "data.csv"}.get(name, "")
    path = str(run.option(field, "") or "") if run and field else ""
    return f"{name} {printable(Path(path).name)}" if path else name


def fitted(crop_mode: object, crop_pct: object) -> str:
    """Say how an image becomes a square, by a description's keys of timm's."""
    if crop_mode == "squash":
        return "resized to a square, their sides scaled apart (crop_mode squash),"
    if crop_mode == "border":
        return "resized, padded to a square with grey (crop_mode border)"
    return f"resized, cut to their centre (crop_pct {crop_pct})"


def sides(size: object) -> str:
    """Return a size that ends with height and width, or is the side of a square, as 32 × 32 pixels."""
    pair = size[-2:] if isinstance(size, list) else [size, size]
    return f"{' × '.join(map(markdown, pair))} pixels"


def result_rows(results: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return accuracies with their intervals, and costs."""
    rows = []
    for key, name in (("top1", "test top-1"), ("top5", "test top-5")):
        if found := known_interval(results, key):
            spread = f"(95 % interval {percent(found[0])} to {percent(found[1])})"
            rows.append((name, f"{percent(results[key])} {spread}"))
    if "map" in results:
        rows.append(("test mAP", percent(results["map"])))
    rows += [(f"test {name}", percent(results[key])) for key, name in METRICS.items() if key in results]
    if "images" in results:
        rows.append(("test images", f"{results['images']:,.0f}"))
    if "loss" in results:
        kind = "binary cross-entropy" if "map" in results else "cross-entropy"
        rows.append((f"test loss ({kind})", f"{results['loss']:.4f}"))
    for key, name in (("params", "parameters"), ("macs", "multiply-adds of one image")):
        if key in results:
            rows.append((name, f"{number(results[key])} ({results[key]:,.0f})"))
    return rows


def constant_remark(results: Mapping[str, float]) -> str:
    """Return a sentence where a model's figures are no better than a constant's, empty where they are."""
    if {"map", "prevalence"} <= results.keys():
        return no_better_map(results["map"], results["prevalence"])
    if not {"top1", "majority"} <= results.keys():
        return ""
    return no_better(results["top1"], results["majority"], results.get("images", 0.0))


def recipe(run: Run) -> str:
    """Return a run's configuration, without its places, as YAML."""
    shown: dict[str, Any] = {}
    for key in RECIPE:
        section, _, field = key.partition(".")
        value = run.option(key)
        if key == "train" and isinstance(value, dict):
            value = {name: kept for name, kept in value.items() if name != "teacher"}
        if value is not None:
            shown[section] = {**shown.get(section, {}), field: value} if field else value
    return yaml.safe_dump(shown, sort_keys=False, default_flow_style=None)
