"""Draw the ten pictures that come with the model `cifar10`, one a class: `python tools/drawings.py FOLDER`.

Drawn of ellipses, polygons and noise, so that they belong to nobody's data set.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE, FINER = 96, 6
"""Pixels of a picture, and how much finer it is drawn before it is made smaller."""
UNITS = 100
"""Side of a picture in the units that shapes are given in."""
Colour = tuple[int, int, int]
Point = tuple[float, float]


class Canvas:
    """A picture that is drawn from back to front, in units of a hundredth of its side.

    Args:
        top: Colour of the background at the top.
        bottom: Colour at the bottom.
        seed: Of the noise.
    """

    def __init__(self, top: Colour, bottom: Colour, seed: int) -> None:
        side = SIDE * FINER
        ramp = np.linspace(0, 1, side)[:, None, None]
        pixels = (1 - ramp) * np.array(top) + ramp * np.array(bottom)
        self.image = Image.fromarray(np.broadcast_to(pixels, (side, side, 3)).astype(np.uint8))
        self.random = np.random.default_rng(seed)

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        scale = SIDE * FINER / UNITS
        return [(x * scale, y * scale) for x, y in points]

    def polygon(self, points: Sequence[Point], colour: Colour, rounded: float = 0) -> None:
        """Fill a polygon, its corners rounded by a radius, and shade it: lighter above, darker below."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(self._scaled(points), fill=255)
        self._fill(mask, colour, rounded)

    def ellipse(self, x: float, y: float, wide: float, high: float, colour: Colour, turned: float = 0) -> None:
        """Fill an ellipse around (x, y) with the given half axes, turned by degrees."""
        angles, turn = np.linspace(0, 2 * math.pi, 60), math.radians(turned)
        across, down = wide * np.cos(angles), high * np.sin(angles)
        right = x + across * math.cos(turn) - down * math.sin(turn)
        below = y + across * math.sin(turn) + down * math.cos(turn)
        self.polygon(list(zip(right.tolist(), below.tolist(), strict=True)), colour)

    def line(self, points: Sequence[Point], wide: float, colour: Colour) -> None:
        """Draw a line through points, with round ends and joints."""
        mask = Image.new("L", self.image.size)
        draw, scale = ImageDraw.Draw(mask), SIDE * FINER / UNITS
        draw.line(self._scaled(points), fill=255, width=round(wide * scale), joint="curve")
        for point in self._scaled(points):
            draw.circle(point, wide * scale / 2, fill=255)
        self._fill(mask, colour, 0)

    def _fill(self, mask: Image.Image, colour: Colour, rounded: float) -> None:
        if rounded:
            radius = rounded * SIDE * FINER / UNITS
            mask = mask.filter(ImageFilter.GaussianBlur(radius)).point(lambda value: 255 * (value > 127))
        box = mask.getbbox()
        if box is None:
            return
        light = np.zeros(mask.size[::-1])
        light[box[1] : box[3]] = np.linspace(1.18, 0.72, box[3] - box[1])[:, None]
        coarse = self.random.normal(0, 0.06, (50, 50))
        noise = np.asarray(Image.fromarray(coarse.astype(np.float32)).resize(mask.size, Image.Resampling.BICUBIC))
        pixels = np.clip((light + noise)[..., None] * np.array(colour), 0, 255).astype(np.uint8)
        self.image.paste(Image.fromarray(pixels), mask=mask)

    def speckle(self, low: float, high: float, colour: Colour, count: int, size: float) -> None:
        """Scatter small ellipses of a colour between two heights: grass, leaves, waves."""
        for _ in range(count):
            x, y, tone = self.random.uniform(0, UNITS), self.random.uniform(low, high), self.random.uniform(0.75, 1.2)
            shade = tuple(int(min(255, channel * tone)) for channel in colour)
            self.ellipse(x, y, size * self.random.uniform(0.6, 1.6), size * 0.5, (shade[0], shade[1], shade[2]))

    def finished(self) -> Image.Image:
        """Return the picture in its own size, as soft as a photograph of that size is."""
        soft = self.image.filter(ImageFilter.GaussianBlur(FINER * 0.8))
        return soft.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def airplane() -> Canvas:
    c = Canvas((95, 150, 215), (200, 222, 240), 1)
    c.ellipse(25, 78, 30, 7, (235, 240, 245))
    c.ellipse(80, 22, 24, 5, (225, 233, 243))
    c.polygon([(52, 47), (66, 20), (74, 20), (66, 48)], (150, 156, 165), 1)
    c.polygon([(12, 50), (5, 28), (14, 27), (25, 44)], (185, 60, 50), 1)
    c.polygon([(6, 50), (24, 43), (78, 41), (95, 50), (82, 56), (24, 56)], (225, 228, 232), 3)
    c.polygon([(45, 51), (64, 52), (40, 82), (31, 82)], (165, 170, 178), 1)
    c.polygon([(10, 51), (20, 51), (10, 63), (4, 63)], (150, 156, 165), 1)
    c.ellipse(50, 64, 6, 3, (120, 124, 132), 0)
    for x in range(30, 80, 6):
        c.ellipse(x, 47, 1.2, 1.2, (60, 70, 90))
    return c


def automobile() -> Canvas:
    c = Canvas((175, 190, 200), (215, 215, 210), 2)
    c.polygon([(0, 38), (100, 34), (100, 62), (0, 62)], (120, 135, 110))
    c.polygon([(0, 62), (100, 62), (100, 100), (0, 100)], (120, 120, 122))
    c.ellipse(50, 83, 46, 5, (55, 55, 58))
    c.polygon([(22, 50), (34, 27), (66, 27), (80, 50)], (185, 25, 28), 3)
    c.polygon([(28, 49), (37, 31), (49, 31), (49, 49)], (60, 75, 90), 1)
    c.polygon([(53, 49), (53, 31), (64, 31), (74, 49)], (60, 75, 90), 1)
    c.polygon([(4, 58), (14, 48), (84, 47), (96, 56), (97, 75), (4, 76)], (200, 28, 30), 4)
    c.polygon([(4, 71), (97, 70), (97, 76), (4, 77)], (90, 20, 22), 1)
    for x in (24, 76):
        c.ellipse(x, 75, 11, 11, (28, 28, 30))
        c.ellipse(x, 75, 5.5, 5.5, (185, 188, 192))
    c.ellipse(93, 59, 3, 3.5, (250, 245, 205))
    c.ellipse(7, 60, 2.5, 3, (240, 120, 60))
    c.line([(54, 57), (59, 57)], 1.5, (230, 230, 230))
    return c


def bird() -> Canvas:
    c = Canvas((120, 150, 95), (85, 115, 65), 3)
    c.speckle(0, 100, (95, 130, 75), 60, 8)
    c.line([(0, 82), (45, 79), (100, 84)], 6, (95, 70, 48))
    c.polygon([(28, 58), (4, 78), (10, 84), (38, 70)], (85, 80, 78), 2)
    c.ellipse(48, 54, 24, 17, (150, 110, 75), -25)
    c.ellipse(53, 59, 17, 12, (215, 150, 95), -30)
    c.ellipse(40, 54, 17, 9, (105, 80, 62), 25)
    c.ellipse(68, 32, 13, 12, (140, 100, 70))
    c.polygon([(79, 29), (94, 34), (79, 37)], (60, 50, 40), 1)
    c.ellipse(72, 30, 2.6, 2.6, (15, 15, 15))
    c.ellipse(72.8, 29.2, 0.8, 0.8, (250, 250, 250))
    c.line([(48, 70), (47, 81)], 2, (70, 55, 40))
    c.line([(56, 68), (56, 81)], 2, (70, 55, 40))
    return c


def cat() -> Canvas:
    c = Canvas((150, 125, 105), (120, 95, 78), 4)
    c.ellipse(50, 104, 40, 36, (135, 122, 108))
    for x, way in ((27, -1), (73, 1)):
        c.polygon([(x - 12, 40), (x + 7 * way, 6), (x + 12, 36)], (125, 112, 98), 2)
        c.polygon([(x - 6, 36), (x + 5 * way, 15), (x + 6, 33)], (205, 155, 150), 2)
    c.ellipse(50, 48, 32, 28, (150, 136, 120))
    for x in (38, 50, 62):
        c.line([(x, 21), (x + (50 - x) * 0.25, 34)], 3, (75, 66, 58))
    for side in (-1, 1):
        c.line([(50 + side * 30, 46), (50 + side * 21, 49)], 2.5, (75, 66, 58))
        c.line([(50 + side * 29, 56), (50 + side * 20, 57)], 2.5, (75, 66, 58))
    c.ellipse(50, 62, 14, 11, (225, 215, 203))
    for x in (37, 63):
        c.ellipse(x, 46, 6.5, 6, (195, 195, 90))
        c.ellipse(x, 46, 2, 5.4, (12, 12, 12))
    c.polygon([(45, 57), (55, 57), (50, 62)], (200, 120, 115), 1)
    c.line([(50, 62), (50, 66)], 1.2, (80, 60, 55))
    for side in (-1, 1):
        c.line([(50 + side * 12, 63), (50 + side * 38, 58)], 0.8, (245, 245, 245))
        c.line([(50 + side * 12, 66), (50 + side * 38, 68)], 0.8, (245, 245, 245))
    return c


def deer() -> Canvas:
    c = Canvas((110, 130, 85), (140, 135, 80), 5)
    c.speckle(0, 50, (70, 95, 60), 70, 9)
    c.polygon([(0, 62), (100, 58), (100, 100), (0, 100)], (150, 140, 80))
    c.speckle(60, 100, (130, 130, 70), 60, 5)
    for x, foot in ((26, 93), (33, 90), (60, 93), (66, 90)):
        c.line([(x, 62), (x + 1, 78), (x - 1, foot)], 4, (120, 85, 55))
    c.ellipse(46, 58, 27, 13, (155, 108, 68))
    c.ellipse(48, 65, 18, 5, (200, 170, 130))
    c.ellipse(19, 54, 4, 5, (235, 225, 210))
    c.polygon([(60, 62), (67, 30), (78, 32), (73, 60)], (155, 108, 68), 3)
    c.ellipse(77, 28, 11, 7, (150, 104, 66), 15)
    c.ellipse(86, 31, 4, 3.5, (60, 45, 38))
    c.ellipse(66, 20, 7, 3, (150, 110, 75), 25)
    c.ellipse(76, 26, 1.8, 1.8, (15, 12, 10))
    for lean in (-1, 1):
        x = 73 + 2 * lean
        c.line([(x, 22), (x + 8 * lean, 12), (x + 6 * lean, 2)], 2, (110, 88, 62))
        c.line([(x + 7 * lean, 12), (x + 15 * lean, 6)], 1.8, (110, 88, 62))
        c.line([(x + 4 * lean, 16), (x + 1 * lean, 6)], 1.8, (110, 88, 62))
    return c


def dog() -> Canvas:
    c = Canvas((165, 180, 150), (125, 150, 95), 6)
    c.speckle(60, 100, (105, 140, 75), 60, 5)
    c.ellipse(50, 100, 33, 34, (195, 150, 95))
    c.ellipse(50, 102, 15, 30, (235, 215, 185))
    c.ellipse(50, 42, 27, 29, (200, 155, 98))
    for side in (-1, 1):
        c.ellipse(50 + side * 28, 45, 9, 23, (140, 95, 55), -12 * side)
    c.ellipse(50, 56, 16, 15, (232, 210, 178))
    c.ellipse(50, 30, 5, 16, (228, 200, 160))
    for x in (38, 62):
        c.ellipse(x, 39, 4, 4.2, (40, 25, 15))
        c.ellipse(x + 1, 38, 1.2, 1.2, (250, 250, 250))
    c.ellipse(50, 50, 7, 5, (25, 22, 22))
    c.line([(50, 54), (50, 61)], 1.6, (70, 50, 40))
    c.ellipse(50, 68, 5, 7, (225, 110, 115))
    c.line([(40, 62), (50, 62), (60, 62)], 1.8, (70, 50, 40))
    return c


def frog() -> Canvas:
    c = Canvas((95, 85, 60), (70, 62, 42), 7)
    c.speckle(0, 100, (105, 92, 60), 80, 7)
    c.ellipse(50, 84, 44, 7, (45, 40, 28))
    for side in (-1, 1):
        c.ellipse(50 + side * 32, 68, 14, 18, (90, 135, 50), 25 * side)
        c.line([(50 + side * 34, 80), (50 + side * 46, 86)], 5, (85, 125, 48))
        c.line([(50 + side * 18, 66), (50 + side * 22, 86)], 7, (100, 145, 55))
        c.line([(50 + side * 22, 86), (50 + side * 29, 89)], 4, (95, 140, 52))
    c.ellipse(50, 60, 27, 24, (105, 155, 55))
    c.ellipse(50, 72, 17, 12, (205, 210, 140))
    c.ellipse(50, 42, 25, 16, (112, 165, 58))
    for side in (-1, 1):
        c.ellipse(50 + side * 16, 30, 8, 8, (115, 165, 60))
        c.ellipse(50 + side * 16, 29, 5.5, 5.5, (215, 185, 60))
        c.ellipse(50 + side * 16, 29, 4, 2, (10, 10, 10))
    c.line([(28, 46), (40, 51), (60, 51), (72, 46)], 1.6, (55, 80, 30))
    for x, y in ((35, 60), (64, 58), (42, 36), (58, 38), (68, 68), (31, 70)):
        c.ellipse(x, y, 3, 2.4, (65, 105, 35))
    return c


def horse() -> Canvas:
    c = Canvas((165, 195, 220), (205, 215, 210), 8)
    c.polygon([(0, 45), (100, 42), (100, 66), (0, 66)], (85, 110, 65))
    c.polygon([(0, 62), (100, 62), (100, 100), (0, 100)], (125, 155, 75))
    c.speckle(64, 100, (110, 145, 62), 70, 5)
    for x, foot in ((22, 92), (30, 89), (60, 92), (67, 89)):
        c.line([(x, 60), (x + 2, 76), (x, foot)], 5.5, (95, 52, 30))
        c.line([(x, foot - 1), (x + 1, foot + 2)], 5.5, (40, 30, 25))
    c.line([(16, 48), (8, 60), (9, 78)], 6, (35, 25, 20))
    c.ellipse(43, 52, 28, 15, (120, 66, 36))
    c.polygon([(54, 56), (68, 18), (82, 20), (74, 58)], (120, 66, 36), 4)
    c.polygon([(70, 12), (82, 12), (97, 34), (92, 41), (84, 38), (72, 28)], (125, 70, 38), 3)
    c.polygon([(71, 15), (72, 5), (77, 13)], (115, 62, 34), 0.5)
    c.line([(70, 14), (62, 26), (56, 42)], 6, (35, 25, 20))
    c.ellipse(82, 21, 1.7, 1.7, (10, 10, 10))
    c.ellipse(92, 37, 1.3, 1.3, (40, 25, 20))
    return c


def ship() -> Canvas:
    c = Canvas((150, 190, 225), (205, 222, 235), 9)
    c.polygon([(0, 64), (100, 64), (100, 100), (0, 100)], (45, 90, 135))
    c.speckle(66, 100, (75, 125, 170), 90, 5)
    c.polygon([(24, 56), (24, 40), (74, 40), (78, 56)], (235, 236, 238), 1)
    c.polygon([(32, 41), (32, 29), (62, 29), (64, 41)], (222, 224, 228), 1)
    c.polygon([(42, 30), (43, 12), (52, 12), (53, 30)], (200, 60, 45), 0.5)
    c.polygon([(42, 16), (43, 12), (52, 12), (52.5, 16)], (30, 30, 32))
    c.line([(68, 40), (68, 16)], 1.5, (110, 112, 116))
    c.polygon([(4, 54), (97, 52), (86, 74), (14, 74)], (45, 52, 66), 2)
    c.polygon([(12, 69), (89, 69), (86, 75), (14, 75)], (150, 45, 40), 1)
    for x in range(30, 74, 7):
        c.ellipse(x, 48, 1.6, 1.6, (60, 90, 120))
    c.speckle(73, 78, (215, 230, 240), 16, 4)
    return c


def truck() -> Canvas:
    c = Canvas((180, 200, 222), (220, 225, 228), 10)
    c.polygon([(0, 46), (100, 44), (100, 70), (0, 70)], (130, 140, 120))
    c.polygon([(0, 68), (100, 68), (100, 100), (0, 100)], (118, 118, 120))
    c.ellipse(50, 86, 47, 4, (50, 50, 53))
    c.polygon([(3, 18), (66, 18), (66, 70), (3, 70)], (235, 235, 232), 1)
    c.polygon([(3, 54), (66, 54), (66, 60), (3, 60)], (60, 105, 170))
    c.polygon([(68, 34), (86, 34), (96, 54), (97, 76), (68, 76)], (215, 120, 35), 2)
    c.polygon([(74, 38), (84, 38), (91, 53), (74, 53)], (70, 88, 105), 1)
    c.polygon([(3, 70), (97, 70), (97, 78), (3, 78)], (55, 56, 60), 1)
    for x in (18, 34, 82):
        c.ellipse(x, 79, 9, 9, (25, 25, 27))
        c.ellipse(x, 79, 4, 4, (165, 168, 172))
    c.ellipse(95, 66, 2, 2.5, (250, 245, 205))
    return c


DRAWINGS: tuple[Callable[[], Canvas], ...] = (airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck)


def draw_all(folder: Path) -> None:
    """Draw all into a folder, a file for each by its class."""
    folder.mkdir(parents=True, exist_ok=True)
    for draw in DRAWINGS:
        draw().finished().save(folder / f"{draw.__name__}.png", optimize=True)


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]))
