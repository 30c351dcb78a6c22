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
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}
# The command line parses a request that the commands then read.
ALLOWED = {("commands", "cli"), ("cli", "commands"), ("study", "commands")}


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
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "dasvit" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != own:
            allowed = LEVEL[parts[1]] < LEVEL[own] or (own, parts[1]) in ALLOWED
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


FORKS = """
import os, sys, torch, torchvision  # slow to import, and neither knows of us or of timm
import accelerate.utils, docstring_parser, huggingface_hub.hf_api, jinja2, jsonargparse, matplotlib.figure
import pyarrow.parquet, rich.progress, safetensors.torch, scipy.stats
{first}
for name, code in {codes}.items():
    child = os.fork()
    if child == 0:
        try:
            exec(code, {{}})
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(f"failed: {{name}}", flush=True)
"""


def failures_in_forks(codes: dict[str, str], first: str = "") -> str:
    """Run each piece of code in a process of its own, forked where `first` has run; say which failed, and how."""
    code = FORKS.format(first=first, codes=repr(codes))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


ASKED = "import importlib.util; assert importlib.util.find_spec('timm')"
ORDERS = {
    "dasvit first": "import dasvit, timm",
    "timm first": "import timm, dasvit",
    "our models first": "import dasvit.models.dasvit, timm",
    "a module of timm": "import dasvit, timm.layers",
    "asked for, twice": f"import dasvit; {ASKED}; {ASKED}; import timm",
    "asked for before and after": f"{ASKED}; import dasvit; {ASKED}; import timm",
    "reloaded": f"import timm, dasvit; {ASKED}; importlib.reload(timm)",
    "lazily": """
import dasvit, importlib.util, sys
spec = importlib.util.find_spec("timm")
spec.loader = importlib.util.LazyLoader(spec.loader)
sys.modules["timm"] = timm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(timm)
assert "dasvit.models.dasvit" not in sys.modules
""",
}


def test_timm_knows_our_models_whatever_is_imported_first() -> None:
    check = """
import sys
assert "dasvit_base_patch16_224" in timm.list_models("dasvit_*"), "unknown to timm"
assert not any(type(finder).__module__ == "dasvit" for finder in sys.meta_path), "the finder is still there"
"""
    assert failures_in_forks({name: f"{order}\n{check}" for name, order in ORDERS.items()}) == ""


KEPT_TIMM = """
from importlib.machinery import ModuleSpec
import timm

kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "timm"}

class Kept:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, KeptLoader(), is_package=True) if name == "timm" else None

class KeptLoader:
    def create_module(self, spec):
        return kept[spec.name]

    def exec_module(self, module):
        sys.modules.update(kept)

sys.meta_path.insert(0, Kept())
"""


def test_every_module_can_be_imported_first() -> None:
    """Each in a process of its own, in which libraries are there already, but nothing of ours.

    To a process timm is a module that nobody has imported yet: importing it registers our models, as it always does.
    Its own modules have run before, once for all processes: they take four fifths of the time, and know nothing of us.
    """
    names = [".".join(["dasvit", *path.relative_to(ROOT).with_suffix("").parts]) for path in FILES]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    assert failures_in_forks({name: f"import {name}" for name in names}, KEPT_TIMM) == ""


def test_public_names_are_there() -> None:
    import dasvit

    for name in dasvit.__all__:
        assert getattr(dasvit, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dasvit.no_such_name
