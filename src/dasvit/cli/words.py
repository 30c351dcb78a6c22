"""The words of a command line before the parser sees them: checked, and written as it takes them."""

from __future__ import annotations

from collections.abc import Collection

from dasvit.config import recipe as recipes
from dasvit.errors import UserError

COUNTS = tuple(
    f"search.{name}_{cost}" for name in ("target", "derive.max", "autoformer.max") for cost in ("params", "macs")
)
"""Fields that take a unit on the command line, as 6M."""


def plain_fields(arguments: list[str]) -> tuple[list[str], set[str]]:
    """Write fields with underscores and counts in full: --search.target-macs 300M; return the fields' names as well."""
    plain, given, name = [], set(), ""
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument.removeprefix("--").partition("=")
            name = option.replace("-", "_").rstrip("+") if "." in option else ""
            given |= {name} - {""}
            argument = f"--{option.replace('-', '_') if name else option}{equals}{_plain(name, value)}"
            name = "" if equals else name
        else:
            argument, name = _plain(name, argument), ""
        plain.append(argument)
    return plain, given


def _plain(name: str, value: str) -> str:
    """Return a field's value as the parser takes it."""
    if name and value and not value.startswith("[") and name in recipes.list_fields():
        return f"[{value}]"
    return _count(name, value)


def _count(name: str, value: str) -> str:
    """Return a field's value, its unit written out where the field is a count: 300M as 300000000."""
    return str(recipes.parse_count(value, f"--{name}")) if name in COUNTS and value[-1:].isalpha() else value


def check_sections(arguments: list[str], sections: dict[str, type]) -> None:
    """Check the options that give a whole section, as --search.stages '{layers: [2, 4]}'.

    The parser would read files that they name and import the classes that these name: a file is given to --config
    alone, and holds fields alone.
    """
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option.rstrip("+") not in sections:
            continue
        text = value if equals else next(iter(arguments[place + 1 :]), "")
        content = recipes.read_yaml(text, option)
        if not isinstance(content, dict) or option.endswith("+"):
            raise UserError(f"{option} takes fields, as '{{name: value}}', not {text!r}: a file is given to --config.")
        name = option.removeprefix("--")
        recipes.check_fields(content, sections[option], option, f"{name}.")


def first_look(arguments: list[str], flags: Collection[str]) -> dict[str, str]:
    """Return options and their values, and under "" the first word that belongs to none, without any check.

    It finds the recipe that the parser takes its defaults from.

    Args:
        arguments: The command line's.
        flags: Options without a value.
    """
    found: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        if word == "--":
            found.setdefault("", next(words, ""))
            break
        if not word.startswith("-"):
            found.setdefault("", word)
            continue
        option, equals, value = word.partition("=")
        found[option] = value if equals or option in flags else next(words, "")
    return found
