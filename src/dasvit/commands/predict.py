"""`dasvit predict`: the classes of images, file by file or folder by folder."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from dasvit.cli import Request
from dasvit.commands.common import print_json
from dasvit.data import find_images, open_image, predict_transform
from dasvit.errors import UserError, printable, unknown
from dasvit.io.run_folder import find_model
from dasvit.runtime.distributed import find_device
from dasvit.runtime.progress import Reporter
from dasvit.session import NAMED
from dasvit.training.classifier import Classifier

FORMATS = ("text", "csv", "json")
Row = dict[str, Any]
"""An image's predictions: `image`, and `predictions`, a list of `label` and `probability`, the most probable first."""


def predict_command(request: Request) -> None:
    """`dasvit predict`: labels with probabilities; texts and CSV come batch by batch, JSON at the end."""
    options = request.options
    form = "json" if options["json"] else options["format"]
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    for option in ("top", "batch_size"):
        if options[option] < 1:
            raise UserError(f"--{option.replace('_', '-')} must be at least 1, not {options[option]}.")
    if options["on_error"] not in ("stop", "skip"):
        raise UserError(f"--on-error is stop or skip, not {options['on_error']!r}.")
    folder = find_model(options["model_path"])
    classifier = Classifier(folder, find_device(options["device"]))
    paths = find_images(options["images"])
    batches = ImageBatches(paths, options["batch_size"], reader(classifier), skip=options["on_error"] == "skip")
    top = min(options["top"], len(classifier.described.classes))
    reporter, out = Reporter(), sys.stdout
    if form == "csv":
        out.write(csv_text([header(top)]))
    kept: list[Row] = []
    for names, images in reporter.track(batches, "predicting"):
        rows = predictions(classifier, names, images, top)
        if form == "json":
            kept += rows
        else:
            # The bar takes over sys.stdout, to keep what a terminal shows in order; a file gets its lines itself.
            (sys.stdout if out.isatty() else out).write(TEXTS[form](rows))
    say_skipped(batches.skipped, reporter)
    if len(batches.skipped) == len(paths):
        raise UserError("none of the images can be read.")
    if form == "json":
        skipped = [{"image": name, "reason": reason} for name, reason in batches.skipped.items()]
        print_json({"model": str(folder), "images": kept, "skipped": skipped})


class ImageBatches:
    """Images from files, in batches; threads decode the next batch while this one is looked at.

    Args:
        paths: The files.
        size: Images of a batch.
        read: Returns a file's pixels, uint8 [3, S, S].
        skip: Leave broken images out instead of raising the error that `read` gives.

    Attributes:
        skipped: Broken images and what is wrong with them.
    """

    def __init__(self, paths: list[str], size: int, read: Callable[[str], Tensor], skip: bool) -> None:
        self.paths, self.size, self.read, self.skip = paths, size, read, skip
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
            if not self.skip:
                raise
            self.skipped[path] = str(error)
            return None


def reader(classifier: Classifier) -> Callable[[str], Tensor]:
    """Return the function from a file's name to what the model is shown of it, uint8 [3, S, S]."""
    described = classifier.described
    transform = predict_transform(described.side, described.crop_pct)
    return lambda path: transform(open_image(path))


def predictions(classifier: Classifier, names: list[str], images: Tensor, top: int) -> list[Row]:
    """Return the most probable classes of images, uint8 [B, 3, S, S]."""
    if not names:
        return []
    best = classifier.shares(images).topk(top)
    labels = classifier.described.classes
    rows = []
    for name, places, shares in zip(names, best.indices.tolist(), best.values.tolist(), strict=True):
        pairs = zip(places, shares, strict=True)
        rows.append({"image": name, "predictions": [{"label": labels[i], "probability": p} for i, p in pairs]})
    return rows


def say_skipped(skipped: dict[str, str], reporter: Reporter) -> None:
    """Name the broken images, a few of them with what is wrong."""
    if skipped:
        reporter.say(f"{len(skipped)} broken images skipped:")
        for reason in list(skipped.values())[:NAMED]:
            reporter.say(f"  {printable(reason)}")
        for name in list(skipped)[NAMED:]:
            reporter.say(f"  {printable(name)}")


def plain_text(rows: list[Row]) -> str:
    """Return a line an image, as `a.jpg: cat 97.1 %, dog 2.0 %`."""
    lines = []
    for row in rows:
        shown = ", ".join(f"{p['label']} {100 * p['probability']:.1f} %" for p in row["predictions"])
        lines.append(printable(f"{row['image']}: {shown}"))
    return "".join(f"{line}\n" for line in lines)


def header(top: int) -> list[str]:
    """Return the names of the CSV's columns."""
    return ["image", *(f"{name}_{place + 1}" for place in range(top) for name in ("label", "probability"))]


def csv_rows(rows: list[Row]) -> str:
    """Return the CSV lines of images; what is not printable in a name is written as an escape."""
    return csv_text(
        [
            [row["image"], *(value for p in row["predictions"] for value in (p["label"], f"{p['probability']:.6g}"))]
            for row in rows
        ]
    )


def csv_text(rows: list[list[str]]) -> str:
    """Return rows of texts as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([printable(value) for value in row] for row in rows)
    return text.getvalue()


TEXTS = {"text": plain_text, "csv": csv_rows}
