"""`dasvit derive`: another cell of a search that has ended, by another rule or within a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dasvit.commands.common import print_derivation, print_json, print_latency, print_use
from dasvit.commands.options import DeriveOptions
from dasvit.config import Config, DeriveConfig
from dasvit.config import recipe as recipes
from dasvit.config.methods import find_method
from dasvit.config.units import parse_time
from dasvit.config.validation import has_sizes
from dasvit.data import load_data
from dasvit.errors import UserError
from dasvit.io.files import write_whole
from dasvit.io.run_folder import RunFolder
from dasvit.latency.table import find_table, past_table
from dasvit.report.tables import number
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.search.evaluation import perturbed, restore
from dasvit.search.past_run import PastSearch, read_search
from dasvit.search.pipeline import describe_derivation
from dasvit.session import as_begun, say_data


def derive_command(options: DeriveOptions) -> None:
    folder = Path(options.run)
    past = read_search(folder)
    choice = chosen(options, past.config.search.derive)
    config = replace(past.config, search=replace(past.config.search, derive=choice))
    if choice.max_latency:
        config = past_table(config, folder, options.latency_table)
        if not has_sizes(config.space):
            find_table(config, past.classes, Reporter())
    past = replace(past, config=config)
    if choice.rule == "perturbation":
        past = perturbed_again(past, folder, choice)
    derivation = past.derive(choice, by_weights=bool(options.rule))
    result = describe_derivation(derivation, past.config, past.classes)
    out = Path(options.out) if options.out else folder / "derived" / f"{slug(choice)}.json"
    text = derivation.genotype.to_json()
    if out.exists() and out.read_bytes() != text.encode():
        raise UserError(f"{out} holds another cell: give --out another file.")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda file: file.write(text.encode()))
    if options.json:
        print_json({"cell": str(out), **result})
        return
    print_derivation(derivation)
    print(f"\n{out}: {number(result['params'])} parameters, {number(result['macs'])} multiply-adds.")
    print_use(result)
    print_latency(result)
    print(f"Train it: dasvit train --cell {out}")


def chosen(options: DeriveOptions, base: DeriveConfig) -> DeriveConfig:
    """Return the run's choice with what the command line changes of it."""
    choice = replace(
        base,
        rule=options.rule or base.rule,
        edges_per_node=options.edges_per_node or base.edges_per_node,
        max_params=recipes.parse_count(options.max_params, "--max-params") or base.max_params,
        max_macs=recipes.parse_count(options.max_macs, "--max-macs") or base.max_macs,
        max_latency=options.max_latency or base.max_latency,
        max_skips=options.max_skips if options.max_skips >= 0 else base.max_skips,
    )
    parse_time(options.max_latency, "--max-latency")
    if choice.edges_per_node < 1:
        raise UserError("--edges-per-node must be at least 1.")
    return choice


def perturbed_again(past: PastSearch, folder: Path, choice: DeriveConfig) -> PastSearch:
    """Return a search with its last stage's weights by perturbation of the supernet in its newest checkpoint."""
    config: Config = past.config
    if not find_method(config.search.method).learns_alphas or past.stages is None:
        raise UserError(f"the method {config.search.method} trains no mixture that could be perturbed.")
    run, reporter = RunFolder(folder, "search"), Reporter()
    config = replace(config, search=replace(config.search, derive=choice))
    runtime = Runtime(config.runtime, "bfloat16" if run.notes().get("precision") == "bfloat16" else "float32")
    last = restore(config, past.classes, run, runtime, reporter)
    data = load_data(as_begun(config.data, folder), config.model.image_size, config.runtime.seed)
    say_data(data, reporter)
    return replace(past, stages=[*past.stages[:-1], perturbed(last, data, config, runtime)])


def slug(choice: DeriveConfig) -> str:
    """Return a file name that says how a cell was derived."""
    parts: list[str] = [choice.rule]
    if choice.rule != "strongest":
        parts.append(f"{choice.edges_per_node}-edges")
    microseconds = round(1e6 * parse_time(choice.max_latency, "--max-latency"))
    for name, limit in {"params": choice.max_params, "macs": choice.max_macs, "us": microseconds}.items():
        if limit:
            parts.append(f"{name}-{limit}")
    if choice.max_skips >= 0:
        parts.append(f"skips-{choice.max_skips}")
    return "_".join(parts)
