"""Which recipe a command line is about: the one named, that of the run it is about, or the command's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import load_found
from dasvit.commands import COMMANDS
from dasvit.config import recipe as recipes
from dasvit.errors import UserError
from dasvit.io.run_folder import find_model, find_run

SMALL = "cifar10-compare"
"""The recipe of a comparison with --scale small."""
NAMING = {"--data", "--data.name", "--data.path", "--data.csv"}
"""Options that name data."""


def recipe_of(command: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the recipe that is meant; an empty one where none is known."""
    own = SMALL if command == "compare" and given.get("--scale") == "small" else COMMANDS[command].recipe
    name = given.get("--config") or _run_config(command, given) or own
    recipe = recipes.read_recipe(name) if name else {}
    if name and name not in recipes.recipe_names() and isinstance(recipe.get("data"), dict):
        recipe["data"] = _without_places(recipe["data"], name, given)
    if command == "evaluate" and not given.get("--config") and NAMING & given.keys():
        # Limits of a run's own data are not those of other data, all of which count.
        limits = ("limit", "eval_limit")
        recipe = {**recipe, "data": {key: v for key, v in recipe.get("data", {}).items() if key not in limits}}
    if command == "train" and given.get("--init"):
        return _beginning_with(recipe, given)
    return _at_sizes(recipe, _cell_of(command, given))


def _cell_of(command: str, given: Mapping[str, str]) -> str:
    """Return the cell that a command is about; empty where it is about none, or several."""
    return given.get("--cell", "") if command == "train" else given.get("", "") if command == "cost" else ""


def _at_sizes(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the recipe with the sizes that a cell's file has of its own: the command line alone stands above these."""
    try:
        cell = load_found(name) if name else None
    except UserError:  # said where it is loaded
        return recipe
    if not isinstance(cell, Genotype) or cell.sizes is None:
        return recipe
    return {**recipe, "model": {**(recipe.get("model") or {}), **cell.sizes.to_dict()}}


def _run_config(command: str, given: Mapping[str, str]) -> str:
    """Return the configuration file of the run that the command is about, where there is one."""
    subject, model = "", ""
    match command:
        case "evaluate":
            model = given.get("", "")
        case "train":
            model, subject = given.get("--init", ""), given.get("--cell", "")
        case "cost":
            subject = given.get("", "")
    run = find_run(find_model(model) if model else subject)
    return str(run / "config.yaml") if run else ""


def _beginning_with(recipe: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return the recipe of a training that begins with a trained model, whose sizes it has.

    Of a recipe that is the model's own run's, the limits and folders of that run's data are not those of other data,
    which its teacher need not know; how images become squares is what the model learned from.
    """
    from dasvit.models.finetune import sizes_of

    if not given.get("--config") and NAMING & given.keys():
        recipe = {**recipe, "data": {key: v for key, v in recipe.get("data", {}).items() if key in ("name", "fit")}}
        recipe["train"] = {key: value for key, value in recipe.get("train", {}).items() if key != "teacher"}
    return {**recipe, "model": {**recipe.get("model", {}), **sizes_of(find_model(given["--init"]))}}


def _without_places(data: dict[str, Any], where: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Return a file's section data, unless it chooses a place to write to: the command line alone does.

    The file may come from others. A folder that is a cache already may be used as one; what was to be fetched into the
    data's folder is there, or the command line asks for it again.
    """
    folder = data.get("cache")
    if folder and "--data.cache" not in given and not recipes.is_cache(str(folder)):
        raise UserError(
            f"{where} asks to keep decoded images in {folder}, which is no cache yet, and files do not choose where is "
            "written: say it with --data.cache FOLDER."
        )
    return {**data, "download": False} if data.get("path") and "download" in data else data
