"""What the sections of a run's page show beside the charts: choices, mixture, cost, configuration."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, get_args

from markupsafe import Markup

from dasvit.cell.cost import VIT_LAYER, Cost, operation_cost, skeleton_cost, token_count, vit_cost
from dasvit.cell.genotype import Genotype
from dasvit.cell.graph import live_edges
from dasvit.config import ModelConfig
from dasvit.config.fields import Pool, Stem
from dasvit.config.recipe import flatten
from dasvit.errors import UserError
from dasvit.report.drawing.cells import edge_name, edges_of, mixed_cell, nodes_of, strongest
from dasvit.report.drawing.charts import bars, thin
from dasvit.report.drawing.palette import in_order
from dasvit.report.run.reading import Run, Weights, whole
from dasvit.report.tables import number
from dasvit.report.words import ratio, teacher_text, weight

MOST_FRAMES = 40_000
"""Weights that the slider holds: epochs × edges × operations."""


def choices(run: Run, weights: Weights) -> list[list[str]]:
    """Return, for every edge, the operation of the cell and the strongest one, with their weights."""
    cell = run.genotype
    chosen = {edge_name(e.source, e.target): e.op for e in cell.edges} if cell else {}
    best = strongest(weights)
    rows = []
    for edge in dict.fromkeys([*chosen, *weights]):
        table, picks = weights.get(edge, {}), (chosen.get(edge), best.get(edge))
        cells = [text for op in picks for text in (op or "–", weight(table[op]) if op in table else "–")]
        rows.append([edge, *cells])
    return rows


def mixture(run: Run, index: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the drawing of the mixture and, epoch by epoch, the weights that its slider shows."""
    names = edges_of(nodes_of(run.weights))
    if not names:
        return None
    ops, found = in_order(index), {s.epoch: s for s in run.snapshots if set(s.weights) == set(names)}
    kept = thin(list(found), max(20, MOST_FRAMES // (len(names) * len(ops))), {s.start + 1 for s in run.stages})
    frames = [
        {
            "epoch": epoch,
            "stage": found[epoch].stage,
            "weights": [[round(found[epoch].weights[name].get(op, 0.0), 3) for op in ops] for name in names],
        }
        for epoch in kept
    ]
    drawing = mixed_cell(run.weights, index, run.snapshots[-1].epoch)
    return {"drawing": drawing, "frames": frames, "operations": ops, "edges": names}


def model_config(run: Run) -> ModelConfig | None:
    """Return the network's sizes, the cell's own where it has some, or None where the configuration says none."""
    found = {name: whole(run.option(f"model.{name}"), 1) for name in ("image_size", "patch_size", "width", "layers")}
    if None in found.values():
        return None
    sizes: dict[str, Any] = found
    forms = {"stem": get_args(Stem), "pool": get_args(Pool)}
    sizes |= {name: value for name, known in forms.items() if (value := run.option(f"model.{name}")) in known}
    model = ModelConfig(**sizes)
    return run.genotype.at(model) if run.genotype else model


def reference_cost(run: Run) -> Cost | None:
    """Return the cost of the ViT of the run's width, depth, tokens and classes, where these are known."""
    model, classes = model_config(run), whole(run.environment.get("classes"), 1)
    try:
        return vit_cost(model, classes) if model and classes else None
    except UserError:
        return None


def cost_section(run: Run, index: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the cost of the run's network against the ViT's: a table, and bars by operation."""
    reference, model = reference_cost(run), model_config(run)
    if "params" not in run.result or "macs" not in run.result:
        return None
    rows = []
    for key, name in (("params", "parameters"), ("macs", "multiply-adds"), ("macs_linear", "… in linear layers")):
        if (own := run.result.get(key)) is not None:
            other = getattr(reference, key) if reference else 0
            rows.append([name, f"{own:,.0f}", f"{other:,}" if other else "–", ratio(own, other) or "–"])
    drawing = None
    if reference and model and run.genotype:
        drawing = _cost_bars(run.genotype, model, whole(run.environment.get("classes"), 1) or 1, index)
    return {"rows": rows, "drawing": drawing, "model": model}


def _cost_bars(genotype: Genotype, model: ModelConfig, classes: int, index: Mapping[str, int]) -> Markup:
    """Draw where parameters and multiply-adds go, in the cell's network and in the ViT."""
    cell = [(genotype.edges[i].op, f"op-{index[genotype.edges[i].op]}") for i in live_edges(genotype)]
    vit = [("msa", "line-0"), ("mlp", "line-1")]
    drawings = []
    for key, word in (("params", "parameters"), ("macs", "multiply-adds")):
        rows = []
        for name, parts in (("this cell", cell), ("ViT", vit)):
            pieces = [("embedding and head", "rest", float(getattr(skeleton_cost(model, classes), key)))]
            for op, css in parts:
                named = dict(zip(("msa", "mlp"), VIT_LAYER, strict=True)).get(op, op)
                size = getattr(operation_cost(named, model.width, token_count(model)) * model.layers, key)
                pieces.append((f"{op} ({number(size)})", css, float(size)))
            rows.append((f"{word}, {name}", number(sum(size for _, _, size in pieces)), pieces))
        drawings.append(bars(rows, "; ".join(f"{name}: {total}" for name, total, _ in rows)))
    return Markup("").join(drawings)


def settings(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the configuration, section by section, as names and values."""
    return [(name, list(written(content).items())) for name, content in run.config.items()]


def written(content: Any) -> dict[str, str]:
    """Return the values of a nested dictionary under their dotted names; of anything else its own, without a name."""
    fields = flatten(content) if isinstance(content, Mapping) else {"": content}
    return {name: write_value(value) for name, value in fields.items()}


def write_value(value: Any) -> str:
    """Return a value as YAML would have it in a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(write_value, value))}]"
    return "''" if value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def _epochs(counts: Any) -> str:
    """Return the epochs at which a training had ended before it was given more."""
    return f"{', '.join(map(str, counts))} epochs" if isinstance(counts, list) and counts else ""


def facts(run: Run) -> list[tuple[str, str]]:
    """Return what the run folder says about where and how it ran."""
    environment = run.environment
    command = environment.get("command")
    versions = environment.get("versions")
    found = {
        "folder": str(run.path),
        "command": shlex.join(map(str, command)) if isinstance(command, list) else "",
        "subject": run.subject,
        "began with": environment.get("init_model"),
        "teacher": teacher_text(environment.get("teacher"), with_place=True),
        "lengthened after": _epochs(environment.get("lengthened_after")),
        "seed": environment.get("seed"),
        "machine": environment.get("machine"),
        "device": environment.get("device"),
        "precision": environment.get("precision"),
        "Python": environment.get("python"),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else "",
        "classes": environment.get("classes"),
        "fingerprint of the data": environment.get("data_fingerprint"),
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]
