"""The recipe that a call in Python is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dasvit.config import Config, DataConfig
from dasvit.config import recipe as recipes
from dasvit.config.implied import with_implied_name
from dasvit.config.methods import with_method
from dasvit.config.validation import validate
from dasvit.data.given import give


def make_config(
    recipe: str | Config,
    data: Any = None,
    options: Mapping[str, Any] | None = None,
    *,
    method: str = "",
    chosen: Mapping[str, Any] | None = None,
    searching: bool = True,
) -> Config:
    """Return a recipe with other data and other values of some fields, checked.

    Args:
        recipe: A recipe's name, a YAML file, or a Config.
        data: As in `search`. None: the recipe's.
        options: Values by dotted names, as {"train.epochs": 5}.
        chosen: The same, of values that were given by an argument of their own; None: it was not.
        method: The search method. Empty: the recipe's.
        searching: Whether a search is to come.

    Raises:
        UserError: An unknown field, or values that do not work.
    """
    content = recipes.to_dict(recipe) if isinstance(recipe, Config) else recipes.read_recipe(recipe)
    if data is not None:
        content = {**content, "data": _data_section(data)}
    fields = {**(options or {}), **{name: value for name, value in (chosen or {}).items() if value is not None}}
    for name, value in fields.items():
        content = _with_field(content, name.split("."), value)
    config = recipes.from_dict(content, "the options", searching=False)
    given = {"path"} if isinstance(data, (str, Path)) else data if _is_section(data) else ()
    places = {f"data.{name}" for name in given}
    config = replace(config, data=with_implied_name(config.data, {*fields, *places}))
    if searching:
        config = with_method(config, method or config.search.method, fields)
        validate(config)
    return config


def _is_section(data: Any) -> bool:
    """Tell whether data are given as fields of the section of that name."""
    fields = vars(DataConfig())
    return isinstance(data, Mapping) and all(isinstance(key, str) and key in fields for key in data)


def _data_section(data: Any) -> dict[str, Any]:
    if isinstance(data, DataConfig):
        return dict(vars(data))
    if _is_section(data):
        return dict(data)
    if isinstance(data, (str, Path)):
        return {"name": "imagefolder", "path": str(data)}
    return vars(give(data))


def _with_field(content: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a nested dictionary with another value at a place."""
    head, *rest = path
    return {**content, head: _with_field(content.get(head) or {}, rest, value) if rest else value}


def count(value: str | int, name: str) -> int:
    """Return a number that may be written as 80M."""
    return value if isinstance(value, int) else recipes.parse_count(value, name)
