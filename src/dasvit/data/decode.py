"""From an encoded image to RGB pixels."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from dasvit.errors import UserError

T = TypeVar("T")
Pixels = NDArray[Any]
"""Pixels of an image: uint8 [h, w] or [h, w, 3], or grey levels of more than 8 bits [h, w]."""
Encoded = str | bytes | Pixels
"""An image as a source holds it: the path of a file, a file's content, or pixels."""

_ORIENTATION = 0x0112  # the EXIF tag
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is decoded, by content and whatever a file is called. PIL knows forty formats more, and hands some of them (EPS)
to programs outside of it."""
Window = tuple[float, float] | Literal["auto", "full"]
"""Grey levels of images of more than 8 bits that become black and white: two levels, those that are still to be
measured (auto), or the range of the images' type (full)."""
_TOPS = (1.0, 255.0, 65535.0)
"""White in images of floats and of 32-bit numbers, whose type does not say it: the first that no level is above."""
_OTHER_ORDER = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B" if sys.byteorder == "little" else "RGBA;16L",
}
"""PIL's layouts of 16 bits a colour, each with that of the other byte order."""
_GREY_ALPHA = "LA;16B"
"""Grey and transparency of 16 bits each, which PIL reads as RGBA; its four bytes are read by the layout RGBA."""
LARGEST_IMAGE = 89_478_485
"""Pixels above which an image is refused before it is decoded: where PIL begins to warn."""
_ADVICE = "remove it, or leave such images out with --data.on_error skip"


class DeepImage(Exception):
    """An image has more than 8 bits, and its window is still to be measured."""


def open_image(path: str | os.PathLike[str], window: Window = "full") -> Image.Image:
    """Read an image file as upright RGB; see `decode`.

    Raises:
        UserError: The file is missing, is no image, is damaged, or is absurdly large.
    """
    return decode(os.fspath(path), os.fspath(path), "give another file", window)


@cache
def image_formats() -> tuple[str, ...]:
    """Return the formats that are read, as far as this build of PIL has them."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decode(encoded: Encoded, name: str, advice: str = _ADVICE, window: Window = "full") -> Image.Image:
    """Decode an image to upright RGB.

    Args:
        encoded: The image as its source holds it.
        name: What an error calls it.
        advice: What an error advises.
        window: Which grey levels of an image of more than 8 bits become black and white.

    Raises:
        UserError: The image cannot be decoded, or is absurdly large.
        DeepImage: It has more than 8 bits, and the window is auto.
    """

    def work(image: Image.Image, colours: Callable[[], Pixels] | None) -> Image.Image:
        if colours is None or window == "full":  # as ever, the upper 8 of the 16 bits of a colour
            return to_rgb(image, window)
        levels = colours()
        seen = Image.fromarray(_windowed(levels[..., :3], window))
        return _over_white(seen, levels[..., 3]) if levels.shape[2] == 4 else seen

    return _decoded(encoded, name, advice, work)


def grey_levels(encoded: Encoded, name: str) -> NDArray[np.generic] | None:
    """Return the levels of an image of more than 8 bits as they are, [h, w] or [n, 3]; None: it has 8.

    Of colours with transparency, those of the n pixels that are not wholly transparent, else of all.

    Raises:
        UserError: As `decode`.
    """

    def work(image: Image.Image, colours: Callable[[], Pixels] | None) -> Pixels | None:
        if colours is None:
            return np.asarray(image) if is_deep(image) else None
        levels = colours()
        return levels[..., :3][levels[..., 3] > 0] if levels.shape[2] == 4 else levels.reshape(-1, 3)

    return _decoded(encoded, name, _ADVICE, work)


def _decoded(
    encoded: Encoded, name: str, advice: str, work: Callable[[Image.Image, Callable[[], Pixels] | None], T]
) -> T:
    """Return what `work` makes of an upright image and of what reads its colours of 16 bits; see `decode`."""
    try:
        if isinstance(encoded, np.ndarray):
            return work(Image.fromarray(encoded), None)
        with open_header(encoded, name) as image:
            has_deep_colours = image.mode in ("RGB", "RGBA") and is_deep(image)
            upright = _upright(image)
            return work(upright, partial(_colours, encoded, name) if has_deep_colours and upright is image else None)
    except (UserError, DeepImage):
        raise
    except FileNotFoundError:
        if isinstance(encoded, str) and os.path.islink(encoded):
            raise UserError(f"the image {name} is a link that leads nowhere: {advice}.") from None
        raise UserError(f"there is no image {name}: it was removed, or never was there.") from None
    except Exception as error:  # a damaged file makes PIL's decoders raise errors of every kind
        reason = "no known image format" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"cannot read the image {name} ({reason}): {advice}.") from None


def open_header(encoded: str | bytes, name: str) -> ImageFile.ImageFile:
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


def is_deep(image: Image.Image) -> bool:
    """Tell whether an image holds grey levels of more than 8 bits, or, not loaded yet, colours of 16 bits each."""
    layouts = (_raw(tile) for tile in getattr(image, "tile", ()))
    return image.mode.startswith(("I", "F")) or any(raw in _OTHER_ORDER or raw == _GREY_ALPHA for raw in layouts)


def _raw(tile: Any) -> Any:
    """Return what PIL calls the layout of the bytes in a part of a file."""
    return tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0]


def _colours(encoded: str | bytes, name: str) -> Pixels:
    """Return colours of 16 bits each, uint16 [h, w, 3], or [h, w, 4] where they have transparency.

    PIL reads the upper 8 of them; by the other byte order, the lower.
    """
    with open_header(encoded, name) as image:
        upper = np.asarray(image).astype(np.uint16)
    with open_header(encoded, name) as image:
        raws = [_raw(tile) for tile in image.tile]
        if _GREY_ALPHA in raws:
            image.tile = [tile._replace(args="RGBA") for tile in image.tile]
            pairs = np.asarray(image).astype(np.uint16)
            return (pairs[..., ::2] * 256 + pairs[..., 1::2])[..., [0, 0, 0, 1]]
        args = [
            _OTHER_ORDER[raw] if isinstance(tile.args, str) else (_OTHER_ORDER[raw], *(tile.args or ())[1:])
            for raw, tile in zip(raws, image.tile, strict=True)
        ]
        image.tile = [tile._replace(args=other) for tile, other in zip(image.tile, args, strict=True)]
        found: Pixels = upper * 256 + np.asarray(image)
    return found


def to_rgb(image: Image.Image, window: Window = "full") -> Image.Image:
    """Convert an image of any mode to 8-bit RGB: transparency over white, deeper grey levels by their window.

    Raises:
        DeepImage: It has more than 8 bits, and the window is auto.
    """
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_windowed(np.asarray(image), window)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _over_white(seen: Image.Image, alpha: Pixels) -> Image.Image:
    """Lay an RGB image over white by its transparency, uint16 [h, w]."""
    share = alpha[..., None] / 65535
    return Image.fromarray(np.rint(np.asarray(seen) * share + 255 * (1 - share)).astype(np.uint8))


def _windowed(values: NDArray[np.generic], window: Window) -> NDArray[np.uint8]:
    """Scale levels of more than 8 bits to 0..255; what lies outside becomes black or white."""
    levels = np.nan_to_num(values.astype(np.float64))
    if window == "auto":
        raise DeepImage
    low, high = (0.0, type_top(values.dtype, levels.max(initial=0.0))) if window == "full" else window
    return np.clip(np.rint((levels - low) * (255.0 / (high - low))), 0, 255).astype(np.uint8)


def type_top(kind: np.dtype[Any], highest: float) -> float:
    """Return the level that is white in images of a type, the highest level of which is given."""
    if not np.issubdtype(kind, np.floating) and kind.itemsize == 2:
        return _TOPS[-1]
    # PIL opens 16-bit files as 16 or as 32 bits, depending on the format and its version.
    tops = _TOPS[:2] if np.issubdtype(kind, np.floating) else _TOPS[1:]
    return next((top for top in tops if highest <= top), tops[-1])
