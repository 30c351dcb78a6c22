"""`dasvit search`: from images to a cell."""

from __future__ import annotations

from dasvit.commands.common import print_derivation, print_json, print_latency, wanted_trackers
from dasvit.commands.options import SearchOptions
from dasvit.config import Config
from dasvit.memory.fits import warn_memory
from dasvit.report.tables import number
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.search.pipeline import run_search


def search_command(options: SearchOptions, config: Config) -> None:
    """`dasvit search`: a run folder with a cell in it."""
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
    print_derivation(found.derivation)
    print(f"\n{folder}: {number(content['params'])} parameters, {number(content['macs'])} multiply-adds.")
    print_latency(content)
    print(f"Train it: dasvit train --cell {folder}")
