"""`dasvit search` and `dasvit derive`: from images to a cell, and from edge weights to another one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dasvit import recipe as recipes
from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Alive, Space
from dasvit.cli import Request
from dasvit.commands.common import describe_cost, note_data, print_json, say_data, settle_precision
from dasvit.config import Config, DeriveConfig
from dasvit.data import load_data
from dasvit.errors import UserError
from dasvit.models.cost import cost_of, operation_cost, skeleton_cost, token_count
from dasvit.report.tables import number
from dasvit.search.architecture import Architecture
from dasvit.search.derive import Budget, Derivation, derive
from dasvit.search.loop import make_supernet, search
from dasvit.search.stages import with_pruned
from dasvit.training.distributed import Runtime, seed_everything
from dasvit.training.files import write_whole
from dasvit.training.loop import probe_step
from dasvit.training.progress import Reporter
from dasvit.training.run_folder import RunFolder
from dasvit.training.saver import NEVER, Deadline

Stages = list[tuple[list[list[float]], Alive]]
"""Edge weights [E][O] and operations alive, at the end of every stage."""


def search_command(request: Request) -> None:
    """`dasvit search`: a run folder with a cell in it."""
    assert request.config is not None
    deadline = Deadline.after(request.options["max_minutes"])
    result = do_search(request.config, request.options["run"], Reporter(), request.options["resume"], deadline)
    if request.options["json"]:
        print_json(result)
        return
    print(Genotype.from_dict(result["genotype"]))
    if result["reason"]:
        print(f"{result['reason']} It was:\n{Genotype.from_dict(result['unconstrained'])}")
    print(f"\n{result['run']}: {number(result['params'])} parameters, {number(result['macs'])} multiply-adds.")
    print(f"Train it: dasvit train --cell {result['run']}")


def do_search(
    config: Config, folder: str, reporter: Reporter, resume: bool = False, deadline: Deadline = NEVER
) -> dict[str, Any]:
    """Search in a run folder, write its genotype, and return what was found.

    Args:
        config: The recipe.
        folder: The run folder.
        reporter: Where progress goes.
        resume: There must be a run to go on with.
        deadline: When to stop.

    Raises:
        UserError: A user's mistake.
        Stopped: By a signal or the deadline; the same call goes on.
    """
    run = RunFolder(folder, "search")
    runtime = Runtime(config.runtime)
    with runtime.first_of_machine():
        data = load_data(config.data, config.model.image_size, config.runtime.seed)
    say_data(data, reporter)
    if runtime.is_main:
        run.open(config, config.search.method, resume)
        note_data(run, data)
    seed_everything(config.runtime.seed)
    classes = len(data.classes)
    settle_precision(runtime, config, run, reporter, lambda device: search_probe(config, classes, device))
    seed_everything(config.runtime.seed)
    search(config, data, run, runtime, reporter, deadline)
    return runtime.from_main(lambda: write_cell(run, config, classes))


def write_cell(run: RunFolder, config: Config, classes: int) -> dict[str, Any]:
    """Derive the cell of a search that has ended, write it, and return what was found."""
    stages = read_stages(run, Space.from_config(config.space))
    derivation = derive_found(stages, config, classes, config.search.derive)
    result = describe_derivation(derivation, config, classes)
    run.write_text("genotype.json", derivation.genotype.to_json())
    run.write_json("derivation.json", result)
    return {"run": str(run.path), **result}


def derive_command(request: Request) -> None:
    """`dasvit derive`: another rule or a budget, from the edge weights of a search."""
    options = request.options
    folder = Path(options["run"])
    config, stages, classes = read_search(folder)
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
    derivation = derive_found(stages, config, classes, choice)
    result = describe_derivation(derivation, config, classes)
    out = Path(options["out"]) if options["out"] else folder / "derived" / f"{slug(choice)}.json"
    text = derivation.genotype.to_json()
    if out.exists() and out.read_bytes() != text.encode():
        raise UserError(f"{out} holds another cell: give --out another file.")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda file: file.write(text.encode()))
    if options["json"]:
        print_json({"cell": str(out), **result})
        return
    print(derivation.genotype)
    if derivation.reason:
        print(f"{derivation.reason} It was:\n{derivation.unconstrained}")
    print(f"\n{out}: {number(result['params'])} parameters, {number(result['macs'])} multiply-adds.")
    print(f"Train it: dasvit train --cell {out}")


def derive_found(stages: Stages, config: Config, classes: int, choice: DeriveConfig) -> Derivation:
    """Derive the best viable cell of a search's edge weights under a choice's rule and budget.

    The survivors of the last stage compete; only where none of their cells fits do pruned operations come back.

    Args:
        stages: Edge weights and operations alive at the end of every stage.
        config: The search's configuration.
        classes: Classes of the data.
        choice: Rule and budget.

    Raises:
        UserError: No cell of the space fits.
    """
    space = Space.from_config(config.space)
    model = config.model
    costs = {op: operation_cost(op, model.width, token_count(model)) * model.layers for op in space.operations}
    base = skeleton_cost(model, classes)
    budget = Budget(
        {op: (cost.params, cost.macs) for op, cost in costs.items()},
        (base.params, base.macs),
        choice.max_params,
        choice.max_macs,
    )
    how: dict[str, Any] = {"rule": choice.rule, "edges_per_node": choice.edges_per_node, "budget": budget}
    weights, alive = stages[-1]
    try:
        return derive(weights, alive, space, **how)
    except UserError:
        if len(stages) == 1:
            raise
    found = derive(with_pruned(stages), stages[0][1], space, **how)
    return replace(found, reason=f"{found.reason} Operations pruned in earlier stages were taken back.")


def describe_derivation(derivation: Derivation, config: Config, classes: int) -> dict[str, Any]:
    """Return the chosen cell, its network's cost, and what was chosen against."""
    return {
        "genotype": derivation.genotype.to_dict(),
        "unconstrained": derivation.unconstrained.to_dict(),
        "reason": derivation.reason,
        **describe_cost(cost_of(derivation.genotype, config.model, classes)),
    }


def read_search(folder: Path) -> tuple[Config, Stages, int]:
    """Read a search's configuration, its edge weights stage by stage, and the number of classes.

    Raises:
        UserError: The folder holds no search, or one that wrote no epoch yet.
    """
    run = RunFolder(folder, "search")
    if not run.config_path.is_file():
        raise UserError(f"{folder} is no run folder: it holds no config.yaml.")
    if run.identity().get("kind") != "search":
        raise UserError(f"{folder} holds a training, not a search.")
    config = recipes.load(run.config_path)
    classes = run.notes().get("classes")
    if not isinstance(classes, int):
        raise UserError(f"{folder}/environment.json does not say how many classes the data have.")
    return config, read_stages(run, Space.from_config(config.space)), classes


def read_stages(run: RunFolder, space: Space) -> Stages:
    """Return edge weights [E][O] and operations alive at the end of every stage so far.

    Raises:
        UserError: There is no epoch yet, or the file does not fit the space.
    """
    rows = run.rows("architecture.jsonl")
    if not rows:
        raise UserError(f"{run.path} holds no architecture.jsonl: its search has not ended an epoch.")
    try:
        last = {row["stage"]: row["weights"] for row in rows}
        tables = [[last[stage][edge] for edge in space.edge_names] for stage in sorted(last)]
        return [
            (
                [[float(row.get(op, 0.0)) for op in space.operations] for row in table],
                tuple(tuple(op in row for op in space.operations) for row in table),
            )
            for table in tables
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{run.path}/architecture.jsonl does not fit the run's config.yaml.") from None


def search_probe(config: Config, classes: int, device: torch.device) -> Callable[[], None]:
    """Return one weight step of the first stage's supernet, to time a precision with."""
    space = Space.from_config(config.space)
    alive = space.everything()
    supernet = make_supernet(config, space, alive, next(iter(config.search.stages)).layers, classes).to(device)
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
    parts: list[str] = [choice.rule]
    if choice.rule == "darts":
        parts.append(f"{choice.edges_per_node}-edges")
    for name, limit in {"params": choice.max_params, "macs": choice.max_macs}.items():
        if limit:
            parts.append(f"{name}-{limit}")
    return "_".join(parts)
