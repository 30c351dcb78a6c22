"""A study's searches and trainings, each beside a link to its run folder."""

from __future__ import annotations

from collections.abc import Sequence

from dasvit.report.study.words import MISSING, Study, Table, cell_words, references_of, search_name, trained
from dasvit.report.words import duration


def dot_words(study: Study) -> str:
    """Return what the dot of a found or random cell is: of how many trainings so far."""
    keys = [*(search["cell"] for search in study["searches"]), *study["random"]["cells"]]
    counts = sorted({len(study["cells"][key]["trainings"]) for key in keys} - {0})
    if counts in ([], [1]):
        return "its one training"
    return f"the mean of its {' or '.join(map(str, counts))} trainings"


def search_table(study: Study, keys: Sequence[str]) -> Table:
    """Return the searches of some methods, with links to their runs and to the trainings of their cells."""
    heads = ["search", "its cell", "top-1", "multiply-adds", "each training of the cell", "search took"]
    rows = []
    for search in (search for key in keys for search in study["searches"] if search["variant"] == key):
        cell, link = study["cells"][search["cell"]], (search_name(search), search["run"])
        took = duration(search["seconds"]) if search["seconds"] else MISSING
        rows.append([[link], cell_words(cell), *trained(cell), took])
    return Table(heads, rows)


def luck_table(study: Study) -> Table:
    """Return the random cells, the best first."""
    cells = sorted((study["cells"][key] for key in study["random"]["cells"]), key=lambda cell: -(cell["top1"] or 0.0))
    return Table(["cell", *TRAINED], [[cell_words(cell), *trained(cell)] for cell in cells])


def reference_table(study: Study) -> Table:
    """Return the references with their trainings."""
    titles = {**references_of(study), **({"published": "the paper's CIFAR-10 cell"} if study.get("published") else {})}
    rows = [[title, *trained(study["cells"][study[name]])] for name, title in titles.items()]
    return Table(["network", *TRAINED], rows)


TRAINED = ["top-1", "multiply-adds", "each training"]
