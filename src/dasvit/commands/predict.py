"""`dasvit predict`: the classes of images, file by file or folder by folder."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path

from dasvit.commands.common import print_json
from dasvit.commands.options import PredictOptions
from dasvit.data import find_images
from dasvit.data.understanding import LeftOut
from dasvit.errors import UserError, printable
from dasvit.inference.predict import ImageBatches, Row, predictions
from dasvit.io.run_folder import find_model
from dasvit.io.shipped import drawings_of
from dasvit.runtime.distributed import find_device
from dasvit.runtime.progress import Reporter
from dasvit.training.classifier import Classifier, ModelInput

NAMED = 5
"""Broken images that are named with the reason; the others by name alone."""


def predict_command(options: PredictOptions) -> None:
    """`dasvit predict`: labels with probabilities; texts and CSV come batch by batch, JSON at the end."""
    form = "json" if options.json else options.format
    folder = find_model(options.model)
    asked, left_out = options.images or _drawings(folder), LeftOut()
    classifier = Classifier(folder, find_device(options.device))
    paths = find_images(asked, left_out)
    batches = ImageBatches(paths, options.batch_size, classifier.described.shown)
    top = min(options.top, len(classifier.described.classes))
    reporter, out = Reporter(), sys.stdout
    if left_out.counts:
        reporter.say(f"left out: {'; '.join(left_out.sentences())}")
    if form == "csv":
        out.write(csv_text([csv_heads(classifier.described, top)]))
    kept: list[Row] = []
    for names, images in reporter.track(batches, "predicting"):
        rows = predictions(classifier, names, images, top)
        if form == "json":
            kept += rows
        else:
            # The bar takes over sys.stdout, to keep what a terminal shows in order; a file gets its lines itself.
            (sys.stdout if out.isatty() else out).write(
                csv_text(map(csv_row, rows)) if form == "csv" else text_of(rows)
            )
    if form == "json":
        skipped = [{"image": name, "reason": reason} for name, reason in batches.skipped.items()]
        print_json({"model": str(folder), "images": kept, "skipped": skipped})
    say_skipped(batches.skipped, reporter)
    if len(batches.skipped) == len(paths):
        raise UserError(f"none of the images can be read: {next(iter(batches.skipped.values()))}")
    if batches.skipped and options.on_error == "stop":
        raise UserError(
            f"{len(batches.skipped)} of {len(paths)} images cannot be read; the others are answered above "
            "(--on-error skip: that is no error)."
        )


def _drawings(folder: Path) -> list[str]:
    """Return the pictures that come with a model that comes with the package."""
    drawings = drawings_of(folder)
    if not drawings:
        raise UserError("give the images too: dasvit predict MODEL IMAGE [IMAGE ...], files or folders of them.")
    return drawings


def say_skipped(skipped: dict[str, str], reporter: Reporter) -> None:
    """Name the broken images, a few of them with what is wrong."""
    if skipped:
        reporter.say(f"{len(skipped)} broken images left out:")
        for reason in list(skipped.values())[:NAMED]:
            reporter.say(f"  {printable(reason)}")
        for name in list(skipped)[NAMED:]:
            reporter.say(f"  {printable(name)}")


def text_of(rows: list[Row]) -> str:
    """Return a line an image, as `a.jpg: cat 97.1 %, dog 2.0 %`."""
    lines = []
    for row in rows:
        shown = ", ".join(f"{p['label']} {100 * p['probability']:.1f} %" for p in row["predictions"])
        if not shown:
            label, share = max(row["probabilities"].items(), key=lambda pair: pair[1])
            shown = f"none (nearest: {label} {100 * share:.1f} %)"
        lines.append(printable(f"{row['image']}: {shown}"))
    return "".join(f"{line}\n" for line in lines)


def csv_heads(described: ModelInput, top: int) -> list[str]:
    if described.multilabel:
        return ["image", "labels", *(f"p({name})" for name in described.classes)]
    return ["image", *(f"{name}_{place + 1}" for place in range(top) for name in ("label", "probability"))]


def csv_row(row: Row) -> list[str]:
    if "probabilities" in row:
        labels = ";".join(p["label"] for p in row["predictions"])
        return [row["image"], labels, *(f"{share:.6g}" for share in row["probabilities"].values())]
    return [row["image"], *(value for p in row["predictions"] for value in (p["label"], f"{p['probability']:.6g}"))]


def csv_text(rows: Iterable[list[str]]) -> str:
    """Return lines of CSV; what is not printable in a name is written as an escape."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([printable(value) for value in row] for row in rows)
    return text.getvalue()
