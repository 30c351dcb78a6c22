"""What each command of the command line does, once it is parsed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from torch import nn

from dasvit import config as recipes
from dasvit.cell.genotype import PUBLISHED, Genotype, load_genotype
from dasvit.cell.space import Space
from dasvit.cli import Request
from dasvit.config import Config, DeriveConfig, RuntimeConfig
from dasvit.data import MEAN, STD, Data, Loader, Preprocess, load_data, open_image, predict_transform
from dasvit.errors import UserError
from dasvit.models.baselines import check_architecture, make_model, make_network, prefer_fast_attention
from dasvit.models.cost import Cost, cost_of, count_cost, operation_cost, skeleton_cost, token_count
from dasvit.models.folder import load_model, read_model_config, save_model
from dasvit.report.tables import confusion_table, network_table, number
from dasvit.search.architecture import Architecture
from dasvit.search.derive import Budget, Derivation, derive
from dasvit.search.loop import Found, make_supernet, search
from dasvit.training.distributed import Runtime, find_device, measure_precision, seed_everything
from dasvit.training.evaluation import Evaluation, evaluate
from dasvit.training.loop import probe_step, test_batches, train
from dasvit.training.progress import Reporter
from dasvit.training.run_folder import RunFolder


def search_command(request: Request) -> None:
    """`dasvit search`: a run folder with a cell in it."""
    assert request.config is not None
    result = do_search(request.config, request.options["run"], Reporter())
    if request.options["json"]:
        print_json(result)
        return
    print(Genotype.from_dict(result["genotype"]))
    if result["reason"]:
        print(f"{result['reason']} It was:\n{Genotype.from_dict(result['unconstrained'])}")
    print(
        f"\n{result['run']}: {number(result['params'])} parameters, {number(result['macs'])} multiply-adds."
    )
    print(f"Train it: dasvit train --cell {result['run']}")


def do_search(config: Config, folder: str, reporter: Reporter) -> dict[str, Any]:
    """Search in a run folder, write its genotype, and return what was found."""
    run = RunFolder(folder, "search")
    data = load_data(config.data, config.model.image_size, config.runtime.seed)
    say_data(data, reporter)
    run.open(config, config.search.method)
    seed_everything(config.runtime.seed)
    runtime = make_runtime(
        config, run, reporter, lambda device: search_probe(config, len(data.classes), device)
    )
    seed_everything(config.runtime.seed)
    found = search(config, data, run, runtime, reporter)
    derivation = derive_found(found, config, len(data.classes), config.search.derive)
    result = describe_derivation(derivation, config, len(data.classes))
    if runtime.is_main:
        run.write_text("genotype.json", derivation.genotype.to_json())
        run.write_json("derivation.json", result)
        write_classes(run, data)
    return {"run": folder, **result}


def derive_command(request: Request) -> None:
    """`dasvit derive`: another rule or a budget, from the edge weights of a search."""
    options = request.options
    folder = Path(options["run"])
    run, config, found, classes = read_search(folder)
    base = config.search.derive
    if options["rule"] not in ("", "darts", "strongest"):
        raise UserError(f"--rule is darts or strongest, not {options['rule']!r}.")
    choice = DeriveConfig(
        rule=options["rule"] or base.rule,
        edges_per_node=options["edges_per_node"] or base.edges_per_node,
        max_params=parse_count(options["max_params"], "--max-params") or base.max_params,
        max_macs=parse_count(options["max_macs"], "--max-macs") or base.max_macs,
    )
    if choice.edges_per_node < 1:
        raise UserError("--edges-per-node must be at least 1.")
    derivation = derive_found(found, config, classes, choice)
    result = describe_derivation(derivation, config, classes)
    out = Path(options["out"]) if options["out"] else folder / "derived" / f"{slug(choice)}.json"
    text = derivation.genotype.to_json()
    if out.exists() and out.read_text(encoding="utf-8") != text:
        raise UserError(f"{out} holds another cell: give --out another file.")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    if options["json"]:
        print_json({"cell": str(out), **result})
        return
    print(derivation.genotype)
    if derivation.reason:
        print(f"{derivation.reason} It was:\n{derivation.unconstrained}")
    print(f"\n{out}: {number(result['params'])} parameters, {number(result['macs'])} multiply-adds.")
    print(f"Train it: dasvit train --cell {out}")


def train_command(request: Request) -> None:
    """`dasvit train`: a trained model in a run folder."""
    assert request.config is not None
    cell, baseline = request.options["cell"], request.options["baseline"]
    if bool(cell) == bool(baseline):
        raise UserError("give either --cell (a run folder, a genotype's file or a cell's name) or --model.")
    subject: Genotype | str = load_genotype(cell) if cell else baseline
    name = Path(cell).name if cell else baseline
    folder = request.options["run"] or (
        str(Path(cell) / "train") if cell and Path(cell).is_dir() else f"runs/{name}"
    )
    result = do_train(request.config, subject, folder, Reporter())
    if request.options["json"]:
        print_json(result)
        return
    Console().print(network_table([{"network": name, **result}]))
    print(f"{folder}/model: dasvit predict {folder} IMAGE... | dasvit evaluate {folder}")


def do_train(config: Config, subject: Genotype | str, folder: str, reporter: Reporter) -> dict[str, Any]:
    """Train a cell's network or a baseline in a run folder, write its model, and return its judgement."""
    run = RunFolder(folder, "train")
    data = load_data(config.data, config.model.image_size, config.runtime.seed)
    say_data(data, reporter)
    cost = cost_of(subject, config.model, len(data.classes))
    run.open(config, subject.to_json() if isinstance(subject, Genotype) else subject)
    seed_everything(config.runtime.seed)
    model = build(subject, config, len(data.classes))
    runtime = make_runtime(
        config, run, reporter, lambda device: train_probe(subject, config, len(data.classes), device)
    )
    prefer_fast_attention(
        model, runtime.device, torch.bfloat16 if runtime.precision == "bfloat16" else torch.float32
    )
    seed_everything(config.runtime.seed)
    trained = train(model, data, config, run, runtime, reporter)
    result = {"run": folder, **describe_cost(cost), **trained.evaluation.summary()}
    if runtime.is_main:
        if isinstance(subject, Genotype):
            run.write_text("genotype.json", subject.to_json())
        write_classes(run, data)
        run.write_json("result.json", {**result, "confusion": trained.evaluation.confusion})
        side = config.model.image_size
        save_model(
            trained.model,
            run.path / "model",
            class_names=data.classes,
            input_size=(3, side, side),
            mean=MEAN,
            std=STD,
            crop_pct=data.crop_pct,
            extra={"result": result, "data": config.data.name},
        )
    return result


def evaluate_command(request: Request) -> None:
    """`dasvit evaluate`: top-1, top-5 and the confusion matrix."""
    assert request.config is not None
    folder = find_model(request.options["model_path"])
    description = read_model_config(folder)
    side, names = model_input(description), class_names(description)
    config = replace(request.config, model=replace(request.config.model, image_size=side))
    data = load_data(config.data, side, config.runtime.seed)
    if len(data.classes) < len(names):
        raise UserError(
            f"the model has {len(names)} classes, the data {len(data.classes)}: evaluate it on data with its own classes."
        )
    if tuple(data.classes) != tuple(names):
        raise UserError(
            f"the model's classes ({', '.join(names[:3])}, …) are not the data's ({', '.join(data.classes[:3])}, …)."
        )
    runtime = Runtime(config.runtime, settled(config.runtime))
    model = load_model(folder).to(runtime.device)
    batches = test_batches(data, config, runtime)
    preprocess = preprocess_of(description).to(runtime.device)
    judged = evaluate(model, preprocess, Reporter().track(batches, "evaluating"), runtime, len(names))
    if request.options["json"]:
        print_json(
            {"model": str(folder), **judged.summary(), "classes": list(names), "confusion": judged.confusion}
        )
        return
    print_evaluation(judged, names)


def print_evaluation(judged: Evaluation, names: tuple[str, ...]) -> None:
    """Print accuracies and, of few classes, the confusion matrix (of many, the commonest confusions)."""
    print(
        f"{judged.images} images: top-1 {judged.top1:.2f} %, top-5 {judged.top5:.2f} %, loss {judged.loss:.4f}"
    )
    Console().print(confusion_table(judged.confusion, names))


def predict_command(request: Request) -> None:
    """`dasvit predict`: labels with probabilities."""
    folder = find_model(request.options["model_path"])
    description = read_model_config(folder)
    names = class_names(description)
    top = request.options["top"]
    if top < 1:
        raise UserError(f"--top must be at least 1, not {top}.")
    device = find_device(request.options["device"])
    transform = predict_transform(model_input(description), description["pretrained_cfg"]["crop_pct"])
    images = [transform(open_image(path)) for path in request.options["images"]]
    model = load_model(folder).eval().to(device)
    preprocess = preprocess_of(description).eval().to(device)
    rows = []
    for path, image in zip(request.options["images"], images, strict=True):
        with torch.no_grad():
            shares = model(preprocess(image[None].to(device))).float().softmax(dim=1)[0]
        best = shares.topk(min(top, len(names)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        rows.append({"image": path, "predictions": [{"label": names[i], "probability": p} for i, p in pairs]})
    if request.options["json"]:
        print_json({"model": str(folder), "images": rows})
        return
    for row in rows:
        print(
            row["image"]
            + ": "
            + ", ".join(f"{p['label']} {100 * p['probability']:.1f} %" for p in row["predictions"])
        )


def cost_command(request: Request) -> None:
    """`dasvit cost`: parameters and multiply-adds of one image (section 12)."""
    assert request.config is not None
    name, classes = request.options["subject"], request.options["classes"]
    config = request.config.model
    if is_model_folder(name):
        folder = find_model(name)
        cost = count_cost(load_model(folder), model_input(read_model_config(folder)))
    else:
        subject, default = named_network(name)
        cost = cost_of(subject, config, classes or default)
    if request.options["json"]:
        print_json({"name": name, **describe_cost(cost)})
        return
    print(
        f"{name}: {cost.params:,} parameters; {cost.macs / 1e9:.3f} G multiply-adds an image "
        f"({cost.macs_linear / 1e9:.3f} G of them in linear layers, convolutions and the patch embedding)"
    )


def named_network(name: str) -> tuple[Genotype | str, int]:
    """Return the cell or baseline of that name, and the classes it is counted with."""
    if name in PUBLISHED or Path(name).exists() or name.endswith(".json") or "/" in name:
        return load_genotype(name), 10
    if name == "vit":
        return name, 10
    check_architecture(name)
    return name, timm.get_pretrained_cfg_value(name, "num_classes") or 1000


def quickstart_command(request: Request) -> None:
    """`dasvit quickstart`: search on digits, train what was found and a ViT, and compare."""
    assert request.config is not None
    config, root, reporter = request.config, request.options["run"], Reporter()
    reporter.say("1/3 search a cell")
    found = do_search(config, root, reporter)
    genotype = Genotype.from_dict(found["genotype"])
    reporter.say(f"\n{genotype}\n\n2/3 train it from scratch")
    cell = do_train(config, genotype, f"{root}/train", reporter)
    reporter.say("\n3/3 train a ViT of the same width and depth")
    vit = do_train(config, "vit", f"{root}/vit", reporter)
    rows = [{"network": "searched cell", **cell}, {"network": "ViT, same width and depth", **vit}]
    if request.options["json"]:
        print_json({"run": root, "genotype": found["genotype"], "networks": rows})
        return
    print(genotype)
    Console().print(network_table(rows))
    print(f"The run is in {root} (docs/run-folder.md explains its files). Next, on your own images:")
    print("  dasvit search --config folder-small --data.path FOLDER --run runs/mine")
    print("  dasvit train --cell runs/mine")


def make_runtime(
    config: Config,
    run: RunFolder,
    reporter: Reporter,
    probe: Callable[[torch.device], Callable[[], None]],
) -> Runtime:
    """Settle device and precision: auto is measured once, printed, and kept in the run folder."""
    device = find_device(config.runtime.device)
    precision = config.runtime.precision
    if precision == "auto":
        kept = run.notes().get("precision")
        if kept is None:
            kept, seconds = measure_precision(device, probe(device))
            run.note(precision=kept, precision_seconds=seconds)
            times = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
            reporter.say(f"precision: {kept} (a step: {times})")
        precision = kept
    run.note(device=str(device), precision=precision)
    return Runtime(config.runtime, precision)


def settled(config: RuntimeConfig) -> Any:
    """Return the precision where nothing is measured: float32 for auto."""
    return "float32" if config.precision == "auto" else config.precision


def search_probe(config: Config, classes: int, device: torch.device) -> Callable[[], None]:
    """Return one weight step of the first stage's supernet, to time a precision with."""
    space = Space.from_config(config.space)
    alive = space.everything()
    supernet = make_supernet(config, space, alive, next(iter(config.search.stages)).layers, classes).to(
        device
    )
    weights = Architecture(space, alive).to(device)().detach()
    network = _WithWeights(supernet, weights)
    return probe_step(network, config.model.image_size, config.search.batch_size, classes, device)


class _WithWeights(nn.Module):
    def __init__(self, supernet: nn.Module, weights: torch.Tensor) -> None:
        super().__init__()
        self.supernet, self.weights = supernet, weights

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.supernet(images, self.weights)
        return logits


def train_probe(
    subject: Genotype | str, config: Config, classes: int, device: torch.device
) -> Callable[[], None]:
    """Return one step of the network to be trained, to time a precision with."""
    model = build(subject, config, classes).to(device)
    inner = probe_step(model, config.model.image_size, config.train.batch_size, classes, device)

    def step() -> None:
        prefer_fast_attention(
            model, device, torch.bfloat16 if torch.is_autocast_enabled(device.type) else torch.float32
        )
        inner()

    return step


def build(subject: Genotype | str, config: Config, classes: int) -> nn.Module:
    """Build what is trained, with fresh weights."""
    drop_path = config.train.drop_path
    if isinstance(subject, Genotype):
        return make_network(subject, config.model, classes, drop_path)
    return make_model(subject, config.model, classes, drop_path=drop_path)


def derive_found(found: Found, config: Config, classes: int, choice: DeriveConfig) -> Derivation:
    """Derive the best viable cell of a search's edge weights under a choice's rule and budget."""
    space = Space.from_config(config.space)
    model = config.model
    costs = {
        op: operation_cost(op, model.width, token_count(model)) * model.layers for op in space.operations
    }
    base = skeleton_cost(model, classes)
    budget = Budget(
        {op: (cost.params, cost.macs) for op, cost in costs.items()},
        (base.params, base.macs),
        choice.max_params,
        choice.max_macs,
    )
    return derive(
        found.weights,
        found.alive,
        space,
        rule=choice.rule,
        edges_per_node=choice.edges_per_node,
        budget=budget,
    )


def describe_derivation(derivation: Derivation, config: Config, classes: int) -> dict[str, Any]:
    """Return the chosen cell, its network's cost, and what was chosen against."""
    return {
        "genotype": derivation.genotype.to_dict(),
        "unconstrained": derivation.unconstrained.to_dict(),
        "reason": derivation.reason,
        **describe_cost(cost_of(derivation.genotype, config.model, classes)),
    }


def describe_cost(cost: Cost) -> dict[str, int]:
    """Return a cost as the keys of --json."""
    return {"params": cost.params, "macs": cost.macs, "macs_linear": cost.macs_linear}


def read_search(folder: Path) -> tuple[RunFolder, Config, Found, int]:
    """Read the edge weights that a search ended with.

    Raises:
        UserError: The folder holds no search, or one that wrote no epoch yet.
    """
    run = RunFolder(folder, "search")
    if not run.config_path.is_file():
        raise UserError(f"{folder} is no run folder: it holds no config.yaml.")
    if run.identity().get("kind") != "search":
        raise UserError(f"{folder} holds a training, not a search.")
    config = recipes.load(run.config_path)
    rows = run.rows("architecture.jsonl")
    if not rows:
        raise UserError(f"{folder} holds no architecture.jsonl: its search has not ended an epoch.")
    space = Space.from_config(config.space)
    try:
        table = [rows[-1]["weights"][edge] for edge in space.edge_names]
        weights = [[float(row.get(op, 0.0)) for op in space.operations] for row in table]
        alive = tuple(tuple(op in row for op in space.operations) for row in table)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{folder}/architecture.jsonl does not fit the run's config.yaml.") from None
    return run, config, Found(weights, alive), int(run.notes().get("classes", 10))


def write_classes(run: RunFolder, data: Data) -> None:
    """Note the data's classes and fingerprint."""
    run.note(classes=len(data.classes), data_fingerprint=data.fingerprint, skipped_images=list(data.skipped))


def say_data(data: Data, reporter: Reporter) -> None:
    """Say what was loaded."""
    skipped = f", {len(data.skipped)} broken ones skipped" if data.skipped else ""
    side = data.train.size
    reporter.say(
        f"data: {len(data.train):,} training and {len(data.test):,} test images of {side}×{side} pixels, "
        f"{len(data.classes)} classes{skipped}"
    )


def is_model_folder(name: str) -> bool:
    """Tell whether a path holds a trained model (and not a cell alone)."""
    path = Path(name)
    return path.is_dir() and any((path / inner / "config.json").is_file() for inner in ("", "model"))


def find_model(name: str) -> Path:
    """Return the model folder of a path: itself, its `model/`, or that of the training inside a search's folder.

    Raises:
        UserError: There is none.
    """
    path = Path(name)
    if not path.exists():
        raise UserError(f"there is no model {name}: give a run folder of `dasvit train`, or a model folder.")
    for inner in ("", "model", "train/model"):
        if (path / inner / "config.json").is_file():
            return path / inner
    raise UserError(f"{name} holds no trained model: train one with `dasvit train --cell {name}`.")


def class_names(description: dict[str, Any]) -> tuple[str, ...]:
    """Return a model's classes by name."""
    names = description["pretrained_cfg"].get("label_names") or description.get("label_names") or []
    return tuple(names)


def model_input(description: dict[str, Any]) -> int:
    """Return the side of a model's input in pixels."""
    return int(description["pretrained_cfg"]["input_size"][-1])


def preprocess_of(description: dict[str, Any]) -> Preprocess:
    """Return the preprocessing that a model was trained with."""
    cfg = description["pretrained_cfg"]
    return Preprocess(model_input(description), cfg["mean"], cfg["std"])


def parse_count(text: str, option: str) -> int:
    """Read a number such as 6M, 500k, 1.5G or 6_000_000; nothing is 0.

    Raises:
        UserError: It is no such number.
    """
    if not text:
        return 0
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)\s*([kKmMgGbB]?)", text.strip())
    if not match:
        raise UserError(f"{option} takes a number such as 6M, 500M or 1.5G, not {text!r}.")
    unit = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}[match[2].lower()]
    return round(float(match[1].replace("_", "")) * unit)


def slug(choice: DeriveConfig) -> str:
    """Return a file name that says how a cell was derived."""
    parts = [choice.rule]
    if choice.rule == "darts":
        parts.append(f"{choice.edges_per_node}-edges")
    for name, limit in {"params": choice.max_params, "macs": choice.max_macs}.items():
        if limit:
            parts.append(f"{name}-{limit}")
    return "_".join(parts)


def print_json(content: Any) -> None:
    """Print one JSON object on standard output."""
    json.dump(content, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


COMMANDS: dict[str, Callable[[Request], None]] = {
    "search": search_command,
    "derive": derive_command,
    "train": train_command,
    "evaluate": evaluate_command,
    "predict": predict_command,
    "cost": cost_command,
    "quickstart": quickstart_command,
}
