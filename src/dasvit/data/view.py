"""How a picture becomes a square of 8-bit pixels: the same in training, evaluation, prediction and exports."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dasvit.config import DataConfig
from dasvit.config.units import parse_window, window_text
from dasvit.data.decode import Window, grey_levels, type_top
from dasvit.data.listing import Records, spread_rows
from dasvit.errors import UserError

Fit = Literal["crop", "pad", "squash"]
CROP_MODES: dict[Fit, str] = {"crop": "center", "pad": "border", "squash": "squash"}
"""What timm calls each fit, under the key crop_mode of a model's description."""
CROP_PCT = 0.875
"""Share of the square's side that evaluation looks at, where images come in larger or various sizes and are cropped."""
OBLONG = 1.5
"""How many times its shorter side an image's longer side is, from which on it counts as oblong."""
GREY = (128, 128, 128)
"""What is beside a padded image: timm's, the mean that pixels are normalised with."""
_MEASURED = 512  # images that a window is measured on
_LEVELS = 16384  # levels of an image that are looked at, besides its darkest and its brightest
_TAIL = 0.002  # share of the levels at either end that may be outliers


@dataclass(frozen=True)
class View:
    """How a picture becomes a square.

    Attributes:
        fit: crop (its centre), pad (all of it, with grey beside it) or squash (all of it, its sides scaled apart).
        window: Grey levels of images of more than 8 bits that become black and white.
    """

    fit: Fit = "crop"
    window: Window = "full"

    @classmethod
    def of(cls, config: DataConfig) -> View:
        """Return the view that a recipe asks for."""
        return cls(config.fit, parse_window(config.window, "data.window"))

    def asked_by(self, config: DataConfig) -> DataConfig:
        """Return a recipe's section that asks for this view."""
        return replace(config, fit=self.fit, window=window_text(self.window))

    def side(self, image_size: int) -> int:
        """Return the side that images larger than the network's are kept at: where they are cropped, with a border."""
        return round(image_size / CROP_PCT) if self.fit == "crop" else image_size

    def largest_native(self, image_size: int) -> int:
        """Return the largest side at which square images are kept as they are."""
        return math.ceil(image_size / CROP_PCT) if self.fit == "crop" else image_size

    def square(
        self, image: Image.Image, side: int, resample: Image.Resampling = Image.Resampling.BICUBIC
    ) -> Image.Image:
        """Resize an image to side × side pixels; PIL antialiases where it shrinks."""
        width, height = image.size
        if self.fit == "squash":
            return image.resize((side, side), resample)
        if self.fit == "pad":
            scale = side / max(width, height)
            inner = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), resample)
            padded = Image.new("RGB", (side, side), GREY)
            padded.paste(inner, ((side - inner.width) // 2, (side - inner.height) // 2))
            return padded
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        return image.resize((side, side), resample, box=(left, top, left + short, top + short))


PLAIN = View()
"""The view of older versions."""


def fit_of(crop_mode: str | None) -> Fit:
    """Return the fit that a model's description asks for; crop where it says nothing."""
    return next((fit for fit, mode in CROP_MODES.items() if mode == crop_mode), "crop")


def is_oblong(size: tuple[int, int]) -> bool:
    """Tell whether an image of a width and height is longer than OBLONG : 1."""
    return max(size) > OBLONG * min(size)


def fit_lines(fit: Fit, oblong: float | None) -> list[str]:
    """Say how pictures become squares.

    Args:
        fit: How.
        oblong: Share of the images that are longer than OBLONG : 1; None: not known.
    """
    share = "" if oblong is None else f"; {100 * oblong:.0f} % of the images are longer than {OBLONG:g} : 1"
    if fit != "crop":
        return [f"fit: {fit}, all of each image{share}"]
    if not oblong:
        return []
    return [f"fit: crop, the centre square of each{share} and lose their ends (--data.fit pad or squash keeps them)"]


def window_lines(window: Window) -> list[str]:
    """Say which grey levels become black and white; nothing where the type of the images says it."""
    if isinstance(window, str):
        return []
    low, high = window
    return [f"window: grey levels {low:,g} to {high:,g} become black to white (--data.window LOW,HIGH, or full)"]


def predict_transform(
    image_size: int, crop_pct: float, view: View = PLAIN, enlarge: str = "bilinear"
) -> Callable[[Image.Image], torch.Tensor]:
    """Return the function that brings one image of any size to what evaluation shows the network.

    Args:
        image_size: Side S of the network's input.
        crop_pct: `Data.crop_pct` of the data that the network was trained on.
        view: Their view.
        enlarge: How smaller images are enlarged, bilinear or bicubic, where all of an image is looked at.

    Returns:
        A function from an RGB image to uint8 [3, S, S], which `Preprocess` takes on from there.
    """
    side = round(image_size / crop_pct)
    start = (side - image_size) // 2

    def transform(image: Image.Image) -> torch.Tensor:
        # Evaluation enlarges images that are smaller than the input bilinearly, on the device.
        bilinear = crop_pct == 1.0 and enlarge == "bilinear" and min(image.size) < side
        resized = view.square(image, side, Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC)
        cropped = resized.crop((start, start, start + image_size, start + image_size))
        return torch.from_numpy(np.asarray(cropped).transpose(2, 0, 1).copy())

    return transform


def measure_window(records: Records) -> Window:
    """Return the grey levels that images of more than 8 bits use; full where these are most of their type's range.

    Up to _MEASURED images, spread over all, are looked at. The darkest and the brightest level count unless they lie
    further from the rest than the rest is wide, as a dead pixel's does.

    Args:
        records: The training images.
    """
    rows = spread_rows(len(records), _MEASURED)
    found: list[NDArray[np.float64]] = []
    ends: list[float] = []
    kind: np.dtype[Any] = np.dtype(np.uint16)
    for name, encoded in records.select(rows):
        try:
            levels = grey_levels(encoded, name)
        except UserError:  # whether broken images are left out is for the decoding to say
            continue
        finite = _finite(levels)
        if finite.size:
            kind = levels.dtype if levels is not None else kind
            ends += [finite.min(), finite.max()]
            found.append(finite[:: -(-finite.size // _LEVELS)])
    if not found:
        return "full"
    low, high = map(float, np.quantile(np.concatenate(found), [_TAIL, 1 - _TAIL]))
    least, most, spread = float(min(ends)), float(max(ends)), high - low
    low, high = least if least >= low - spread else low, most if most <= high + spread else high
    if high <= low or (low >= 0 and type_top(kind, high) / 2 <= high <= type_top(kind, high)):
        return "full"
    return low, high


def _finite(levels: NDArray[Any] | None) -> NDArray[np.float64]:
    if levels is None:
        return np.empty(0)
    values = levels.astype(np.float64).ravel()
    return values[np.isfinite(values)]
