"""The command line: parses first, and imports torch and timm only inside the stage it runs.

A recipe (by name or file) comes first, then what the search method rules out of it, then the user's own overrides.
Stages alone are the method's in the end: `--method darts` makes one of those that the options of a DASViT search name.
"""

from __future__ import annotations

import difflib
import errno
import io
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dasvit._version import __version__
from dasvit.commands.request import Request
from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.config.methods import METHODS, with_method
from dasvit.config.recipe import SECTIONS, is_cache
from dasvit.config.validation import validate
from dasvit.errors import Stopped, UserError, printable, unknown
from dasvit.io.run_folder import find_model, find_run

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

SUMMARIES = {
    "search": "search a cell on images, and derive it",
    "derive": "derive a cell from a search again: another rule, a budget",
    "train": "train a cell, or a timm model, from scratch; or go on with a trained one on other data",
    "evaluate": "judge a trained model on a data set",
    "predict": "name the classes of images, or of folders of them",
    "export": "write a trained model as ONNX, torch.export or a folder for the hub",
    "demo": "show a trained model in the browser: drop an image, see its classes",
    "cost": "count the parameters and multiply-adds of a cell or model",
    "report": "show a run as one HTML page, or several side by side",
    "compare": "train and cost any list of networks, in one table",
    "study": "find out whether a search beats luck, and what is there already",
    "memory": "count the memory of a search: what batch fits which GPU",
    "quickstart": "search, train and compare on scikit-learn's digits, in minutes",
}
CONFIGURED = {
    "search": ("cifar10-small", tuple(SECTIONS)),
    "train": ("cifar10-small", tuple(SECTIONS)),
    "evaluate": ("", ("data", "runtime")),
    "cost": ("cifar10-paper", ("model",)),
    "compare": ("cifar10-paper", tuple(SECTIONS)),
    "study": ("digits-study", tuple(SECTIONS)),
    "memory": ("cifar10-paper", ("model", "space", "search", "runtime")),
    "quickstart": ("digits", tuple(SECTIONS)),
}
"""Commands that read a recipe: which, when none is given, and its sections that can be overridden."""
LONGEST = 1000
"""Characters of an error's message; what is in between is left out of a longer one."""


COUNTS = ("search.target_params", "search.target_macs", "search.derive.max_params", "search.derive.max_macs")
"""Fields that take a unit on the command line, as 6M."""
GOING_ON = (["search"], ["train"], ["compare"], ["study"], ["quickstart"])
"""Commands that go on where they stopped."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Exit status: 0 when it went well or the time that --max-minutes gives was up, 2 after a user's mistake, 128 plus the
    signal's number after SIGTERM (143) and SIGINT (130).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text at all
    who = "dasvit"
    if os.environ.get("RANK", "0") != "0":  # torchrun's: one process speaks for all, unless something goes wrong
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        who = f"dasvit (process {os.environ['RANK']})"
    try:
        run(arguments)
    except (UserError, OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        print(f"{who}: error: {_sentence(error)}{_way_out(error, arguments)}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stop:
        print(f"{who}: {stop}; the state is saved. Go on with\n  {again(arguments)}", file=sys.stderr)
        raise SystemExit(stop.status) from None
    except KeyboardInterrupt:
        hint = f"; from the last checkpoint goes on\n  {again(arguments)}" if arguments[:1] in GOING_ON else "."
        print(f"dasvit: interrupted{hint}", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(0)


def _way_out(error: Exception, arguments: list[str]) -> str:
    """Return what to do about a disk that cannot be written; nothing for errors that say it themselves."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
    if not isinstance(error, OSError) or error.errno not in numbers or arguments[:1] not in GOING_ON:
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
    """Parse a command line and run its command."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return
    if arguments[0] == "--version":
        print(__version__)
        return
    command, *rest = arguments
    if command not in SUMMARIES:
        raise unknown("command", command, SUMMARIES)
    request = parse(command, rest)
    from dasvit.commands import run_command

    run_command(request)


def overview() -> str:
    """Return what `dasvit --help` prints."""
    lines = [f"  {name:<12}{text}" for name, text in SUMMARIES.items()]
    return "\n".join(
        [
            "usage: dasvit COMMAND [options]",
            "",
            "Search a better vision transformer for your own images.",
            "",
            *lines,
            "",
            f"Recipes (--config): {', '.join(recipes.recipe_names())}.",
            "`dasvit COMMAND --help` explains a command. Start with `dasvit quickstart`.",
        ]
    )


def parse(command: str, arguments: list[str]) -> Request:
    """Parse the arguments of a command.

    Raises:
        UserError: An unknown option, a value of the wrong type, or a recipe that cannot be read.
        SystemExit: After --help and --print_config.
    """
    parser = make_parser(command)
    if command in CONFIGURED:
        arguments, given = _plain_fields(arguments)
    _check_sections(command, arguments)
    if command == "train":  # to the parser --model is the section's own name
        arguments = [re.sub(r"^--model(?=$|=)", "--baseline", argument) for argument in arguments]
    # The parser has its own idea of this option, which knows nothing of the search method.
    printing = "--print_config" in arguments
    arguments = [argument for argument in arguments if argument != "--print_config"]
    options = vars(_parsed(parser, arguments))
    if command not in CONFIGURED:
        return Request(command, options, None)
    sections = CONFIGURED[command][1]
    recipe = _recipe_of(command, options, arguments)
    if command == "evaluate" and not recipe and not options["data"].path:
        raise UserError("say on which data: --data.name and --data.path (only a run folder knows its own).")
    base = recipes.from_dict(recipe, searching=False)
    # The recipe's values are defaults now: what the user wrote comes on top.
    parser.set_defaults(recipes.flatten({name: value for name, value in recipe.items() if name in sections}))
    built = vars(parser.instantiate(_parsed(parser, arguments)))
    config = Config(**{**vars(base), **{name: built.pop(name) for name in sections}})
    if command in ("search", "memory", "quickstart"):
        config = with_method(config, built.get("method") or config.search.method, given)
    if "search" in sections:
        validate(config, searching=command not in ("train", "compare"))
    if printing:
        print(recipes.to_yaml(config, sections), end="")
        raise SystemExit(0)
    return Request(command, built, config)


def _plain_fields(arguments: list[str]) -> tuple[list[str], set[str]]:
    """Write fields with underscores and counts in full: --search.target-macs 300M; return the fields' names as well."""
    plain, given, name = [], set(), ""
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument.removeprefix("--").partition("=")
            name = option.replace("-", "_").rstrip("+") if "." in option else ""
            given |= {name} - {""}
            argument = f"--{option.replace('-', '_') if name else option}{equals}{_count(name, value)}"
            name = "" if equals else name
        else:
            argument, name = _count(name, argument), ""
        plain.append(argument)
    return plain, given


def _count(name: str, value: str) -> str:
    """Return a field's value, its unit written out where the field is a count: 300M as 300000000."""
    return str(recipes.parse_count(value, f"--{name}")) if name in COUNTS and value[-1:].isalpha() else value


def _parsed(parser: ArgumentParser, arguments: list[str]) -> Any:
    """Parse arguments; a whole number beyond every float makes the parser itself fall over.

    Raises:
        UserError: There is such a number.
    """
    try:
        return parser.parse_args(arguments)
    except OverflowError:
        words = " ".join(arguments)
        huge = re.search(r"(\S+)[ =]\S*\d{300}", words)
        raise UserError(f"{huge[1] if huge else 'the command line'} holds a number that is too large.") from None


def _check_sections(command: str, arguments: list[str]) -> None:
    """Check the options that give a whole section, as --search.stages '{layers: [2, 4]}'.

    The parser would read files that they name and import the classes that these name: a file is given to --config
    alone, and holds fields alone.

    Raises:
        UserError: The section is no mapping, or has a field that does not exist.
    """
    if command not in CONFIGURED:
        return
    own = CONFIGURED[command][1]
    sections = {f"--{name}": cls for name, cls in recipes.section_classes().items() if name.split(".")[0] in own}
    if command == "train":
        del sections["--model"]  # a name there
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


def make_parser(command: str) -> ArgumentParser:
    """Return the parser of a command, its own options first and the recipe's sections behind them."""
    from argparse import SUPPRESS

    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise UserError(_explain(message, command, self)) from None

    overrides = " [--section.field VALUE ...]" if command in CONFIGURED else ""
    positional = {
        "derive": " RUN",
        "evaluate": " MODEL",
        "predict": " MODEL IMAGE|FOLDER...",
        "export": " MODEL --to onnx|torch|hub",
        "demo": " MODEL",
        "cost": " CELL|MODEL|TIMM_NAME",
        "report": " RUN...",
        "compare": " [NETWORK ...]",
    }
    parser = Parser(
        prog=f"dasvit {command}",
        usage=f"dasvit {command}{positional.get(command, '')} [options]{overrides}",
        description=SUMMARIES[command][0].upper() + SUMMARIES[command][1:] + ".",
        allow_abbrev=False,
    )
    if command in CONFIGURED:
        default, sections = CONFIGURED[command]
        for name in sections:
            parser.add_class_arguments(SECTIONS[name], name)
        for action in parser._actions:  # --data FILE and the like: one --config is enough to explain
            if action.metavar == "CONFIG":
                action.help = SUPPRESS
        help_text = "recipe by name, or a YAML file" + (f" (default: {default})" if default else "")
        parser.add_argument("--config", type=str, default="", metavar="RECIPE", help=help_text)
        parser.add_argument("--print_config", action="store_true", help="print the resolved configuration, and stop")
    _add_options(parser, command)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, and nothing else, on standard output"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_options(parser: ArgumentParser, command: str) -> None:
    add = parser.add_argument
    if command == "search":
        add("--run", type=str, default="runs/search", help="folder that the run writes")
        add("--method", type=str, default="", help=f"search method: {', '.join(METHODS)} (search.method)")
        _add_going_on(parser)
        _add_tracking(parser)
    elif command == "derive":
        add("run", type=str, help="run folder of a search")
        about = "darts, strongest, or perturbation, which needs checkpoints and images (default: the run's)"
        add("--rule", type=str, default="", help=about)
        add("--edges-per-node", type=int, default=0, help="edges kept into each node (default: the run's)")
        add("--max-params", type=str, default="", help="budget of parameters, as 6M")
        add("--max-macs", type=str, default="", help="budget of multiply-adds of one image, as 500M")
        add("--max-skips", type=int, default=-1, help="most edges that may be identity (default: the run's)")
        add("--out", type=str, default="", help="file of the cell (default: in RUN/derived/)")
    elif command == "train":
        add(
            "--cell",
            type=str,
            default="",
            help="run folder of a search, a genotype's JSON file, or a cell's name",
        )
        about = "instead of a cell (also --model): vit, of the recipe's width and depth, or a timm model's name"
        add("--baseline", type=str, default="", metavar="NAME", help=about)
        about = "instead of both: begin with a trained model's weights (a run or model folder), with a new head"
        add("--init", type=str, default="", metavar="RUN", help=about)
        about = (
            "folder that the run writes (default: RUN/train for --cell RUN, RUN/finetune for --init, else runs/NAME)"
        )
        add("--run", type=str, default="", help=about)
        _add_going_on(parser)
        _add_tracking(parser)
    elif command == "evaluate":
        add("model_path", type=str, metavar="MODEL", help="run folder of a training, or a model folder")
    elif command == "predict":
        add("model_path", type=str, metavar="MODEL", help="run folder of a training, or a model folder")
        add("images", type=str, nargs="+", metavar="IMAGE", help="image files, and folders of them (with all below)")
        add("--top", type=int, default=5, help="classes shown for an image")
        add("--format", type=str, default="text", help="text, csv or json (as --json)")
        add("--batch-size", type=int, default=64, help="images that the model sees at once")
        add("--on-error", type=str, default="stop", help="stop at a broken image, or skip it and name it")
        add("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N or mps")
    elif command == "export":
        add("model_path", type=str, metavar="MODEL", help="run folder of a training, or a model folder")
        about = "onnx: one .onnx file; torch: a .pt2 file of torch.export; hub: a folder with a model card"
        add("--to", type=str, default="", metavar="TARGET", help=about)
        about = "file, or folder of hub (default: in export/ of the run's folder; never written over)"
        add("--out", type=str, default="", help=about)
    elif command == "demo":
        add("model_path", type=str, metavar="MODEL", help="run folder of a training, or a model folder")
        add("--host", type=str, default="127.0.0.1", help="address to listen at (default: this machine alone)")
        add("--port", type=int, default=7860, help="port to listen at; 0: the first free one from 7860 on")
        add("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N or mps")
    elif command == "cost":
        add("subject", type=str, metavar="CELL|MODEL|TIMM_NAME", help="what is counted")
        add(
            "--classes",
            type=int,
            default=0,
            help="classes of the head (default: 10 for a cell, else the model's own)",
        )
    elif command == "report":
        add("runs", type=str, nargs="+", metavar="RUN", help="run folders; several are set side by side")
        add("--out", type=str, default="", help="the page (default: RUN/report.html; of several: comparison.html)")
        add("--figures", action="store_true", help="also write PDF and SVG figures, to figures/ beside the page")
    elif command == "compare":
        about = "cells' and timm models' names, genotype files, run folders (default: the paper's thirteen)"
        add("networks", type=str, nargs="*", metavar="NETWORK", help=about)
        add("--rows", type=str, default="", help="paper: the thirteen networks of the paper's Table I as well")
        about = "full, or small: networks and recipe that two CPU cores can train"
        add("--scale", type=str, default="full", help=about)
        add("--cost-only", action="store_true", help="train nothing: parameters and multiply-adds")
        add("--classes", type=int, default=0, help="with --cost-only, classes of every head (default: as the paper)")
        add("--seeds", type=int, default=1, help="train every network with so many seeds, from runtime.seed on")
        add("--published", action="store_true", help="show the paper's figures beside ours")
        about = "FLOPs as the paper counts them: auto (where ptflops is installed), yes or no"
        add("--ptflops", type=str, default="auto", help=about)
        add("--format", type=str, default="table", help="table, csv, md, tex or json")
        about = "folder that the runs and the table are written to (default: runs/compare; none with --cost-only)"
        add("--run", type=str, default="", help=about)
    elif command == "study":
        add("--run", type=str, default="runs/study", help="folder that the runs and the report are written to")
        add("--searches", type=int, default=4, help="searches with each method, seed by seed from runtime.seed on")
        add(
            "--trainings",
            type=int,
            default=3,
            help="trainings of each network, with the same seeds for all, no search's",
        )
        about = "searches of the control, the best of evenly drawn cells (default: as many as --searches; 0: none)"
        add("--control", type=int, default=-1, help=about)
        add("--random", type=int, default=12, help="random cells of the found cells' multiply-adds")
        about = "search methods; the first one's cost is the random cells' (default: dasvit,darts)"
        add("--methods", type=str, default="dasvit,darts", help=about)
        add("--ablate", action="store_true", help="also search without tokens, fairness, stages, finals")
        add("--sweep", action="store_true", help="also search with several λ and ρ")
        add("--jobs", type=int, default=1, help="runs beside each other, each a process with its share of the cores")
        about = "send the runs to slurm as an array, at most --jobs of them at once (local: as jobs on this machine)"
        add("--cluster", type=str, default="", metavar="KIND", help=about)
        about = "YAML file of what a run asks for: partition, account, qos, constraint, minutes, cpus, gpus, memory"
        add("--cluster-config", type=str, default="", metavar="FILE", help=about)
        _add_going_on(parser)
    elif command == "memory":
        add("--fits", type=str, default="", metavar="MEMORY", help="print only the largest batch that fits, as 24G")
        about = "figure, saved as PNG and as SVG (default: runs/memory.png; empty: none)"
        add("--out", type=str, default="runs/memory.png", metavar="FILE", help=about)
    elif command == "quickstart":
        add("--run", type=str, default="runs/quickstart", help="folder that the runs write")


def _add_going_on(parser: ArgumentParser) -> None:
    about = "go on with the run in the folder, and fail where there is none (without it: go on, or begin)"
    parser.add_argument("--resume", action="store_true", help=about)
    about = "stop, with a checkpoint, after so many minutes; the same command goes on (default: 0, no limit)"
    parser.add_argument("--max-minutes", type=float, default=0.0, metavar="M", help=about)


def _add_tracking(parser: ArgumentParser) -> None:
    about = "also send every epoch's numbers to tensorboard, wandb or trackio (several: tensorboard,wandb)"
    parser.add_argument("--track", type=str, default="", metavar="TRACKER", help=about)


def _recipe_of(command: str, options: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """Return the recipe that is meant: the one named, that of the run the command is about, or the command's own."""
    own = "cifar10-compare" if options.get("scale") == "small" else CONFIGURED[command][0]
    name = options["config"] or _run_config(command, options) or own
    recipe = recipes.read_recipe(name) if name else {}
    if name and name not in recipes.recipe_names() and isinstance(recipe.get("data"), dict):
        recipe["data"] = _without_places(recipe["data"], name, arguments)
    if command == "train" and options["init"]:
        return _beginning_with(recipe, options, arguments)
    return recipe


def _beginning_with(recipe: dict[str, Any], options: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """Return the recipe of a training that begins with a trained model, whose sizes it has.

    Of a recipe that is the model's own run's, the limits and folders of that run's data are not those of other data.
    """
    from dasvit.models.finetune import sizes_of

    if not options["config"] and any(re.match(r"--data(\.name|\.path)?(=|$)", argument) for argument in arguments):
        recipe = {**recipe, "data": {key: v for key, v in recipe.get("data", {}).items() if key == "name"}}
    return {**recipe, "model": {**recipe.get("model", {}), **sizes_of(find_model(options["init"]))}}


def _without_places(data: dict[str, Any], where: str, arguments: list[str]) -> dict[str, Any]:
    """Return a file's section data, unless it chooses a place to write to: the command line alone does.

    The file may come from others. A folder that is a cache already may be used as one; what was to be fetched into the
    data's folder is there, or the command line asks for it again.

    Raises:
        UserError: It does.
    """
    folder = data.get("cache")
    given = any(re.match(r"--data\.cache(=|$)", argument) for argument in arguments)
    if folder and not given and not is_cache(str(folder)):
        raise UserError(
            f"{where} asks to keep decoded images in {folder}, which is no cache yet, and files do not choose where is "
            "written: say it with --data.cache FOLDER."
        )
    return {**data, "download": False} if data.get("path") and "download" in data else data


def _run_config(command: str, options: dict[str, Any]) -> str:
    """Return the configuration file of the run that the command is about, where there is one."""
    if command == "evaluate":
        run = find_run(find_model(options["model_path"]))
    elif command == "train":
        run = find_run(find_model(options["init"]) if options["init"] else options["cell"])
    else:
        run = find_run(options.get("subject", ""))
    return str(run / "config.yaml") if run else ""


def _explain(message: str, command: str, parser: ArgumentParser) -> str:
    """Turn a parser's message into one sentence with the way out."""
    from argparse import SUPPRESS

    text = recipes.one_line(message)
    if text.lower().startswith("unrecognized arguments:"):
        wrong = next((word for word in text.split(":", 1)[1].split() if word.startswith("-")), "")
        if not wrong:
            return f"{text}: see `dasvit {command} --help`."
        wrong = wrong.split("=")[0]
        known = {name for a in parser._actions if a.help != SUPPRESS for name in a.option_strings}
        near = difflib.get_close_matches(wrong, sorted(known), n=1, cutoff=0.5)
        return f"unknown option {wrong}." + (
            f" Did you mean {near[0]}?" if near else f" See `dasvit {command} --help`."
        )
    return re.sub(r"\bbaseline\b", "model", text)
