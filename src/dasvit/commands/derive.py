"""`dasvit derive`: another cell of a search that has ended, by another rule or within a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dasvit.commands.common import print_derivation, print_found, print_json
from dasvit.commands.options import DeriveOptions
from dasvit.config import DeriveConfig
from dasvit.config import recipe as recipes
from dasvit.config.units import parse_time
from dasvit.config.validation import has_sizes
from dasvit.errors import UserError
from dasvit.io.files import write_whole
from dasvit.latency.table import find_table, past_table
from dasvit.runtime.progress import Reporter
from dasvit.search.derivation import file_name
from dasvit.search.evaluation import perturbed_again
from dasvit.search.past_run import read_search
from dasvit.search.pipeline import describe_derivation
from dasvit.search.sized import with_choice


def derive_command(options: DeriveOptions) -> None:
    folder = Path(options.run)
    past = read_search(folder)
    choice = chosen(options, past.config.search.derive)
    config = with_choice(past.config, choice)
    if choice.max_latency:
        config = past_table(config, folder, options.latency_table)
        if not has_sizes(config.space):
            find_table(config, past.classes, Reporter())
    past = replace(past, config=config)
    if choice.rule == "perturbation":
        stages = perturbed_again(config, past.classes, folder, past.stages, Reporter())
        past = replace(past, stages=stages)
    derivation = past.derive(choice, by_weights=bool(options.rule))
    result = describe_derivation(derivation, past.config, past.classes)
    out = Path(options.out) if options.out else folder / "derived" / f"{file_name(choice)}.json"
    text = derivation.genotype.to_json()
    if out.exists() and out.read_bytes() != text.encode():
        raise UserError(f"{out} holds another cell: give --out another file.")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, text.encode())
    if options.json:
        print_json({"cell": str(out), **result})
        return
    print_derivation(derivation)
    print_found(out, result)


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
