"""Who may know whom (a package imports only what stands below it), and what a quick start must not import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dasvit.cli import SUMMARIES

ROOT = Path(__file__).parents[1] / "src" / "dasvit"
# From the bottom to the top; packages of one row do not know each other.
LAYERS = [
    ["errors", "_version"],
    ["config.fields"],
    ["methods"],
    ["config"],
    ["cell", "io"],
    ["data", "models", "report"],
    ["runtime"],
    ["training"],
    ["search"],
    ["memory"],
    ["study"],
    ["commands"],
    ["cli"],
]
# What stands in a row of its own as package.module: what is below it may not know the rest of its package.
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}
# The command line parses a request that the commands then read.
ALLOWED = {("commands", "cli"), ("cli", "commands"), ("study", "commands")}


def layer(name: str) -> str:
    """Return the entry of the list that a module, named below `dasvit`, belongs to; empty for none."""
    parts = name.split(".")
    return next((entry for n in (2, 1) if (entry := ".".join(parts[:n])) in LEVEL), "")


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" if node.module == "dasvit" else node.module for alias in node.names}
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down_the_list_only(path: Path) -> None:
    own = layer(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name in imports(path):
        other = layer(name.removeprefix("dasvit.")) if name.startswith("dasvit.") else ""
        if other and other != own:
            allowed = LEVEL[other] < LEVEL[own] or (own, other) in ALLOWED
            assert allowed, f"{own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    own = str(path.relative_to(ROOT))
    tops = {name.split(".")[0] for name in imports(path)}
    if own != "runtime/distributed.py":
        assert "accelerate" not in tops
        assert not any(name.startswith("torch.distributed") for name in imports(path))
    if not own.startswith("report/"):
        assert "matplotlib" not in tops
    if own.startswith("cell/"):
        assert "timm" not in tops, "importing timm imports dasvit.models, which imports the cell"
    if own.startswith(("report/", "config/", "io/")) or own in (
        "errors.py",
        "methods.py",
        "cell/cost.py",
        "cell/genotype.py",
        "cell/space.py",
    ):
        assert not {"torch", "timm"} & tops


@pytest.mark.parametrize("command", ["", *SUMMARIES])
def test_help_reads_well_and_imports_nothing_heavy(command: str) -> None:
    code = f"""
import sys
from dasvit.cli import main
try:
    main({[*([command] if command else []), "--help"]!r})
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {{"torch", "timm", "numpy", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: dasvit") and (command or "quickstart") in result.stdout


@pytest.mark.parametrize("order", ["import dasvit, timm", "import timm, dasvit", "import dasvit.models.dasvit, timm"])
def test_timm_knows_our_models_whatever_is_imported_first(order: str) -> None:
    code = f"{order}\nassert 'dasvit_base_patch16_224' in timm.list_models('dasvit_*')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_module_can_be_imported_first() -> None:
    """Each in a process of its own, in which torch is there already, but nothing of timm's or ours."""
    names = [".".join(["dasvit", *path.relative_to(ROOT).with_suffix("").parts]) for path in FILES]
    code = f"""
import importlib, os, torch, torchvision
for name in {names!r}:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, error, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_public_names_are_there() -> None:
    import dasvit

    for name in dasvit.__all__:
        assert getattr(dasvit, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dasvit.no_such_name
