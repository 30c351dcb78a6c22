"""Image lists: a CSV file with a row for every image, its file, its label and, if there is one, its split."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasvit.config import DataConfig
from dasvit.data.columns import one_of
from dasvit.data.label_columns import LabelReading, label_reading
from dasvit.data.listing import Content, FileRecords, Part, Source
from dasvit.data.understanding import LeftOut, Understanding, some, split_of
from dasvit.errors import UserError

IMAGE_COLUMNS = ("image", "img", "file", "filename", "file_name", "filepath", "file_path", "path", "image_path")
"""What the column of files is called, in small letters."""
SPLIT_COLUMNS = ("split", "subset", "set", "partition")
DELIMITERS = ",;\t"


class Listed(NamedTuple):
    """A row: an image.

    Attributes:
        path: Its file.
        labels: Names of its classes: one, or several where the list can have them.
        group: Images of one name are held out together or not at all. Empty: it is by itself.
    """

    path: str
    labels: tuple[str, ...]
    group: str


def image_list(config: DataConfig, judged: bool = False) -> Source:
    """Find the images that a CSV file lists.

    Args:
        config: Its csv, and the folder that names of files begin in (by default the CSV file's own).
        judged: Only images to evaluate a model on are wanted: those of a test split, or all.

    Raises:
        UserError: It cannot be read, a column is not there or could be several, or files are missing.
    """
    if not config.csv:
        raise UserError("a list of images is a CSV file: name it with --data.csv FILE.")
    file = Path(config.csv).expanduser()
    columns, rows = read_rows(file)
    image = _column(columns, config.image_column, IMAGE_COLUMNS, "image", file)
    group = config.group_column
    if group and group not in columns:
        raise UserError(f"--data.group_column {group} is not in {file}. Its columns: {', '.join(columns)}.")
    splits = [name for name in columns if name.casefold() in SPLIT_COLUMNS]
    if len(splits) > 1:
        raise UserError(f"{file} has several columns of splits ({', '.join(splits)}): rename all but the one meant.")
    split = splits[0] if splits else ""
    reading = label_reading(columns, rows, {image, group, split}, config, file)
    folder = Path(config.path).expanduser() if config.path else file.parent
    left_out = LeftOut()
    listed: dict[str, list[Listed]] = defaultdict(list)
    for number, row in enumerate(rows, start=2):
        name = row[image].strip()
        labels = reading.of(row)
        if not name or labels is None:
            left_out.add("without a file" if not name else "without a label", f"line {number}")
            continue
        part = _split(row[split], number, file) if split else ""
        listed[part].append(Listed(str(folder / name), labels, row[group].strip() if group else ""))
    absent = _missing([one.path for images in listed.values() for one in images], folder, file, config.on_error)
    for path in sorted(absent):
        left_out.add("that are not there", path)
    there = {part: [one for one in images if one.path not in absent] for part, images in listed.items()}
    train, test = _parts(there, judged, file, left_out)
    return _source(file, {"train": train, "test": test}, (image, split, group), reading, left_out)


def read_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the rows of a CSV file; commas, semicolons or tabs part its fields.

    Raises:
        UserError: It cannot be read as one.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read --data.csv {file} ({error}): it must be a CSV file in UTF-8.") from None
    head = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}.") from None
    columns = list(reader.fieldnames or [])
    doubled = [name for name, count in Counter(columns).items() if count > 1]
    if doubled:
        raise UserError(f"{file} has two columns called {doubled[0]}: rename one of them.")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UserError(
                f"{file}, line {number} has not as many fields as the first line, which names {len(columns)} columns: "
                "put fields that hold the delimiter into quotation marks."
            )
    if not rows:
        raise UserError(f"{file} lists no images: its first line names the columns, a line for each image follows.")
    return columns, rows


def _column(columns: Sequence[str], named: str, usual: Sequence[str], what: str, file: Path) -> str:
    """Return a column by the option that names it, or by its usual names."""
    there = f"Its columns: {', '.join(columns)}."
    if named:
        if named not in columns:
            raise UserError(f"--data.{what}_column {named} is not in {file}. {there}")
        return named
    found = [name for name in columns if name.casefold() in usual]
    if not found:
        raise UserError(
            f"{file} has no column called {', '.join(usual[:4])} or the like: name that of the {what}s with "
            f"--data.{what}_column. {there}"
        )
    return one_of(found, (), str(file), what, f"{what}s")


def _split(text: str, number: int, file: Path) -> str:
    """Return the split that a row names."""
    split = split_of(text.strip())
    if not split:
        raise UserError(
            f"{file}, line {number}: the split is {text!r}, and must be one of train, val and test (or the like)."
        )
    return split


def _missing(paths: Sequence[str], folder: Path, file: Path, on_error: str) -> set[str]:
    """Return the files that are not there and may be left out.

    Raises:
        UserError: One is not there, or two rows are about one file.
    """
    doubled = [path for path, count in Counter(paths).items() if count > 1]
    if doubled:
        raise UserError(
            f"{file} lists {len(doubled)} files more than once, as {os.path.relpath(doubled[0], folder)}: one row for "
            "each image."
        )
    missing = [path for path in paths if not os.path.lexists(path)]
    if missing and (on_error == "stop" or len(missing) == len(paths)):
        raise UserError(
            f"{len(missing):,} of the {len(paths):,} files that {file} lists are not there, as {missing[0]}: say with "
            "--data.path which folder their names begin in, or leave them out with --data.on_error skip."
        )
    return set(missing)


def _parts(
    listed: dict[str, list[Listed]], judged: bool, file: Path, left_out: LeftOut
) -> tuple[list[Listed], list[Listed]]:
    """Return training and test images: the test split's, or the validation split's where there is none."""
    train = listed.get("train", []) or listed.get("", [])
    test = listed.get("test") or listed.get("validation") or []
    if "test" in listed and "validation" in listed:
        left_out.add("validation images: the test split is evaluated on", str(file), len(listed["validation"]))
    if judged and test:
        if train:
            left_out.add("training images, which are not needed here", str(file), len(train))
        train = []
    if not train and not judged:
        raise UserError(f"{file} lists no training images: its splits are {', '.join(sorted(listed))}.")
    return train, test


def _source(
    file: Path, parts: dict[str, list[Listed]], columns: tuple[str, str, str], reading: LabelReading, left_out: LeftOut
) -> Source:
    """Return the source of listed files and labels, the classes of the training images in the order of their names."""
    image, split, group = columns
    first = parts["train"] or parts["test"]
    classes = list(reading.names) or sorted({label for one in first for label in one.labels})
    strange = sorted({label for one in parts["test"] for label in one.labels} - set(classes))
    if strange:
        raise UserError(f"{file} lists test images of classes that no training image has: {some(strange)}.")

    def read() -> Content:
        found = {}
        for part, images in parts.items():
            if images:
                labels = _numbered([one.labels for one in images], classes, reading.several)
                groups = np.array([one.group for one in images]) if group else None
                found[part] = Part(FileRecords([one.path for one in images]), labels, groups)
        return Content(tuple(classes), found.get("train"), found.get("test"))

    files = [file, *(Path(one.path) for images in parts.values() for one in images)]
    whence = f", where {split} says so" if split else ""
    said = {part: f"files of column {image} of {file}{whence}" for part, images in parts.items() if images}
    understood = Understanding(said, reading.whence, left_out, reading.remarks)
    label = reading.columns if reading.several else reading.columns[0]
    identity = f"list {classes} {(image, label, split, group)}" + f" {reading.identity}" * reading.several
    return Source(files, identity, bool(parts["test"]), read, understood)


def _numbered(labels: Sequence[tuple[str, ...]], classes: Sequence[str], several: bool) -> NDArray[np.int64]:
    """Return names of classes as numbers: int64 [N] of one label an image, [N, C] of several."""
    places = {name: place for place, name in enumerate(classes)}
    if not several:
        return np.array([places[one] for (one,) in labels], dtype=np.int64)
    found = np.zeros((len(labels), len(classes)), dtype=np.int64)
    for row, names in enumerate(labels):
        found[row, [places[name] for name in names]] = 1
    return found
