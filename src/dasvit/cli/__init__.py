"""The command line: parses first, and imports torch and timm only inside the stage it runs.

A recipe (by name or file) comes first, then what the search method rules out of it, then the user's own overrides.
Stages alone are the method's in the end: `--method darts` makes one of those that the options of a DASViT search name.
"""

from __future__ import annotations

import errno
import io
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dasvit._version import __version__
from dasvit.commands import COMMANDS, run_command
from dasvit.config.recipe import recipe_names
from dasvit.errors import Stopped, UserError, printable, unknown

LONGEST = 1000
"""Characters of an error's message; what is in between is left out of a longer one."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Exit status: 0 when it went well or the time that --max-minutes gives was up, 2 after a user's mistake, 128 plus the
    signal's number after SIGTERM (143) and SIGINT (130).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    # Where a shell closed them (`>&-`) there is nobody to be told.
    sys.stdout, sys.stderr = sys.stdout or open(os.devnull, "w"), sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text at all
    who = "dasvit"
    if os.environ.get("RANK", "0") != "0":  # torchrun's: one process speaks for all, unless something goes wrong
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        who = f"dasvit (process {os.environ['RANK']})"
    try:
        run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has enough (`| head`). What is still buffered would be written at exit, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None  # as a shell says of SIGPIPE
    except (UserError, OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        print(f"{who}: error: {_sentence(error)}{_way_out(error, arguments)}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stop:
        print(f"{who}: {stop}; the state is saved. Go on with\n  {again(arguments)}", file=sys.stderr)
        raise SystemExit(stop.status) from None
    except KeyboardInterrupt:
        hint = f"; from the last checkpoint goes on\n  {again(arguments)}" if _goes_on(arguments) else "."
        print(f"dasvit: interrupted{hint}", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(0)


def _goes_on(arguments: list[str]) -> bool:
    return bool(arguments) and arguments[0] in COMMANDS and COMMANDS[arguments[0]].goes_on


def _way_out(error: Exception, arguments: list[str]) -> str:
    """Return what to do about a disk that cannot be written; nothing for errors that say it themselves."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
    if not isinstance(error, OSError) or error.errno not in numbers or not _goes_on(arguments):
        return ""
    return f". Nothing that was saved is lost. Once the disk can be written, go on with\n  {again(arguments)}"


def again(arguments: list[str]) -> str:
    """Return the command line that was given, for a shell."""
    script, python = Path(sys.argv[0]), Path(sys.executable).name
    program = ["dasvit"] if script.stem == "dasvit" else [python, "-m", "dasvit"]
    if script.suffix == ".py" and script.name != "__main__.py":  # one that registers an operation, say
        program = [python, shlex.quote(str(script))]
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun's own options are not known here, and it takes --run for its own
        program = ["torchrun", "...", "-m", "--", "dasvit"]
    return f"{' '.join(program)} {shlex.join(arguments)}"


def _sentence(error: BaseException) -> str:
    """Say an error in one line that names the thing and the way out."""
    text = str(error)
    if isinstance(error, MemoryError):
        text = f"the memory is not enough ({text or 'nothing more could be had'}): lower the sizes or the batch."
    elif isinstance(error, OSError) and error.filename is not None:
        name = os.fsdecode(error.filename)
        text = f"cannot use {name} ({error.strerror}): see that it is there, and what it should be."
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


def run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return
    if arguments[0] == "--version":
        print(__version__)
        return
    command, *rest = arguments
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    from dasvit.cli.parsing import parse

    run_command(command, *parse(command, rest))


def overview() -> str:
    summaries = {name: command.summary.rstrip(".") for name, command in COMMANDS.items()}
    lines = [f"  {name:<12}{summary[0].lower()}{summary[1:]}" for name, summary in summaries.items()]
    return "\n".join(
        [
            "usage: dasvit COMMAND [options]",
            "",
            "Search a better vision transformer for your own images.",
            "",
            *lines,
            "",
            f"Recipes (--config): {', '.join(recipe_names())}.",
            "`dasvit COMMAND --help` explains a command. Start with `dasvit quickstart`.",
        ]
    )
