"""Colours: attention blue, MLP orange, shift green, convolution red, no parameters grey; shades tell ratios apart.

Safe for the colour-blind (`tests/test_report_drawing.py` simulates three kinds of it), and each legible on the
background of both themes. Operations without parameters are drawn with dashes as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from dasvit.cell.genotype import Operation, parse_operation
from dasvit.errors import UserError

THEMES = ("light", "dark")
BACKGROUNDS = {"light": "#ffffff", "dark": "#171b21"}
"""What figures stand on."""
SHADES: dict[str, dict[str, tuple[str, ...]]] = {
    "light": {
        "zero": ("#767676",),
        "identity": ("#101010",),
        "msa": ("#4594d0", "#1f6cb0", "#0b3f80"),
        "mlp": ("#da7510", "#a84a08", "#6a2a04"),
        "shift": ("#2c9a6c", "#0f7350", "#064a33"),
        "conv": ("#d6456b", "#a82348", "#6b0f2a"),
        "other": ("#8d3fa8",),
    },
    "dark": {
        "zero": ("#858b94",),
        "identity": ("#ffffff",),
        "msa": ("#a5d1fb", "#5ea6f0", "#3273cc"),
        "mlp": ("#ffc285", "#ef8d2f", "#b85a12"),
        "shift": ("#a4ecc6", "#4fc492", "#23875f"),
        "conv": ("#ffb3c1", "#f0708c", "#c03a5c"),
        "other": ("#d59bea",),
    },
}
"""From the first operation of a kind to its last."""
LINES = {
    "light": ("#1f6cb0", "#b85208", "#101010", "#00795a", "#a8478a", "#806000"),
    "dark": ("#6fb0f5", "#f09a45", "#ffffff", "#4fd0a8", "#e79bd0", "#e0c860"),
}
"""Of lines that are no operations: losses, runs."""
DASHES = ("", "7 3", "2 2.5", "9 3 2 3", "5 2 1.5 2 1.5 2", "12 3")
"""Beside their colours."""


def kind_of(name: str) -> str:
    """Return an operation's kind: zero, identity, msa, mlp, shift, conv, or other for a name that is none of ours."""
    kind = _parse(name).kind
    return kind if kind in SHADES["light"] else "other"


def _parse(name: str) -> Operation:
    try:
        return parse_operation(name)
    except UserError:
        return Operation("other")


def in_order(names: Iterable[str]) -> list[str]:
    """Return operations as they are shown: without parameters, attentions, MLPs, shifts, convolutions, others."""
    kinds = list(SHADES["light"])
    return sorted(set(names), key=lambda name: (kinds.index(kind_of(name)), _parse(name).number, name))


def colours(names: Sequence[str], theme: str = "light") -> dict[str, str]:
    """Return the colour of every operation, where these are all that are shown together; `theme` is light or dark."""
    found = {}
    for kind, members in groupby(in_order(names), kind_of):
        shown = list(members)
        for i, name in enumerate(shown):
            found[name] = shade(SHADES[theme][kind], i / (len(shown) - 1) if len(shown) > 1 else 0.5)
    return found


def shade(anchors: Sequence[str], share: float) -> str:
    """Return the colour that far along a row of colours, 0 the first and 1 the last."""
    place = share * (len(anchors) - 1)
    i = min(int(place), max(0, len(anchors) - 2))
    ends = [channels(anchors[min(j, len(anchors) - 1)]) for j in (i, i + 1)]
    mixed = [round(a + (b - a) * (place - i)) for a, b in zip(*ends, strict=True)]
    return "#" + "".join(f"{value:02x}" for value in mixed)


def channels(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of a colour such as #1f6cb0."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, 0 to 1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21 (WCAG 2)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink(colour: str) -> str:
    """Return what text on a colour is written in: black or white."""
    return max(("#ffffff", "#000000"), key=lambda text: contrast(text, colour))


def dash(name: str) -> str:
    """Return the dashes of an operation's line."""
    return {"identity": "6 3", "zero": "2 2.5"}.get(kind_of(name), "")


def line_style(i: int) -> tuple[str, str]:
    """Return the colour class and the dashes of the i-th run or method."""
    lines = len(LINES["light"])
    return f"line-{i % lines}", DASHES[(i + i // lines) % len(DASHES)]
