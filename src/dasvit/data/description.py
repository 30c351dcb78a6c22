"""How data were understood and what is in them, in words for the terminal and for `data.json` of a run folder."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from dasvit.config.units import window_text
from dasvit.data.image_set import Data
from dasvit.data.listing import spread_rows
from dasvit.data.multilabel import class_counts, describe_labels, label_names
from dasvit.data.thumbnail import encode
from dasvit.data.view import predict_transform
from dasvit.errors import listed, printable

SAMPLES = 4
"""Training images that a run's page shows."""


def data_lines(data: Data) -> list[str]:
    """Return what was loaded, and how the source was understood, line by line."""
    skipped = f", {len(data.skipped)} broken ones skipped ({listed(data.skipped)})" if data.skipped else ""
    sets = {"training": data.train, "test": data.test}
    counts = " and ".join(f"{len(images):,} {name}" for name, images in sets.items() if len(images))
    head = f"data: {counts} images of {data.test.size}×{data.test.size} pixels, {len(data.classes)} classes{skipped}"
    understood = data.understood.lines({part: count_classes(data, part) for part in data.understood.parts})
    return [head, *(f"  {line}" for line in [*understood, *data.labels(), *data.pixels()])]


def count_classes(data: Data, part: str) -> dict[str, int]:
    """Return how many images of a part, train or test, each class has."""
    images = {"train": data.train, "test": data.test}[part]
    return dict(zip(data.classes, class_counts(images.labels, len(data.classes)).tolist(), strict=True))


def describe_data(data: Data, image_size: int) -> dict[str, Any]:
    """Return how the source was understood, as `data.json` of a run folder holds it.

    Args:
        data: The images.
        image_size: Side of the network's input.
    """
    understood = data.understood
    parts = {
        part: {
            "from": printable(whence),
            "images": len({"train": data.train, "test": data.test}[part]),
            "by_class": counts,
        }
        for part, whence in understood.parts.items()
        for counts in [count_classes(data, part)]
    }
    return {
        **parts,
        "classes": list(data.classes),
        **({"multilabel": describe_labels([data.train.labels, data.test.labels])} if data.multilabel else {}),
        "labels": printable(understood.labels),
        "fit": data.view.fit,
        "window": window_text(data.view.window),
        "oblong": data.oblong,
        "seen": data.seen.to_dict() if data.seen else None,
        "disk": data.disk,
        "left_out": understood.left_out.to_list(),
        "skipped": [printable(name) for name in data.skipped],
        "remarks": [printable(remark) for remark in understood.remarks],
        "lines": [printable(line.strip()) for line in data_lines(data)],
        "samples": sample_pictures(data, image_size),
    }


def sample_pictures(data: Data, image_size: int) -> list[dict[str, Any]]:
    """Return small pictures of some training images: as they are kept, as evaluation shows them, and that flipped."""
    rows = spread_rows(len(data.train), SAMPLES)
    transform = predict_transform(image_size, data.crop_pct, data.view)
    found = []
    for row in rows.tolist():
        kept = data.train.image(row)
        seen = Image.fromarray(transform(kept).permute(1, 2, 0).numpy())
        pictures = {"kept": kept, "as evaluated": seen, "flipped": ImageOps.mirror(seen)}
        named = [{"name": name, **encode(np.asarray(picture))} for name, picture in pictures.items()]
        found.append({"class": printable(label_names(data.train.labels, row, data.classes)), "pictures": named})
    return found
