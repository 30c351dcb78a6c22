"""What a network said of every test image, as files of a run folder (docs/run-folder.md)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dasvit.data import ImageSet
from dasvit.data.thumbnail import encode
from dasvit.io.files import write_whole
from dasvit.training.evaluation import Evaluation

PREDICTIONS, CONFUSION, MISTAKES = "predictions.csv", "confusion.csv", "mistakes.json"
MOST_COLUMNS = 200
"""Classes up to which the probability of each stands in a column."""
MOST_MISTAKES = 12
"""Images that the page shows: those that were taken for another class most surely."""


def write_predictions(
    folder: Path, evaluation: Evaluation, classes: Sequence[str], names: Sequence[str], images: ImageSet
) -> None:
    """Write predictions, confusion matrix and the most confident mistakes into a folder.

    Args:
        folder: The folder.
        evaluation: What the network said of the test images.
        classes: Names of the classes.
        names: Names of the images' files.
        images: The images.
    """
    heads = ["class", *classes]
    counts = [[name, *row] for name, row in zip(classes, evaluation.confusion, strict=True)]
    content = {"images": mistakes(evaluation, classes, names, images)}
    texts = {
        PREDICTIONS: as_csv(prediction_rows(evaluation, classes, names)),
        CONFUSION: as_csv([heads, *counts]),
        MISTAKES: json.dumps(content, ensure_ascii=False) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_whole(folder / name, partial(_write, text))


def _write(text: str, file: BinaryIO) -> None:
    file.write(text.encode("utf-8", "backslashreplace"))


def prediction_rows(evaluation: Evaluation, classes: Sequence[str], names: Sequence[str]) -> Iterable[Sequence[object]]:
    """Yield the heads and a row an image: file, class, prediction, its probability, and those of all classes."""
    shares, few = evaluation.shares, len(classes) <= MOST_COLUMNS
    yield ["file", "class", "prediction", "probability", *(f"p({name})" for name in classes if few)]
    for name, label, row in zip(names, evaluation.labels.tolist(), shares, strict=True):
        best = int(row.argmax())
        written = [f"{share:.9g}" for share in row.tolist()]
        yield [name, classes[label], classes[best], written[best], *(written if few else [])]


def mistakes(
    evaluation: Evaluation, classes: Sequence[str], names: Sequence[str], images: ImageSet
) -> list[dict[str, Any]]:
    """Return the images that were taken for another class most surely, as small pictures, the surest first."""
    shares, labels = evaluation.shares, evaluation.labels.numpy()
    best = shares.argmax(axis=1)
    sure = np.where(best == labels, -1.0, shares.max(axis=1))
    rows = [row for row in np.argsort(-sure, kind="stable")[:MOST_MISTAKES].tolist() if sure[row] >= 0]
    return [
        {"file": names[row], "class": classes[labels[row]], "prediction": classes[best[row]]}
        | {"probability": float(sure[row]), **encode(images.images[np.array([row])][0])}
        for row in rows
    ]


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
