"""Which option was meant by one that there is none of."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

LIKE = 0.75
"""Likeness (difflib's ratio) from which two words may be the same, mistyped."""
ELSEWHERE = {
    "pretrained": "--init",
    "checkpoint": "--init",
    "weights": "--init",
    "arch": "--model",
    "learning-rate": "--train.optim.lr",
    "wd": "--train.optim.weight_decay",
    "amp": "--runtime.precision",
    "fp16": "--runtime.precision",
    "bf16": "--runtime.precision",
    "dtype": "--runtime.precision",
    "gpu": "--runtime.device",
    "gpus": "--runtime.device",
    "num-workers": "--runtime.workers",
    "data-dir": "--data.path",
    "data-path": "--data.path",
    "dataset": "--data.name",
    "img-size": "--model.image_size",
    "depth": "--model.layers",
    "output": "--run",
    "output-dir": "--run",
    "out": "--run",
    "outdir": "--run",
    "log-dir": "--run",
    "name": "--run",
}
"""What other programs call an option, and what it is called here."""


def near_options(wrong: str, known: Sequence[str]) -> list[str]:
    """Return the options that may have been meant, at most two; none where nothing is alike.

    An option is known by its whole name, a field also by its last word: --epochs is --train.epochs.

    Args:
        wrong: What was written.
        known: The options that there are, those of the command itself first.
    """
    word = _plain(wrong)
    if "." not in word:
        named = [option for option in known if _plain(option).rpartition(".")[2] == word]
        if named:
            return named[:2]
        meant = ELSEWHERE.get(word, "")
        if meant in known or meant == "--model":
            return [meant]
    whole = {_plain(option): option for option in known}
    lasts = {} if "." in word else {plain.rpartition(".")[2]: option for plain, option in reversed(whole.items())}
    names = {**lasts, **whole}
    swapped = [name for name in names if len(name) == len(word) and sorted(name) == sorted(word)]  # two letters, as rnu
    return [names[near] for near in swapped[:1] or difflib.get_close_matches(word, names, n=1, cutoff=LIKE)]


def _plain(option: str) -> str:
    """Return an option without its dashes in front, and with - for _."""
    return option.lstrip("-").replace("_", "-")
