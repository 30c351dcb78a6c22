"""`dasvit compare`: any list of networks under one recipe, in one table."""

from __future__ import annotations

import sys
from typing import Any

from dasvit.commands.common import check_download, print_json, print_table
from dasvit.commands.options import CompareOptions
from dasvit.compare.networks import find_networks, with_weights
from dasvit.compare.trainings import Comparison, compare_costs, run_comparison
from dasvit.config import Config
from dasvit.errors import UserError, printable
from dasvit.models.paper_flops import WAY_OUT, has_ptflops
from dasvit.report.compare.tables import columns, ranked, remarks, terminal_table
from dasvit.runtime.progress import Reporter
from dasvit.training.figure import figure_of


def compare_command(options: CompareOptions, config: Config) -> None:
    reporter = Reporter()
    if options.classes and not options.cost_only:
        raise UserError("--classes goes with --cost-only: trained networks have the classes of the data.")
    entries = find_networks(options.networks, options.rows, options.scale)
    check_download(options.download, options.pretrained)
    if options.pretrained and not options.cost_only:
        entries = with_weights(entries, options.download == "true", reporter)
    how: dict[str, Any] = {"ptflops": wants_ptflops(options.ptflops, reporter), "published": options.published}
    how["latency"] = options.latency
    if options.cost_only:
        comparison = compare_costs(entries, config, options.run, classes=options.classes, **how)
    else:
        folder = options.run or "runs/compare"
        comparison = run_comparison(entries, config, folder, reporter, seeds=options.seeds, **how)
    show(comparison, options, figure_of(config.search.metric, any("map" in row for row in comparison.rows)))
    if failures := comparison.failures:
        raise UserError(f"{len(failures)} training(s) failed; the same command tries them again. {failures[0]}")


def wants_ptflops(choice: str, reporter: Reporter) -> bool:
    """Tell whether the paper's FLOPs are counted."""
    if choice == "no" or has_ptflops():
        return choice != "no"
    if choice == "yes":
        raise UserError(f"ptflops is not installed: {WAY_OUT}")
    reporter.say(f"ptflops is not installed: {WAY_OUT}")
    return False


def show(comparison: Comparison, options: CompareOptions, figure: str) -> None:
    rows, run = comparison.rows, comparison.run
    if options.json:
        print_json({**({"run": str(run.path)} if run else {}), "networks": rows})
    elif options.format != "table":
        sys.stdout.write(comparison.text(options.format))
    else:
        print_table(terminal_table(rows, columns(rows, comparison.published), comparison.title))
        if order := ranked(rows, figure):
            print(printable(order))
        for remark in remarks(rows):
            print(printable(remark))
        if run:
            print(f"{run.path}/compare.csv, .md, .tex and .json hold this table.")
