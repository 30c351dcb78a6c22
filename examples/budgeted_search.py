"""A search under a budget: the alphas pay for what lies above it, and the cell is derived within it, exactly.

    python examples/budgeted_search.py runs/budget 3.5M

searches on digits for a cell whose network takes at most 3.5 million multiply-adds an image (the ViT of its width and
depth takes 3.50 million). The same search then gives the best cell of every smaller budget, in seconds and without
training. Fields of the recipe may follow, as search.batch_size=32.
"""

import sys
from pathlib import Path

import yaml

import dasvit
from dasvit.cell.cost import network_cost, vit_cost
from dasvit.config.recipe import parse_count

SHARES = (1.0, 0.8, 0.6)
CLASSES = 10


def main(folder: str, budget: str, *fields: str) -> None:
    """Search towards a budget, and derive the best cell within it and within shares of it."""
    options = {name: yaml.safe_load(value) for name, _, value in (field.partition("=") for field in fields)}
    most = parse_count(budget, "the budget")
    options = {"search.target_macs": most, **options}
    found = dasvit.search(recipe="digits", run=folder, max_macs=most, options=options)
    model = found.config.model
    print(f"ViT: {vit_cost(model, CLASSES).macs:,} multiply-adds")
    for share in SHARES:
        cell = found.derive(max_macs=round(share * most))
        Path(folder, f"within_{share:g}.json").write_text(cell.to_json(), encoding="utf-8")
        cost = network_cost(cell, model, CLASSES)
        print(f"within {share:.0%} of {budget}: {cost.macs:,} multiply-adds, {cost.params:,} parameters")


if __name__ == "__main__":
    main(*sys.argv[1:])
