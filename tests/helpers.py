"""What several test files need."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dasvit.training.progress import Reporter


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return base with the entries of over in place of its own, nested dictionaries merged."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def cut_off(patch: pytest.MonkeyPatch, after: int, run: Callable[[], object]) -> None:
    """Run something and interrupt it when it has said so many lines, each an epoch's end."""
    said: list[str] = []

    def say(self: Reporter, text: str) -> None:
        said.append(text)
        if len(said) == after:
            raise KeyboardInterrupt

    with patch.context() as patched:
        patched.setattr(Reporter, "say", say)
        with pytest.raises(KeyboardInterrupt):
            run()


def untimed(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file without what no two runs share."""
    timed = ("seconds", "images_per_second", "peak_memory_mib")
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]
