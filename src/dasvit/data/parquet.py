"""Image sets in parquet files, laid out as the Hugging Face hub does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dasvit.data.decode import Encoded
from dasvit.data.listing import Content, Part, Source
from dasvit.errors import UserError

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")
_SPLITS = {"train": ("train",), "test": ("test",), "validation": ("val", "dev")}
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_ROWS = 1024  # read at once


def find_parquet(folder: Path) -> list[Path]:
    """Return the parquet files in a folder and below it, in order, hidden ones left out."""
    files = sorted(folder.rglob("*.parquet"))
    return [f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts)]


def parquet_source(path: str) -> Source:
    """Find a set of parquet files in a folder, or by its id on the hub.

    Raises:
        UserError: Nothing is there.
    """
    if not path:
        raise UserError("parquet needs a folder, or the id of a data set on the hub: give --data.path.")
    folder = Path(path).expanduser()
    if folder.is_dir():
        files = find_parquet(folder)
        if not files:
            raise UserError(f"there is no parquet file in {folder}: check --data.path.")
        splits = _by_split(folder, files)
        return Source(files, "parquet", len(splits) > 1, lambda: _read_files(folder, splits))
    if _HUB_ID.fullmatch(path):
        return _hub_source(path)
    raise UserError(f"there is no folder {folder} to read parquet files from: check --data.path.")


@dataclass(frozen=True)
class Columns:
    """Where image and label stand, and the names of the classes (none: labels are their own names)."""

    image: str
    label: str
    names: tuple[str, ...]


def find_columns(schema: pa.Schema, where: str) -> Columns:
    """Find the columns of image and label in a schema.

    Raises:
        UserError: One of them is not there.
    """
    images = [field.name for field in schema if _holds_bytes(field.type)]
    images += [
        field.name
        for field in schema
        if field.name in IMAGE_NAMES and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))
    ]
    there = f"Its columns: {', '.join(schema.names)}."
    if not images:
        raise UserError(f"{where} has no column of images (a struct of bytes and path, or image, or img). {there}")
    integers = [field.name for field in schema if pa.types.is_integer(field.type)]
    labels = [name for name in LABEL_NAMES if name in integers]
    if not labels:
        raise UserError(f"{where} has no integer column {' or '.join(LABEL_NAMES)}. {there}")
    return Columns(images[0], labels[0], _class_names(schema, labels[0]))


def _holds_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """Read the names of the classes from the note that the hub's tools leave in a schema."""
    note = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        names = json.loads(note)["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


@dataclass(frozen=True)
class ParquetRecords:
    """The images of some rows of parquet files.

    Attributes:
        files: The files, one behind the other.
        column: The column of images.
        rows: The rows wanted, counted over all files, rising; int64 [N].
    """

    files: Sequence[Path]
    column: str
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[str, Encoded]]:
        return _wanted(self._all(), self.rows)

    def _all(self) -> Iterator[tuple[str, Encoded]]:
        for file in self.files:
            try:
                with pq.ParquetFile(file) as parquet:
                    batches = parquet.iter_batches(_ROWS, columns=[self.column])
                    yield from _encoded((batch.column(0) for batch in batches), str(file))
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(file, error) from None

    def select(self, rows: NDArray[np.int64]) -> ParquetRecords:
        """Return the records of the given rows."""
        return ParquetRecords(self.files, self.column, self.rows[rows])


def _wanted(records: Iterable[tuple[str, Encoded]], rows: NDArray[np.int64]) -> Iterator[tuple[str, Encoded]]:
    """Yield the records of the given rising rows."""
    ahead = iter(rows.tolist())
    row = next(ahead, None)
    for number, record in enumerate(records):
        if row is None:
            return
        if number == row:
            yield record
            row = next(ahead, None)


def _encoded(columns: Iterable[Any], where: str) -> Iterator[tuple[str, Encoded]]:
    """Yield the content of every image in arrow arrays of bytes, or of structs that hold bytes."""
    number = 0
    for column in columns:
        for item in column.to_pylist():
            content = item.get("bytes") if isinstance(item, dict) else item
            # Nothing at all is no image either: the decoder says so, with the name of the row.
            yield f"{where}, row {number}", content or b""
            number += 1


def _unreadable(file: Path | str, error: Exception) -> UserError:
    return UserError(f"cannot read the parquet file {file}: {' '.join(str(error).split())}")


def _split_of(name: str) -> str:
    """Tell from a path below the folder which split a file belongs to; empty: it does not say."""
    for word in reversed(name.lower().split("/")):
        for split, starts in _SPLITS.items():
            if word.startswith(starts):
                return split
    return ""


def _by_split(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Sort files into splits; where none is named train, those of no known name are."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file.relative_to(folder).as_posix()), []).append(file)
    unnamed = splits.pop("", [])
    if not splits.setdefault("train", unnamed):
        raise UserError(f"none of the parquet files in {folder} is one of training images (train-*.parquet).")
    return splits


def _read_files(folder: Path, splits: Mapping[str, Sequence[Path]]) -> Content:
    columns = find_columns(_schema(splits["train"][0]), str(splits["train"][0]))
    parts = {split: _read_part(files, columns) for split, files in splits.items()}
    return content_of(parts, columns.names, str(folder))


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None


def _read_part(files: Sequence[Path], columns: Columns) -> Part:
    labels = []
    for file in files:
        missing = {columns.image, columns.label} - set(_schema(file).names)
        if missing:
            raise UserError(f"{file} has no column {min(missing)}, which the training images do have.")
        try:
            table = pq.read_table(file, columns=[columns.label], partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from None
        labels.append(label_array(table.column(0), str(file)))
    joined = np.concatenate(labels)
    return Part(ParquetRecords(files, columns.image, np.arange(len(joined), dtype=np.int64)), joined)


def label_array(column: pa.ChunkedArray, where: str) -> NDArray[np.int64]:
    """Return a column of labels as int64 [N].

    Raises:
        UserError: A row has no label.
    """
    if column.null_count:
        raise UserError(f"{where} has {column.null_count} rows without a label.")
    return np.asarray(column.to_numpy(), dtype=np.int64)


def content_of(parts: Mapping[str, Part], names: tuple[str, ...], where: str) -> Content:
    """Choose the test images, and name the classes.

    Args:
        parts: The splits that are there: train, and any of test and validation.
        names: Names of the classes. Empty: labels are their own names.
        where: What an error calls the set.

    Raises:
        UserError: There is no training image.
    """
    train = parts["train"]
    if not len(train.records):
        raise UserError(f"the parquet files in {where} hold no row of training images.")
    # Test sets of competitions are published with -1 in place of labels: validation stands in for them.
    known = [split for split in ("test", "validation") if split in parts]
    labelled = [parts[split] for split in known if (parts[split].labels >= 0).any()]
    if known and not labelled:
        raise UserError(
            f"the test images in {where} have no labels: remove their files, and a part of the training "
            "images is held out instead."
        )
    names = names or tuple(str(label) for label in range(int(train.labels.max()) + 1))
    return Content(names, train, labelled[0] if labelled else None)


@dataclass(frozen=True)
class HubRecords:
    """The images of some rows of a `datasets.Dataset`; see ParquetRecords."""

    dataset: Any
    column: str
    name: str
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[str, Encoded]]:
        tables = self.dataset.with_format("arrow").iter(batch_size=_ROWS)
        columns = (chunk for table in tables for chunk in table.column(self.column).chunks)
        return _wanted(_encoded(columns, self.name), self.rows)

    def select(self, rows: NDArray[np.int64]) -> HubRecords:
        """Return the records of the given rows."""
        return HubRecords(self.dataset, self.column, self.name, self.rows[rows])


def _hub_source(name: str) -> Source:
    """Fetch a data set from the hub, or find it in the hub's own cache."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(
            f"there is no folder {name}. To read a data set of that id from the hub, install dasvit[hub]."
        ) from None
    try:
        splits = load_dataset(name)
    except Exception as error:  # the hub's client raises errors of many kinds, by its network library
        raise UserError(f"cannot load {name} from the hub: {' '.join(str(error).split())}") from None
    by_split = {kind: dataset for split, dataset in splits.items() if (kind := _split_of(split))}
    if "train" not in by_split:
        raise UserError(f"{name} has no split of training images, but {', '.join(splits)}.")
    identity = "-".join(f"{split}:{dataset._fingerprint}" for split, dataset in by_split.items())
    return Source([], identity, len(by_split) > 1, lambda: _read_hub(by_split, name))


def _read_hub(by_split: Mapping[str, Any], name: str) -> Content:
    columns = find_columns(by_split["train"].features.arrow_schema, name)
    parts = {}
    for split, dataset in by_split.items():
        table = dataset.select_columns([columns.label]).with_format("arrow")[:]
        labels = label_array(table.column(columns.label), f"{name}, split {split}")
        rows = np.arange(len(labels), dtype=np.int64)
        parts[split] = Part(HubRecords(dataset, columns.image, f"{name}, split {split}", rows), labels)
    return content_of(parts, columns.names, name)
