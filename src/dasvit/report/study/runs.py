"""A study's searches and trainings, each beside a link to its run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dasvit.report.study.words import MISSING, REFERENCES, Study, cell_words
from dasvit.report.tables import number
from dasvit.report.words import duration, percent


def dot_words(study: Study) -> str:
    """Return what the dot of a found or random cell is: of how many trainings so far."""
    keys = [*(search["cell"] for search in study["searches"]), *study["random"]["cells"]]
    counts = sorted({len(study["cells"][key]["trainings"]) for key in keys} - {0})
    if counts in ([], [1]):
        return "its one training"
    return f"the mean of its {' or '.join(map(str, counts))} trainings"


def search_table(study: Study, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return the searches of some methods: links to their runs and to the trainings of their cells."""
    return [
        {
            "name": f"{search['variant']}, seed {search['seed']}",
            "run": search["run"],
            "words": cell_words(study["cells"][search["cell"]]),
            "top1": percent(top1) if (top1 := study["cells"][search["cell"]]["top1"]) is not None else MISSING,
            "trainings": links(study["cells"][search["cell"]]),
            "macs": number(study["cells"][search["cell"]]["macs"]),
            "took": duration(search["seconds"]) if search["seconds"] else MISSING,
        }
        for key in keys
        for search in study["searches"]
        if search["variant"] == key
    ]


def links(cell: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the accuracy and run folder of every training."""
    return [(percent(training["top1"]), training["run"]) for training in cell["trainings"]]


def luck_table(study: Study) -> list[dict[str, Any]]:
    """Return the random cells, the best first."""
    cells = [study["cells"][key] for key in study["random"]["cells"]]
    return [described(cell) for cell in sorted(cells, key=lambda cell: -(cell["top1"] or 0.0))]


def reference_table(study: Study) -> list[dict[str, Any]]:
    """Return the references with their trainings."""
    titles = {**REFERENCES, "published": "the paper's CIFAR-10 cell"}
    return [{**described(study["cells"][study[name]]), "name": t} for name, t in titles.items() if study.get(name)]


def described(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network as the tables show it."""
    top1 = percent(cell["top1"]) if cell["top1"] is not None else MISSING
    return {"words": cell_words(cell), "top1": top1, "macs": number(cell["macs"]), "trainings": links(cell)}
