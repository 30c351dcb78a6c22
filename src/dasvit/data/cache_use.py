"""What lies in the cache of decoded images, and what of it may be removed.

A process that reads a folder holds a shared lock on it as long as it lives, and notes when that was. What is locked is
not removed, and nothing is that does not look like our own. Windows has no such locks, and removes no open file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

META = "meta.json"
OURS = re.compile(r"(?P<hidden>\.?)(?P<name>[a-z0-9_]+)-[0-9a-f]{24}(-[0-9a-f]{8})?")
"""The name of a folder of decoded images; hidden ones are still being written, or were left by a killed process."""
UNFINISHED = 24 * 3600.0
"""Seconds after which a folder that is still being written counts as left behind."""
_held: dict[str, int] = {}


@dataclass(frozen=True)
class Entry:
    """A folder of decoded images.

    Attributes:
        path: The folder.
        name: Name of the data set.
        images: Images of all its parts. 0: it is not finished.
        side: Their side in pixels. 0: not known.
        size: Bytes.
        used: When it was last opened, in seconds since the epoch.
    """

    path: Path
    name: str
    images: int
    side: int
    size: int
    used: float

    @property
    def is_finished(self) -> bool:
        """Whether it was written to its end."""
        return not self.path.name.startswith(".")


def hold(folder: Path) -> None:
    """Keep a folder from being removed as long as this process lives, and note that it is used."""
    with contextlib.suppress(OSError):  # a cache that cannot be written
        os.utime(folder / META)
    with contextlib.suppress(OSError):  # file systems without locks
        before = _held.get(str(folder))
        if before is not None and os.path.samestat(os.fstat(before), os.stat(folder)):
            return
        if (descriptor := _locked(folder, shared=True)) is not None:
            _held[str(folder)] = descriptor
            if before is not None:  # of a folder that is not there any more
                os.close(before)


def _locked(folder: Path, shared: bool) -> int | None:
    """Lock a folder at once, and return what unlocks it when it is closed; None: there are no locks here.

    Raises:
        OSError: Another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def list_cache(cache: Path) -> list[Entry]:
    """Return the folders of decoded images in a cache, the one that was used last first."""
    entries = [entry for path in cache.iterdir() if (entry := _entry(path))] if cache.is_dir() else []
    return sorted(entries, key=lambda entry: -entry.used)


def clean_cache(cache: Path, older: float = 0.0) -> Iterator[tuple[Entry, bool]]:
    """Remove folders of decoded images; yield each with whether it is gone, or is in use.

    Args:
        cache: The cache.
        older: Only what was not opened for so many seconds.
    """
    entries = list_cache(cache)
    with tempfile.TemporaryFile(dir=cache if entries else None) as file:
        now = os.fstat(file.fileno()).st_mtime  # by the clock that `used` is from, a file server's perhaps
    for entry in entries:
        age = now - entry.used
        if age >= (older if entry.is_finished else max(older, UNFINISHED)):
            yield entry, _remove(entry.path)


def _entry(path: Path) -> Entry | None:
    """Return what a folder is; None: it is none of ours."""
    named = OURS.fullmatch(path.name)
    if not named or path.is_symlink() or not path.is_dir():
        return None
    files = [file for file in path.iterdir() if file.is_file() and not file.is_symlink()]
    if len(files) != sum(1 for _ in path.iterdir()):
        return None  # ours hold files alone
    size, images, side = sum(file.stat().st_size for file in files), 0, 0
    if named["hidden"]:
        return Entry(path, named["name"], 0, 0, size, path.stat().st_mtime)
    try:
        meta = json.loads((path / META).read_text(encoding="utf-8"))
        images, side = sum(map(int, meta["counts"].values())), int(meta["plan"]["side"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Entry(path, named["name"], images, side, size, (path / META).stat().st_mtime)


def _remove(folder: Path) -> bool:
    """Remove a folder that nobody reads; return whether it is gone."""
    descriptor = None
    try:
        descriptor = _locked(folder, shared=False)
        gone = folder.with_name(f".{folder.name.lstrip('.')}-00000000")  # out of sight at once: half of it is no cache
        if folder != gone:
            folder.rename(gone)
        shutil.rmtree(gone)
    except OSError:
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True
