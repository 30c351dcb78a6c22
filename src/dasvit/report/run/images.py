"""What a run's page shows of its images: how they were understood, and some of them as the network sees them."""

from __future__ import annotations

from typing import Any

from dasvit.report.run.reading import Run
from dasvit.report.run.tokens import picture_source

MOST_LINES, MOST_SAMPLES, MOST_PICTURES = 40, 8, 4
"""What a file of others may ask the page to show."""


def image_section(run: Run) -> dict[str, Any] | None:
    """Return facts, remarks and samples, of a run whose folder holds them."""
    lines = [line for line in _listed(run.data.get("lines"), MOST_LINES) if isinstance(line, str)]
    pairs = [tuple(line[:1000].partition(": ")[::2]) for line in lines]
    samples = []
    for sample in _listed(run.data.get("samples"), MOST_SAMPLES):
        pictures = _listed(sample.get("pictures"), MOST_PICTURES) if isinstance(sample, dict) else []
        shown = [(str(one.get("name", ""))[:40], picture_source(one)) for one in pictures if isinstance(one, dict)]
        if any(source for _, source in shown):
            samples.append((str(sample.get("class", ""))[:200], [(name, source) for name, source in shown if source]))
    facts = [(name, text) for name, text in pairs if text and name != "note"]
    if not facts and not samples:
        return None
    return {"facts": facts, "notes": [text for name, text in pairs if name == "note"], "samples": samples}


def _listed(value: Any, most: int) -> list[Any]:
    return value[:most] if isinstance(value, list) else []
