"""What a study answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dasvit.extras import frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StudyResult:
    """What a study says so far.

    Attributes:
        run: Its folder, with report.html, study.json and study.md.
        summary: The figures, as study.json holds them under `summary` (docs/study.md).
        failures: Runs that failed, and are left out.
    """

    run: Path
    summary: dict[str, Any]
    failures: Sequence[str]

    @property
    def verdicts(self) -> list[str]:
        """Whether searches beat luck, and what is there already, in sentences."""
        found: list[str] = self.summary["verdicts"]
        return found

    def to_frame(self) -> pd.DataFrame:
        """Return a row for every method and variant, the control among them, for pandas."""
        kept = ("key", "label", "group", "mean", "sd", "n", "searches", "macs", "params", "seconds")
        return frame([{key: row.get(key) for key in kept} for row in self.summary["variants"]])
