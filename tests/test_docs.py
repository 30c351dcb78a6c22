"""What the documentation names is there: pages, functions, options, messages; and its code runs."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dasvit._version import __version__
from dasvit.cell.cost import COSTS
from dasvit.cell.genotype import NUMBERED
from dasvit.cell.ops import OPERATIONS
from dasvit.cli.parsing import make_parser
from dasvit.commands import COMMANDS
from dasvit.config.methods import METHODS
from dasvit.data.sources import SOURCES
from helpers import SMALL, call_cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "ARCHITECTURE")), *sorted(DOCS.rglob("*.md"))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def test_the_site_has_a_place_for_every_page() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(_leaves(site["nav"])) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def _leaves(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [leaf for part in (entry.values() if isinstance(entry, dict) else entry) for leaf in _leaves(part)]


def test_the_citation_is_of_this_version_and_forms_can_be_read() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == __version__
    forms = [
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (ROOT / ".github" / "ISSUE_TEMPLATE").rglob("*.yml")
    ]
    assert len(forms) == 4
    for form in forms:
        assert {"name", "description", "body"} <= set(form) or "blank_issues_enabled" in form


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|href)="([^"]+)"', text)]:
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.is_file(), f"{target}: there is no such file"
        if anchor.startswith("dasvit."):
            assert any(anchor.startswith(f"{module}.") for module in documented(found)), f"{target}: not on that page"
            assert resolves(anchor), f"{target}: there is nothing of that name"
        elif anchor:
            assert anchor in headings(found), f"{target}: there is no such heading"


@cache
def documented(page: Path) -> list[str]:
    """Return the modules that a page of the reference shows."""
    return re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)


def resolves(path: str) -> bool:
    """Tell whether a dotted path names something public of a module, or of a class of one."""
    module, _, last = path.rpartition(".")
    outer, _, name = module.rpartition(".")
    owner = getattr(importlib.import_module(outer), name) if name[:1].isupper() else importlib.import_module(module)
    return not last.startswith("_") and hasattr(owner, last)


def headings(page: Path) -> list[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles]


def test_the_reference_shows_modules_that_exist() -> None:
    shown = [module for page in DOCS.glob("reference/*.md") for module in documented(page)]
    assert len(shown) > 20 and len(set(shown)) == len(shown)
    for module in shown:
        importlib.import_module(module)


@cache
def options_of(command: str) -> set[str]:
    return {option.replace("-", "_") for action in make_parser(command)._actions for option in action.option_strings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_options_exist(page: Path) -> None:
    text = "\n".join(blocks(page, "console")).replace("\\\n", " ")
    for line in re.findall(r"(?:^\$|&&) (?:dasvit|python examples/new_operation\.py) (\w.*)$", text, re.M):
        words = re.sub(r"'[^']*'", "VALUE", line.split(" #")[0].split(" && ")[0]).split()
        assert words[0] in COMMANDS, line
        for word in words[1:]:
            option = word.split("=")[0]
            known = {"--help", "--model", *options_of(words[0])} if words[0] == "train" else options_of(words[0])
            if option.startswith("--"):
                assert option.replace("-", "_") in {o.replace("-", "_") for o in known}, f"{line}: {option}"


@cache
def sentences() -> list[str]:
    """Return every text in the code, … in place of what is put in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


ERRORS = re.findall(r"^### `(.*)`$", (DOCS / "faq.md").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("sentence", ERRORS)
def test_errors_that_are_explained_exist(sentence: str) -> None:
    """A sentence that is put together of several is looked up piece by piece."""
    pieces = [piece.strip(" .") for piece in sentence.split("…")]
    whole = sentence.rstrip("…. ")
    if not any(whole in text for text in sentences()):
        assert all(any(piece in text for text in sentences()) for piece in pieces if piece), sentence
        assert max(map(len, pieces)) >= 12, f"{sentence}: too little of it is fixed to be looked up"


@pytest.fixture
def own_tables() -> Iterator[None]:
    """Forget what the page's code adds."""
    tables: list[dict[str, Any]] = [NUMBERED, OPERATIONS, COSTS, SOURCES, METHODS]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


def test_the_code_that_extends_runs(own_tables: None, tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    for block in blocks(DOCS / "extending.md", "python"):
        exec(block, scope)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "pixels.npy", rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(40) % 2)
    options = [option for option in SMALL if not option.startswith("--data")]
    own = ["--data.name=arrays", f"--data.path={tmp_path}", "--space.extra=[relusq_1]", "--method=decided"]
    status, _, err = call_cli("search", *options, *own, "--run", tmp_path / "run")
    assert status == 0, err
    assert "relusq_1" in (tmp_path / "run" / "architecture.jsonl").read_text(encoding="utf-8")
