"""`dasvit study`: does the search find better cells than luck does, and than what is there already?"""

from __future__ import annotations

from dasvit.commands.common import print_json
from dasvit.commands.options import StudyOptions
from dasvit.config import Config
from dasvit.errors import UserError
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.study.study import do_study


def study_command(options: StudyOptions, config: Config) -> None:
    found = do_study(
        config, options, Reporter(), Deadline.after(options.max_minutes, options.begun), resume=options.resume
    )
    root = options.run
    if options.json:
        print_json({"run": root, **found.summary})
    else:
        print("\n".join(found.verdicts))
        print(f"\n{root}/report.html: open it in a browser. {root}/study.json and study.md hold the same numbers.")
    if failures := found.failures:
        raise UserError(f"{len(failures)} run(s) failed, and are left out; see {root}/logs. {failures[0]}")
