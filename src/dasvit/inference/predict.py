"""The classes of images: files, and folders of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from dasvit.errors import UserError
from dasvit.report.label_scores import THRESHOLD
from dasvit.training.classifier import Classifier

Row = dict[str, Any]
"""An image's predictions: `image`, and `predictions`, a list of `label` and `probability`, the most probable first.

Of a model of several labels an image these are the classes above 0.5, perhaps none, and `probabilities` has all."""


class ImageBatches:
    """Images from files, in batches; threads decode the next batch while this one is looked at.

    Args:
        paths: The files.
        size: Images of a batch.
        read: Returns a file's pixels, uint8 [3, S, S].

    Attributes:
        skipped: Broken images, which are left out, and what is wrong with them.
    """

    def __init__(self, paths: list[str], size: int, read: Callable[[str], Tensor]) -> None:
        self.paths, self.size, self.read = paths, size, read
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return -(-len(self.paths) // self.size)

    def __iter__(self) -> Iterator[tuple[list[str], Tensor]]:
        """Yield names and pixels, uint8 [B, 3, S, S]; batches with no image left are empty."""
        parts = [self.paths[start : start + self.size] for start in range(0, len(self.paths), self.size)]
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            waiting = [pool.submit(self.read, path) for path in parts[0]]
            for part, following in zip(parts, [*parts[1:], []], strict=True):
                present, waiting = waiting, [pool.submit(self.read, path) for path in following]
                found = [(path, image) for path, image in zip(part, map(self._result, part, present), strict=True)]
                good = [(path, image) for path, image in found if image is not None]
                yield [path for path, _ in good], torch.stack([i for _, i in good]) if good else torch.empty(0)
        finally:
            pool.shutdown(cancel_futures=True)

    def _result(self, path: str, image: Future[Tensor]) -> Tensor | None:
        try:
            return image.result()
        except UserError as error:
            self.skipped[path] = str(error)
            return None


def predictions(classifier: Classifier, names: list[str], images: Tensor, top: int) -> list[Row]:
    """Return the most probable classes of images, uint8 [B, 3, S, S]; of several labels, those above 0.5."""
    if not names:
        return []
    labels, several = classifier.described.classes, classifier.described.multilabel
    said = classifier.shares(images)
    best = said.topk(len(labels) if several else top)
    rows: list[Row] = []
    for name, places, shares in zip(names, best.indices.tolist(), best.values.tolist(), strict=True):
        pairs = [(i, p) for i, p in zip(places, shares, strict=True) if not several or p > THRESHOLD]
        rows.append({"image": name, "predictions": [{"label": labels[i], "probability": p} for i, p in pairs]})
    if several:
        for row, shares in zip(rows, said.tolist(), strict=True):
            row["probabilities"] = dict(zip(labels, shares, strict=True))
    return rows
