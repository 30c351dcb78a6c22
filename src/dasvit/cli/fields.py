"""From a dataclass of options to a parser's options, and back."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser

from dasvit.config.ranges import RANGE
from dasvit.errors import UserError, unknown

Own = TypeVar("Own")


def add_options(parser: ArgumentParser, options: type) -> None:
    """Add the options that a dataclass describes, those of its bases behind its own."""
    hints, about = get_type_hints(options), _texts(options)
    for field in _in_order(options):
        hint, help_text = hints[field.name], about[field.name]
        if "names" in field.metadata:
            help_text += f" Valid: {', '.join(field.metadata['names'])}."
        if hint is bool:
            parser.add_argument(option_of(field.name), action="store_true", help=help_text)
            continue
        how: dict[str, Any] = {"type": hint if hint in (int, float) else str, "help": help_text}
        how |= {key: field.metadata[key] for key in ("metavar", "nargs") if field.metadata.get(key)}
        if how.get("nargs") == "*":
            how["default"] = []  # without one the parser takes it for required, and says so
        if "positional" in field.metadata:
            parser.add_argument(field.name, **how)
        else:
            parser.add_argument(option_of(field.name), default=field.default, **how)


def read_options(options: type[Own], values: dict[str, Any]) -> Own:
    """Return options made of what a parser has read, their choices and ranges checked."""
    hints, read = get_type_hints(options), {}
    for field in _in_order(options):
        value, hint, name = values[field.name], hints[field.name], option_of(field.name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            valid = [choice for choice in get_args(hint) if choice]
            if "few" in field.metadata:
                raise UserError(f"{name} is {', '.join(valid[:-1])} or {valid[-1]}, not {value!r}.")
            raise unknown(name, value, valid)
        if RANGE in field.metadata:
            field.metadata[RANGE].check(name, value)
        read[field.name] = tuple(value) if isinstance(value, list) else value
    return options(**read)


def option_of(field: str) -> str:
    """Return the option of a field: --edges-per-node for edges_per_node."""
    return f"--{field.replace('_', '-')}"


def _in_order(options: type) -> list[dataclasses.Field[Any]]:
    """Return the fields of a dataclass, those of its bases behind its own."""
    fields = {field.name: field for field in dataclasses.fields(options) if field.init}
    return [fields[name] for cls in options.__mro__ for name in inspect.get_annotations(cls) if name in fields]


def _texts(options: type) -> dict[str, str]:
    """Return what the docstrings of a dataclass and its bases say of the fields."""
    documents = [parse_docstring(cls.__doc__ or "", DocstringStyle.GOOGLE) for cls in options.__mro__]
    return {param.arg_name: " ".join((param.description or "").split()) for doc in documents for param in doc.params}
