"""Files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

SUFFIX = ".tmp"
"""How the names of files end that are not whole yet."""


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file to the side, and put it in its place once it has reached the disk.

    A process that is killed leaves the old file, and at most a temporary one beside it (`sweep`).

    Args:
        path: The file; its folder is there.
        content: The content, or what writes it.

    Raises:
        OSError: The disk is full, or cannot be written; the old file is as it was, and nothing lies beside it.
    """
    temporary = path.with_name(f".{path.name}{SUFFIX}")
    try:
        with temporary.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, on the disk when this returns.

    Raises:
        OSError: The disk is full, or cannot be written; the file is as it was.
    """
    is_new = not path.exists()
    with path.open("ab", buffering=0) as file:
        length = file.tell()
        content = memoryview((line + "\n").encode(errors="backslashreplace"))
        try:
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except BaseException:
            os.ftruncate(file.fileno(), length)
            raise
    if is_new:
        sync_folder(path.parent)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file; an empty one where it cannot be read, or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def sync_folder(folder: Path) -> None:
    """Bring the names of a folder's files to the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Delete what a killed process left half written."""
    for path in folder.glob(f".*{SUFFIX}"):
        path.unlink(missing_ok=True)
