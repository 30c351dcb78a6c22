"""Checkpoints: the whole state of a run, written so that a crash leaves the ones before it whole.

A file is what `torch.save` writes, with a last line behind it that holds the SHA-256 of all before that line;
`torch.load(path, weights_only=True)` reads it all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dasvit.errors import UserError
from dasvit.io.files import sweep, write_whole

KEEP = 2
"""Checkpoints that stay."""
SEAL = b"\ndasvit-checkpoint/2 sha256 %s\n"
SEAL_LENGTH = len(SEAL % (b"0" * 64))


class Damaged(Exception):
    """A file is not the checkpoint that was written."""


class _Sealed:
    """A file that keeps the checksum of what is written to it, and the error that ended that: torch raises another."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        self.hash.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint, and delete all but the last two.

    Args:
        folder: The run's `checkpoints/`.
        step: A number that grows from one checkpoint to the next; it names the file.
        state: Tensors, numbers, strings, and lists and dictionaries of these.

    Raises:
        OSError: The disk is full, or cannot be written; the checkpoints before are as they were.
    """

    def write(file: BinaryIO) -> None:
        sealed: Any = _Sealed(file)
        try:
            torch.save(state, sealed)
        except Exception:
            if sealed.error:
                raise sealed.error from None
            raise
        file.write(SEAL % sealed.hash.hexdigest().encode())

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step:09d}.pt"
    write_whole(path, write)
    for old in sorted(folder.glob("*.pt"))[:-KEEP]:
        old.unlink()
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state, on the CPU.

    Raises:
        Damaged: The checksum is not that of the content, or the content is not a state.
    """
    try:
        with path.open("rb") as file:
            length = path.stat().st_size - SEAL_LENGTH
            digest = hashlib.sha256()
            while length > 0 and (block := file.read(min(length, 2**22))):
                digest.update(block)
                length -= len(block)
            if file.read() != SEAL % digest.hexdigest().encode():
                raise Damaged("its checksum does not fit")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Damaged:
        raise
    except Exception as error:  # whatever torch or the disk have to say
        raise Damaged(f"{type(error).__name__}") from None
    if not isinstance(state, dict):
        raise Damaged("it holds no state")
    return state


def load_checkpoint(folder: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the state of the newest checkpoint that is whole, or None where there is no checkpoint.

    Args:
        folder: The run's `checkpoints/`; half-written files in it are deleted.
        say: Told of every damaged one that is passed over.

    Raises:
        UserError: There are checkpoints, and all of them are damaged.
    """
    sweep(folder)
    paths = sorted(folder.glob("*.pt"), reverse=True)
    for path in paths:
        try:
            return read_checkpoint(path)
        except Damaged as error:
            say(f"the checkpoint {path} is damaged ({error}): passed over in favour of the one before it.")
    if paths:
        raise UserError(f"every checkpoint in {folder} is damaged: delete that folder to start the run again.")
    return None
