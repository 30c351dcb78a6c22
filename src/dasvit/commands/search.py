"""`dasvit search` and `dasvit derive`: from images to a cell, and from edge weights to another one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dasvit.cell.cost import operation_cost, skeleton_cost, token_count
from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Alive, Space
from dasvit.cli import Request
from dasvit.commands.common import (
    check_memory,
    describe_cost,
    live_report,
    note_data,
    noted_classes,
    print_json,
    say_data,
    settle_precision,
    settled_data,
    wanted_trackers,
)
from dasvit.commands.memory import warn_memory
from dasvit.config import Config, DeriveConfig
from dasvit.config import recipe as recipes
from dasvit.data import load_data
from dasvit.errors import UserError
from dasvit.io.files import write_whole
from dasvit.io.run_folder import RunFolder
from dasvit.methods import find_method
from dasvit.models.baselines import make_network
from dasvit.models.cost import cost_of
from dasvit.report.tables import number
from dasvit.runtime.distributed import Runtime, seed_everything
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import NEVER, Deadline
from dasvit.runtime.tracking import Tracking
from dasvit.search.candidates import Final, Stages, decide, derive_found, play
from dasvit.search.derive import Derivation
from dasvit.search.evaluation import WithWeights, perturbed, restore
from dasvit.search.loop import search
from dasvit.search.state import make_architecture, make_supernet
from dasvit.search.strategies import make_strategy
from dasvit.search.strategies.base import Moment
from dasvit.search.strategies.random_cell import comparable_cells
from dasvit.training.loop import probe_step

CHOICES = ("darts", "strongest", "perturbation")
"""The rules of derivation."""


def search_command(request: Request) -> None:
    """`dasvit search`: a run folder with a cell in it."""
    assert request.config is not None
    deadline = Deadline.after(request.options["max_minutes"])
    options, track = request.options, wanted_trackers(request.options["track"])
    result = do_search(request.config, options["run"], Reporter(), options["resume"], deadline, track)
    if options["json"]:
        print_json(result)
        return
    print(Genotype.from_dict(result["genotype"]))
    if result["reason"]:
        print(f"{result['reason']} It was:\n{Genotype.from_dict(result['unconstrained'])}")
    print(f"\n{result['run']}: {number(result['params'])} parameters, {number(result['macs'])} multiply-adds.")
    print(f"Train it: dasvit train --cell {result['run']}")


def do_search(
    config: Config,
    folder: str,
    reporter: Reporter,
    resume: bool = False,
    deadline: Deadline = NEVER,
    track: Sequence[str] = (),
) -> dict[str, Any]:
    """Search in a run folder, write its genotype, and return what was found.

    Args:
        config: The recipe.
        folder: The run folder.
        reporter: Where progress goes.
        resume: There must be a run to go on with.
        deadline: When to stop.
        track: Trackers that are sent every epoch's numbers.

    Raises:
        UserError: A user's mistake.
        Stopped: By a signal or the deadline; the same call goes on.
    """
    run = RunFolder(folder, "search")
    runtime = Runtime(config.runtime)
    with runtime.first_of_machine():
        data = load_data(config.data, config.model.image_size, config.runtime.seed)
    say_data(data, reporter)
    config = settled_data(config)
    has_supernet = find_method(config.search.method).trains_supernet
    if has_supernet:
        check_memory(supernet_params(config, len(data.classes)))
    if runtime.is_main:
        run.open(config, config.search.method, resume)
        note_data(run, data, reporter)
        if has_supernet:
            warn_memory(config, len(data.classes), reporter)
    seed_everything(config.runtime.seed)
    classes = len(data.classes)
    method = find_method(config.search.method)
    trains = method.trains_supernet or method.finals == "always"
    probe = (lambda device: search_probe(config, classes, device)) if trains else None
    settle_precision(runtime, config, run, reporter, probe)
    seed_everything(config.runtime.seed)
    tracking = Tracking(run, track if runtime.is_main else (), config, reporter)
    with live_report(run, runtime, reporter), tracking:
        found = search(config, data, run, runtime, reporter, deadline, tracking)
        measured = None
        if config.search.derive.rule == "perturbation" and found.part is not None:
            measured = perturbed(found.part, data, config, runtime)
        finals: list[Final] = []
        if config.search.finals.cells:
            stages = runtime.from_main(lambda: final_stages(run, config, measured))
            finals = play(stages, config, data, run, runtime, reporter, deadline)
        return runtime.from_main(lambda: write_cell(run, config, classes, measured, finals))


def final_stages(run: RunFolder, config: Config, measured: tuple[list[list[float]], Alive] | None) -> Stages:
    """Return the stages of a search that has ended, the last one's weights as measured by perturbation if they were."""
    stages = read_stages(run, Space.from_config(config.space))
    return stages if measured is None else [*stages[:-1], measured]


def write_cell(
    run: RunFolder,
    config: Config,
    classes: int,
    measured: tuple[list[list[float]], Alive] | None,
    finals: Sequence[Final] = (),
) -> dict[str, Any]:
    """Derive the cell of a search that has ended, write it, and return what was found.

    Args:
        run: The search's folder.
        config: Its recipe.
        classes: Classes of the data.
        measured: Edge weights by perturbation and what is alive, in place of the last stage's. None: that stage's.
        finals: What the finalists reached, best first. Empty: there were no finals.
    """
    derivation = derive_found(final_stages(run, config, measured), config, classes, config.search.derive)
    if finals:
        derivation = decide(derivation, finals)
    result = describe_derivation(derivation, config, classes)
    if finals:
        result["finals"] = [describe_final(final, config, classes) for final in finals]
    run.write_text("genotype.json", derivation.genotype.to_json())
    run.write_json("derivation.json", result)
    return {"run": str(run.path), **result}


def derive_command(request: Request) -> None:
    """`dasvit derive`: another rule or a budget, from the edge weights of a search."""
    options = request.options
    folder = Path(options["run"])
    config, stages, classes = read_search(folder)
    base = config.search.derive
    if options["rule"] not in ("", *CHOICES):
        raise UserError(f"--rule is {', '.join(CHOICES[:-1])} or {CHOICES[-1]}, not {options['rule']!r}.")
    choice = replace(
        base,
        rule=options["rule"] or base.rule,
        edges_per_node=options["edges_per_node"] or base.edges_per_node,
        max_params=recipes.parse_count(options["max_params"], "--max-params") or base.max_params,
        max_macs=recipes.parse_count(options["max_macs"], "--max-macs") or base.max_macs,
    )
    if options["max_skips"] >= 0:
        choice.max_skips = options["max_skips"]
    if choice.edges_per_node < 1:
        raise UserError("--edges-per-node must be at least 1.")
    if choice.rule == "perturbation":
        stages[-1] = perturb_again(folder, config, classes, choice)
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


def perturb_again(folder: Path, config: Config, classes: int, choice: DeriveConfig) -> tuple[list[list[float]], Alive]:
    """Return edge weights `[E][O]` by perturbation of the supernet in a run's newest checkpoint, and what is alive.

    Raises:
        UserError: The search trained no mixture, or left no checkpoint.
    """
    if not find_method(config.search.method).learns_alphas:
        raise UserError(f"the method {config.search.method} trains no mixture that could be perturbed.")
    run, reporter = RunFolder(folder, "search"), Reporter()
    config = replace(config, search=replace(config.search, derive=choice))
    runtime = Runtime(config.runtime, "bfloat16" if run.notes().get("precision") == "bfloat16" else "float32")
    part = restore(config, classes, run, runtime, reporter)
    data = load_data(config.data, config.model.image_size, config.runtime.seed)
    return perturbed(part, data, config, runtime)


def describe_derivation(derivation: Derivation, config: Config, classes: int) -> dict[str, Any]:
    """Return the chosen cell, its network's cost, and what was chosen against."""
    return {
        "genotype": derivation.genotype.to_dict(),
        "unconstrained": derivation.unconstrained.to_dict(),
        "reason": derivation.reason,
        **describe_cost(cost_of(derivation.genotype, config.model, classes)),
    }


def describe_final(final: Final, config: Config, classes: int) -> dict[str, Any]:
    """Return a finalist, what it reached, and what its network costs."""
    cost = describe_cost(cost_of(final.cell, config.model, classes))
    return {"genotype": final.cell.to_dict(), "top1": final.top1, "loss": final.loss, "epochs": final.epochs, **cost}


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
    return config, read_stages(run, Space.from_config(config.space)), noted_classes(run)


def read_stages(run: RunFolder, space: Space) -> Stages:
    """Return edge weights `[E][O]` and operations alive at the end of every stage so far.

    Raises:
        UserError: There is no epoch yet, or the file does not fit the space.
    """
    try:
        rows = run.rows("architecture.jsonl")
    except (UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{run.path}/architecture.jsonl is damaged ({error}).") from None
    if not rows:
        raise UserError(f"{run.path} holds no architecture.jsonl: its search has not ended an epoch.")
    try:
        last = {row["stage"]: row["weights"] for row in rows}
        tables = [[last[stage][edge] for edge in space.edge_names] for stage in sorted(last)]
        return [([_finite_row(row, space) for row in table], _alive(table, space)) for table in tables]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(f"{run.path}/architecture.jsonl does not fit the run's config.yaml.") from None


def _finite_row(row: dict[str, Any], space: Space) -> list[float]:
    """Return an edge's weights [O]; raises ValueError where one is no finite number."""
    weights = [float(row.get(op, 0.0)) for op in space.operations]
    if not all(map(math.isfinite, weights)):
        raise ValueError(weights)
    return weights


def _alive(table: list[dict[str, Any]], space: Space) -> Alive:
    """Return which operations are alive on each edge; raises ValueError where none is."""
    alive = tuple(tuple(op in row for op in space.operations) for row in table)
    if not all(map(any, alive)):
        raise ValueError(alive)
    return alive


def supernet_params(config: Config, classes: int) -> int:
    """Return about how many parameters the largest supernet of a search has: its skeleton and all its operations."""
    space, stages = Space.from_config(config.space), config.search.stages
    model = replace(config.model, width=config.search.width or config.model.width)
    edge = sum(operation_cost(op, model.width, token_count(model)).params for op in space.operations)
    return skeleton_cost(model, classes).params + edge * len(space.edges) * max(stages.layers)


def search_probe(config: Config, classes: int, device: torch.device) -> Callable[[], None]:
    """Return one step of what a search trains first, to time a precision with.

    That is the weight step of the first stage's supernet, or, without one, a step of a candidate's training.
    """
    if not find_method(config.search.method).trains_supernet:
        cell = comparable_cells(config, classes).draw(random.Random(config.runtime.seed))
        candidate = make_network(cell, config.model, classes, config.train.drop_path).to(device)
        return probe_step(candidate, config.model.image_size, config.train.batch_size, classes, device)
    space = Space.from_config(config.space)
    alive = space.everything()
    supernet = make_supernet(config, space, alive, next(iter(config.search.stages)).layers, classes).to(device)
    architecture = make_architecture(config, space, alive).to(device)
    strategy = make_strategy(config, space, classes)
    strategy.begin_step(Moment(0, 0.0, 0, 0.0), supernet, architecture)
    network = WithWeights(supernet, strategy.weights(architecture).detach())
    return probe_step(network, config.model.image_size, config.search.batch_size, classes, device)


def slug(choice: DeriveConfig) -> str:
    """Return a file name that says how a cell was derived."""
    parts: list[str] = [choice.rule]
    if choice.rule != "strongest":
        parts.append(f"{choice.edges_per_node}-edges")
    for name, limit in {"params": choice.max_params, "macs": choice.max_macs}.items():
        if limit:
            parts.append(f"{name}-{limit}")
    if choice.max_skips >= 0:
        parts.append(f"skips-{choice.max_skips}")
    return "_".join(parts)
