"""What a search will take, said before it begins, and as many candidates as fit into a time."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import NamedTuple

from dasvit.config import Config, FinalsConfig
from dasvit.config.methods import find_method
from dasvit.models.baselines import make_network
from dasvit.runtime.estimate import LONG, Estimate
from dasvit.runtime.progress import Reporter
from dasvit.search.autoformer import loop as autoformer
from dasvit.search.estimate import SearchEstimate, candidates_phase, counted_macs, estimate_search, fit_hours
from dasvit.search.probe import LoneRuntime, SearchStep
from dasvit.search.sized import draw_network, pools_within
from dasvit.session import Probe, Session, load_session
from dasvit.training.pipeline import network_probe


class Plan(NamedTuple):
    """What a search would do, and how long it would take.

    Attributes:
        phases: What each phase takes.
        training: What the training of the found network takes afterwards.
        finals: Its candidates.
    """

    phases: dict[str, Estimate]
    training: Estimate
    finals: FinalsConfig


def plan_search(config: Config, folder: str, reporter: Reporter, *, jobs: int = 1, hours: float = 0.0) -> Plan:
    """Return what a search would take, and the candidates it would train; nothing is written.

    Args:
        config: The recipe.
        folder: The run folder that the search would have.
        reporter: Where progress goes.
        jobs: Candidates that are trained at the same time.
        hours: As for `run_search`.

    Raises:
        UserError: A user's mistake.
    """
    session = load_session(config, folder, "search", reporter)
    session.settle_precision(search_probe(session), keep=False)
    found = estimate_search(session, jobs)
    finals = fit_hours(config.search.finals, found, hours, jobs) if hours else config.search.finals
    return Plan(found.phases(finals, jobs), found.training, finals)


def note_hours(session: Session, hours: float) -> None:
    """Keep which candidates a time was found to suffice for."""
    finals = session.config.search.finals
    session.run.note(hours={"hours": hours, "cells": finals.cells, "rungs": finals.rungs})


def within_hours(session: Session, hours: float, jobs: int) -> tuple[Session, SearchEstimate | None]:
    """Return the session with as many candidates as fit into a time, and what the search takes.

    A call that goes on has as many as the first one: it measures nothing.

    Raises:
        UserError: See `fit_hours`.
    """
    kept = session.runtime.from_main(lambda: session.run.notes().get("hours"))
    finals, found = session.config.search.finals, None
    if kept and kept["hours"] == hours:
        finals = replace(finals, cells=kept["cells"], rungs=kept["rungs"])
    else:
        session.settle_precision(search_probe(session), keep=False)
        found = estimate_search(session, jobs)
        estimated = found
        finals = session.runtime.from_main(lambda: fit_hours(finals, estimated, hours, jobs))
        session.reporter.say(
            f"--hours {hours:g}: {finals.cells} candidates, {finals.rungs[-1]:g} epochs of the best ones"
        )
    search = replace(session.config.search, finals=finals)
    return replace(session, config=replace(session.config, search=search)), found


def expect_search(session: Session, jobs: int, found: SearchEstimate | None) -> Session:
    """Say what a search will take, where it is long, and return the session that knows it.

    Args:
        session: The search's, its precision settled.
        jobs: Candidates that are trained at the same time.
        found: What it takes, where that is known.
    """
    finals, notes = session.config.search.finals, session.runtime.from_main(session.run.notes)
    if "estimate" not in notes and (found or counted_macs(session) > LONG):
        found = found or estimate_search(session, jobs)
        session.expect(found.phases(finals, jobs), f"; training what it finds: {found.training}")
        notes = session.runtime.from_main(session.run.notes)
    later = notes.get("estimate", {}).get("phases", {}).get(candidates_phase(finals), {}).get("seconds", 0.0)
    return replace(session, later=later)


def search_probe(session: Session) -> Probe | None:
    """Return what a search's precision is timed with: a step of its (first) supernet, or of a candidate's training.

    None where nothing is trained at all.
    """
    config, classes = session.config, session.classes
    if find_method(config.search.method).trains_supernet:
        return lambda device: SearchStep(config, classes, config.search.batch_size, LoneRuntime(device))
    if find_method(config.search.method).finds == "network":
        return autoformer.supernet_probe(config, classes)
    if not config.search.finals.cells:
        return None
    cell = draw_network(pools_within(config, classes), random.Random(config.runtime.seed))
    return network_probe(lambda: make_network(cell, config.model, classes, config.train.drop_path), config, classes)
