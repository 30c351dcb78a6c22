"""Token maps on a run's page: what every layer of the supernet keeps of a few test images, epoch by epoch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from dasvit.report.drawing.charts import thin
from dasvit.report.drawing.svg import tag
from dasvit.report.run.reading import Run, whole

MOST_IMAGES, MOST_GRID, LARGEST = 8, 64, 60_000
"""Bounds on what a file of others may ask the page to show: images, patches a side, characters of a picture."""
MOST_FRAMES = 200_000
"""Characters of bits that the slider holds."""
MOST_ROWS = 12
"""Epochs of the table."""


class Frame(NamedTuple):
    """What was kept after an epoch: `kept[layer][image]` are the bits in hex, a patch each."""

    epoch: int
    stage: int
    kept: tuple[tuple[str, ...], ...]


def token_section(run: Run) -> dict[str, Any] | None:
    """Return pictures, drawings of the last epoch, all epochs for the slider, and their numbers as a table."""
    grid, images = pictures(run.token_images)
    frames = read_frames(run, grid, len(images))
    if not images or not frames:
        return None
    last, deepest = frames[-1], max(len(frame.kept) for frame in frames)
    share = len(frames[0].kept) * len(images) * len(frames[0].kept[0][0])
    borders = {s.start + 1 for s in run.stages}
    kept = set(thin([frame.epoch for frame in frames], max(20, MOST_FRAMES // share), borders))
    empty = ("0" * len(last.kept[0][0]),) * len(images)
    layers = [*last.kept, *[empty] * (deepest - len(last.kept))]
    rows = [
        {**image, "maps": [draw(i, grid, kept[i], image["name"], layer) for layer, kept in enumerate(layers, start=1)]}
        for i, image in enumerate(images)
    ]
    return {
        "grid": grid,
        "images": rows,
        "layers": len(last.kept),
        "share": round(100 * count(last.kept[0][0]) / grid**2),
        "middle": round(100 * count(middle(grid)) / grid**2),
        "frames": [{"epoch": f.epoch, "stage": f.stage, "kept": f.kept} for f in frames if f.epoch in kept],
        "table": table(frames, grid, deepest, borders),
    }


def pictures(content: Mapping[str, Any]) -> tuple[int, list[dict[str, str]]]:
    """Return the patches a side and the pictures of `token_images.json`, none where it is not as it should be."""
    grid, found = whole(content.get("grid"), 1, MOST_GRID), content.get("images")
    if grid is None or not isinstance(found, list) or len(found) > MOST_IMAGES:
        return 0, []
    images = []
    for image in found:
        source = picture_source(image)
        if not source:
            return 0, []
        images.append({"name": str(image.get("class", "image"))[:80], "source": source})
    return grid, images


def picture_source(image: Any) -> str:
    """Return an entry with a picture as the address that a page shows it by, empty where it is none."""
    data = image.get("data") if isinstance(image, dict) else None
    if not isinstance(data, str) or len(data) > LARGEST or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", data):
        return ""
    return f"data:image/{'png' if image.get('format') == 'png' else 'jpeg'};base64,{data}"


def read_frames(run: Run, grid: int, images: int) -> list[Frame]:
    """Return the lines of `tokens.jsonl` that fit the pictures, in the order of the epochs."""
    length = 2 * -(-(grid**2) // 8)
    found = {}
    for epoch, stage, kept in run.token_lines:
        layers = kept if isinstance(kept, list) and len(kept) <= 1024 else []
        whole_ones = [
            isinstance(row, list) and len(row) == images and all(fits(b, length) for b in row) for row in layers
        ]
        if layers and all(whole_ones):
            found[epoch] = Frame(epoch, stage, tuple(map(tuple, layers)))
    return [found[epoch] for epoch in sorted(found)]


def fits(bits: object, length: int) -> bool:
    """Tell whether something is a map's bits in hex."""
    return isinstance(bits, str) and len(bits) == length and re.fullmatch("[0-9a-f]*", bits) is not None


def draw(image: int, grid: int, bits: str, name: str, layer: int) -> Markup:
    """Draw a picture with the patches that a layer leaves out covered."""
    label = f"{name}, layer {layer}: {describe(bits, grid)}"
    picture = tag("use", href=f"#token-image-{image}")
    cover = tag("path", d=covered(bits, grid), class_="left-out")
    return tag("svg", picture, cover, class_="tokens", viewBox=f"0 0 {grid} {grid}", role="img", aria_label=label)


def describe(bits: str, grid: int) -> str:
    """Return in words what is kept; the page's script says it alike."""
    kept, inside = count(bits), count(bits, middle(grid))
    return f"{kept} of {grid**2} patches kept, {int(100 * inside / max(1, kept) + 0.5)} % of them in the middle"


def covered(bits: str, grid: int) -> str:
    """Return path commands that cover the patches left out, row by row in runs; the page's script draws them alike."""
    left_out = "".join(" x"[not kept] for kept in flags(bits, grid))
    rows = [left_out[y * grid : (y + 1) * grid] for y in range(grid)]
    runs = [(*run.span(), y) for y, row in enumerate(rows) for run in re.finditer("x+", row)]
    return "".join(f"M{start} {y}h{end - start}v1h{start - end}z" for start, end, y in runs)


def flags(bits: str, grid: int) -> list[bool]:
    """Return for every patch whether it is kept."""
    digits = bin(int("1" + bits, 16))[3:]
    return [digit == "1" for digit in digits[: grid**2]]


def middle(grid: int) -> str:
    """Return the bits of the patches in the middle: of half the rows, and half the columns."""
    inside = [grid / 4 <= place + 0.5 < 3 * grid / 4 for place in range(grid)]
    digits = "".join("1" if inside[y] and inside[x] else "0" for y in range(grid) for x in range(grid))
    digits += "0" * (-len(digits) % 8)
    return f"{int(digits, 2):0{len(digits) // 4}x}"


def count(bits: str, others: str = "") -> int:
    """Return how many patches are kept: by one map, or by both of two."""
    return (int(bits, 16) & int(others or bits, 16)).bit_count()


def table(frames: Sequence[Frame], grid: int, layers: int, borders: set[int]) -> dict[str, Any]:
    """Return, for epochs and layers, the kept patches' share in the middle, and that kept an epoch before, in percent.

    Both are means over the images. A stage begins with fresh layers, so nothing is said there of an epoch before.
    """
    centre, rows = middle(grid), []
    shown = set(thin([frame.epoch for frame in frames], MOST_ROWS, borders))
    for before, frame in zip([frames[0], *frames], frames, strict=False):
        if frame.epoch not in shown:
            continue
        old = before.kept if before is not frame and before.stage == frame.stage else ()
        cells = ["–"] * layers
        for i, kept in enumerate(frame.kept):
            others = [[centre] * len(kept), *old[i : i + 1]]
            cells[i] = ", ".join(percentage(kept, other) for other in others)
        rows.append((frame.epoch, cells))
    return {"heads": [f"layer {layer + 1}" for layer in range(layers)], "rows": rows}


def percentage(maps: Sequence[str], others: Sequence[str]) -> str:
    """Return the share of maps' patches that others hold as well."""
    shares = [count(bits, other) / max(1, count(bits)) for bits, other in zip(maps, others, strict=True)]
    return f"{100 * sum(shares) / len(shares):.0f} %"
