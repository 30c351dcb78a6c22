"""Wrong input of every kind: a command ends with 0 or 2, says why in a sentence, and destroys nothing.

The same two hundred cases every time in `make test`; `make test-faults` tries thousands of new ones.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dasvit.cell.genotype import PUBLISHED, edge_list
from dasvit.cli import LONGEST
from dasvit.commands import COMMANDS
from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.errors import UserError
from helpers import SMALL, call_cli, record, tree

pytestmark = pytest.mark.filterwarnings("ignore")
Record = Callable[[str, object], None]
both = pytest.mark.parametrize(
    "profile", ["", pytest.param("nightly", marks=pytest.mark.faults)], ids=["short", "long"]
)
"""With the profile that is on, and with the nightly one."""


def fuzz(
    profile: str, cases: st.SearchStrategy[Any], fault: str, property_of: Record, check: Callable[[Any], None]
) -> None:
    """Check many cases, and count them."""
    count = 0

    @(settings.get_profile(profile) if profile else settings())
    @given(cases)
    def run(case: Any) -> None:
        nonlocal count
        check(case)
        count += 1

    run()
    record(property_of, fault, count)


def harmless(*arguments: object) -> int:
    """Run a command; check that it ended as it should, and return its exit status."""
    status, out, err = call_cli(*arguments)
    assert status in (0, 2), (arguments, status)
    assert "--debug" in arguments or "Traceback" not in out + err
    if status == 2:
        *_, last = err.splitlines()
        assert last.startswith("dasvit: error: ") and 25 < len(last) < LONGEST + 50, (arguments, err)
        assert err.count("dasvit: error: ") == 1
    return status


@contextmanager
def unharmed(folder: Path, *but: str) -> Iterator[None]:
    """Check that whatever was in a folder before is there, as it was, behind; but files of some names."""
    before = {path: state for path, state in tree(folder).items() if not path.endswith(but)}
    yield
    after = tree(folder)
    assert {path: after.get(path) for path in before} == before


WRITTEN_ANEW = (
    *("environment.json", "data.json", "held_out.txt", "report.html"),
    *(f"evaluation/{name}" for name in ("result.json", "predictions.csv", "confusion.csv", "mistakes.json")),
)
"""What a command writes again: of a run that goes on, and of an evaluation."""


def stop(*args: object, **options: object) -> None:
    raise UserError("this is where the search or the training would begin.")


@pytest.fixture
def no_loops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is searched and trained, and what is written by default goes to a folder of the test."""
    for place in (
        "search.pipeline.search",
        "training.pipeline.train",
        "compare.trainings.run_training",
        "study.study.Runner",
        "commands.memory.count_search",
        "commands.demo.serve",
    ):
        module, _, name = place.rpartition(".")  # of a package that is a function as well, the attribute may be that
        monkeypatch.setattr(importlib.import_module(f"dasvit.{module}"), name, stop)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


# --- values -----------------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(-3, 40), st.sampled_from([10**6, 10**12, -(10**20), 2**63, 10**400]), st.floats(), st.booleans()
)
texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "..", "../x", "null", "\x00", "\x1b[2J", "ü", "\ud800", "a\nb", "%s", "{", "x" * 5000]),
)
values = st.recursive(
    st.one_of(st.none(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def mutated(draw: st.DrawFn, content: Any) -> Any:
    """Return a copy of nested content in which a few values are replaced, dropped, doubled or added."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        place = content
        while isinstance(place, (dict, list)) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            deeper = isinstance(place[key], (dict, list)) and place[key] and draw(st.integers(0, 3))
            if deeper:
                place = place[key]
                continue
            change = draw(st.sampled_from(["replace", "replace", "replace", "drop", "add"]))
            if change == "replace":
                place[key] = draw(values)
            elif change == "drop":
                del place[key]
            elif isinstance(place, dict):
                place[draw(texts)] = draw(values)
            else:
                place.append(draw(values))
            break
    return content


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Return content that was cut, zeroed, changed in places, doubled or replaced."""

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        at = draw(st.integers(0, max(0, len(content) - 1)))
        return draw(
            st.sampled_from(
                [
                    content[:at],
                    content[:at] + bytes(len(content) - at),
                    content[:at] + draw(st.binary(min_size=1, max_size=8)) + content[at + 1 :],
                    content[at:],
                    content * 2,
                    b"",
                    bytes(len(content)),
                    b"\xff\xfe" + content,
                    b"[" * 100_000,
                    b"null",
                ]
            )
        )

    return st.one_of(build(), st.binary(max_size=200))


def write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))


# --- genotypes --------------------------------------------------------------------------------------------------------

operations = st.one_of(
    st.sampled_from(["zero", "identity", "msa_8", "msa_1", "mlp_0.5", "mlp_64", "mlp_1e9", "msa_0", "mlp_999999"]),
    texts,
)


@st.composite
def genotypes(draw: st.DrawFn) -> str:
    """Return the text of a genotype: of any cell, mutated, or damaged."""
    nodes = draw(st.integers(1, 4))
    edges = [{"source": s, "target": t, "op": draw(operations)} for s, t in edge_list(nodes)]
    content = {"format": "dasvit-genotype/1", "nodes": nodes, "edges": draw(st.permutations(edges))}
    cases = [st.just(content), mutated(content), mutated(PUBLISHED["dasvit_cifar10"].to_dict()), values]
    text = json.dumps(draw(st.one_of(cases)), ensure_ascii=draw(st.booleans()))
    return draw(
        st.one_of(st.just(text), damaged(text.encode("utf-8", "surrogatepass")).map(lambda b: b.decode("latin-1")))
    )


@both
@pytest.mark.usefixtures("no_loops")
def test_genotypes(profile: str, tmp_path: Path, record_property: Record) -> None:
    path = tmp_path / "cell.json"

    def check(text: str) -> None:
        write_text(path, text)
        reading = [["cost", path, "--model.layers=1"], ["train", "--cell", path, *SMALL, "--run", tmp_path / "fresh"]]
        with unharmed(tmp_path):
            harmless(*reading[len(text) % 2])
        shutil.rmtree(tmp_path / "fresh", ignore_errors=True)

    fuzz(profile, genotypes(), "genotype that is none", record_property, check)


# --- recipes ----------------------------------------------------------------------------------------------------------


@st.composite
def recipe_texts(draw: st.DrawFn) -> str:
    content = recipes.to_dict(Config())
    text = yaml.safe_dump(draw(mutated(content)), allow_unicode=True, default_flow_style=draw(st.booleans()))
    tags = ["!!python/name:os.system ", "!!binary ", "!!timestamp ", "&a ", "*a ", "!!int ", "!x ", "? ", "- ", "\t"]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(tags)) + text[at:]
    return draw(st.one_of(st.just(text), damaged(text.encode()).map(lambda b: b.decode("latin-1"))))


@both
@pytest.mark.usefixtures("no_loops")
def test_recipes(profile: str, tmp_path: Path, record_property: Record) -> None:
    path = tmp_path / "recipe.yaml"

    def check(text: str) -> None:
        write_text(path, text)
        with unharmed(tmp_path):
            harmless("search", "--config", path, "--print_config")

    fuzz(profile, recipe_texts(), "recipe that is none", record_property, check)


# --- command lines ----------------------------------------------------------------------------------------------------

FIELDS = sorted(recipes.flatten(recipes.to_dict(Config())))
SECTIONS = sorted(recipes.section_classes())
OWN = """--run --method --rule --edges-per-node --max-params --max-macs --to --out --cell --baseline --init --track
--top --device --classes --json --debug --config --print_config --help --version -h -- --nothing --data.nothing"""
OPTIONS = [*(f"--{name}" for name in [*FIELDS, *SECTIONS]), *OWN.split()]


mistakes = st.sampled_from(["option", "option", "equals", "word", "drop", "garble", "double"])


def as_argument(value: Any) -> str:
    """Return a value as a word of a command line, where no zero can stand, and which leads nowhere but here."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("\x00", "").lstrip("/~")


@st.composite
def command_lines(draw: st.DrawFn, home: Path) -> list[str]:
    """Return a right command line with a few mistakes in it."""
    run, image, cell = home / "small", home / "image.png", home / "cell.json"
    bases: dict[str, list[object]] = {
        "search": [*SMALL, "--run", "out"],
        "derive": [run, "--out", "out.json"],
        "train": ["--cell", cell, *SMALL, "--run", "out"],
        "evaluate": [run],
        "predict": [run, image],
        "export": [run, "--to", "hub", "--out", "hub"],
        "demo": [run],
        "cost": [cell],
        "data": [home],
        "cache": ["--folder", home],
        "report": [run],
        "compare": ["vit", cell, *SMALL, "--cost-only"],
        "study": [*SMALL, "--run", "out"],
        "memory": [*(option for option in SMALL if option.split(".")[0] not in ("--data", "--train"))],
        "quickstart": [*SMALL, "--run", "out"],
    }
    command = draw(st.sampled_from(sorted(COMMANDS.keys() - {"latency"})))  # which measures for minutes
    arguments = [str(argument) for argument in bases[command]]
    fields = [name for name in OPTIONS if name.split(".")[0][2:] in COMMANDS[command].sections]
    paths = st.sampled_from([str(p) for p in (home, run, image, cell, run / "config.yaml", "nowhere", "")])
    words = st.one_of(
        paths, values.map(as_argument), st.sampled_from(["6M", "1e3", "[1,2]", "vit", "resnet18", "digits"])
    )
    for _ in range(draw(st.integers(1, 3))):
        near = draw(st.booleans())
        option = draw(st.sampled_from(fields if fields and near else OPTIONS))
        at = draw(st.integers(0, len(arguments)))
        match draw(mistakes):
            case "option":
                arguments[at:at] = [option, draw(words)]
            case "equals":
                arguments.insert(at, f"{option}={draw(words)}")
            case "word":
                arguments.insert(at, draw(words))
            case "drop" if arguments:
                arguments.pop(at - 1)
            case "garble" if arguments:
                arguments[at - 1] = arguments[at - 1][::-1]
            case "double":
                arguments += arguments[:2]
    return [command, *arguments]


@both
@pytest.mark.usefixtures("no_loops")
def test_command_lines(profile: str, small_run: Path, tmp_path: Path, record_property: Record) -> None:
    home = tmp_path / "home"
    shutil.copytree(small_run, home / "small")
    Image.new("RGB", (8, 8)).save(home / "image.png")
    (home / "cell.json").write_text(PUBLISHED["dasvit_cifar10"].to_json())

    def check(arguments: list[str]) -> None:
        with unharmed(home, "report.html"):  # written anew by report
            harmless(*arguments)
        for path in tmp_path.iterdir():
            if path != home:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    fuzz(profile, command_lines(home), "command line with mistakes", record_property, check)


# --- run folders ------------------------------------------------------------------------------------------------------

CHANGES = ["damaged", "damaged", "mutated", "mutated", "missing", "folder", "another"]


@both
@pytest.mark.usefixtures("no_loops")
def test_run_folders(profile: str, small_run: Path, tmp_path: Path, record_property: Record) -> None:
    """A file is cut, zeroed, filled with noise, of other types, missing, a folder or another file of the run."""
    home, run, image = tmp_path / "home", tmp_path / "home" / "r", tmp_path / "image.png"
    shutil.copytree(small_run, run)
    Image.new("RGB", (8, 8)).save(image)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    contents = {path: path.read_bytes() for path in files}
    config = run / "config.yaml"
    commands: list[list[object]] = [
        ["derive", run, "--out", tmp_path / "derived.json"],
        ["derive", run, "--rule=strongest", "--max-params=1M", "--out", tmp_path / "derived.json"],
        ["evaluate", run],
        ["predict", run, image],
        ["export", run, "--to", "hub", "--out", tmp_path / "hub"],
        ["cost", run],
        ["cost", run / "train"],
        ["report", run],
        ["report", run, run / "train", "--out", tmp_path / "both.html"],
        ["train", "--cell", run, "--run", tmp_path / "fresh"],
        ["search", "--config", config, "--run", tmp_path / "fresh"],
        ["search", "--config", config, "--run", run],
        ["train", "--cell", run],
    ]

    @st.composite
    def cases(draw: st.DrawFn) -> tuple[Path, bytes | None, list[object]]:
        path = draw(st.sampled_from(files))
        chosen = draw(st.sampled_from(commands))
        change = draw(st.sampled_from(CHANGES))
        if change in ("missing", "folder"):
            return path, None if change == "missing" else b"FOLDER", chosen
        if change == "another":
            return path, contents[draw(st.sampled_from(files))], chosen
        if change == "mutated" and path.suffix in (".json", ".yaml", ".jsonl"):
            rows = [
                yaml.safe_load(row)
                for row in ([contents[path]] if path.suffix != ".jsonl" else contents[path].splitlines())
            ]
            row = draw(mutated(rows[-1]))
            return path, json.dumps(row).encode(), chosen
        return path, draw(damaged(contents[path])), chosen

    def check(case: tuple[Path, bytes | None, list[object]]) -> None:
        path, content, command = case
        path.unlink()
        if content == b"FOLDER":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
        try:
            # A run that goes on notes its data again, and its page is always written anew.
            with unharmed(home, *WRITTEN_ANEW):
                harmless(*command)
        finally:
            shutil.rmtree(home)
            shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
            (tmp_path / "derived.json").unlink(missing_ok=True)
            for kept, whole in contents.items():
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(whole)

    fuzz(profile, cases(), "run folder with a damaged file", record_property, check)
