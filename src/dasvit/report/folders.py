"""The page of a folder, whatever kind of run it holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dasvit.errors import UserError
from dasvit.io.files import read_object
from dasvit.io.run_folder import find_run
from dasvit.report.compare.page import write_comparison
from dasvit.report.compare.tables import MISSING, columns
from dasvit.report.rendering import render, write_page
from dasvit.report.run.page import PAGE, write_report
from dasvit.report.run.reading import is_run
from dasvit.report.study.page import page_of


def write_pages(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of a folder, or one that sets several side by side.

    Args:
        folders: Folders of searches, their candidates, trainings, comparisons and studies; what lies in a run's folder
            stands for it. Beside others a comparison stands for its trainings.
        out: The page's file. None: report.html in the folder; of several, comparison.html.

    Raises:
        UserError: A folder holds nothing that a page can be made of, or another file stands in the page's place.
        OSError: The page cannot be written.
    """
    runs = [_run_of(folder) for folder in folders]
    if len(runs) == 1:
        kind = read_object(runs[0] / "environment.json").get("kind")
        write = {"study": _write_study, "compare": _write_compared}.get(str(kind), _write_run)
        return write(runs[0], out or runs[0] / PAGE)
    return write_comparison(runs_of(runs), out or Path("comparison.html"))


def runs_of(folders: Sequence[Path]) -> list[Path]:
    """Return searches and trainings, those of a comparison in its place.

    Raises:
        UserError: One is a study.
    """
    found: list[Path] = []
    for folder in map(_run_of, folders):
        kind = read_object(folder / "environment.json").get("kind")
        if kind == "study":
            raise UserError(f"{folder} is a study, which has a page of its own: give its runs' folders for more.")
        found += [path for _, path in _trainings(folder)] if kind == "compare" else [folder]
    return found


def _run_of(folder: Path) -> Path:
    """Return the run that a folder is, or that it lies in, as its model/ does."""
    if not folder.is_dir() or is_run(folder):
        return folder
    found = find_run(folder.resolve())
    return found if found and _holds(found, folder.resolve()) else folder


def _holds(run: Path, folder: Path) -> bool:
    """Tell whether a folder is a part of a run, and not a folder of runs, or of anything else, that lies in it."""
    return folder.relative_to(run).parts[0] in ("model", "export", "derived", "finals", "checkpoints", "supernets")


def _write_run(folder: Path, page: Path) -> Path:
    return write_report(folder, out=page)


def _write_study(folder: Path, page: Path) -> Path:
    study = read_object(folder / "study.json")
    if not isinstance(study.get("summary"), dict):
        raise UserError(f"the study in {folder} holds no study.json yet: its first search has not ended.")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_page(page, render("study.html.j2", page_of(study)))
    return page


def _write_compared(folder: Path, page: Path) -> Path:
    rows = _rows(folder)
    if not rows:
        raise UserError(f"the comparison in {folder} holds no compare.json yet: its first training has not ended.")
    trainings = _trainings(folder)
    try:
        shown = columns(rows)
        table = [column.title for column in shown], [[column.text(row) for column in shown] for row in rows]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{folder}/compare.json is damaged: the same `dasvit compare` writes it anew.") from None
    return write_comparison([path for _, path in trainings], page, [name for name, _ in trainings], folder.name, table)


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows = read_object(folder / "compare.json").get("networks")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _trainings(folder: Path) -> list[tuple[str, Path]]:
    """Return the trainings of a comparison that have begun, in its order, each with a name."""
    found = []
    for row in _rows(folder):
        runs = sorted((folder / str(row.get("name", MISSING))).glob("seed*/environment.json"))
        label = str(row.get("network", row.get("name")))
        found += [(f"{label}, {run.parent.name}" if len(runs) > 1 else label, run.parent) for run in runs]
    return found
