"""Dataclasses become options of a parser and come back, with their texts, choices and ranges."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import pytest
from jsonargparse import ArgumentParser

from dasvit.cli.fields import add_options, read_options
from dasvit.cli.parsing import Parser, make_parser, parse
from dasvit.cli.words import first_look
from dasvit.commands import COMMANDS
from dasvit.commands.options import DeriveOptions, TrainOptions, choice, positional, shown
from dasvit.config.ranges import at_least
from dasvit.errors import UserError
from dasvit.study.options import StudyOptions


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base.

    Attributes:
        loud: Say it loudly.
    """

    loud: bool = False


@dataclass(frozen=True, kw_only=True)
class Greeting(Base):
    """Options of no command.

    Attributes:
        names: Who is
            greeted.
        how_often: Times.
        tone: Its tone.
        place: Where.
        day: When.
    """

    names: tuple[str, ...] = positional("NAME", "+")
    how_often: int = at_least(1, default=2)
    tone: Literal["", "warm", "cold"] = ""
    place: Literal["here", "there"] = choice("here")
    day: str = shown("DAY", default="today")


def greeting(*arguments: str) -> Greeting:
    parser = ArgumentParser(exit_on_error=False)
    add_options(parser, Greeting)
    return read_options(Greeting, vars(parser.parse_args(list(arguments))))


def test_a_dataclass_becomes_options_and_comes_back() -> None:
    assert greeting("a") == Greeting(names=("a",))
    typed = greeting("a", "b", "--how-often=3", "--tone", "warm", "--place=there", "--day", "May", "--loud")
    assert typed == Greeting(names=("a", "b"), how_often=3, tone="warm", place="there", day="May", loud=True)


def test_help_is_the_docstring_with_the_bases_options_last(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    add_options(parser, Greeting)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "NAME Who is greeted." in text and "--day DAY When." in text and "--how-often HOW_OFTEN Times." in text
    assert text.index("--day DAY When.") < text.index("--loud Say it loudly.")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--how-often=0"], "--how-often must be at least 1, not 0."),
        (["--tone=warn"], "unknown --tone 'warn'. Did you mean 'warm'? Valid: warm, cold."),
        (["--place=away"], "--place is here or there, not 'away'."),
    ],
)
def test_choices_and_ranges(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        greeting("a", *arguments)
    assert str(error.value) == sentence


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is(command: str) -> None:
    own = {field.name for field in dataclasses.fields(COMMANDS[command].options) if field.init}
    actions = {action.dest: action for action in make_parser(command)._actions}
    assert own <= actions.keys()
    for name in own:
        text = actions[name].help
        assert text and re.fullmatch(r"[A-Z].*\.", text), name
        if choices := get_args(get_type_hints(COMMANDS[command].options)[name]):
            named = [each for each in choices if isinstance(each, str)]
            assert all(re.search(rf"\b{each}\b", text, re.IGNORECASE) for each in named), name


def test_options_are_typed() -> None:
    derived, nothing = parse("derive", ["runs/a", "--edges-per-node", "3", "--json"])
    assert derived == DeriveOptions(run="runs/a", edges_per_node=3, json=True) and nothing is None
    studied, config = parse("study", ["--control=0", "--max-minutes=2.5", "--sweep"])
    assert isinstance(studied, StudyOptions) and studied.control == 0 and studied.sweep and config is not None
    trained, _ = parse("train", ["--model", "vit"])
    assert trained == TrainOptions(baseline="vit")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("search", ["--config=digits", "--method=darts"]), ("derive", ["a"]), ("compare", ["vit", "--scale", "small"])],
)
def test_a_command_line_is_parsed_once(command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = [], Parser.parse_args

    def counted(self: Parser, *args: Any, **named: Any) -> Any:
        calls.append(args)
        return original(self, *args, **named)

    monkeypatch.setattr(Parser, "parse_args", counted)
    parse(command, arguments)
    assert len(calls) == 1


def test_options_choose_the_recipe_wherever_they_stand() -> None:
    assert parse("compare", ["vit", "--scale", "small"])[1] == parse("compare", ["--config=cifar10-compare"])[1]
    _, config = parse("search", ["--search.batch_size=5", "--method", "darts", "--config", "digits"])
    assert config is not None
    assert (config.data.name, config.search.batch_size, config.search.method) == ("digits", 5, "darts")


def test_the_first_look() -> None:
    words = ["--json", "--data.limit", "3", "a", "--config=x", "--run", "b", "c", "--cell"]
    assert first_look(words, {"--json"}) == {
        **{"--json": "", "--data.limit": "3", "": "a", "--config": "x", "--run": "b", "--cell": ""}
    }
    assert first_look(["--config", "x", "--config=y"], ())["--config"] == "y"
    assert first_look(["--", "--x"], ()) == {"": "--x"}


def test_help_needs_no_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("search", ["--config", str(tmp_path / "nowhere.yaml"), "--help"])
    assert "--method METHOD" in capsys.readouterr().out


def test_commands_do_not_import_one_another() -> None:
    folder = Path(__file__).parents[1] / "src" / "dasvit" / "commands"
    for path in folder.glob("*.py"):
        found = set(re.findall(r"dasvit\.commands\.(\w+)", path.read_text(encoding="utf-8")))
        assert not found & COMMANDS.keys(), path.name
