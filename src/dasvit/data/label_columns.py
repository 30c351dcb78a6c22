"""What the label columns of an image list mean: one label an image, or several (docs/data.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dasvit.config import DataConfig
from dasvit.data.columns import one_of
from dasvit.errors import UserError, listed, printable

LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "label_name")
"""What a column of one label an image is called, in small letters."""
SEVERAL_COLUMNS = ("labels", "classes", "tags", "categories", "targets")
"""What a column of several is called."""
SPACE, ONE = "space", "none"
"""How the option says that blanks part labels, and that nothing does: one label an image."""
_PARTS = (";", "|")
_REGRESSION = (
    "dasvit tells classes apart, and does not predict numbers (regression): turn them into classes (low, high), or "
    "into names where they stand for classes"
)
_NO_CLASSES = {
    "fold",
    "split",
    "train",
    "test",
    "val",
    "valid",
    "is_valid",
    "is_train",
    "is_test",
    "flipped",
    "index",
    "id",
}
"""Columns of 0 and 1 that are taken for classes only where they are named."""
_FLAGS: Mapping[str, bool] = {"0": False, "1": True, "0.0": False, "1.0": True}
Row = Mapping[str, str]
Labels = tuple[str, ...]


@dataclass(frozen=True)
class LabelReading:
    """How the labels of a list are read.

    Attributes:
        of: Gives a row's labels; None where it has none and so does not count.
        several: Whether an image can have several, or none.
        columns: The columns that they stand in.
        whence: Where they come from, in words.
        identity: What tells this reading from others of the same columns; empty for one label an image.
        names: The classes, where the columns are theirs. Empty: those that images have.
        remarks: What the user should look at.
    """

    of: Callable[[Row], Labels | None]
    several: bool
    columns: tuple[str, ...]
    whence: str
    identity: str = ""
    names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def label_reading(
    columns: Sequence[str], rows: Sequence[Row], taken: Collection[str], config: DataConfig, file: Path
) -> LabelReading:
    """Find out where a list has its labels, and whether an image can have several.

    Args:
        columns: The list's columns.
        rows: Its rows.
        taken: The columns that hold something else.
        config: May name the column, or several that are classes, and what parts labels.
        file: The list.

    Raises:
        UserError: No column is there, several could be meant, or it can be understood in two ways.
    """
    asked = config.label_column
    if asked and asked not in columns and "," in asked:
        named = [name.strip() for name in asked.split(",")]
        if strange := [name for name in named if name not in columns]:
            raise UserError(f"--data.label_column {asked}: {file} has no column {listed(strange)}.")
        return _class_columns(named, rows, file)
    others = [name for name in columns if name not in taken]
    usual = [name for name in others if name.casefold() in (*LABEL_COLUMNS, *SEVERAL_COLUMNS)]
    if not asked and not usual and others:
        names = {name.casefold() for name in others}
        are_flags = all(row[name].strip() in _FLAGS for row in rows for name in others)
        if are_flags and len(others) > 1 and not names & _NO_CLASSES:
            return _class_columns(others, rows, file)
        if not are_flags and all(_is_number(row[name]) for row in rows for name in others):
            raise UserError(f"{file}: the columns {listed(others)} hold numbers. {_REGRESSION}.")
    column = _label_column(columns, usual, asked, file)
    is_plural = column.casefold() in SEVERAL_COLUMNS
    cells = [text for row in rows if (text := row[column].strip())]
    separator = config.label_separator
    if separator == ONE or (not separator and not is_plural):
        return _one(column, cells, file, separator == ONE)
    if separator:
        parted = _named_separator(separator)
    else:
        parted = _found_separator(column, cells, file)
        if not parted:
            return _plural_of_one(column, rows, cells, file, bool(asked))
    return _several(column, cells, parted, file)


def _label_column(columns: Sequence[str], usual: Sequence[str], asked: str, file: Path) -> str:
    """Return the column by the option that names it, or by its usual names."""
    there = f"Its columns: {', '.join(columns)}."
    if asked:
        if asked not in columns:
            raise UserError(f"--data.label_column {asked} is not in {file}. {there}")
        return asked
    if not usual:
        raise UserError(
            f"{file} has no column called {', '.join(LABEL_COLUMNS[:4])} or the like: name that of the labels with "
            "--data.label_column; of a column of 0 and 1 for each class, all of them (--data.label_column a,b). "
            f"{there}"
        )
    return one_of(usual, (), str(file), "label", "labels")


def _one(column: str, cells: Sequence[str], file: Path, is_sure: bool) -> LabelReading:
    """Return the reading of a column of one label an image."""
    _refuse_numbers(column, cells, file)
    remarks: tuple[str, ...] = ()
    held = [(text, part) for text in cells if (part := _may_part(text))]
    if held and not is_sure:
        text, part = held[0]
        what, option = ("blanks", SPACE) if part == " " else (part, f"'{part}'")
        remarks = (
            f"{len(held):,} rows of column {column} hold {what} ({printable(text)}), taken for a part of the name: "
            f"where several labels are meant, give --data.label_separator {option}",
        )
    read: Callable[[Row], Labels | None] = lambda row: (text,) if (text := row[column].strip()) else None  # noqa: E731
    return LabelReading(read, False, (column,), f"column {column}", remarks=remarks)


def _may_part(text: str) -> str:
    """Return what may part several labels in a cell of a column of one: ; or |, or blanks between numbers."""
    words = text.split()
    blanks = " " if len(words) > 1 and all(map(_is_whole, words)) else ""
    return next((part for part in _PARTS if part in text), blanks)


def _several(column: str, cells: Sequence[str], separator: str, file: Path) -> LabelReading:
    """Return the reading of a column of several labels an image."""
    labels = [label for text in cells for label in _parted(text, separator)]
    if labels and all(map(_is_number, labels)) and not all(map(_is_whole, labels)):
        raise UserError(f"{file}: column {column} holds numbers as {labels[0]}. {_REGRESSION}.")
    said = "blanks" if separator == " " else f"'{separator}'"
    whence = f"column {column}, several an image, parted by {said}"
    read: Callable[[Row], Labels | None] = lambda row: _parted(row[column], separator)  # noqa: E731
    return LabelReading(read, True, (column,), whence, f"several parted by {separator}")


def _class_columns(columns: Sequence[str], rows: Sequence[Row], file: Path) -> LabelReading:
    """Return the reading of a column of 0 and 1 for each class.

    Raises:
        UserError: Something else stands there.
    """
    for number, row in enumerate(rows, start=2):
        for name in columns:
            if row[name].strip() not in _FLAGS:
                raise UserError(
                    f"{file}, line {number}: the column {name} of a class must hold 0 or 1, not {row[name].strip()!r}: "
                    "correct it, or leave out the row."
                )
    remarks: tuple[str, ...] = ()
    if all(sum(_FLAGS[row[name].strip()] for name in columns) == 1 for row in rows):
        remarks = (
            "every image has exactly one label: where the classes exclude one another, write the label into a column "
            "label, and one label an image is learnt",
        )
    names = tuple(columns)

    def read(row: Row) -> Labels | None:
        return tuple(name for name in names if _FLAGS[row[name].strip()])

    whence = f"the columns {listed(columns)}, 1 where an image has the label"
    return LabelReading(read, True, names, whence, "several by column", names, remarks)


def _plural_of_one(column: str, rows: Sequence[Row], cells: Sequence[str], file: Path, asked: bool) -> LabelReading:
    """Return the reading of a column of a plural name that nowhere holds several: one label an image.

    Raises:
        UserError: Rows without a label could mean either.
    """
    if len(cells) < len(rows) and not asked:
        raise UserError(
            f"{file}: {len(rows) - len(cells):,} rows have nothing in column {column}, and none has several labels. "
            "Are these images of no class, say it with --data.label_separator ';'; are they to be left out, with "
            f"--data.label_separator {ONE}."
        )
    return _one(column, cells, file, True)


def _named_separator(text: str) -> str:
    """Return what parts labels, as the option names it."""
    if text == SPACE or text.isspace():
        return " "
    if len(text) != 1 or text.isalnum():
        raise UserError(
            f"--data.label_separator must be one character that parts labels, as ';' or '|', or {SPACE}, or {ONE} for "
            f"one label an image, not {text!r}."
        )
    return text


def _found_separator(column: str, cells: Sequence[str], file: Path) -> str:
    """Return what parts the labels of a column; empty: nothing does.

    Raises:
        UserError: Two characters could, or blanks and commas could as well be parts of names.
    """
    found = [part for part in _PARTS if any(part in text for text in cells)]
    if len(found) > 1:
        raise UserError(
            f"{file}: column {column} holds both ; and |: say which parts labels, as --data.label_separator ';'."
        )
    if found:
        return found[0]
    held = next((text for text in cells if "," in text), "")
    if held:
        raise UserError(
            f"{file}: column {column} holds {printable(held)!r}: several labels, or a name with a comma? Say it with "
            f"--data.label_separator , or {ONE}."
        )
    several = [text.split() for text in cells if len(text.split()) > 1]
    if not several:
        return ""
    alone, held = {text for text in cells if len(text.split()) == 1}, " ".join(several[0])
    if all(_is_number(word) for words in several for word in words) or any(
        word in alone for words in several for word in words
    ):
        return " "
    raise UserError(
        f"{file}: column {column} holds {printable(held)!r}: several labels, or one name of several words? Say it with "
        f"--data.label_separator {SPACE} or {ONE}."
    )


def _parted(text: str, separator: str) -> Labels:
    """Return the labels of a cell, each once, in the order that they stand in."""
    return tuple(dict.fromkeys(label for part in text.split(separator) if (label := part.strip())))


def _refuse_numbers(column: str, cells: Sequence[str], file: Path) -> None:
    """Refuse labels that look like what a regression predicts: fractions, or several numbers each."""
    numbers = [[word for word in re.split(r"[;|,\s]+", text) if word] for text in cells]
    if not numbers or not all(words and all(map(_is_number, words)) for words in numbers):
        return
    if all(len(words) > 1 for words in numbers) or not all(_is_whole(word) for words in numbers for word in words):
        shown = next((text for text in cells if not _is_whole(text)), cells[0])
        raise UserError(f"{file}: column {column} holds numbers as {shown}. {_REGRESSION}.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_whole(text: str) -> bool:
    """Tell whether a text is a whole number, as classes may be called."""
    return bool(re.fullmatch(r"[+-]?\d+(\.0*)?", text.strip()))
