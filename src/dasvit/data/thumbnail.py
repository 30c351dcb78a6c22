"""Images as small pictures for a page."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dasvit.data.decode import Encoded, decode
from dasvit.data.view import CROP_PCT, Fit, View, predict_transform
from dasvit.errors import UserError, printable

SIDE, SMALL = 96, 32
"""Largest side of a picture as it is kept, in pixels; up to SMALL it is kept exactly."""
SHOWN = 112
"""Side of the squares that the network is shown, on a page, in pixels."""


def encode(pixels: NDArray[np.uint8]) -> dict[str, str]:
    """Return a picture, uint8 [h, w, 3], as a small file: its format, and its bytes in base64."""
    picture = Image.fromarray(pixels)
    name, options = ("png", {}) if picture.width <= SMALL else ("jpeg", {"quality": 85})
    picture.thumbnail((SIDE, SIDE))
    return {"format": name, "data": base64_of(picture, name, **options)}


def base64_of(picture: Image.Image, name: str, **options: int) -> str:
    """Return the bytes of a picture's file, in a format of PIL's, in base64."""
    file = io.BytesIO()
    picture.save(file, name, **options)
    return base64.b64encode(file.getvalue()).decode("ascii")


def views_of(name: str, of: str, encoded: Encoded, view: View, image_size: int) -> dict[str, Any]:
    """Return an image as it is and as evaluation shows it by every fit, flipped, and without its window.

    Args:
        name: Its name.
        of: Its class.
        encoded: Its content.
        view: How it becomes a square.
        image_size: Side of the network's input.

    Returns:
        Its `name`, `class` and `size`, and `pictures`: what each is called, with its PNG in base64, width and height. A
        broken image has none, and as its size what is wrong.
    """
    about = {"name": printable(Path(name).name), "class": printable(of)}
    try:
        image = decode(encoded, name, window=view.window)
        whole = decode(encoded, name)
    except UserError as error:
        return {**about, "size": printable(str(error)), "pictures": []}
    squares = {fit: _square(image, replace(view, fit=fit), image_size) for fit in get_args(Fit)}
    pictures = {f"{fit}{' (chosen)' * (fit == view.fit)}": square for fit, square in squares.items()}
    pictures["flipped"] = ImageOps.mirror(squares[view.fit])
    if not isinstance(view.window, str):
        pictures["without window"] = _square(whole, view, image_size)
    image.thumbnail((2 * SHOWN, SHOWN))
    shown = [(called, (base64_of(p, "png"), p.width, p.height)) for called, p in {"image": image, **pictures}.items()]
    return {**about, "size": f"{whole.width} × {whole.height}", "pictures": shown}


def _square(image: Image.Image, view: View, image_size: int) -> Image.Image:
    """Return what evaluation shows the network of an image, enlarged or shrunk to SHOWN pixels."""
    is_native = image.width == image.height <= view.largest_native(image_size)
    crop_pct = min(1.0, image_size / image.width) if is_native else CROP_PCT if view.fit == "crop" else 1.0
    seen = predict_transform(image_size, crop_pct, view)(image).permute(1, 2, 0).numpy()
    return Image.fromarray(seen).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)
