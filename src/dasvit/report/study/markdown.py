"""A study's tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dasvit.report.study.page import (
    ABLATION_HEADS,
    CHANGED,
    COLLAPSE_HEADS,
    ablation_table,
    collapse_table,
    other_keys,
    rows_of,
    status_of,
)
from dasvit.report.study.ranking import BAND_HEADS, RANKING_HEADS, band_table, ranking_table, taus_words
from dasvit.report.study.results import (
    AGAINST_HEADS,
    SPACE_HEADS,
    against_table,
    control_words,
    result_table,
    space_table,
    space_words,
    tolerance,
)
from dasvit.report.study.runs import luck_table, reference_table, search_table
from dasvit.report.study.words import FIRST, MISSING, Study


def as_markdown(study: Study) -> str:
    """Return the page's tables as Markdown."""
    summary = study["summary"]
    methods, first = rows_of(study, "methods"), rows_of(study, *FIRST)
    parts = [f"# Study {study['name']}\n", status_of(study), *(f"- {text}" for text in summary["verdicts"])]
    heads, rows = result_table(study, first)
    parts += ["\n## Results\n", markdown_table(heads, rows), "", control_words(study)]
    if against := against_table(study, methods):
        parts += ["", markdown_table(AGAINST_HEADS, against)]
    if words := space_words(study):
        parts += [f"\n## What the space holds: against {words}\n", markdown_table(SPACE_HEADS, space_table(first))]
    for title, keys in {"Searches": [row["key"] for row in first], "Other searches": other_keys(study)}.items():
        searches = search_table(study, keys)
        if searches:
            parts += [f"\n## {title}\n", markdown_table(["search", *TRAINED], [_search_row(row) for row in searches])]
    trained = [
        [row.get("name") or row["words"], *_trained(row)] for row in [*reference_table(study), *luck_table(study)]
    ]
    parts += [f"\n## References and random cells ({tolerance(study) or 'none yet'})\n"]
    parts += [markdown_table(["network", *TRAINED[1:]], trained)]
    if summary["ranking"]:
        parts += ["\n## The supernet's ranking\n", taus_words(study)]
        for titles, ranked in ((RANKING_HEADS, ranking_table(study)), (BAND_HEADS, band_table(study))):
            parts += ["", markdown_table(titles, [[f"[{texts[0]}]({run})", *texts[1:]] for run, texts in ranked])]
    parts += ["\n## Collapse\n", markdown_table(COLLAPSE_HEADS, collapse_table(methods))]
    for group, title in CHANGED.items():
        if table := ablation_table(summary, group):
            parts += [f"\n## {title}\n", markdown_table(ABLATION_HEADS, table)]
    return "\n".join(parts) + "\n\nWhat each figure means: docs/study.md of dasvit.\n"


TRAINED = ["cell", "top-1", "multiply-adds", "trainings"]


def _search_row(row: Mapping[str, Any]) -> list[str]:
    return [f"[{row['name']}]({row['run']})", row["words"], *_trained(row)]


def _trained(row: Mapping[str, Any]) -> list[str]:
    return [row["top1"], row["macs"], ", ".join(f"[{text}]({run})" for text, run in row["trainings"]) or MISSING]


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = [heads, ["---"] * len(heads), *([text.replace("|", "\\|") for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
