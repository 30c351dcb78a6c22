"""How a study's numbers and networks are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dasvit.cell.genotype import Genotype
from dasvit.cell.graph import live_edges
from dasvit.cell.subnet import Subnet

Study = Mapping[str, Any]
"""What `study.json` holds; an older one may lack what was added later."""
MISSING = "–"
REFERENCES = {"vit": "ViT", "vit_shift": "ViT with shift", "published": "published cell"}
"""Networks that no search found: their keys in `study.json`, and what they are called."""
FIRST = ("methods", "control")
"""Groups of variants that stand in the table of results; the others change something of DASViT."""


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


def cell_words(cell: Mapping[str, Any]) -> str:
    """Return a network as a formula, as x1 = msa_2(prev2) + mlp_1(prev1); one of no cell by its sizes."""
    if cell.get("network"):
        network = Subnet.from_dict(cell["network"])
        heads, ratios = ("-".join(f"{n:g}" for n in numbers) for numbers in (network.heads, network.ratios))
        return f"{network.depth} layers of width {network.width}; heads {heads}; ratios {ratios}"
    if not cell["genotype"]:
        return "ViT"
    genotype = Genotype.from_dict(cell["genotype"])
    nodes: dict[str, list[str]] = {}
    for i in live_edges(genotype):
        edge = genotype.edges[i]
        nodes.setdefault(edge.target, []).append(f"{edge.op}({edge.source})")
    return "; ".join(f"{target} = {' + '.join(parts)}" for target, parts in nodes.items())
