"""Image sets in tar files, laid out as webdataset does: a sample is the members of one name and several endings."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dasvit.config import DataConfig
from dasvit.config.limits import MAX_CLASSES
from dasvit.data.listing import Content, Part, Source
from dasvit.data.shards import Spans
from dasvit.data.understanding import LeftOut, Understanding, by_split, image_endings, images_below, some
from dasvit.errors import UserError, listed

LABELS = ("cls", "label", "json")
"""Endings of the members that hold a sample's label, the first that is there counts."""
KEYS = ("cls", "label", "class")
"""Keys of a JSON member that hold it."""
NAMES = ("classes.txt", "classnames.txt")
"""Files beside the shards that name the classes, a line each."""
_NO_LABEL = re.compile(r"-\d+|\d*\.\d+|\d+([,;|\s]+\d+)+")
_LARGEST_LABEL = 1 << 20  # bytes of a member that is read for a label


@dataclass
class _Sample:
    """A sample: where its images are, and what the members hold that may be labels, each by its ending."""

    images: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    labels: dict[str, bytes] = field(default_factory=dict)


def find_tars(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """Return the tar files in a folder and below it, in order, hidden and housekeeping ones left out."""
    return sorted(map(Path, images_below(folder, frozenset((".tar",)), LeftOut() if left_out is None else left_out)))


def webdataset_source(config: DataConfig, judged: bool = False) -> Source:
    """Find a set of tar files in a folder.

    Args:
        config: The folder; `label_column` names the key of JSON members that holds the label.
        judged: Only images to evaluate a model on are wanted: those of a test split, or all.

    Raises:
        UserError: Nothing is there, or it can be understood in two ways.
    """
    for name in ("group_column", "label_separator"):
        if getattr(config, name):
            raise UserError(f"--data.{name} is not read from tar files: leave it out, or list images in a CSV.")
    folder = Path(config.path).expanduser()
    if not config.path or not folder.is_dir():
        raise UserError(f"webdataset needs a folder of .tar files: there is none at {config.path!r} (--data.path).")
    left_out = LeftOut()
    files = find_tars(folder, left_out)
    if not files:
        raise UserError(f"there is no .tar file in {folder}: unpack compressed ones (.tar.gz), or check --data.path.")
    splits = by_split(folder, files, left_out, "tar")
    if judged and len(splits) > 1:
        for file in splits.pop("train", []):
            left_out.add("shards of training images, which are not needed here", str(file))
    if "train" not in splits and not judged:
        raise UserError(f"none of the .tar files in {folder} is one of training images (train-*.tar).")
    test = next((split for split in ("test", "validation") if split in splits), "")
    said = {"train": splits.get("train"), "test": splits.get(test)}
    parts = {part: some([one.relative_to(folder).as_posix() for one in found]) for part, found in said.items() if found}
    used = [file for found in said.values() if found for file in found]
    named = [folder / name for name in NAMES if (folder / name).is_file()][:1]
    labels = f"members .{', .'.join(LABELS)} of each sample{f'; classes named by {named[0].name}' if named else ''}"
    understood = Understanding(parts, labels, left_out)
    read = lambda: _read(folder, {part: found for part, found in said.items() if found}, named, config)  # noqa: E731
    return Source([*used, *named], "webdataset", bool(test), read, understood)


def _read(folder: Path, parts: Mapping[str, Sequence[Path]], named: Sequence[Path], config: DataConfig) -> Content:
    texts: dict[str, list[str]] = {}
    spans: dict[str, Spans] = {}
    for part, files in parts.items():
        samples = [sample for number, file in enumerate(files) for sample in _samples(number, file, config)]
        if not samples:
            raise UserError(f"the .tar files for {part} in {folder} hold no image with a label.")
        rows = np.array([span for span, _ in samples], dtype=np.int64)
        spans[part] = Spans([os.path.abspath(file) for file in files], rows)
        texts[part] = [label for _, label in samples]
    classes = _classes([text for found in texts.values() for text in found], named)
    places = {name: place for place, name in enumerate(classes)}
    numbered = all(text.isdecimal() for found in texts.values() for text in found)
    labels = {
        part: np.array([int(text) if numbered else places[text] for text in found], dtype=np.int64)
        for part, found in texts.items()
    }
    both = {part: Part(spans[part], labels[part]) for part in parts}
    return Content(classes, both.get("train"), both.get("test"))


def _classes(texts: Sequence[str], named: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of the classes: numbers are places in the file of names, other labels are names themselves.

    Raises:
        UserError: A number has no name.
    """
    if not all(text.isdecimal() for text in texts):
        return tuple(sorted(set(texts)))
    count = 1 + max(map(int, texts))
    if count > MAX_CLASSES:
        raise UserError(f"the labels go up to {count - 1:,}, and there can be {MAX_CLASSES:,} classes at most.")
    if not named:
        return tuple(map(str, range(count)))
    names = tuple(line.strip() for line in named[0].read_text(encoding="utf-8").splitlines() if line.strip())
    if len(names) < count or len(set(names)) < len(names):
        raise UserError(f"{named[0]} must name {count} classes or more, a line each and no name twice.")
    return names


def _samples(number: int, file: Path, config: DataConfig) -> Iterator[tuple[tuple[int, int, int], str]]:
    """Yield where each image of a shard is, and its label; members of one sample stand behind one another.

    Raises:
        UserError: It is no tar file, or an image has no label.
    """
    key, sample = "", _Sample()
    try:
        with tarfile.open(file, "r:") as shard:
            _check_whole(file)
            for member in shard:
                folder, name = os.path.split(member.name)
                if not member.isfile() or name.startswith("."):
                    continue
                stem, _, ending = name.partition(".")
                ending = ending.casefold()
                if (own := os.path.join(folder, stem)) != key:
                    yield from _whole(sample, key, file, config)
                    key, sample = own, _Sample()
                if f".{ending.rpartition('.')[2]}" in image_endings():
                    sample.images[ending] = (number, member.offset_data, member.size)
                elif ending in _endings(config) and member.size <= _LARGEST_LABEL:
                    content = shard.extractfile(member)
                    sample.labels[ending] = content.read() if content else b""
        yield from _whole(sample, key, file, config)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(
            f"cannot read the shard {file} ({' '.join(str(error).split())}): is it a tar file, not compressed?"
        ) from None


def _whole(sample: _Sample, key: str, file: Path, config: DataConfig) -> list[tuple[tuple[int, int, int], str]]:
    """Return where a sample's image is, and its label; nothing where it has no image.

    Raises:
        UserError: It has no label, or several images.
    """
    images = sample.images
    if config.image_column:
        images = {ending: span for ending, span in images.items() if ending == config.image_column.casefold()}
    if not images:
        return []
    if len(images) > 1:
        raise UserError(
            f"{key} in {file} has several images, {', '.join(images)}: which is meant? --data.image_column "
            f"{next(iter(images))} says so."
        )
    endings = _endings(config)
    first = next((ending for ending in endings if ending in sample.labels), "")
    if not first:
        wanted = " or ".join(f".{ending}" for ending in endings)
        raise UserError(f"the image {key} in {file} has no label: a member {wanted} beside it holds one.")
    label = _label(sample.labels[first], first, config, f"{key}.{first} in {file}")
    return [(next(iter(images.values())), label)]


def _endings(config: DataConfig) -> tuple[str, ...]:
    """Return the endings of members that hold labels: a key that is named is one of JSON."""
    return ("json",) if config.label_column else LABELS


def _check_whole(file: Path) -> None:
    """Raise where a tar file lacks the block of zeros that ends it: reading alone takes a cut for its end."""
    with open(file, "rb") as stream:
        stream.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
        if any(stream.read()):
            raise tarfile.ReadError("it was cut off")


def _label(content: bytes, ending: str, config: DataConfig, where: str) -> str:
    """Return a label as a text.

    Raises:
        UserError: There is none.
    """
    try:
        text = content.decode("utf-8")
        value: Any = text.strip()
        if ending == "json":
            found = json.loads(text)
            keys = [config.label_column] if config.label_column else KEYS
            value = next((found[key] for key in keys if isinstance(found, dict) and key in found), None)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise ValueError(f"no label under {listed(KEYS)}: --data.label_column names another key")
        if _NO_LABEL.fullmatch(str(value)):
            raise ValueError(f"{value} is no label: an image has one, a name or a number from 0 on")
    except (ValueError, RecursionError) as error:
        raise UserError(f"the label {where} cannot be read ({' '.join(str(error).split())[:200]}).") from None
    return str(value)
