"""From an encoded image to RGB pixels, and the one geometry that caching and prediction share."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dasvit.errors import UserError

Encoded = str | bytes | NDArray[np.uint8]
"""An image as a source holds it: the path of a file, a file's content, or pixels [h, w] or [h, w, 3]."""

CROP_PCT = 0.875
"""Share of the square's side that evaluation looks at, where images come in larger or various sizes."""

_ORIENTATION = 0x0112  # the EXIF tag
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is decoded, by content and whatever a file is called. PIL knows forty formats more, and hands some of them (EPS)
to programs outside of it."""
LARGEST_IMAGE = 89_478_485
"""Pixels above which an image is refused before it is decoded: where PIL begins to warn."""
_ADVICE = "remove it, or leave such images out with --data.on_error skip"


def square_side(image_size: int) -> int:
    """Return the side of the square that images are cached at, so that evaluation can cut its centre."""
    return round(image_size / CROP_PCT)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as upright RGB.

    Raises:
        UserError: The file is missing, is no image, is damaged, or is absurdly large.
    """
    return decode(os.fspath(path), os.fspath(path), "give another file")


@cache
def image_formats() -> tuple[str, ...]:
    """Return the formats that are read, as far as this build of PIL has them."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decode(encoded: Encoded, name: str, advice: str = _ADVICE) -> Image.Image:
    """Decode an image to upright RGB.

    Args:
        encoded: The image as its source holds it.
        name: What an error calls it.
        advice: What an error advises.

    Raises:
        UserError: The image cannot be decoded, or is absurdly large.
    """
    try:
        if isinstance(encoded, np.ndarray):
            return to_rgb(Image.fromarray(encoded))
        with open_header(encoded, name) as image:
            return to_rgb(_upright(image))
    except UserError:
        raise
    except FileNotFoundError:
        if isinstance(encoded, str) and os.path.islink(encoded):
            raise UserError(f"the image {name} is a link that leads nowhere: {advice}.") from None
        raise UserError(f"there is no image {name}: it was removed, or never was there.") from None
    except Exception as error:  # a damaged file makes PIL's decoders raise errors of every kind
        reason = "no known image format" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"cannot read the image {name} ({reason}): {advice}.") from None


def open_header(encoded: str | bytes, name: str) -> Image.Image:
    """Open an image without decoding it yet, to be closed by the caller.

    Raises:
        UserError: It says to be absurdly large. What else is wrong with it, PIL says in its own ways.
    """
    too_large = UserError(
        f"the image {name} has more pixels than is safe to decode ({LARGEST_IMAGE:,}): shrink or remove it."
    )
    try:
        image = Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=image_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large from None
    if image.width * image.height > LARGEST_IMAGE:
        image.close()
        raise too_large
    return image


def _upright(image: Image.Image) -> Image.Image:
    # Cameras store photographs lying on their side, with a note on how to turn them.
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB: transparency over white, deeper grey levels scaled."""
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_grey_levels(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _grey_levels(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale grey levels [h, w] of more than 8 bits to 0..255, by the range their type or content implies."""
    levels = np.nan_to_num(values.astype(np.float64))
    if np.issubdtype(values.dtype, np.floating):
        full = 1.0 if levels.max(initial=0.0) <= 1.0 else 255.0
    else:
        # PIL opens 16-bit files as 16 or as 32 bits, depending on the format and its version.
        full = 65535.0 if values.dtype.itemsize == 2 or levels.max(initial=0.0) > 255 else 255.0
    return np.clip(np.rint(levels * (255.0 / full)), 0, 255).astype(np.uint8)


def square(image: Image.Image, side: int, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """Resize the central square of an image to side × side pixels; PIL antialiases where it shrinks."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    return image.resize((side, side), resample, box=(left, top, left + short, top + short))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Return the pixels of an RGB image as uint8 [3, H, W]."""
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def predict_transform(image_size: int, crop_pct: float) -> Callable[[Image.Image], torch.Tensor]:
    """Return the function that brings one image of any size to what evaluation shows the network.

    Args:
        image_size: Side S of the network's input.
        crop_pct: `Data.crop_pct` of the data that the network was trained on.

    Returns:
        A function from an RGB image to uint8 [3, S, S], which `Preprocess` takes on from there.
    """
    side = round(image_size / crop_pct)
    start = (side - image_size) // 2

    def transform(image: Image.Image) -> torch.Tensor:
        # Evaluation enlarges images that are smaller than the input bilinearly, on the device.
        enlarge = crop_pct == 1.0 and min(image.size) < side
        resized = square(image, side, Image.Resampling.BILINEAR if enlarge else Image.Resampling.BICUBIC)
        return to_tensor(resized.crop((start, start, start + image_size, start + image_size)))

    return transform
