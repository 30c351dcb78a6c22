r"""Make the prior that the package ships, or one of a data set alone, of what `benchmarks/rungs.py` measured.

    python benchmarks/prior.py FILE FOLDER=WORDS ...

writes FILE, which `search.finals.prior` takes: of every FOLDER the cells and their validation losses after 1,250 steps;
WORDS say what the data are. The shipped one:

    python benchmarks/prior.py src/dasvit/search/shipped_prior.json benchmarks/measured/rungs=CIFAR-10 \
        "benchmarks/measured/rungs-tiny=Tiny ImageNet"
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dasvit.cell.genotype import Genotype
from dasvit.search.prior import Source, to_json


def source(folder: Path, words: str) -> Source:
    """Return the cells in a folder and their losses at the end."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("cell*.json"))]
    cells = [Genotype.from_ops(2, record["ops"]) for record in records]
    return Source(words, cells, [record["rows"][-1]["val_loss"] for record in records])


def main(out: str, *folders: str) -> None:
    """Write the file, and say what is in it."""
    sources = [source(Path(folder), words) for folder, _, words in (one.partition("=") for one in folders)]
    Path(out).write_text(to_json(sources) + "\n", encoding="utf-8")
    print(json.dumps({one.data: len(one.cells) for one in sources}))


if __name__ == "__main__":
    main(*sys.argv[1:])
