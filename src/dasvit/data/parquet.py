"""Image sets in parquet files, laid out as the Hugging Face hub does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dasvit.config import DataConfig
from dasvit.data.columns import LOOKED_AT, Columns, align, class_names, find_columns
from dasvit.data.decode import Encoded
from dasvit.data.listing import Content, Part, Source
from dasvit.data.understanding import LeftOut, Understanding, by_split, images_below, some, split_in
from dasvit.errors import UserError

_ROWS = 1024  # read at once
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def find_parquet(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """Return the parquet files in a folder and below it, in order, hidden and housekeeping ones left out."""
    return sorted(
        map(Path, images_below(folder, frozenset((".parquet",)), LeftOut() if left_out is None else left_out))
    )


def parquet_source(config: DataConfig, judged: bool = False) -> Source:
    """Find a set of parquet files in a folder, or by its id on the hub.

    Args:
        config: The folder or the id, and the columns.
        judged: Only images to evaluate a model on are wanted: those of a test split, or all.

    Raises:
        UserError: Nothing is there, or it can be understood in two ways.
    """
    path = config.path
    if not path:
        raise UserError("parquet needs a folder, or the id of a data set on the hub: give --data.path.")
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _folder_source(folder, config, judged)
    if _HUB_ID.fullmatch(path):
        return _hub_source(path, config)
    raise UserError(f"there is no folder {folder} to read parquet files from: check --data.path.")


def _folder_source(folder: Path, config: DataConfig, judged: bool) -> Source:
    left_out = LeftOut()
    files = find_parquet(folder, left_out)
    if not files:
        raise UserError(f"there is no parquet file in {folder}: check --data.path.")
    splits = by_split(folder, files, left_out, "parquet")
    if judged and len(splits) > 1:
        for file in splits.pop("train", []):
            left_out.add("files of training images, which are not needed here", str(file))
    if "train" not in splits and not judged:
        raise UserError(f"none of the parquet files in {folder} is one of training images (train-*.parquet).")
    used = [file for split in sorted(splits, key="train".__ne__) for file in splits[split]]
    columns = find_columns(_schema(used[0]), str(used[0]), config, lambda column: _first_bytes(used[0], column))
    parts = {split: some([file.relative_to(folder).as_posix() for file in found]) for split, found in splits.items()}
    understood = _understood(parts, columns, left_out)
    identity = f"parquet {columns.image} {columns.label}"
    read = lambda: _read_files(folder, splits, columns)  # noqa: E731
    return Source(used, identity, len(splits) > 1 or "train" not in splits, read, understood)


def _understood(parts: Mapping[str, str], columns: Columns, left_out: LeftOut) -> Understanding:
    test = "test" if "test" in parts else "validation"
    said = {"train": parts.get("train", ""), "test": parts.get(test, "")}
    if test == "test" and "validation" in parts:
        left_out.add("split of validation images beside a split of test images", parts["validation"])
    named = "named by the files" if columns.names else "whose numbers are the names of the classes"
    labels = f"column {columns.label}, {named}; images: column {columns.image}"
    if columns.group:
        labels += f"; groups: column {columns.group}"
    if columns.others:
        labels += f"; not used: {', '.join(columns.others)}"
    return Understanding({part: text for part, text in said.items() if text}, labels, left_out)


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
                raise unreadable(file, error) from None

    def names(self) -> list[str]:
        """Return what the images are called."""
        starts = np.cumsum([0, *(read_metadata(file).num_rows for file in self.files)])
        places = np.searchsorted(starts, self.rows, side="right") - 1
        rows = (self.rows - starts[places]).tolist()
        return [f"{self.files[place]}, row {row}" for place, row in zip(places.tolist(), rows, strict=True)]

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


def _first_bytes(file: Path, column: str) -> Iterator[Any]:
    """Yield the values of a column, from its first row on."""
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(LOOKED_AT, columns=[column]):
                yield from batch.column(0).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from None


def _encoded(columns: Iterable[Any], where: str) -> Iterator[tuple[str, Encoded]]:
    """Yield the content of every image in arrow arrays of bytes, or of structs that hold bytes."""
    number = 0
    for column in columns:
        for item in column.to_pylist():
            content = item.get("bytes") if isinstance(item, dict) else item
            # Nothing at all is no image either: the decoder says so, with the name of the row.
            yield f"{where}, row {number}", content or b""
            number += 1


def unreadable(file: Path | str, error: Exception) -> UserError:
    """Return what to raise of a file that cannot be read."""
    return UserError(f"cannot read the parquet file {file}: {' '.join(str(error).split())}")


def _read_files(folder: Path, splits: Mapping[str, Sequence[Path]], columns: Columns) -> Content:
    remarks: list[str] = []
    parts = {split: _read_part(files, columns, remarks) for split, files in splits.items()}
    return content_of(parts, columns.names, str(folder), remarks)


def _schema(file: Path) -> pa.Schema:
    return read_metadata(file).schema.to_arrow_schema()


def read_metadata(file: Path) -> pq.FileMetaData:
    """Return what the end of a file says of its schema, row groups and rows.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from None


def _read_part(files: Sequence[Path], columns: Columns, remarks: list[str]) -> Part:
    labels, groups = [], []
    for file in files:
        schema = _schema(file)
        missing = {columns.image, *columns.plain} - set(schema.names)
        if missing:
            raise UserError(f"{file} has no column {min(missing)}, which {columns.where} does have.")
        try:
            table = pq.read_table(file, columns=columns.plain, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(file, error) from None
        found = label_array(table.column(columns.label), str(file))
        groups.append(group_array(table, columns))
        labels.append(align(found, class_names(schema, columns.label), columns, str(file), remarks))
    joined = np.concatenate(labels)
    records = ParquetRecords(files, columns.image, np.arange(len(joined), dtype=np.int64))
    return Part(records, joined, np.concatenate(groups) if columns.group else None)


def group_array(table: pa.Table, columns: Columns) -> NDArray[np.str_]:
    """Return the column of groups as texts [N], empty where a row has none or there is no such column."""
    values = table.column(columns.group).to_pylist() if columns.group else []
    return np.array(["" if value is None else str(value) for value in values], dtype=np.str_)


def label_array(column: pa.ChunkedArray, where: str) -> NDArray[np.int64]:
    """Return a column of labels as int64 [N].

    Raises:
        UserError: A row has no label.
    """
    if column.null_count:
        raise UserError(f"{where} has {column.null_count} rows without a label.")
    return np.asarray(column.to_numpy(), dtype=np.int64)


def content_of(parts: Mapping[str, Part], names: tuple[str, ...], where: str, remarks: Sequence[str]) -> Content:
    """Choose the test images, and name the classes.

    Args:
        parts: The splits that are there: any of train, test and validation.
        names: Names of the classes. Empty: labels are their own names.
        where: What an error calls the set.
        remarks: What was noticed when they were read.

    Raises:
        UserError: There is no training image, or no test image has a label.
    """
    train = parts.get("train")
    if train is not None and not len(train.records):
        raise UserError(f"the parquet files in {where} hold no row of training images.")
    # Test sets of competitions are published with -1 in place of labels: validation stands in for them.
    known = [split for split in ("test", "validation") if split in parts]
    labelled = [split for split in known if (parts[split].labels >= 0).any()]
    if known and not labelled:
        raise UserError(
            f"the test images in {where} have no labels: remove their files, and a part of the training "
            "images is held out instead."
        )
    if len(labelled) < len(known) and known[0] == "test":
        remarks = [*remarks, "the test images have no labels: the validation images stand in for them"]
    test = parts[labelled[0]] if labelled else None
    largest = max(int(part.labels.max(initial=-1)) for part in (train or test,) if part is not None)
    return Content(names or tuple(map(str, range(largest + 1))), train, test, tuple(remarks))


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

    def names(self) -> list[str]:
        """Return what the images are called."""
        return [f"{self.name}, row {row}" for row in self.rows.tolist()]


def _hub_source(name: str, config: DataConfig) -> Source:
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
    by_split: dict[str, Any] = {}
    for split, dataset in splits.items():
        kind = split_in(split)
        if kind in by_split:
            raise UserError(
                f"{name} has several splits of {kind} images ({', '.join(splits)}): save the one that is meant."
            )
        by_split |= {kind: dataset} if kind else {}
    if "train" not in by_split:
        raise UserError(f"{name} has no split of training images, but {', '.join(splits)}.")
    train = by_split["train"]
    columns = find_columns(train.features.arrow_schema, name, config, lambda column: _first_of(train, column))
    identity = "-".join(f"{split}:{dataset._fingerprint}" for split, dataset in by_split.items())
    identity += f" {columns.image} {columns.label}"
    left_out = LeftOut()
    for split in splits:
        if not split_in(split):
            left_out.add("splits of other names", split)
    understood = _understood({kind: f"the split {kind} of {name}" for kind in by_split}, columns, left_out)
    return Source([], identity, len(by_split) > 1, lambda: _read_hub(by_split, columns), understood)


def _first_of(dataset: Any, column: str) -> Iterator[Any]:
    for table in dataset.with_format("arrow").iter(batch_size=LOOKED_AT):
        yield from table.column(column).to_pylist()


def _read_hub(by_split: Mapping[str, Any], columns: Columns) -> Content:
    parts = {}
    remarks: list[str] = []
    for split, dataset in by_split.items():
        where = f"{columns.where}, split {split}"
        table = dataset.select_columns(columns.plain).with_format("arrow")[:]
        names = class_names(dataset.features.arrow_schema, columns.label)
        labels = align(label_array(table.column(columns.label), where), names, columns, where, remarks)
        rows = np.arange(len(labels), dtype=np.int64)
        groups = group_array(table, columns) if columns.group else None
        parts[split] = Part(HubRecords(dataset, columns.image, where, rows), labels, groups)
    return content_of(parts, columns.names, columns.where, remarks)
