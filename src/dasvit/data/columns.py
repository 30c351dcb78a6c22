"""Columns of tables of images: which holds the images, which the labels, and what the labels mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dasvit.config import DataConfig
from dasvit.data.decode import open_header
from dasvit.errors import UserError

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")
SEVERAL_NAMES = (*LABEL_NAMES, "tags", "classes", "categories", "target", "targets")
"""What a column of several labels an image, or of numbers to predict, may be called."""
LOOKED_AT = 16
"""Values of a column that are looked at to tell whether it holds images."""
Values = Callable[[str], Iterable[Any]]
"""Gives the values of a column, from its first row on."""


@dataclass(frozen=True)
class Columns:
    """Where image and label stand.

    Attributes:
        image: Column of the images.
        label: Column of the labels.
        names: Names of the classes, by label. Empty: labels are their own names.
        others: Columns that are not used.
        where: The file or data set that the columns were found in.
        group: Column of what is not to be split. Empty: none.
    """

    image: str
    label: str
    names: tuple[str, ...]
    others: tuple[str, ...]
    where: str
    group: str = ""

    @property
    def plain(self) -> list[str]:
        """The columns besides the images'."""
        return [self.label, *([self.group] if self.group else [])]


def find_columns(schema: pa.Schema, where: str, config: DataConfig, values: Values) -> Columns:
    """Find the columns of image and label in a schema.

    Args:
        schema: The schema.
        where: What an error calls the file or data set.
        config: Names the columns, or leaves them to be found.
        values: Looked at only where several columns could hold the images.

    Raises:
        UserError: One of them is not there, or several could be meant.
    """
    there = f"Its columns: {', '.join(schema.names)}."
    image = _named(config.image_column, "image", schema, _may_hold_images, where) or _image_column(
        schema, where, values, there
    )
    _refuse_labels(config.label_column, schema, where)
    label = _named(config.label_column, "label", schema, pa.types.is_integer, where) or _label_column(
        schema, where, there
    )
    group = _named(config.group_column, "group", schema, lambda kind: not pa.types.is_nested(kind), where)
    others = tuple(name for name in schema.names if name not in (image, label, group))
    return Columns(image, label, class_names(schema, label), others, where, group)


def _named(name: str, what: str, schema: pa.Schema, fits: Callable[[Any], bool], where: str) -> str:
    """Return the column that an option names, which must be there and of the right type."""
    if name and (name not in schema.names or not fits(schema.field(name).type)):
        kind = f"it is of type {schema.field(name).type}" if name in schema.names else "it is not there"
        raise UserError(
            f"--data.{what}_column {name} cannot be read from {where}: {kind}. Its columns: {', '.join(schema.names)}."
        )
    return name


def _image_column(schema: pa.Schema, where: str, values: Values, there: str) -> str:
    kinds = _features(schema)
    found = [f.name for f in schema if _may_hold_images(f.type) and kinds.get(f.name, {}).get("_type") != "Audio"]
    found = [name for name in found if name in IMAGE_NAMES or _holds_bytes(schema.field(name).type)] or found
    if len(found) > 1 or (found and found[0] not in IMAGE_NAMES):
        found = [name for name in found if _are_images(values(name))]
    if not found:
        raise UserError(f"{where} has no column of images (a struct of bytes and path, or image, or img). {there}")
    return one_of(found, IMAGE_NAMES, where, "image", "images")


def _refuse_labels(asked: str, schema: pa.Schema, where: str) -> None:
    """Refuse columns of lists or fractions where labels are looked for, with what is possible instead.

    Args:
        asked: The column that an option names. Empty: those called as labels are, where no integer column is.
        schema: The schema.
        where: What an error calls the file or data set.
    """
    named = [field for field in schema if (field.name == asked if asked else field.name in SEVERAL_NAMES)]
    if not asked and any(pa.types.is_integer(field.type) for field in schema if field.name in LABEL_NAMES):
        return
    for field in named:
        if (
            pa.types.is_list(field.type)
            or pa.types.is_large_list(field.type)
            or pa.types.is_fixed_size_list(field.type)
        ):
            raise UserError(
                f"{where} has a list of labels for each image in column {field.name}: several labels an image are read "
                "from a CSV file alone. Write the images as files, and a list image,labels (--data.csv, docs/data.md)."
            )
        if pa.types.is_floating(field.type):
            raise UserError(
                f"{where} has fractions in column {field.name}: dasvit tells classes apart, and does not predict "
                "numbers (regression). Turn them into classes, numbered from 0."
            )


def _label_column(schema: pa.Schema, where: str, there: str) -> str:
    kinds = _features(schema)
    integers = [field.name for field in schema if pa.types.is_integer(field.type)]
    found = [name for name in integers if name in LABEL_NAMES or kinds.get(name, {}).get("_type") == "ClassLabel"]
    if not found:
        raise UserError(
            f"{where} has no integer column {' or '.join(LABEL_NAMES)}: name another with --data.label_column. {there}"
        )
    return one_of(found, LABEL_NAMES, where, "label", "labels")


def one_of(found: Sequence[str], usual: Sequence[str], where: str, what: str, things: str) -> str:
    """Return the column that is meant."""
    meant = the_one(found, usual)
    if meant:
        return meant
    raise UserError(
        f"{where} has several columns of {things} ({', '.join(found)}): which is meant? Say it with "
        f"--data.{what}_column {found[0]}, or another of them."
    )


def the_one(found: Sequence[str], usual: Sequence[str]) -> str:
    """Return the column that is meant: the only one, or the only one of a usual name; empty: several could be."""
    named = [name for name in found if name in usual]
    return (named or found)[0] if len(found) == 1 or len(named) == 1 else ""


def _holds_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def _may_hold_images(kind: pa.DataType) -> bool:
    return _holds_bytes(kind) or bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _are_images(values: Iterable[Any]) -> bool:
    """Tell whether the first value with content is an image; where none has content, it may be one."""
    for value in islice(values, LOOKED_AT):
        content = value.get("bytes") if isinstance(value, dict) else value
        if content:
            try:
                open_header(content, "").close()
            except Exception:  # PIL raises errors of every kind
                continue
            return True
    return False


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Read what the hub's tools note of the columns in a schema."""
    note = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(note)["info"]["features"]
        return {name: kind for name, kind in features.items() if isinstance(kind, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """Return the names of the classes by label, as the hub's tools note them in a schema; empty: they did not."""
    names = _features(schema).get(label, {}).get("names")
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def align(
    labels: NDArray[np.int64], names: tuple[str, ...], columns: Columns, where: str, remarks: list[str]
) -> NDArray[np.int64]:
    """Return labels as numbers of the classes of the set, by the names that their own file has for them.

    Args:
        labels: Labels of a file, int64 [N]; negative ones mean that there is none.
        names: Names of the classes in this file.
        columns: Names of the classes of the set.
        where: The file.
        remarks: Takes up what the user should look at.

    Raises:
        UserError: A class of the file is none of the set's.
    """
    if names == columns.names:
        return labels
    if not names or not columns.names:
        one, other = (where, columns.where) if not names else (columns.where, where)
        remarks.append(f"{one} does not name its classes, {other} does: the labels are taken to mean the same numbers")
        return labels
    used = np.unique(labels[labels >= 0])
    if len(used) and used[-1] >= len(names):
        raise UserError(f"{where} has the label {used[-1]}, but names {len(names)} classes: correct the labels.")
    strange = [names[label] for label in used if names[label] not in columns.names]
    if strange:
        raise UserError(
            f"{where} has the classes {', '.join(strange[:5])}, which are none of those of {columns.where} "
            f"({', '.join(columns.names[:5])}): rename them, or remove the file."
        )
    if len(set(columns.names)) < len(columns.names):
        raise UserError(f"{columns.where} names two classes alike, and {where} has others: name them apart.")
    places = np.array([columns.names.index(name) if name in columns.names else -1 for name in names], dtype=np.int64)
    remarks.append(f"{where} numbers the classes otherwise than {columns.where}: its labels were aligned by name")
    return np.where(labels < 0, labels, places[labels])
