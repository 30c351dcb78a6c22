"""The page of `dasvit data FOLDER --report PATH`: what is said of the images, and what becomes of four of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from PIL import Image, ImageOps

from dasvit.data.decode import decode
from dasvit.data.inspection import Inspection
from dasvit.data.thumbnail import base64_of
from dasvit.data.view import CROP_PCT, Fit, View, predict_transform
from dasvit.errors import UserError, printable
from dasvit.report.rendering import render, write_page

SHOWN = 112
"""Side of the squares on the page, in pixels."""


def write_data_page(path: Path, found: Inspection, said: Sequence[str], image_size: int, folder: str) -> None:
    """Write the page.

    Args:
        path: Where to.
        found: What was found.
        said: Its lines, as the terminal has them.
        image_size: Side of the network's input.
        folder: What was looked at.

    Raises:
        UserError: A file that is no page of ours stands there, or it cannot be written.
    """
    pairs = [line.partition(": ")[::2] for line in said]
    alike = found.looks.alike
    content = {
        "operations": {},
        "title": printable(folder),
        "facts": [(name, printable(text)) for name, text in pairs if name != "note"],
        "notes": [printable(text) for name, text in pairs if name == "note"],
        "samples": [_sample(found, *sample, image_size) for sample in found.samples],
        "fit": found.view.fit,
        "alike": [[f"{part}: {printable(name)}" for part, name in group] for group in alike[:20]],
        "more_alike": max(0, len(alike) - 20),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_page(path, render("data.html.j2", content))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}.") from None


def _sample(found: Inspection, name: str, of: str, encoded: Any, image_size: int) -> dict[str, Any]:
    """Return what the template is given of an image: pictures with what they are called."""
    about = {"name": printable(Path(name).name), "class": printable(of)}
    try:
        image = decode(encoded, name, window=found.view.window)
        whole = decode(encoded, name)
    except UserError as error:
        return {**about, "size": printable(str(error)), "pictures": []}
    views: list[View] = [replace(found.view, fit=fit) for fit in get_args(Fit)]
    squares = {view.fit: _square(image, view, image_size) for view in views}
    pictures = [
        (f"{fit}{' (chosen)' * (fit == found.view.fit)}", _encoded(picture)) for fit, picture in squares.items()
    ]
    pictures.append(("flipped", _encoded(ImageOps.mirror(squares[found.view.fit]))))
    if not isinstance(found.view.window, str):
        pictures.append(("without window", _encoded(_square(whole, found.view, image_size))))
    image.thumbnail((2 * SHOWN, SHOWN))
    return {**about, "size": f"{whole.width} × {whole.height}", "pictures": [("image", _encoded(image)), *pictures]}


def _square(image: Image.Image, view: View, image_size: int) -> Image.Image:
    """Return what evaluation shows the network of an image, enlarged or shrunk to SHOWN pixels."""
    is_native = image.width == image.height <= view.largest_native(image_size)
    crop_pct = min(1.0, image_size / image.width) if is_native else CROP_PCT if view.fit == "crop" else 1.0
    seen = predict_transform(image_size, crop_pct, view)(image).permute(1, 2, 0).numpy()
    return Image.fromarray(seen).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)


def _encoded(picture: Image.Image) -> tuple[str, int, int]:
    return base64_of(picture, "png"), picture.width, picture.height
