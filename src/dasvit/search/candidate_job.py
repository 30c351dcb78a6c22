"""One candidate's training until a rung, as a command: what `search/remote.py` sends to a cluster.

    python -m dasvit.search.candidate_job '{"run": RUN, "cell": GENOTYPE, "rung": 0, "precision": "bfloat16"}'

Exit status: as of the command line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from dasvit.cell.genotype import Genotype
from dasvit.config import recipe as recipes
from dasvit.errors import Stopped, UserError
from dasvit.runtime.progress import Reporter
from dasvit.search.candidates import halved, train_to_rung
from dasvit.session import load_session


def main(task: str) -> None:
    """Train a candidate as a search's run folder says, and write what it reached into its folder."""
    about = json.loads(task)
    config = recipes.load(Path(about["run"]) / "config.yaml")
    session = load_session(config, about["run"], "search", Reporter())
    session.runtime.precision = about["precision"]
    rung = train_to_rung(Genotype.from_dict(about["cell"]), about["rung"], halved(session))
    print(f"{rung.epochs:g} epochs: loss {rung.loss:.4f}, {torch.get_num_threads()} thread(s)")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except UserError as error:
        sys.exit(f"dasvit: error: {error}")
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.status)
