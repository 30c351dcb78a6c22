"""What a user can get wrong, said in a sentence."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user's: its text names the thing and the way out.

    The command line prints it without a traceback and ends with exit status 2.
    """


class Diverged(UserError):
    """A training whose numbers are not finite any more."""


def printable(text: object) -> str:
    r"""Return a text of others, as a name in a file, so that it cannot steer a terminal or break a line.

    What is not printable is written as an escape, as \n or \x1b.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def listed(names: Iterable[object], most: int = 5) -> str:
    """Return the first few of some names of others as one text: a, b, c and 7 more."""
    shown = [printable(name) for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most:,} more" if len(shown) > most else "")


def unknown(kind: str, name: object, valid: Iterable[str]) -> UserError:
    """Return the error for a name that is not in a table, naming the nearest and all valid ones.

    Args:
        kind: What the name should have been, as "recipe" or "operation".
        name: What was given.
        valid: The names that would have done.
    """
    names = list(valid)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(names)}.")


class Stopped(Exception):
    """A run that was asked to end before its end, and whose state is saved: its text says why, and where it is.

    Args:
        text: Why and where.
        status: What the command line exits with.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status
