"""How long a study will take: the mean search and the mean training, times how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dasvit.report.words import duration
from dasvit.runtime.cluster import Cluster
from dasvit.runtime.estimate import LONG, Estimate, mean, total
from dasvit.search.estimate import counted_macs, estimate_search
from dasvit.session import Session
from dasvit.study.jobs import Runner
from dasvit.study.plan import Variant


def expect_study(session: Session, variants: Sequence[Variant], runner: Runner) -> None:
    """Say how long a study will take, where it is long, and have its runner know before the first runs have ended.

    Of variants that differ in neither method nor candidates, as in a sweep, one is timed for all.

    Args:
        session: The study's, its precision settled.
        variants: What is searched with.
        runner: Knows how many searches and trainings there are.
    """
    runs = sum(runner.left.values())
    is_elsewhere = isinstance(runner.place, Cluster) and runner.place.kind != "local"
    is_known = "estimate" in session.run.notes()
    if is_elsewhere or is_known or counted_macs(session) * runs < LONG:
        return
    known: dict[object, tuple[Estimate, Estimate]] = {}
    for variant in variants:
        search = variant.config.search
        key = (search.method, search.finals.cells, *search.stages.layers)
        if key not in known:
            found = estimate_search(replace(session, config=variant.config))
            known[key] = total(found.phases(search.finals, 1).values()), found.training
    of_kind = {name: mean([times[place] for times in known.values()]) for place, name in enumerate(("search", "train"))}
    runner.expected = {name: estimate.seconds for name, estimate in of_kind.items()}
    beside = runner.place.at_once if runner.place else 1
    phases = {
        f"{runner.left[name]} {word}": of_kind[name] * (runner.left[name] / beside)
        for name, word in (("search", "searches"), ("train", "trainings"))
    }
    session.expect(phases, f"; a search {duration(of_kind['search'].seconds)}")
