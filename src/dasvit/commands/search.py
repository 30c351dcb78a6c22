"""`dasvit search`: from images to a cell or network."""

from __future__ import annotations

from dasvit.commands.common import print_derivation, print_found, print_json, print_table, wanted_trackers
from dasvit.commands.options import SearchOptions
from dasvit.config import Config
from dasvit.config.validation import has_sizes
from dasvit.memory.fits import warn_memory
from dasvit.report.tables import front_table
from dasvit.runtime.estimate import describe, total
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.search.derive import Derivation
from dasvit.search.halving import Candidate
from dasvit.search.pipeline import run_search
from dasvit.search.proposal import SHIPPED
from dasvit.search.time_budget import Plan, plan_search


def describe_shipped(shipped: Candidate, best: Candidate) -> str:
    """Return what the search has over the cell that the package ships, trained likewise."""
    if best is shipped:
        return f"No candidate was better than {SHIPPED}, the cell that comes with dasvit: it is the search's cell."
    if shipped.diverged:
        return f"The training of {SHIPPED}, the cell that comes with dasvit, diverged."
    if best.tied and shipped.tied:
        return f"{SHIPPED}, the cell that comes with dasvit, is within the noise of the validation images: a tie."
    return (
        f"Over {SHIPPED}, the cell that comes with dasvit, trained likewise: val {best.last} against {shipped.last} "
        f"after {best.last.epochs:g} epochs."
    )


def print_plan(plan: Plan, as_json: bool) -> None:
    """Print what a search would do, and how long it would take."""
    if as_json:
        phases = {name: phase.to_dict() for name, phase in plan.phases.items()}
        whole, training = total(plan.phases.values()).to_dict(), plan.training.to_dict()
        finals = {"cells": plan.finals.cells, "rungs": plan.finals.rungs}
        print_json({"phases": phases, "search": whole, "training": training, "candidates": finals})
        return
    print(f"The search would take {describe(plan.phases)}.")
    print(f"Training what it finds would take {plan.training}.")


def search_command(options: SearchOptions, config: Config) -> None:
    if options.dry_run:
        plan = plan_search(config, options.run, Reporter(), jobs=options.jobs, hours=options.hours)
        print_plan(plan, options.json)
        return
    found = run_search(
        config,
        options.run,
        Reporter(),
        resume=options.resume,
        deadline=Deadline.after(options.max_minutes, options.begun),
        track=wanted_trackers(options.track),
        warn=lambda session: warn_memory(session.config, session.classes, session.reporter),
        jobs=options.jobs,
        hours=options.hours,
        cluster=options.cluster,
        cluster_config=options.cluster_config,
    )
    folder, content = str(found.session.run.path), found.to_dict()
    if options.json:
        print_json({"run": folder, **content})
        return
    if isinstance(found.derivation, Derivation):
        print_derivation(found.derivation)
    else:
        print(found.found)
    if found.shipped:
        print(f"\n{describe_shipped(found.shipped, found.candidates[0])}")
    if has_sizes(config.space) and content.get("finals"):
        print_table(front_table(content["finals"], content["genotype"]))
    print_found(folder, content)
