"""Who may know whom (the table of ARCHITECTURE.md), circles, and what a quick start must not import."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dasvit.commands import COMMANDS

HOUSE = Path(__file__).parents[1]
ROOT = HOUSE / "src" / "dasvit"
ARCHITECTURE = (HOUSE / "ARCHITECTURE.md").read_text(encoding="utf-8")
# Every room with its row (0 at the top), the libraries it never imports, and the rooms above that it may import. A row
# may name a room that is not there.
ROWS = [
    [set(re.findall(r"`(\w+)`", cell)) for cell in (cells[1], cells[3], cells[4])]
    for line in re.findall(r"^\| `.*", ARCHITECTURE, re.M)
    for cells in [line.split("|")]
]
LEVEL = {room: level for level, (rooms, _, _) in enumerate(ROWS) for room in rooms}
WITHOUT = {room: never for rooms, never, _ in ROWS for room in rooms}
ALSO = {(room, other) for rooms, _, others in ROWS for room in rooms for other in others}
ROAD = ARCHITECTURE[ARCHITECTURE.index("## The road") :]

FILES = sorted(ROOT.rglob("*.py"))
MODULES = {
    ".".join(["dasvit", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in FILES
}
ROOMS = {name: name.split(".")[1] for name in MODULES if name != "dasvit"}


def statements(tree: ast.AST, later: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield imports; unless `later`, only those that run while the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif later or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            if later or not typing:
                yield from statements(node, later)


def imports(path: Path, later: bool = True) -> set[str]:
    """Return the dotted names of imported modules, and of what is imported from them."""
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), later):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.module and not node.level, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_modules(name: str, later: bool) -> set[str]:
    """Return the modules of ours that a module imports, packages that are imported on the way included."""
    found = set()
    for imported in imports(MODULES[name], later):
        parts = imported.split(".")
        ways = {".".join(parts[:length]) for length in range(1, len(parts) + 1)} & MODULES.keys()
        longest = max(ways, key=len, default="")
        found |= {way for way in ways if way == longest or not f"{name}.".startswith(f"{way}.")}
    return found - {name}


def test_every_room_stands_in_the_table_once() -> None:
    assert sum(len(rooms) for rooms, _, _ in ROWS) == len(LEVEL) > 15
    assert set(ROOMS.values()) <= set(LEVEL)


@pytest.mark.parametrize("name", ROOMS)
def test_imports_run_down_the_list_only(name: str) -> None:
    own = ROOMS[name]
    for imported in own_modules(name, later=True) - {"dasvit"}:
        other = ROOMS[imported]
        allowed = other == own or LEVEL[other] > LEVEL[own] or (own, other) in ALSO
        assert allowed, f"{own} imports {imported}"


def test_exceptions_are_needed() -> None:
    for rooms, _, others in ROWS:
        users = [name for name in ROOMS if ROOMS[name] in rooms]
        used = {ROOMS[other] for name in users for other in own_modules(name, later=True) - {"dasvit"}}
        assert used >= others, f"{rooms}: take the exception out of ARCHITECTURE.md"


def test_the_package_itself_imports_the_version_alone() -> None:
    assert own_modules("dasvit", later=False) == {"dasvit._version"}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of modules that reach one another."""
    names = sorted(edges)
    pairs = [(names.index(one), names.index(other)) for one in names for other in edges[one]]
    rows, columns = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    graph = coo_array(([1] * len(pairs), (rows, columns)), shape=(len(names), len(names)))
    count, labels = connected_components(graph.tocsr(), connection="strong")
    groups = [[name for name, label in zip(names, labels, strict=True) if label == number] for number in range(count)]
    return [group for group in groups if len(group) > 1]


def test_no_modules_import_one_another_in_a_circle() -> None:
    """While they are imported, that is: annotations, and what a function imports when it is called, close no circle."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]
    assert circles({name: own_modules(name, later=False) for name in MODULES}) == []


def test_the_road_leads_through_files_that_exist() -> None:
    files = re.findall(r"`([\w/]+\.py)`( \(to come\))?", ROAD)
    assert len(files) > 7
    for file, to_come in files:
        assert (ROOT / file).is_file() != bool(to_come), f"ARCHITECTURE.md: {file}"


@pytest.mark.parametrize("name", ROOMS)
def test_libraries_stay_in_their_rooms(name: str) -> None:
    own = str(MODULES[name].relative_to(ROOT))
    tops = {imported.split(".")[0] for imported in imports(MODULES[name])}
    if own != "runtime/distributed.py":
        assert "accelerate" not in tops
        assert not any(imported.startswith("torch.distributed") for imported in imports(MODULES[name]))
    if ROOMS[name] != "report":
        assert "matplotlib" not in tops
    assert not WITHOUT[ROOMS[name]] & tops  # importing timm imports dasvit.models, which imports the cell
    if ROOMS[name] in ("report", "io") or own in ("cell/cost.py", "cell/genotype.py", "cell/space.py"):
        assert not {"torch", "timm"} & tops


@pytest.mark.parametrize("command", ["", *COMMANDS])
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
    codes = {name: f"import {name}" for name in MODULES if not name.endswith("__main__")}
    assert failures_in_forks(codes, KEPT_TIMM) == ""


def test_public_names_are_there() -> None:
    import dasvit

    for name in dasvit.__all__:
        assert getattr(dasvit, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dasvit.no_such_name
