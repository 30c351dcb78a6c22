"""Images read from the shards they lie in, parquet or tar files, whenever they are needed: nothing is copied.

An epoch goes through the shards' chunks (row groups, stretches of tar files) in an order of its own, and shuffles
windows of that sequence: a pure function of seed and epoch, as the order of images in memory is. So a run resumes
exactly, several processes share every batch, and a shard is read from front to back. Memory holds the encoded images of
two windows at most.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dasvit.data.decode import Encoded
from dasvit.data.listing import Records
from dasvit.data.parquet import read_metadata, unreadable
from dasvit.errors import UserError

CHUNK = 256
"""Images of a tar file that are read behind one another."""


class Shards(Records, Protocol):
    """Encoded images in shards: records that can be read by row, too."""

    @property
    def chunks(self) -> NDArray[np.int64]:
        """The chunk of every row, int64 [N]: what is best read as a whole."""
        ...

    def __getitem__(self, row: int) -> tuple[str, bytes]:
        """Return what an image is called, and its content."""
        ...

    def select(self, rows: NDArray[np.int64]) -> Shards:
        """Return the images of the given rows (rising)."""
        ...


def windowed_order(
    indices: NDArray[np.int64], chunks: NDArray[np.int64], size: int, chance: np.random.Generator
) -> NDArray[np.int64]:
    """Return rows in the order of an epoch: chunks in a random order, the rows of a few chunks at a time shuffled.

    Args:
        indices: The rows to use, int64 [n].
        chunks: The chunk of every row of the set, int64 [N].
        size: Rows of a window, used or not; a window ends with the chunk that fills it.
        chance: Draws the order.
    """
    names, of, counts = np.unique(chunks, return_inverse=True, return_counts=True)
    drawn = chance.permutation(len(names))
    window = np.empty(len(names), dtype=np.int64)
    window[drawn] = (np.cumsum(counts[drawn]) - counts[drawn]) // size
    return indices[np.lexsort((chance.random(len(indices)), window[of[indices]]))]


@dataclass(frozen=True)
class Spans:
    """Images that are stretches of files, as the members of tar files.

    Attributes:
        files: The files.
        spans: File, first byte and bytes of every image, int64 [N, 3].
    """

    files: Sequence[str]
    spans: NDArray[np.int64]

    @property
    def chunks(self) -> NDArray[np.int64]:
        """The stretch of every row: CHUNK images that stand behind one another in a file."""
        files, first, places = np.unique(self.spans[:, 0], return_index=True, return_inverse=True)
        inner = (np.arange(len(self)) - first[places]) // CHUNK
        return np.unique(np.stack([files[places], inner]), axis=1, return_inverse=True)[1].ravel()

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, row: int) -> tuple[str, bytes]:
        """Return what an image is called, and its content.

        Raises:
            UserError: The file cannot be read, or has become shorter.
        """
        number, start, size = self.spans[row].tolist()
        file = self.files[number]
        try:
            with open(file, "rb") as stream:
                stream.seek(start)
                content = stream.read(size)
        except OSError as error:
            raise UserError(f"cannot read the shard {file} ({error.strerror}): put it back as it was.") from None
        if len(content) != size:
            raise UserError(f"the shard {file} was cut off during the run: put it back as it was.")
        return f"at byte {start} of {file}", content

    def __iter__(self) -> Iterator[tuple[str, Encoded]]:
        return (self[row] for row in range(len(self)))

    def names(self) -> list[str]:
        """Return what the images are called."""
        return [f"at byte {start} of {self.files[number]}" for number, start, _ in self.spans.tolist()]

    def select(self, rows: NDArray[np.int64]) -> Spans:
        """Return the images of the given rows."""
        return Spans(self.files, self.spans[rows])


class RowGroups:
    """Images in row groups of parquet files. A copy for another process takes what it was made of, not what it holds.

    Args:
        files: The files, one behind the other.
        column: The column of images.
        rows: The rows wanted, counted over all files, rising, int64 [N]; no others are held.
        held: Rows that are held encoded at once, besides those of the row group at hand: of two windows.

    Raises:
        UserError: A file cannot be read.
    """

    def __init__(self, files: Sequence[Path], column: str, rows: NDArray[np.int64], held: int) -> None:
        self.files, self.column, self.rows, self.held = files, column, rows, held
        self.places: list[tuple[int, int]] = []
        starts = [0]
        for number, file in enumerate(files):
            about = read_metadata(file)
            for group in range(about.num_row_groups):
                self.places.append((number, group))
                starts.append(starts[-1] + about.row_group(group).num_rows)
        self.starts = np.array(starts, dtype=np.int64)
        self._read: OrderedDict[int, pa.Array] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return RowGroups, (self.files, self.column, self.rows, self.held)

    @property
    def chunks(self) -> NDArray[np.int64]:
        """The row group of every row."""
        return np.searchsorted(self.starts, self.rows, side="right") - 1

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[str, Encoded]]:
        return (self[row] for row in range(len(self)))

    def names(self) -> list[str]:
        """Return what the images are called."""
        return [self._name(row) for row in self.rows.tolist()]

    def select(self, rows: NDArray[np.int64]) -> RowGroups:
        """Return the images of the given rows (rising)."""
        return RowGroups(self.files, self.column, self.rows[rows], self.held)

    def __getitem__(self, row: int) -> tuple[str, bytes]:
        """Return what an image is called, and its content."""
        group = self._group_of(int(self.rows[row]))
        content = self._group(group)[row - int(np.searchsorted(self.rows, self.starts[group]))].as_py()
        # Nothing at all is no image either: the decoder says so, with the name of the row.
        return self._name(int(self.rows[row])), content or b""

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _name(self, row: int) -> str:
        number, inner = self.places[group := self._group_of(row)]
        return f"{self.files[number]}, row {row - int(self.starts[group - inner])}"

    def _group(self, group: int) -> pa.Array:
        """Return the images of a row group; the groups that were asked for last are held."""
        if group not in self._read:
            number, inner = self.places[group]
            file = self.files[number]
            try:
                with pq.ParquetFile(file) as parquet:
                    column = parquet.read_row_group(inner, columns=[self.column]).column(0).combine_chunks()
            except (pa.ArrowException, OSError) as error:
                raise unreadable(file, error) from None
            column = column.field("bytes") if pa.types.is_struct(column.type) else column
            first, last = np.searchsorted(self.rows, self.starts[group : group + 2])
            self._read[group] = column.take(pa.array(self.rows[first:last] - self.starts[group]))
            while len(self._read) > 1 and sum(map(len, self._read.values())) - len(self._read[group]) > self.held:
                self._read.popitem(last=False)
        self._read.move_to_end(group)
        return self._read[group]
