"""`dasvit search`: from images to a cell or network."""

from __future__ import annotations

from dasvit.commands.common import print_derivation, print_json, wanted_trackers
from dasvit.commands.options import SearchOptions
from dasvit.config import Config
from dasvit.memory.fits import warn_memory
from dasvit.report.tables import number
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.search.derive import Derivation
from dasvit.search.pipeline import run_search


def search_command(options: SearchOptions, config: Config) -> None:
    """`dasvit search`: a run folder with a cell, or a network, in it."""
    found = run_search(
        config,
        options.run,
        Reporter(),
        resume=options.resume,
        deadline=Deadline.after(options.max_minutes),
        track=wanted_trackers(options.track),
        warn=lambda session: warn_memory(session.config, session.classes, session.reporter),
    )
    folder, content = str(found.session.run.path), found.to_dict()
    if options.json:
        print_json({"run": folder, **content})
        return
    if isinstance(found.derivation, Derivation):
        print_derivation(found.derivation)
    else:
        print(found.found)
    print(f"\n{folder}: {number(content['params'])} parameters, {number(content['macs'])} multiply-adds.")
    print(f"Train it: dasvit train --cell {folder}")
