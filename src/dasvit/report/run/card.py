"""The model card: what a reader of a model's folder on the hub should know, as its README.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from dasvit.cell.genotype import Genotype
from dasvit.errors import UserError, printable
from dasvit.report.run.reading import Run, finite, look_up
from dasvit.report.tables import number
from dasvit.report.words import duration, interval, percent

CARD, PICTURE = "README.md", "cell.png"
MOST_CLASSES = 200
"""Class names that the card lists; `config.json` has them all."""
MOST_IMAGES = 10**12
"""No test has more; a larger number is damage."""
RECIPE = ("data.name", "data.limit", "data.val_fraction", "model", "train", "runtime.seed")
"""What the card shows of a configuration: nothing that names a place on a machine."""


def write_card(folder: Path, config: Mapping[str, Any], run: Run | None) -> None:
    """Write a model's card, README.md, and its cell as a picture.

    Args:
        folder: The model's folder.
        config: Its `config.json`, as read by `read_model_config`.
        run: The training that it comes from, where it still lies beside it.
    """
    genotype = cell_of(config)
    if genotype:
        from dasvit.report.run.figures import save_cell  # matplotlib takes a while

        save_cell(genotype, folder / PICTURE)
    (folder / CARD).write_text(card_text(config, run, genotype), encoding="utf-8", errors="backslashreplace")


def cell_of(config: Mapping[str, Any]) -> Genotype | None:
    """Return the cell that a model is made of, where it is."""
    try:
        return Genotype.from_dict(look_up(config, "model_args.cell"))
    except UserError:
        return None


def card_text(config: Mapping[str, Any], run: Run | None, genotype: Genotype | None) -> str:
    """Return the text of a card: a head of YAML, which the hub reads, and sections in Markdown."""
    results = results_of(config, run)
    title = f"{'DASViT' if genotype else printable(config['architecture'])} for {data_name(config, run)}"
    sections = [
        f"---\n{head(title, config, run, genotype, results)}\n---",
        f"# {md(title)}\n\n{introduction(config, genotype)}",
        f"## Results\n\n{result_table(results)}",
        f"## Cell\n\n![The cell]({PICTURE})\n\n```text\n{genotype}\n```" if genotype else "",
        f"## Use\n\n{usage(config, genotype)}",
        f"## Training\n\n{training(config, run)}",
        f"## Classes\n\n{classes(config)}",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def results_of(config: Mapping[str, Any], run: Run | None) -> dict[str, float]:
    """Return the numbers of the training's result: those of the run's folder, else those kept with the model."""
    kept = look_up(config, "dasvit.result", {})
    named = dict(kept) if isinstance(kept, Mapping) else {}
    pairs = {key: finite(value) for key, value in {**named, **(run.result if run else {})}.items()}
    return {key: value for key, value in pairs.items() if value is not None}


def accuracy(results: Mapping[str, float], key: str) -> tuple[float, float, float] | None:
    """Return an accuracy and its 95 % interval, in percent, where it was measured."""
    share, images = results.get(key), results.get("images", 0)
    if share is None or not (0 <= share <= 100 and 1 <= images <= MOST_IMAGES):
        return None
    return (share, *interval(share, images))


def head(
    title: str, config: Mapping[str, Any], run: Run | None, genotype: Genotype | None, results: Mapping[str, float]
) -> str:
    """Return what the hub reads of a card, as YAML."""
    tags = ["image-classification", "timm", *(["dasvit", "neural-architecture-search"] if genotype else [])]
    measured = [
        EvalResult(
            task_type="image-classification",
            dataset_type=data_type(config),
            dataset_name=data_name(config, run),
            metric_type="accuracy",
            metric_name=name,
            metric_value=round(found[0] / 100, 6),
        )
        for key, name in (("top1", "Top-1 accuracy"), ("top5", "Top-5 accuracy"))
        if (found := accuracy(results, key))
    ]
    named: dict[str, Any] = {"model_name": title, "eval_results": measured} if measured else {}
    data = ModelCardData(library_name="timm", pipeline_tag="image-classification", tags=tags, **named)
    return str(data.to_yaml()).strip()


def data_type(config: Mapping[str, Any]) -> str:
    """Return the name of the source of the data, as cifar10."""
    return printable(look_up(config, "dasvit.data") or "unknown")


def data_name(config: Mapping[str, Any], run: Run | None) -> str:
    """Return what the data are called: of a folder of the user's own, its name as well."""
    name = data_type(config)
    path = str(run.option("data.path", "") or "") if run and name in ("imagefolder", "parquet") else ""
    return f"{name} {printable(Path(path).name)}" if path else name


def introduction(config: Mapping[str, Any], genotype: Genotype | None) -> str:
    """Return what the model is, in a paragraph."""
    args: Mapping[str, Any] = config.get("model_args") or {}
    count = look_up(config, "num_classes", 0)
    takes = f"It takes images of {sides(look_up(config, 'pretrained_cfg.input_size'))} and tells {count} classes apart."
    if not genotype:
        return f"timm's `{printable(config['architecture'])}`, trained with dasvit. {takes}"
    return (
        "A vision transformer whose encoder layer is a cell found by differentiable architecture search, after "
        f"*DASViT: Differentiable Architecture Search for Vision Transformer*. {takes} Width {args.get('embed_dim')}, "
        f"{args.get('depth')} layers, patches of {sides(args.get('patch_size'))}."
    )


def sides(size: object) -> str:
    """Return a size that ends with height and width, or is the side of a square, as 32 × 32 pixels."""
    pair = size[-2:] if isinstance(size, list) else [size, size]
    return f"{' × '.join(map(md, pair))} pixels"


def result_table(results: Mapping[str, float]) -> str:
    """Return accuracies with their intervals, and costs, as a table."""
    rows = [("measure", "value"), ("---", "---")]
    for key, name in (("top1", "test top-1"), ("top5", "test top-5")):
        found = accuracy(results, key)
        if found:
            rows.append((name, f"{percent(found[0])} (95 % interval {percent(found[1])} to {percent(found[2])})"))
    if "images" in results:
        rows.append(("test images", f"{results['images']:,.0f}"))
    if "loss" in results:
        rows.append(("test loss (cross-entropy)", f"{results['loss']:.4f}"))
    for key, name in (("params", "parameters"), ("macs", "multiply-adds of one image")):
        if key in results:
            rows.append((name, f"{number(results[key])} ({results[key]:,.0f})"))
    table = "\n".join(f"| {left} | {right} |" for left, right in rows)
    about = (
        "The interval is Wilson's score interval: what the number of test images leaves open. It knows nothing of "
        "other seeds, nor of images that were taken otherwise than these."
    )
    return f"{table}\n\n{about}" if len(rows) > 2 else "This model's folder holds no results of a test."


def usage(config: Mapping[str, Any], genotype: Genotype | None) -> str:
    """Return how to load the model and prepare an image."""
    ours = "import dasvit  # pip install dasvit: tells timm of the architecture\n" if genotype else ""
    crop = look_up(config, "pretrained_cfg.crop_pct", 1.0)
    mean, std = (look_up(config, f"pretrained_cfg.{key}") for key in ("mean", "std"))
    return f"""```python
import timm
import torch
{ours}from PIL import Image
from timm.data import create_transform, resolve_data_config

model = timm.create_model("hf-hub:USER/NAME", pretrained=True).eval()  # or local-dir:FOLDER
transform = create_transform(**resolve_data_config(model=model))
with torch.no_grad():
    shares = model(transform(Image.open("image.jpg").convert("RGB"))[None]).softmax(dim=1)
print(model.pretrained_cfg["label_names"][int(shares.argmax())], float(shares.max()))
```

Images are resized, cut to their centre (crop_pct {crop}) and normalised with mean {mean} and standard deviation {std}.
From the command line: `dasvit predict FOLDER IMAGE...`."""


def training(config: Mapping[str, Any], run: Run | None) -> str:
    """Return data, recipe, time and versions."""
    if run is None:
        return f"Data: {md(data_type(config))}. The run that it was trained in was not beside it when this was written."
    versions = run.environment.get("versions")
    named = versions.items() if isinstance(versions, dict) else []
    rows = [f"Data: {md(data_name(config, run))}.", start(run), took(run), trained_on(run)]
    if named:
        rows.append("Versions: " + ", ".join(f"{md(name)} {md(version)}" for name, version in named) + ".")
    recipe: dict[str, Any] = {}
    for key in RECIPE:
        section, _, field = key.partition(".")
        value = run.option(key)
        if value is not None:
            recipe[section] = {**recipe.get(section, {}), field: value} if field else value
    text = yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None)
    return "\n".join(filter(None, rows)) + f"\n\n```yaml\n{text}```"


def start(run: Run) -> str:
    """Return which weights the training began with."""
    digest = run.environment.get("init")
    if not digest:
        return "It was trained from scratch."
    return f"It began with the weights of a trained model (SHA-256 of its safetensors: {md(digest)})."


def took(run: Run) -> str:
    """Return the epochs and the time of a training."""
    seconds = sum(value for _, value in run.column("seconds"))
    return f"It took {run.done} epochs, {duration(seconds)}." if run.done else ""


def trained_on(run: Run) -> str:
    """Return machine, device and precision of a training."""
    parts = [run.environment.get(key) for key in ("machine", "device", "precision")]
    return f"On {', '.join(md(part) for part in parts if part)}." if any(parts) else ""


def classes(config: Mapping[str, Any]) -> str:
    """Return the names of the classes in the order of the logits."""
    names = look_up(config, "pretrained_cfg.label_names") or []
    shown = ", ".join(md(name) for name in names[:MOST_CLASSES])
    more = f", … ({len(names)} in all, see `config.json`)" if len(names) > MOST_CLASSES else ""
    return f"{shown}{more}" if names else "The classes have no names."


def md(text: object) -> str:
    """Return a text of others so that Markdown shows it as it stands."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&$])", r"\\\1", printable(text))
