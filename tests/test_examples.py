"""Every file of examples/ as its user would run it, on tiny data."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import yaml
from nbclient import NotebookClient
from PIL import Image
from sklearn.datasets import load_digits

from dasvit.cell.cost import COSTS
from dasvit.cell.genotype import NUMBERED, Genotype, load_genotype
from dasvit.cell.ops import OPERATIONS
from dasvit.cli import again
from dasvit.config.recipe import load
from dasvit.models.cost import cost_of
from helpers import SMALL, call_cli

EXAMPLES = Path(__file__).parents[1] / "examples"
TESTED = {"own_images", "budgeted_search", "new_operation", "read_run"}

TRAINING = tuple(option for option in SMALL if not option.startswith("--s"))
FIELDS = tuple(option.removeprefix("--") for option in SMALL if not option.startswith("--config"))
OWN = (
    *(field for field in FIELDS if not field.startswith("data")),
    "model.image_size=8",
    "model.patch_size=2",
    "search.width=8",
    "search.augment.crop_padding=1",
    "search.finals.cells=2",
)


def play(name: str, patch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Run an example as the shell would, in this process."""
    script = EXAMPLES / f"{name}.py"
    patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")


@pytest.fixture
def own_kinds() -> Iterator[None]:
    """Forget the kinds of operation that a test registers."""
    tables: list[dict[str, Any]] = [NUMBERED, OPERATIONS, COSTS]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve digits of each of three classes, as an image folder."""
    digits = load_digits()
    for label in range(3):
        folder = tmp_path / "images" / f"digit{label}"
        folder.mkdir(parents=True)
        for i, pixels in enumerate(digits.images[digits.target == label][:12]):
            Image.fromarray((pixels * 15).astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "images"


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED


def test_own_images(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "mine"
    play("own_images", monkeypatch, images, run, *OWN)
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert sum("test top-1" in line for line in lines) == 2
    assert [line.split()[-1][:5] for line in lines[-10:]] == ["digit"] * 10
    for name in ("report.html", "comparison.html", "train/result.json", "vit/result.json", "train/export/model.pt2"):
        assert (run / name).stat().st_size > 0, name


def test_the_notebook(images: Path, tmp_path: Path) -> None:
    """Its cells one by one in a kernel of its own; only where the images are, and the sizes, are the test's."""
    notebook = nbformat.read(EXAMPLES / "own_images.ipynb", as_version=4)
    options = {name: yaml.safe_load(value) for name, _, value in (field.partition("=") for field in OWN)}
    places = f"import dasvit\n\nIMAGES, RUN, OPTIONS = {str(images)!r}, {str(tmp_path / 'run')!r}, {options!r}"
    assert notebook.cells[1].source.startswith("import dasvit")
    notebook.cells[1].source = places
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("image/svg+xml" in output["data"] for output in shown), "the cell is not drawn"
    assert sum('class="dataframe"' in output["data"].get("text/html", "") for output in shown) == 2, "two tables"
    assert (tmp_path / "run/train/export/model.pt2").is_file()


def test_budgeted_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "budget"
    play("budgeted_search", monkeypatch, run, "20k", *FIELDS)
    model = load(run / "config.yaml").model
    for share in (1.0, 0.8, 0.6):
        cell = load_genotype(run / f"within_{share:g}.json")
        assert cost_of(cell, model, 10).macs <= share * 20_000
    assert f"ViT: {cost_of('vit', model, 10).macs:,} multiply-adds" in capsys.readouterr().out


def test_new_operation(
    own_kinds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, cell = tmp_path / "run", tmp_path / "cell.json"
    with pytest.raises(SystemExit) as end:
        play("new_operation", monkeypatch, "search", *SMALL, "--space.extra=[swiglu_1]", "--run", run)
    assert end.value.code == 0, capsys.readouterr().err
    assert "swiglu_1" in (run / "architecture.jsonl").read_text() and (run / "genotype.json").exists()
    assert again(["search"]).endswith("examples/new_operation.py search")
    cell.write_text(Genotype.from_ops(2, ["swiglu_1", "msa_2", "zero", "swiglu_0.5", "identity"]).to_json())
    with pytest.raises(SystemExit) as end:
        play("new_operation", monkeypatch, "train", "--cell", cell, *TRAINING, "--run", tmp_path / "trained")
    assert end.value.code == 0, capsys.readouterr().err
    del NUMBERED["swiglu"]  # as in a process that does not know it
    for command in (["evaluate", tmp_path / "trained"], ["derive", run]):
        status, _, err = call_cli(*command)
        assert status == 2 and "unknown operation 'swiglu_" in err
    assert call_cli("report", run, tmp_path / "trained", "--out", tmp_path / "both.html")[0] == 0


def test_read_run(small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    play("read_run", monkeypatch, small_run)
    said = capsys.readouterr().out
    assert "prev1→x2" in said and "identity" in said and said.rstrip().splitlines()[-1].split()[0] == "9"
