"""The page of `dasvit data FOLDER --report PATH`: what is said of the images, and what becomes of four of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dasvit.errors import UserError, printable
from dasvit.report.rendering import render, write_page

MOST_ALIKE = 20
"""Groups of images that look alike which are named; of more their number is said."""


def write_data_page(
    path: Path,
    folder: str,
    said: Sequence[str],
    samples: Sequence[Mapping[str, Any]],
    alike: Sequence[Sequence[tuple[str, str]]],
) -> None:
    """Write the page.

    Args:
        path: Where to.
        folder: What was looked at.
        said: What was found, in lines as the terminal has them.
        samples: Some images with what becomes of them (`dasvit.data.thumbnail.views_of`).
        alike: Groups of images that look alike, as (part, name).

    Raises:
        UserError: A file that is no page of ours stands there, or it cannot be written.
    """
    pairs = [line.partition(": ")[::2] for line in said]
    content = {
        "operations": {},
        "title": printable(folder),
        "facts": [(name, printable(text)) for name, text in pairs if name != "note"],
        "notes": [printable(text) for name, text in pairs if name == "note"],
        "samples": samples,
        "alike": [[f"{part}: {printable(name)}" for part, name in group] for group in alike[:MOST_ALIKE]],
        "more_alike": max(0, len(alike) - MOST_ALIKE),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_page(path, render("data.html.j2", content))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}.") from None
