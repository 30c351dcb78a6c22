"""Make a model that comes with the package of a training: `python tools/ship.py RUN NAME`.

Writes src/dasvit/shipped/NAME: the folder that `dasvit export --to hub` makes, weights in half precision, and the
pictures of `tools/drawings.py`. The card says what the test images of RUN make of both precisions.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file

import dasvit
from dasvit.api.recipe import make_config
from dasvit.inference.evaluate import evaluate_model
from dasvit.models.folder import WEIGHTS
from dasvit.report.run.card import CARD
from dasvit.runtime.progress import Reporter
from drawings import draw_all

HOME = Path(__file__).parents[1] / "src" / "dasvit" / "shipped"
LARGEST = 2**20
"""Bytes that the weights may have in the repository."""


def make(run: str, folder: Path) -> str:
    """Write a model's folder of a run; return the sentence about its precision.

    Raises:
        SystemExit: Its weights are too large; nothing of it is of use then.
    """
    dasvit.TrainedModel(run).export("hub", str(folder))
    weights = {key: value.half() for key, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    size = (folder / WEIGHTS).stat().st_size
    if size > LARGEST:
        sys.exit(f"{size:,} bytes of weights are more than the {LARGEST:,} that the repository may hold")
    config = make_config(str(Path(run) / "config.yaml"), searching=False)
    whole, half = (evaluate_model(path, config, Reporter()).evaluation.top1 for path in (run, folder))
    draw_all(folder / "drawings")
    return (
        f"The weights here are in half precision, {size:,} bytes: {half:.2f} % of the test images, {whole:.2f} % in "
        "float32, which the results above are of."
    )


def main() -> None:
    """Put a new folder in the place of the one that is there."""
    run, name = sys.argv[1:]
    with TemporaryDirectory() as scratch:
        made = Path(scratch) / name
        said = make(run, made)
        with (made / CARD).open("a", encoding="utf-8") as card:
            card.write(f"\n## Precision\n\n{said}\n")
        shutil.rmtree(HOME / name, ignore_errors=True)
        shutil.copytree(made, HOME / name)
    print(said)


if __name__ == "__main__":
    main()
