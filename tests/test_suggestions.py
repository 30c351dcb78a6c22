"""What is suggested in place of an option that there is none of, and in which order options are shown."""

import re

import pytest

from dasvit.cli.parsing import make_parser
from dasvit.cli.suggestions import ELSEWHERE
from dasvit.commands import COMMANDS
from dasvit.errors import UserError, unknown
from helpers import call_cli


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (["search", "--pretrained"], "See `dasvit search --help`."),
        (["train", "--epochs=3"], "Did you mean --train.epochs or --search.stages.epochs?"),
        (["search", "--epochs=3"], "Did you mean --search.stages.epochs or --train.epochs?"),
        (["train", "--epcohs=3"], "Did you mean --train.epochs?"),
        (["train", "--batch-size", "4"], "Did you mean --train.batch_size or --search.batch_size?"),
        (["train", "--lr=1"], "Did you mean --train.optim.lr or --search.weights.lr?"),
        (["train", "--seed=1"], "Did you mean --runtime.seed?"),
        (["train", "--output-dir=x"], "Did you mean --run?"),
        (["train", "--rnu=x"], "Did you mean --run?"),
        (["train", "--train.epohcs=1"], "Did you mean --train.epochs?"),
        (["train", "--zebra=1"], "See `dasvit train --help`."),
        (["predict", "m", "i", "--topp=1"], "Did you mean --top?"),
        (["cost", "vit", "--lr=1"], "See `dasvit cost --help`."),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_what_is_suggested(arguments: list[str], end: str) -> None:
    status, _, err = call_cli(*arguments)
    assert status == 2 and err.strip().endswith(end), err


def test_every_other_name_leads_to_an_option_that_exists() -> None:
    known = {option for name in COMMANDS for a in make_parser(name)._actions for option in a.option_strings}
    assert set(ELSEWHERE.values()) - {"--model"} <= known  # a training takes --model for --baseline


def test_names_that_are_not_alike_are_not_suggested() -> None:
    assert "Did you mean" not in str(unknown("recipe", "rice", ["digits", "cifar10-small"]))
    assert "Did you mean 'digits'?" in str(unknown("recipe", "digit", ["digits", "cifar10-small"]))
    assert isinstance(unknown("recipe", "x", ["y"]), UserError)


@pytest.mark.parametrize(
    ("command", "first"), [("train", "train"), ("search", "search"), ("compare", "train"), ("evaluate", "data")]
)
def test_help_shows_the_commands_own_section_first(command: str, first: str) -> None:
    status, out, _ = call_cli(command, "--help")
    assert status == 0
    sections = list(dict.fromkeys(re.findall(r"^  --(\w+)\.", out, re.M)))
    assert sections[0] == first and set(sections) == set(COMMANDS[command].sections)
