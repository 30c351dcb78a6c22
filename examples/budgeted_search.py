"""A search under a budget: the alphas pay for what lies above it, and the cell is derived within it, exactly.

    python examples/budgeted_search.py runs/budget 3.5M

searches on digits for a cell whose network takes at most 3.5 million multiply-adds an image (the ViT of its width and
depth takes 3.50 million). The same search then gives the best cell of every smaller budget, in seconds and without
training. Options behind the budget go to the search, as --config cifar10-small --data.path DIR.
"""

import sys
from pathlib import Path

from dasvit.cell.cost import network_cost, vit_cost
from dasvit.cell.genotype import load_genotype
from dasvit.cli import run
from dasvit.config.recipe import load, parse_count

SHARES = (1.0, 0.8, 0.6)
CLASSES = 10


def main(folder: str, budget: str, *options: str) -> None:
    """Search towards a budget, and derive the best cell within it and within shares of it."""
    recipe = options or ("--config", "digits")
    run(["search", *recipe, "--search.target_macs", budget, "--search.derive.max_macs", budget, "--run", folder])
    cells = {share: Path(folder, "derived", f"within_{share:g}.json") for share in SHARES}
    for share, cell in cells.items():
        macs = round(share * parse_count(budget, "the budget"))
        run(["derive", folder, "--max-macs", str(macs), "--out", str(cell)])

    model = load(Path(folder, "config.yaml")).model
    print(f"\nViT: {vit_cost(model, CLASSES).macs:,} multiply-adds")
    for share, cell in cells.items():
        cost = network_cost(load_genotype(cell), model, CLASSES)
        print(f"within {share:.0%} of {budget}: {cost.macs:,} multiply-adds, {cost.params:,} parameters ({cell})")


if __name__ == "__main__":
    main(*sys.argv[1:])
