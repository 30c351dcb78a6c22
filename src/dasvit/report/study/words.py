"""How a study's numbers and networks are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import Subnet
from dasvit.report.drawing.cells import sums_of
from dasvit.report.markup import Cell
from dasvit.report.tables import number
from dasvit.report.words import percent

Study = Mapping[str, Any]
"""What `study.json` holds; an older one may lack what was added later."""
Colours = Mapping[str, tuple[str, str]]
"""Class of the colour, and dashes, of everything that was searched with."""
MISSING = "–"
REFERENCES = {"vit": "ViT", "vit_shift": "ViT with shift", "published": "published cell", "shipped": "shipped cell"}
"""Networks that no search found: their keys in `study.json`, and what they are called."""
FIRST = ("methods", "control")
"""Groups of variants that stand in the table of results; the others change something of DASViT."""


class Table(NamedTuple):
    """A table of the page and of `study.md`; a row begins with what it is about."""

    heads: list[str]
    rows: list[list[Cell]]


def rows_of(study: Study, *groups: str) -> list[Mapping[str, Any]]:
    """Return the summary's rows of these groups of variants."""
    return [row for row in study["summary"]["variants"] if row["group"] in groups]


def references_of(study: Study) -> dict[str, str]:
    """Return the references that a study has."""
    return {name: title for name, title in REFERENCES.items() if study.get(name)}


def search_name(search: Mapping[str, Any]) -> str:
    """Return what a search, or its row, is called."""
    return f"{search['variant']}, seed {search['seed']}"


def mean_sd(numbers: Mapping[str, Any]) -> str:
    """Return a mean with its standard deviation, in percent."""
    if numbers["mean"] is None:
        return MISSING
    return f"{numbers['mean']:.2f}" + (f" ± {numbers['sd']:.2f}" if numbers["sd"] is not None else "") + " %"


def with_interval(value: float | None, low: float | None, high: float | None, form: str = ".2f") -> str:
    """Return a value with its 95 % interval."""
    if value is None:
        return MISSING
    return f"{value:{form}}" + (f" ({low:{form}} to {high:{form}})" if low is not None and high is not None else "")


def figure(value: float | None, form: str) -> str:
    """Return a value in a format, or that there is none."""
    return MISSING if value is None else f"{value:{form}}"


def count(value: float | None) -> str:
    """Return a count for readers, as 1.21M, or that there is none."""
    return MISSING if value is None else number(round(value))


def cell_words(cell: Mapping[str, Any]) -> str:
    """Return a network as a formula, as x1 = msa_2(prev2) + mlp_1(prev1); one of no cell by its sizes."""
    if cell.get("network"):
        network = Subnet.from_dict(cell["network"])
        heads, ratios = ("-".join(f"{n:g}" for n in numbers) for numbers in (network.heads, network.ratios))
        return f"{network.depth} layers of width {network.width}; heads {heads}; ratios {ratios}"
    if not cell["genotype"]:
        return "ViT"
    sums = sums_of(Genotype.from_dict(cell["genotype"]))
    return "; ".join(f"{target} = {' + '.join(f'{e.op}({e.source})' for e in edges)}" for target, edges in sums.items())


def trained(cell: Mapping[str, Any]) -> list[Cell]:
    """Return a network's accuracy and multiply-adds, and the accuracy and run folder of every training."""
    top1 = MISSING if cell["top1"] is None else percent(cell["top1"])
    return [
        top1,
        number(cell["macs"]),
        [(percent(training["top1"]), training["run"]) for training in cell["trainings"]],
    ]
