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
from dasvit.data.multilabel import label_names
from dasvit.data.thumbnail import encode
from dasvit.io.files import write_whole
from dasvit.report.label_scores import THRESHOLD
from dasvit.training.evaluation import Evaluation

PREDICTIONS, CONFUSION, MISTAKES = "predictions.csv", "confusion.csv", "mistakes.json"
PARTS = (";", "|", "\t")
"""What parts labels in a field, the first that no class has in its name."""
MOST_COLUMNS = 200
"""Classes up to which the probability of each stands in a column."""
MOST_MISTAKES = 12
"""Images that the page shows: those that were taken for another class most surely."""


def write_predictions(
    folder: Path, evaluation: Evaluation, classes: Sequence[str], names: Sequence[str], images: ImageSet
) -> None:
    """Write predictions, confusion matrix (of one label an image) and the most confident mistakes into a folder.

    Args:
        folder: The folder.
        evaluation: What the network said of the test images.
        classes: Names of the classes.
        names: Names of the images' files.
        images: The images.
    """
    content = {"images": mistakes(evaluation, classes, names, images)}
    texts = {
        PREDICTIONS: as_csv(prediction_rows(evaluation, classes, names)),
        MISTAKES: json.dumps(content, ensure_ascii=False) + "\n",
    }
    if evaluation.confusion:
        counts = [[name, *row] for name, row in zip(classes, evaluation.confusion, strict=True)]
        texts[CONFUSION] = as_csv([["class", *classes], *counts])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_whole(folder / name, partial(_write, text))


def _write(text: str, file: BinaryIO) -> None:
    file.write(text.encode("utf-8", "backslashreplace"))


def prediction_rows(evaluation: Evaluation, classes: Sequence[str], names: Sequence[str]) -> Iterable[Sequence[object]]:
    """Yield the heads and a row an image: file, class, prediction, its probability, and those of all classes.

    Of several labels an image: file, labels, predicted labels, and the probabilities of all classes.
    """
    shares, few = evaluation.shares, len(classes) <= MOST_COLUMNS
    if evaluation.labels.ndim == 2:
        yield from label_rows(evaluation, classes, names)
        return
    yield ["file", "class", "prediction", "probability", *(f"p({name})" for name in classes if few)]
    for name, label, row in zip(names, evaluation.labels.tolist(), shares, strict=True):
        best = int(row.argmax())
        written = [f"{share:.9g}" for share in row.tolist()]
        yield [name, classes[label], classes[best], written[best], *(written if few else [])]


def label_rows(evaluation: Evaluation, classes: Sequence[str], names: Sequence[str]) -> Iterable[Sequence[object]]:
    """Yield the heads and a row an image of several labels; these are parted by what no class has in its name."""
    few = len(classes) <= MOST_COLUMNS
    part = next((part for part in PARTS if not any(part in name for name in classes)), PARTS[0])
    yield ["file", "labels", "predicted", *(f"p({name})" for name in classes if few)]
    for name, has, row in zip(names, evaluation.labels.tolist(), evaluation.shares.tolist(), strict=True):
        own = part.join(label for label, it_has in zip(classes, has, strict=True) if it_has)
        said = part.join(label for label, share in zip(classes, row, strict=True) if share > THRESHOLD)
        yield [name, own, said, *([f"{share:.9g}" for share in row] if few else [])]


def mistakes(
    evaluation: Evaluation, classes: Sequence[str], names: Sequence[str], images: ImageSet
) -> list[dict[str, Any]]:
    """Return the images that were taken for another class most surely, as small pictures, the surest first."""
    shares, labels = evaluation.shares, evaluation.labels.numpy()
    if labels.ndim == 2:
        return label_mistakes(evaluation, classes, names, images)
    best = shares.argmax(axis=1)
    sure = np.where(best == labels, -1.0, shares.max(axis=1))
    rows = [row for row in np.argsort(-sure, kind="stable")[:MOST_MISTAKES].tolist() if sure[row] >= 0]
    return [
        {"file": names[row], "class": classes[labels[row]], "prediction": classes[best[row]]}
        | {"probability": float(sure[row]), **encode(images.images[np.array([row])][0])}
        for row in rows
    ]


def label_mistakes(
    evaluation: Evaluation, classes: Sequence[str], names: Sequence[str], images: ImageSet
) -> list[dict[str, Any]]:
    """Return the pairs of an image and a class that were most surely taken for what they are not, the surest first."""
    shares, labels = evaluation.shares, evaluation.labels.numpy()
    wrong = np.where(labels > 0, 1 - shares, shares)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_MISTAKES]
    pairs = [divmod(int(place), labels.shape[1]) for place in order]
    return [
        {"file": names[row], "class": label_names(labels, row, classes)}
        | {"prediction": f"not {classes[label]}" if labels[row, label] else classes[label]}
        | {"probability": float(wrong[row, label]), **encode(images.images[np.array([row])][0])}
        for row, label in pairs
        if wrong[row, label] > THRESHOLD
    ]


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
