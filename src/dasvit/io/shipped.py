"""Trained models that come with the package, and the pictures to show them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

DRAWINGS = "drawings"
"""The folder of a shipped model's pictures, inside its own."""


def shipped_names() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.name for path in _home().iterdir() if path.is_dir())


def find_shipped(name: str) -> Path | None:
    """Return the folder of a model that comes with the package; None where none has that name."""
    return _home() / name if name in shipped_names() else None


def is_shipped(folder: Path) -> bool:
    """Tell whether a model's folder is one of those that come with the package."""
    return folder.parent == _home()


def drawings_of(folder: Path) -> list[str]:
    """Return the pictures that come with a shipped model, by its folder, in the order of their names; none for others.

    A user's own model may lie beside a folder of that name, which is not meant.
    """
    return sorted(map(str, (folder / DRAWINGS).glob("*.png"))) if is_shipped(folder) else []


def _home() -> Path:
    return Path(str(resources.files("dasvit") / "shipped"))
