"""A command's words become its options and its recipe."""

from __future__ import annotations

import re
from argparse import SUPPRESS
from dataclasses import replace
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from dasvit.cli.fields import add_options, read_options
from dasvit.cli.recipe_of import recipe_of
from dasvit.cli.suggestions import near_options
from dasvit.cli.words import check_sections, first_look, plain_fields
from dasvit.commands import COMMANDS
from dasvit.commands.options import Options, SearchOptions
from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.config.implied import with_implied_name
from dasvit.config.methods import with_method
from dasvit.config.recipe import SECTIONS
from dasvit.config.units import parse_time
from dasvit.config.validation import validate
from dasvit.errors import UserError

SEARCHING = ("search", "memory", "quickstart")
"""Commands that are about a search with the recipe's method."""


class Parser(ArgumentParser):
    """A parser whose errors are sentences with the way out."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(_explain(message, self)) from None


def parse(command: str, arguments: list[str]) -> tuple[Options, Config | None]:
    """Parse the arguments of a command: its options, and its recipe where it reads one.

    Raises:
        UserError: An unknown option, a value of the wrong type, or a recipe that cannot be read.
        SystemExit: After --help and --print_config.
    """
    about, parser = COMMANDS[command], make_parser(command)
    if not about.sections:
        return read_options(about.options, vars(_parsed(parser, arguments))), None
    arguments, fields = plain_fields(arguments)
    check_sections(arguments, _whole_sections(command))
    if command == "train":  # to the parser --model is the section's own name
        arguments = [re.sub(r"^--model(?=$|=)", "--baseline", argument) for argument in arguments]
    # The parser has its own idea of this option, which knows nothing of the search method.
    printing = "--print_config" in arguments
    arguments = [argument for argument in arguments if argument != "--print_config"]
    if {"-h", "--help"} & set(arguments):  # needs no recipe
        _parsed(parser, arguments)
    recipe = recipe_of(command, first_look(arguments, _flags(parser)))
    base = recipes.from_dict(recipe, searching=False)
    # The recipe's values are defaults: what the user wrote comes on top.
    parser.set_defaults(recipes.flatten({name: value for name, value in recipe.items() if name in about.sections}))
    built = vars(parser.instantiate(_parsed(parser, arguments)))
    options = read_options(about.options, built)
    config = Config(**{**vars(base), **{name: built[name] for name in about.sections}})
    config = _checked(command, options, config, fields, bool(recipe))
    if printing:
        print(recipes.to_yaml(config, about.sections), end="")
        raise SystemExit(0)
    return options, config


def _checked(command: str, options: Options, config: Config, fields: set[str], has_recipe: bool) -> Config:
    """Return a command's configuration as its method makes it, checked.

    Args:
        command: Name of the command.
        options: Its options.
        config: The recipe with what the command line changes of it.
        fields: The fields that the command line names.
        has_recipe: Whether there was a recipe at all.
    """
    config = replace(config, data=with_implied_name(config.data, fields))
    if command == "evaluate" and not has_recipe and not (config.data.path or config.data.csv):
        raise UserError("say on which data: --data.name and --data.path (only a run folder knows its own).")
    if command in SEARCHING:
        method = options.method if isinstance(options, SearchOptions) else ""
        config = with_method(config, method or config.search.method, fields)
    if isinstance(options, SearchOptions):
        config = with_limit(config, options)
    if "search" in COMMANDS[command].sections:
        validate(config, searching=command not in ("train", "compare"))
    return config


def with_limit(config: Config, options: SearchOptions) -> Config:
    """Return a search's configuration with the latency budget and table that its own options give."""
    parse_time(options.max_latency, "--max-latency")
    derive, latency = config.search.derive, config.search.latency
    derive = replace(derive, max_latency=options.max_latency or derive.max_latency)
    latency = replace(latency, table=options.latency_table or latency.table)
    return replace(config, search=replace(config.search, derive=derive, latency=latency))


def _parsed(parser: ArgumentParser, arguments: list[str]) -> Any:
    """Parse arguments; a whole number beyond every float makes the parser itself fall over."""
    try:
        return parser.parse_args(arguments)
    except OverflowError:
        huge = re.search(r"(\S+)[ =]\S*\d{300}", " ".join(arguments))
        raise UserError(f"{huge[1] if huge else 'the command line'} holds a number that is too large.") from None


def _whole_sections(command: str) -> dict[str, type]:
    """Return the options of a command that give a whole section, and the section's dataclass."""
    own = COMMANDS[command].sections
    sections = {f"--{name}": cls for name, cls in recipes.section_classes().items() if name.split(".")[0] in own}
    if command == "train":
        del sections["--model"]  # a name there
    return sections


def _flags(parser: ArgumentParser) -> set[str]:
    return {option for action in parser._actions if action.nargs == 0 for option in action.option_strings}


def make_parser(command: str) -> ArgumentParser:
    """Return the parser of a command, its own options first and the recipe's sections behind them."""
    about = COMMANDS[command]
    usage = " ".join(f"dasvit {command} {about.usage}".split())
    overrides = " [--section.field VALUE ...]" if about.sections else ""
    parser = Parser(
        prog=f"dasvit {command}", usage=f"{usage} [options]{overrides}", description=about.summary, allow_abbrev=False
    )
    for name in about.sections:
        parser.add_class_arguments(SECTIONS[name], name)
    for action in parser._actions:  # --data FILE and the like: one --config is enough to explain
        if action.metavar == "CONFIG":
            action.help = SUPPRESS
    if about.sections:
        help_text = "Recipe by name, or a YAML file" + (f" (default: {about.recipe})." if about.recipe else ".")
        parser.add_argument("--config", type=str, default="", metavar="RECIPE", help=help_text)
        parser.add_argument("--print_config", action="store_true", help="Print the resolved configuration, and stop.")
    add_options(parser, about.options)
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def _explain(message: str, parser: ArgumentParser) -> str:
    """Turn a parser's message into one sentence with the way out."""
    text = recipes.one_line(message)
    if text.lower().startswith("unrecognized arguments:"):
        wrong = next((word for word in text.split(":", 1)[1].split() if word.startswith("-")), "")
        if not wrong:
            return f"{text}: see `{parser.prog} --help`."
        wrong = wrong.split("=")[0]
        known = [name for a in parser._actions if a.help != SUPPRESS for name in a.option_strings]
        near = " or ".join(near_options(wrong, known))
        return f"unknown option {wrong}." + (f" Did you mean {near}?" if near else f" See `{parser.prog} --help`.")
    return re.sub(r"\bbaseline\b", "model", text)
