"""Scripts without `if __name__ == "__main__":`, which processes that load images would run once more."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from multiprocessing.process import BaseProcess

from dasvit.errors import UserError

STATUS = 76
"""What a process ends with that was to help, and began to run the script instead."""


def end_second_run() -> None:
    """End this process if it is one that was started to help, and that runs its parent's script while it starts."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(STATUS)


def check_ended(processes: Iterable[BaseProcess]) -> None:
    """Raise a UserError where processes ended because they began to run the script that started them.

    Raises:
        UserError: One of them did.
    """
    if any(process.exitcode == STATUS for process in processes):
        raise UserError(
            "the processes that were started to help import your script, and it starts a run when it is imported: put "
            'what it does below a line `if __name__ == "__main__":`, or leave runtime.workers at 0 and jobs at 1.'
        )
