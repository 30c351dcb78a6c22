"""Recipes: YAML files plus typed overrides become dataclasses, and go back to a file."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml

from dasvit.config import Config
from dasvit.config.validation import validate
from dasvit.errors import UserError, unknown

SECTIONS: dict[str, type] = get_type_hints(Config)
"""The dataclass of every section by name."""
CACHE_TAG = "CACHEDIR.TAG"
"""The file by which tools know a folder as a cache (https://bford.info/cachedir/)."""
MAX_VALUES = 10_000
"""Values of a configuration file, aliases unfolded; the whole of a recipe has about a hundred."""


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("dasvit") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_recipe(name: str) -> dict[str, Any]:
    """Read a recipe by its name, or a YAML file by its path, as a checked nested dictionary.

    Args:
        name: A name of `recipe_names()`, or the path of a YAML file (a run folder's `config.yaml`, say).

    Raises:
        UserError: Unknown recipe, unreadable file, or a field that does not exist.
    """
    if name in recipe_names():
        text = (resources.files("dasvit") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")) or "/" in name:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the configuration {name}: {error}") from None
    else:
        raise unknown("recipe", name, recipe_names())
    content = read_yaml(text, name)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{name} must hold sections ({', '.join(SECTIONS)}), not a {type(content).__name__}.")
    if isinstance(content.get("search"), dict) and isinstance(content["search"].get("finals"), dict):
        content["search"]["finals"] = with_rungs(content["search"]["finals"])
    check_fields(content, Config, name)
    return content


def with_rungs(finals: dict[str, Any]) -> dict[str, Any]:
    """Return a section of finals with rungs, where an older version wrote epochs, a last round and a gain."""
    if not finals.keys() & {"epochs", "last", "last_epochs", "gain"}:
        return finals
    last = [finals.get("last_epochs", 3)] if finals.get("last") else []
    new = {"rungs": [finals.get("epochs", 1), *last], "learn": bool(finals.get("gain", 4.0)), "shipped": False}
    return {"cells": finals.get("cells", 0), **new}


def is_cache(folder: str) -> bool:
    """Tell whether a folder is marked as a cache, as that of decoded images is."""
    return (Path(folder).expanduser() / CACHE_TAG).is_file()


class _Twice(Exception):
    """A key stands twice in a mapping."""


class _UniqueKeys(yaml.SafeLoader):
    """Reads YAML's plain types; of two values for one key the last would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if isinstance(key, yaml.ScalarNode) and lines.setdefault(name, line) != line and name != "<<":
                raise _Twice(f"{name} twice, in lines {lines[name]} and {line}")
        return super().construct_mapping(node, deep)


def read_yaml(text: str, where: str) -> Any:
    """Read YAML as data: its plain types alone, and no more of them than a configuration can need.

    Aliases make a few lines unfold into billions of values, and a value that holds itself never ends.

    Raises:
        UserError: It is no YAML, asks for objects, or is absurdly large.
    """
    try:
        content = yaml.load(text, _UniqueKeys)
        size = _values(content)
    except _Twice as error:
        raise UserError(f"{where} has {error}: leave one of them out.") from None
    except RecursionError:
        raise UserError(f"{where} nests its values too deeply: a configuration has a few levels.") from None
    # The constructors of plain types raise whatever int() and datetime() do.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UserError(f"{where} is no valid YAML: {' '.join(str(error).split())}") from None
    except (AttributeError, TypeError, LookupError):
        raise UserError(f"{where} is no valid YAML: a tag (!!…) does not fit the text behind it.") from None
    if size > MAX_VALUES:
        raise UserError(f"{where} unfolds into more than {MAX_VALUES:,} values: that is no configuration.")
    return content


def _values(content: Any) -> int:
    """Count the values that a value unfolds into, up to a little more than MAX_VALUES."""
    waiting, count = [content], 0
    while waiting and count <= MAX_VALUES:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, (list, tuple, set)):
            waiting += value
    return count


def check_fields(content: Mapping[str, Any], cls: type, where: str, prefix: str = "") -> None:
    """Raise a UserError that names the first field of content that cls does not have.

    Args:
        content: The nested dictionary to check.
        cls: The dataclass whose fields are valid.
        where: The file that content came from, for the message.
        prefix: Where in the file we are, as "search.".
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    for key, value in content.items():
        if key not in fields:
            raise UserError(f"{where}: {unknown('field', f'{prefix}{key}', [prefix + n for n in fields])}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise UserError(f"{where}: {prefix}{key} must be a section with fields, not {value!r}.")
            check_fields(value, hints[key], where, f"{prefix}{key}.")


def section_classes(cls: type = Config, prefix: str = "") -> dict[str, type]:
    """Return the dataclass of every section by its dotted name, as {"search.tokens": TokensConfig}."""
    found: dict[str, type] = {}
    for key, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            found |= {prefix + key: hint, **section_classes(hint, f"{prefix}{key}.")}
    return found


@functools.cache
def list_fields() -> frozenset[str]:
    """Return the dotted names of the fields that hold several values; a command line separates these by commas."""
    return frozenset(
        f"{section}.{name}"
        for section, cls in section_classes().items()
        for name, hint in get_type_hints(cls).items()
        if get_origin(hint) in (list, tuple)
    )


def parse_count(text: str, option: str) -> int:
    """Read a number such as 6M, 500k, 1.5G or 6_000_000; nothing is 0.

    Raises:
        UserError: It is no such number.
    """
    if not text:
        return 0
    match = re.fullmatch(r"(\d[\d_]{0,30}(?:\.\d{1,30})?)\s*([kKmMgGbB]?)", text.strip())
    if not match:
        raise UserError(f"{option} takes a number such as 6M, 500M or 1.5G, not {text!r}.")
    unit = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}[match[2].lower()]
    return round(float(match[1].replace("_", "")) * unit)


def flatten(content: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Return a nested dictionary as one without nesting, its keys joined, as {"search.tokens.ratio": 0.5}."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}{separator}{name}": item for name, item in flatten(value, separator).items()}
        else:
            flat[str(key)] = value
    return flat


def from_dict(content: Mapping[str, Any], where: str = "the configuration", searching: bool = True) -> Config:
    """Build a checked Config from a nested dictionary, every field typed.

    Args:
        content: The nested dictionary.
        where: The file that it came from, for messages.
        searching: See `validate`.

    Raises:
        UserError: A field that does not exist, a value of the wrong type, or values that do not go together.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    check_fields(content, Config, where)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        parsed = parser.parse_object(dict(content))
    except ArgumentError as error:
        raise UserError(f"{where}: {one_line(str(error))}") from None
    config: Config = Config(**vars(parser.instantiate(parsed)))
    validate(config, searching)
    return config


def one_line(message: str) -> str:
    """Fold a parser's message into one line, and its words for a wrong value into ours."""
    text = " ".join(message.split())
    match = re.fullmatch(r"Parser key \"(?P<key>[\w.]+)\": Expected an? (?P<kind>.+?)\. Got value: (?P<value>.*)", text)
    if not match:
        return text
    kind = re.sub(r"<class '(\w+)'>", r"\1", match["kind"]).removeprefix("typing.")
    return f"{match['key']} takes {kind}, not {match['value']!r}."


def load(path: str | Path, searching: bool = True) -> Config:
    """Read a resolved configuration, as a run folder's `config.yaml` (searching: see `validate`)."""
    return from_dict(read_recipe(str(path)), str(path), searching)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the nested dictionary of a Config, of YAML's own types alone."""
    plain: dict[str, Any] = _without_tuples(dataclasses.asdict(config))
    return plain


def to_yaml(config: Config, sections: Sequence[str] = tuple(SECTIONS)) -> str:
    """Return a Config, or some of its sections, as the text of a YAML file that `load` reads back."""
    content = {name: value for name, value in to_dict(config).items() if name in sections}
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None)


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tuples(item) for key, item in value.items()}
    return [_without_tuples(item) for item in value] if isinstance(value, (list, tuple)) else value
