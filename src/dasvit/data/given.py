"""Images that are given rather than named: arrays, and data set objects of torchvision's or Hugging Face's kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dasvit.config import DataConfig
from dasvit.data.columns import IMAGE_NAMES, LABEL_NAMES, the_one
from dasvit.data.decode import Encoded, Pixels, is_deep, to_rgb
from dasvit.data.listing import ArrayRecords, Content, Part, Records, Source
from dasvit.data.understanding import SPLIT_NAMES, LeftOut, Understanding, split_in
from dasvit.errors import UserError

GIVEN = "given"
"""What a recipe calls images that were given in Python."""
KNOWN: dict[str, Source] = {}
"""Images that were given to this process, by the digest that recipes know them by."""
WAY_OUT = (
    "give a folder, a recipe's section data, arrays as (images, labels), a data set whose items are (image, label) "
    "with a list `classes`, or a Hugging Face data set with columns image and label"
)


@dataclass(frozen=True)
class ObjectRecords:
    """Images of a data set object, read one at a time.

    Attributes:
        items: Gives an image, as PIL's or as an array, by its place.
        rows: The places.
    """

    items: _Items
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[str, Encoded]]:
        return ((f"number {row}", pixels_of(self.items[row])) for row in self.rows.tolist())

    def select(self, rows: NDArray[np.int64]) -> ObjectRecords:
        """Return the records of the given rows."""
        return ObjectRecords(self.items, self.rows[rows])

    def names(self) -> list[str]:
        """Return the images' places."""
        return [f"number {row}" for row in self.rows.tolist()]


@dataclass(frozen=True)
class _Items:
    """The images of a data set.

    Attributes:
        dataset: The data set.
        key: What an item has its image under: 0 of (image, label), or a column's name.
    """

    dataset: Any
    key: int | str

    def __getitem__(self, row: int) -> Any:
        return self.dataset[row][self.key]


def given_source(train: Any, test: Any = None) -> Source:
    """Return images that are given as a source.

    Args:
        train: Training images: (images, labels), with uint8 images [N, h, w] or [N, h, w, 3] and labels [N], or 0 and 1
            [N, C] of several labels an image; a data set whose items are (image, label) and that has `classes`, as
            torchvision's; a Hugging Face data set, or a dictionary of them by split.
        test: Test images, likewise. None: those of the dictionary, or a part of the others is held out.

    Raises:
        UserError: It is none of these, or test images have classes that no training image has.
    """
    left_out, said = LeftOut(), "the images given"
    if isinstance(train, Mapping):
        splits = _splits(train, left_out)
        if "train" not in splits:
            raise UserError(f"the data set has no split called {' or '.join(SPLIT_NAMES['train'])}.")
        own = splits.get("test", splits.get("validation"))
        if test is None and own is not None:
            test = train[own]
        said, train = f"the split {splits['train']}", train[splits["train"]]
    ours = _read(train)
    parts = [ours.part(ours.names)] + ([] if test is None else [_read(test).part(ours.names)])
    identity = " ".join([GIVEN, *map(_digest, parts), *ours.names])
    content = Content(ours.names, parts[0], parts[1] if len(parts) > 1 else None)
    whence = {"train": said} | ({} if test is None else {"test": "the test images given"})
    understood = Understanding(whence, ours.whence, left_out)
    return Source([], identity, len(parts) > 1, lambda: content, understood)


def _splits(given: Mapping[str, Any], left_out: LeftOut) -> dict[str, str]:
    """Return the keys of a dictionary of data sets by their splits.

    Raises:
        UserError: Two could be the same split.
    """
    splits: dict[str, str] = {}
    for name in map(str, given):
        split = split_in(name)
        if split in splits:
            raise UserError(
                f"{splits[split]} and {name} are both splits of {split} images: give the one that is meant."
            )
        if split:
            splits[split] = name
        else:
            left_out.add("splits of other names", name)
    if "test" in splits and "validation" in splits:
        left_out.add("split of validation images beside a split of test images", splits["validation"])
    return splits


@dataclass(frozen=True)
class _Given:
    """Images and their labels as they are given.

    Attributes:
        records: The images.
        labels: The label of each: a number from 0 on where `names` says what these mean, else a name. Of several labels
            an image [N, C], 1 where it has the label.
        names: Names of the classes.
        numbered: Whether labels are numbers of names.
        whence: Where the labels come from, in words.
    """

    records: Records
    labels: NDArray[Any]
    names: tuple[str, ...]
    numbered: bool
    whence: str

    def part(self, names: tuple[str, ...]) -> Part:
        """Return the images with labels that are numbers of these names.

        Raises:
            UserError: A class is none of these.
        """
        if self.labels.ndim == 2:
            if names != self.names:
                raise UserError(f"test images have {len(self.names)} labels, and training images {len(names)}.")
            return Part(self.records, self.labels)
        own = [self.names[label] for label in self.labels] if self.numbered else list(map(str, self.labels.tolist()))
        places = {name: place for place, name in enumerate(names)}
        strange = sorted({name for name in own if name not in places})
        if strange:
            raise UserError(
                f"images have the classes {', '.join(strange[:5])}, which are none of {', '.join(names[:5])}."
            )
        return Part(self.records, np.array([places[name] for name in own], dtype=np.int64))


def give(images: Any) -> DataConfig:
    """Make images known to this process, and return the section data of a recipe that means them.

    Args:
        images: See `given_source`; a tuple of two data sets is training and test images.

    Raises:
        UserError: They are nothing that can be read.
    """
    # (images, labels) has an array in front, (training, test) a data set or such a pair.
    several = isinstance(images, tuple) and len(images) == 2 and not isinstance(images[0], (list, np.ndarray))
    source = given_source(*images) if several else given_source(images)
    key = hashlib.sha256(source.identity.encode()).hexdigest()[:16]
    KNOWN[key] = source
    return DataConfig(name=GIVEN, path=key)


def find_given(config: DataConfig) -> Source:
    """Return the images that a recipe means.

    Raises:
        UserError: They were given to another process.
    """
    if config.path not in KNOWN:
        raise UserError(
            "the images of this run were given in Python, and this process does not have them: call dasvit.search or "
            "dasvit.train with the same images again."
        )
    return KNOWN[config.path]


def _read(images: Any) -> _Given:
    """Return images with their labels, and the names of their classes."""
    if isinstance(images, tuple) and len(images) == 2:
        return _arrays(*images)
    if hasattr(images, "features") and hasattr(images, "column_names"):
        return _hugging_face(images)
    if (
        hasattr(images, "__getitem__")
        and hasattr(images, "__len__")
        and not isinstance(images, (str, list, np.ndarray))
    ):
        return _torchvision(images)
    raise UserError(f"no images can be read from a {type(images).__name__}: {WAY_OUT}.")


def _arrays(images: Any, labels: Any) -> _Given:
    pixels, found = np.asarray(images), np.asarray(labels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[-1] != 3):
        raise UserError(
            f"images must be uint8 [N, h, w] or [N, h, w, 3], not {pixels.dtype} {list(pixels.shape)}: scale values "
            "to 0 to 255, and put the colours last."
        )
    if found.ndim == 2 and len(found) == len(pixels):
        return _several(ArrayRecords(pixels), found, None, "the labels given, a column for each")
    if found.shape != (len(pixels),):
        raise UserError(f"there are {len(pixels)} images, and labels of shape {list(found.shape)}: one is needed each.")
    if np.issubdtype(found.dtype, np.floating) and (found != np.round(found)).any():
        raise UserError(
            f"the labels are fractions, as {found[found != np.round(found)][0]:g}: dasvit tells classes apart, and "
            "does not predict numbers (regression). Turn them into classes."
        )
    return _Given(ArrayRecords(pixels), found, tuple(map(str, np.unique(found).tolist())), False, "the labels given")


def _torchvision(dataset: Any) -> _Given:
    targets = getattr(dataset, "targets", None)
    if targets is None:
        targets = [dataset[row][1] for row in range(len(dataset))]
    return _numbered(_Items(dataset, 0), targets, getattr(dataset, "classes", None), "the data set's own labels")


def _hugging_face(dataset: Any) -> _Given:
    features = dataset.features
    images = [name for name, kind in features.items() if type(kind).__name__ == "Image"] or ["image"]
    labels = [name for name, kind in features.items() if hasattr(kind, "names")] or ["label"]
    image, label = the_one(images, IMAGE_NAMES), the_one(labels, LABEL_NAMES)
    if not image or not label:
        several = labels if image else images
        raise UserError(
            f"the data set has several columns that could be meant ({', '.join(several)}): remove all but one of them "
            "with its method remove_columns."
        )
    if image not in features or label not in features:
        raise UserError(f"the data set has the columns {', '.join(features)}: it needs an image and a class label.")
    whence = f"column {label}; images: column {image}"
    return _numbered(_Items(dataset, image), dataset[label], getattr(features[label], "names", None), whence)


def _numbered(items: _Items, targets: Any, classes: Sequence[str] | None, whence: str) -> _Given:
    if len(targets) and np.ndim(targets[0]) == 1:
        try:
            found = np.asarray([np.asarray(label) for label in targets])
        except ValueError:  # of various lengths
            found = np.empty((len(targets), 0))
        return _several(ObjectRecords(items, np.arange(len(targets))), found, classes, whence)
    labels = np.asarray([int(label) for label in targets], dtype=np.int64)
    names = tuple(map(str, classes or range(int(labels.max(initial=-1)) + 1)))
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(f"labels run from {labels.min()} to {labels.max()}, but there are {len(names)} classes.")
    return _Given(ObjectRecords(items, np.arange(len(labels))), labels, names, True, whence)


def _several(records: Records, labels: NDArray[Any], classes: Sequence[str] | None, whence: str) -> _Given:
    """Return images of several labels, which are given as 0 and 1 for each class.

    Raises:
        UserError: They are something else.
    """
    names = tuple(map(str, classes or range(labels.shape[1])))
    if not labels.shape[1] or len(names) != labels.shape[1] or not np.isin(labels, (0, 1)).all():
        raise UserError(
            f"labels of shape {list(labels.shape)} must be 0 or 1, a column for each of {len(names)} classes: an image "
            "has one label, or several as 0 and 1 (numbers to predict, regression, are not supported)."
        )
    return _Given(records, labels.astype(np.int64), names, True, whence)


def pixels_of(image: Any) -> Pixels:
    """Return an image of a data set as uint8 [h, w] or [h, w, 3], or as deeper grey levels [h, w] where it is PIL's.

    Raises:
        UserError: It is neither a picture of PIL's nor an array of uint8 (a tensor of a transform, say).
    """
    if isinstance(image, Image.Image):
        return np.asarray(image if image.mode == "L" or is_deep(image) else to_rgb(image))
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise UserError(
            f"an image of the data set is {type(image).__name__} of {array.dtype}: give the data set without "
            "transforms, so that its images are PIL's or uint8 arrays."
        )
    return array


def _digest(part: Part) -> str:
    """Return what tells images and labels from others."""
    digest = hashlib.sha256(part.labels.tobytes())
    for _, image in part.records:
        assert isinstance(image, np.ndarray)
        digest.update(str(image.shape).encode() + image.tobytes())
    return digest.hexdigest()
