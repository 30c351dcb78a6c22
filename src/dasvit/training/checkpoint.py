"""Checkpoints: the whole state of a run, written so that a crash leaves the one before it whole."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dasvit.errors import UserError

KEEP = 2


def rng_state() -> dict[str, Any]:
    """Return the state of every global random number generator, of types that load without pickle's code."""
    numpy: Any = np.random.get_state()  # timm's mixup draws from the global generator
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [numpy[0], torch.from_numpy(numpy[1].astype(np.int64)), *numpy[2:]],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put every global random number generator back to what `rng_state` returned."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python[0], tuple(python[1]), python[2]))
    np.random.set_state((numpy[0], numpy[1].numpy().astype(np.uint32), *numpy[2:]))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint to the side, sync and rename it, and keep the last two.

    Args:
        folder: The run's `checkpoints/`.
        step: A number that grows from one checkpoint to the next; it names the file.
        state: Tensors, numbers, strings, and lists and dictionaries of these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step:09d}.pt"
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save({**state, "rng": rng_state()}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    for old in sorted(folder.glob("*.pt"))[:-KEEP]:
        old.unlink()
    return path


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint's state, on the CPU, or None where there is none.

    The generators are set by the caller, once everything else stands, through `set_rng_state(state["rng"])`.

    Raises:
        UserError: The file is damaged.
    """
    paths = sorted(folder.glob("*.pt"))
    if not paths:
        return None
    try:
        state: dict[str, Any] = torch.load(paths[-1], map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"the checkpoint {paths[-1]} is damaged ({type(error).__name__}): delete it to go on from the one before."
        ) from None
    return state
