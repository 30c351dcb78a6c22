"""Small pieces of SVG, every text in them escaped."""

from __future__ import annotations

import math

from markupsafe import Markup, escape


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Return an element.

    Args:
        name: Of the element.
        children: Its content; what is no Markup is escaped.
        attributes: `class_` is written class, `stroke_width` stroke-width; floats get two decimals, None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(escape(child) for child in children)}</{name}>")


def _value(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def nice_ticks(low: float, high: float, most: int = 5, within: tuple[float, float] | None = None) -> list[float]:
    """Return round numbers from at or below low to at or above high, about `most` of them.

    Args:
        low: The smallest value.
        high: The largest.
        most: Numbers wanted.
        within: What values can be, as 0 and 100 of percent: an axis does not reach beyond it. None: anything.
    """
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
        if within and within[0] <= high and low <= within[1]:
            low, high = max(low, within[0]), min(high, within[1])
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def curve(points: list[tuple[float, float]], shift: float = 0.0, begin: str = "M") -> str:
    """Return path commands through points, leaving and reaching each of them vertically.

    `shift` is added to every x, and `begin` is the command that reaches the first point: M or L.
    """
    (x, y), *rest = [(px + shift, py) for px, py in points]
    commands = [f"{begin}{x:.1f} {y:.1f}"]
    for next_x, next_y in rest:
        middle = (y + next_y) / 2
        bent = f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}"
        commands.append(f"V{next_y:.1f}" if abs(next_x - x) < 0.05 else bent)
        x, y = next_x, next_y
    return "".join(commands)


def ribbon(points: list[tuple[float, float]], left: float, right: float) -> str:
    """Return the closed path between two copies of a curve, each shifted sideways."""
    return curve(points, left) + curve(points[::-1], right, "L") + "Z"
