"""The cache: a source is decoded once, into a folder named by all that the pixels depend on.

A folder holds `meta.json` and, for each part, labels and either the decoded images or, where these would
be too large, the encoded ones (their paths, or one file of their content).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dasvit.config.recipe import CACHE_TAG
from dasvit.config.units import parse_window, window_text
from dasvit.data.cache_use import META, hold
from dasvit.data.decode import DeepImage
from dasvit.data.decoding import Decoding, MixedSizes, NpyWriter, Plan, holds_deep, plans
from dasvit.data.image_set import EncodedBlob, EncodedFiles, HeldPixels, ImageSet, LazyPixels, Pixels, StoredPixels
from dasvit.data.listing import FileRecords, Part
from dasvit.data.looks import Seen
from dasvit.data.view import View, measure_window
from dasvit.errors import UserError
from dasvit.io.files import write_whole

FORMAT = 2
"""Raised with the rules by which sources are understood, and with what a folder holds."""
NAMES = "test_names.json"
log = logging.getLogger("dasvit")
T = TypeVar("T")
LARGEST = 8 * 10**9
"""Bytes of decoded images above which they stay encoded."""


@dataclass(frozen=True)
class Prepared:
    """A source after splitting: what the cache holds decoded.

    Attributes:
        classes: Names of the classes.
        parts: The images of train and of test; where a model is only evaluated, of test alone.
        remarks: What the user should look at, as sentences.
    """

    classes: tuple[str, ...]
    parts: Mapping[str, Part]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cached:
    """A decoded source.

    Attributes:
        classes: Names of the classes.
        sets: The images of each part.
        plan: The size they were brought to, and how.
        skipped: Broken images that were left out.
        remarks: What the user should look at, as sentences.
        oblong: How many are longer than 1.5 : 1; None: an older version did not count them.
        deep: Whether images have more than 8 bits; None: an older version did not say, or the window was given.
        names: Names of the test images; none of an older version's.
        seen: What the images are like; None: an older version did not look.
    """

    classes: tuple[str, ...]
    sets: Mapping[str, ImageSet]
    plan: Plan
    skipped: tuple[str, ...]
    remarks: tuple[str, ...]
    oblong: int | None
    deep: bool | None
    names: tuple[str, ...]
    seen: Seen | None = None


def fingerprint(files: Sequence[Path], facts: Mapping[str, object]) -> str:
    """Return a name for a source's state: its files (name, size, time of change) and some facts.

    Raises:
        UserError: A file is not there any more.
    """
    digest = hashlib.sha256(json.dumps({**facts, "format": FORMAT}, sort_keys=True).encode())
    for file in files:
        try:
            state = os.stat(file)
        except OSError:
            if not os.path.islink(file):
                raise UserError(
                    f"{file} was removed while the images were listed: run the same command again."
                ) from None
            state = os.lstat(file)  # a link that leads nowhere is a broken image: whoever opens it says so
        # A path need not be text.
        digest.update(os.fsencode(os.path.abspath(file)) + f"\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def obtain(
    folder: Path,
    prepare: Callable[[], Prepared],
    image_size: int,
    view: View,
    on_error: str,
    unchanged: Callable[[], bool],
) -> Cached:
    """Open the cache folder of a source; where there is none, or a damaged one, decode the source into it.

    Where the folder cannot be written, the images are held in memory.

    Args:
        folder: The folder, named by the source's fingerprint.
        prepare: Reads and splits the source; not called on a hit.
        image_size: Side of the network's input.
        view: How pictures become squares; a window that is still to be measured is, where images have more than 8 bits.
        on_error: What a broken image does: stop or skip.
        unchanged: Tells whether the source still is what the folder is named by; asked when it was read.

    Raises:
        UserError: The source changed while it was read, or an image is broken and is not to be left out.
    """
    found = open_or_none(folder)
    if found is not None and not (found.deep is None and view.window == "auto"):
        return found
    prepared = prepare()
    if found is not None and not any(holds_deep(part.records) for part in prepared.parts.values()):
        note(folder, deep=False)
        return found
    if found is not None:
        shutil.rmtree(folder, ignore_errors=True)  # of a version that knew no windows
    decoding = Decoding(sum(len(part.labels) for part in prepared.parts.values()), on_error == "skip")
    try:
        _mark(folder.parent)
        building = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
        building.mkdir()
    except OSError as error:
        return _hold(prepared, decoding, image_size, view, folder.parent, error, unchanged)
    try:
        planned(prepared, decoding, image_size, view, partial(_build, building, prepared, decoding))
        _check(unchanged)
        _publish(building, folder)
        return _open(folder)
    except OSError as error:
        return _hold(prepared, decoding, image_size, view, folder.parent, error, unchanged)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _check(unchanged: Callable[[], bool]) -> None:
    """Refuse images of two states of their source, which would be kept under the name of the first."""
    if not unchanged():
        raise UserError("the images were changed while they were read: run the same command again to read them anew.")


def _mark(folder: Path) -> None:
    """Make a folder a cache; tools that make backups pass these over."""
    folder.mkdir(parents=True, exist_ok=True)
    tag = folder / CACHE_TAG
    if not tag.exists():
        tag.write_text("Signature: 8a477f597d28d172789f06886806bc55\n# Images decoded by dasvit.\n", encoding="utf-8")


def open_or_none(folder: Path) -> Cached | None:
    """Open a cache folder; None: there is none, or it is damaged."""
    if not folder.is_dir():
        return None
    try:
        return _open(folder)
    except Exception as error:  # numpy's and json's readers raise whatever a damaged file makes them
        log.warning("the cached images in %s are damaged (%s) and will be decoded anew", folder, error)
        return None


def _publish(building: Path, folder: Path) -> None:
    """Rename a finished folder into place; where another process was faster, its folder stays."""
    if folder.is_dir() and open_or_none(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        building.rename(folder)
    except OSError:
        if open_or_none(folder) is None:
            raise


def planned(
    prepared: Prepared, decoding: Decoding, image_size: int, view: View, work: Callable[[Plan, bool | None], T]
) -> T:
    """Return what `work` makes of the images by the first plan that takes all of them.

    It is also told whether they have more than 8 bits (None: not known). Where they turn out to have, and the window is
    auto, it is measured on the training images, and all begins anew.
    """
    deep = False if view.window == "auto" else None
    while True:
        try:
            for plan in plans([part.records for part in prepared.parts.values()], image_size, decoding.skip, view):
                try:
                    return work(plan, deep)
                except MixedSizes:
                    continue
            raise AssertionError("the last plan takes images of every size")
        except DeepImage:
            measured = measure_window(next(iter(prepared.parts.values())).records)
            view, deep = replace(view, window=measured), True


def _build(folder: Path, prepared: Prepared, decoding: Decoding, plan: Plan, deep: bool | None) -> None:
    lazy = _too_large(prepared, plan)
    skipped: list[str] = []
    counts = {}
    with decoding:
        for name, part in prepared.parts.items():
            write = _write_encoded if lazy else _write_pixels
            kept, broken = write(folder, name, part, decoding, plan)
            np.save(folder / f"{name}_labels.npy", part.labels[kept])
            if (groups := part.group_numbers()) is not None:
                np.save(folder / f"{name}_groups.npy", groups[kept])
            if name == "test":
                (folder / NAMES).write_text(json.dumps(decoding.names), encoding="utf-8")
            counts[name] = len(kept)
            skipped += broken
    meta = {
        "classes": prepared.classes,
        "plan": asdict(plan),
        "oblong": decoding.oblong,
        "seen": decoding.looks.seen().to_dict(),
        "deep": deep,
        "lazy": lazy,
        "counts": counts,
        "skipped": skipped,
        "remarks": prepared.remarks,
    }
    (folder / META).write_text(json.dumps(meta), encoding="utf-8")


def note(folder: Path, **facts: Any) -> None:
    """Add facts to a folder's meta.json, where it can be written."""
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    try:
        write_whole(folder / META, json.dumps({**meta, **facts}).encode())
    except OSError as error:
        log.warning("cannot write into the image cache %s (%s)", folder, error.strerror)


def _too_large(prepared: Prepared, plan: Plan) -> bool:
    return sum(len(part.labels) for part in prepared.parts.values()) * plan.side**2 * 3 > LARGEST


def _write_pixels(folder: Path, name: str, part: Part, decoding: Decoding, plan: Plan) -> tuple[list[int], list[str]]:
    with NpyWriter(folder / f"{name}_images.npy", (plan.side, plan.side, 3)) as writer:
        return decoding.decode(name, part.records, plan, writer.append)


def _write_encoded(folder: Path, name: str, part: Part, decoding: Decoding, plan: Plan) -> tuple[list[int], list[str]]:
    """Write what images can be decoded from later: their paths, or their content."""
    if isinstance(part.records, FileRecords):
        kept, broken = decoding.scan(name, part.records, plan, lambda encoded: None)
        paths = [os.path.abspath(part.records.paths[row]) for row in kept]
        (folder / f"{name}_paths.json").write_text(json.dumps(paths), encoding="utf-8")
        return kept, broken
    sizes: list[int] = []
    with open(folder / f"{name}_images.bin", "wb") as file:
        kept, broken = decoding.scan(name, part.records, plan, lambda encoded: sizes.append(file.write(encoded)))
    np.save(folder / f"{name}_ends.npy", np.cumsum(sizes, dtype=np.int64))
    return kept, broken


def _open(folder: Path) -> Cached:
    hold(folder)
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    plan = _plan(**meta["plan"])
    classes = tuple(meta["classes"])
    sets = {}
    for name, count in meta["counts"].items():
        if name not in ("train", "test"):
            raise ValueError(f"{name} is no part")
        labels = np.load(folder / f"{name}_labels.npy", allow_pickle=False)
        pixels = _open_encoded(folder, name, plan) if meta["lazy"] else StoredPixels(folder / f"{name}_images.npy")
        if pixels.shape != (count, plan.side, plan.side, 3) or labels.shape not in ((count,), (count, len(classes))):
            raise ValueError(f"{name} has not the {count} images that it should")
        most = 2 if labels.ndim == 2 else len(classes)
        if labels.dtype != np.int64 or (labels.size and not 0 <= labels.min() <= labels.max() < most):
            raise ValueError(f"{name} has labels that are none")
        file = folder / f"{name}_groups.npy"
        groups = np.load(file, allow_pickle=False) if file.exists() else None
        if groups is not None and (groups.shape != (count,) or groups.dtype != np.int64):
            raise ValueError(f"{name} has not the groups of its {count} images")
        sets[name] = ImageSet(pixels, labels, groups)
    remarks = tuple(map(str, meta["remarks"]))
    names = tuple(json.loads((folder / NAMES).read_text("utf-8"))) if (folder / NAMES).exists() else ()
    skipped, seen = tuple(meta["skipped"]), Seen.read(meta.get("seen"))
    return Cached(classes, sets, plan, skipped, remarks, meta.get("oblong"), meta.get("deep"), names, seen)


def _plan(side: int, native: bool, view: Mapping[str, Any] | None = None) -> Plan:
    """Return a plan as it is noted; those of older versions say nothing of a view."""
    if view is None:
        return Plan(side, native)
    window = view["window"] if isinstance(view["window"], str) else window_text(view["window"])
    return Plan(side, native, View(view["fit"], parse_window(window, "the window")))


def _open_encoded(folder: Path, name: str, plan: Plan) -> Pixels:
    paths = folder / f"{name}_paths.json"
    if paths.exists():
        # Their states need no file: the folder's name, the source's fingerprint, changes with them.
        return LazyPixels(EncodedFiles.of(json.loads(paths.read_text(encoding="utf-8"))), plan.side, plan.view)
    return LazyPixels(EncodedBlob(folder / f"{name}_images.bin", folder / f"{name}_ends.npy"), plan.side, plan.view)


def _hold(
    prepared: Prepared,
    decoding: Decoding,
    image_size: int,
    view: View,
    cache: Path,
    error: OSError,
    unchanged: Callable[[], bool],
) -> Cached:
    """Decode into memory, because the cache folder cannot be written."""
    log.warning("cannot write the image cache %s (%s): images are held in memory", cache, error.strerror)
    held = planned(prepared, decoding, image_size, view, partial(_held, cache, prepared, decoding))
    _check(unchanged)
    return held


def _held(cache: Path, prepared: Prepared, decoding: Decoding, plan: Plan, deep: bool | None) -> Cached:
    sets: dict[str, ImageSet] = {}
    skipped: list[str] = []
    with decoding:
        for name, part in prepared.parts.items():
            pixels: Pixels
            if not _too_large(prepared, plan):
                chunks: list[NDArray[np.uint8]] = [np.empty((0, plan.side, plan.side, 3), dtype=np.uint8)]
                kept, broken = decoding.decode(name, part.records, plan, chunks.append)
                pixels = HeldPixels(np.concatenate(chunks))
            elif isinstance(part.records, FileRecords):
                kept, broken = decoding.scan(name, part.records, plan, lambda encoded: None)
                files = EncodedFiles.of([part.records.paths[row] for row in kept])
                pixels = LazyPixels(files, plan.side, plan.view)
            else:
                raise UserError(
                    f"the images are too many for memory and cannot be cached in {cache}: set --data.cache."
                )
            groups = part.group_numbers()
            sets[name] = ImageSet(pixels, part.labels[kept], None if groups is None else groups[kept])
            skipped += broken
    names, seen = tuple(decoding.names), decoding.looks.seen()
    return Cached(prepared.classes, sets, plan, tuple(skipped), prepared.remarks, decoding.oblong, deep, names, seen)
