"""Images as small pictures for a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, SMALL = 96, 32
"""Largest side of a picture as it is kept, in pixels; up to SMALL it is kept exactly."""


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
