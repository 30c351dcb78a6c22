"""Make a model that comes with the package of a training: `python tools/ship.py RUN NAME`.

Writes src/dasvit/shipped/NAME: the folder that `dasvit export --to hub` makes, weights in half precision,
and the pictures of `tools/drawings.py`. Prints what the test images of RUN say of both precisions.
"""

import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

import dasvit
from dasvit.api.recipe import make_config
from dasvit.inference.evaluate import evaluate_model
from dasvit.models.folder import WEIGHTS
from dasvit.runtime.progress import Reporter
from drawings import DRAWINGS

HOME = Path(__file__).parents[1] / "src" / "dasvit" / "shipped"
LARGEST = 2**20
"""Bytes that the weights may have in the repository."""


def main() -> None:
    """Write the folder, and say what it costs to halve the precision."""
    run, name = sys.argv[1:]
    model, folder = dasvit.TrainedModel(run), HOME / name
    config = make_config(str(Path(run) / "config.yaml"), searching=False)
    reached = evaluate_model(run, config, Reporter()).evaluation.top1
    shutil.rmtree(folder, ignore_errors=True)
    model.export("hub", str(folder))
    weights = {key: value.half() for key, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    size = (folder / WEIGHTS).stat().st_size
    if size > LARGEST:
        sys.exit(f"{size:,} bytes of weights are more than the {LARGEST:,} that the repository may hold")
    halved = evaluate_model(folder, config, Reporter()).evaluation.top1
    (folder / "drawings").mkdir()
    for draw in DRAWINGS:
        draw().finished().save(folder / "drawings" / f"{draw.__name__}.png", optimize=True)
    print(f"{size:,} bytes; {reached:.2f} % of the test images in float32, {halved:.2f} % in half precision")


if __name__ == "__main__":
    main()
