"""The whole path on a folder of your own images, as a program; each call is a command of the tutorial.

    python examples/own_images.py FOLDER runs/mine

FOLDER holds train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg alone. Options behind them go to the search and to
the trainings, as --train.epochs 20.
"""

import json
import sys
from pathlib import Path

from dasvit.cli import run


def main(images: str, folder: str, *options: str) -> None:
    """Search, train what was found and a ViT, set them side by side, export, and name images."""
    run(["search", "--config", "folder-small", "--data.path", images, "--run", folder, *options])
    run(["train", "--cell", folder])  # the search's recipe, options included
    run(["train", "--model", "vit", "--config", f"{folder}/config.yaml", "--run", f"{folder}/vit"])
    run(["report", folder, f"{folder}/vit", "--out", f"{folder}/comparison.html"])
    run(["export", folder, "--to", "torch"])
    run(["predict", folder, images, "--format", "csv", "--top", "1"])

    for name in ("train", "vit"):
        result = json.loads(Path(folder, name, "result.json").read_text(encoding="utf-8"))
        print(f"{name}: test top-1 {result['top1']:.1f} %, {result['params']:,} parameters", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
