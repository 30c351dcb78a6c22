"""A task of several labels an image: a red square, a green disc and a blue bar on noise, each there or not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

LABELS = ("red square", "green disc", "blue bar")
SIDE = 16


def draw(has: NDArray[np.bool_], chance: np.random.Generator) -> Image.Image:
    """Return an image with the shapes that it has, at places of chance."""
    image = Image.fromarray(chance.integers(0, 60, size=(SIDE, SIDE, 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    places = chance.integers(0, SIDE - 6, size=(2, 2)).tolist()
    if has[0]:
        pen.rectangle([*places[0], places[0][0] + 5, places[0][1] + 5], fill=(230, 30, 30))
    if has[1]:
        pen.ellipse([*places[1], places[1][0] + 5, places[1][1] + 5], fill=(30, 230, 30))
    if has[2]:
        top = int(chance.integers(0, SIDE - 3))
        pen.rectangle([0, top, SIDE - 1, top + 2], fill=(40, 40, 240))
    return image


def shapes(folder: Path, count: int, separator: str = ";", split: bool = False, seed: int = 0) -> Path:
    """Write images and their list; some have no label."""
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = []
    for number in range(count):
        has = chance.random(len(LABELS)) < 0.4
        draw(has, chance).save(folder / f"{number}.png")
        named = separator.join(label for label, it_has in zip(LABELS, has, strict=True) if it_has)
        part = ("test" if number % 4 == 0 else "train",) if split else ()
        rows.append((f"{number}.png", named, *part))
    file = folder / "labels.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("image", "labels", "split")[: 2 + split])
        table.writerows(rows)
    return file


def recipe_of(file: Path, **sections: Any) -> dict[str, Any]:
    """Return a recipe of a tiny network on such a list."""
    tiny: dict[str, dict[str, Any]] = {
        "data": {"name": "csv", "csv": str(file)},
        "model": {"image_size": SIDE, "patch_size": 4, "width": 24, "layers": 2, "heads": 2},
        "runtime": {"precision": "float32", "device": "cpu"},
        "train": {"epochs": 3, "batch_size": 32},
    }
    return {**tiny, **{name: {**tiny.get(name, {}), **section} for name, section in sections.items()}}
