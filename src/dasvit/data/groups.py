"""Groups: images that must not be split, as those of a patient or rotated copies of one another."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import numpy as np

from dasvit.config import DataConfig
from dasvit.data.listing import Content, FileRecords, Part
from dasvit.errors import UserError, printable


def with_groups(content: Content, config: DataConfig) -> Content:
    """Return what is in a source with the groups that a recipe's pattern finds in the paths of its images.

    Raises:
        UserError: The pattern is none, matches no image, or the images are no files.
    """
    if not config.groups:
        return content
    try:
        pattern = re.compile(config.groups)
    except re.error as error:
        raise UserError(f"--data.groups {config.groups!r} is no regular expression ({error}).") from None
    parts = [None if part is None else _grouped(part, pattern, config) for part in (content.train, content.test)]
    if not any(part is not None and part.groups is not None and part.groups.any() for part in parts):
        raise UserError(
            f"--data.groups {config.groups!r} matches no path of an image below {config.path or config.name}: it is "
            "looked for in paths as CLASS/NAME.jpg."
        )
    return replace(content, train=parts[0], test=parts[1])


def _grouped(part: Part, pattern: re.Pattern[str], config: DataConfig) -> Part:
    if not isinstance(part.records, FileRecords):
        raise UserError("--data.groups looks at the paths of image files: parquet files have --data.group_column.")
    root = os.path.expanduser(config.path)
    found = []
    for path in part.records.paths:
        match = pattern.search(os.path.relpath(path, root).replace(os.sep, "/"))
        found.append((match[1] if pattern.groups else match[0]) or "" if match else "")
    return replace(part, groups=np.array(found, dtype=np.str_))


def say_groups(train: Part, test: Part) -> list[str]:
    """Return remarks on groups: how many there are, and those that stand in both parts."""
    if train.groups is None or test.groups is None:
        return []
    ours, theirs = (
        {name for name in part.groups.tolist() if name} for part in (train, test) if part.groups is not None
    )
    alone = sum(int((part.groups == "").sum()) for part in (train, test) if part.groups is not None)
    said = [f"{len(ours | theirs):,} groups" + (f", and {alone:,} images of none" if alone else "")]
    both = sorted(ours & theirs)
    if both:
        names = ", ".join(map(printable, both[:3])) + (", …" if len(both) > 3 else "")
        count = int(np.isin(test.groups, both).sum())
        said.append(
            f"{len(both):,} groups stand in both train and test ({names}; {count:,} test images): how the model does "
            "on them says little of others"
        )
    return said
