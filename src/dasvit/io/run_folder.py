"""The run folder: what a run writes, and where (`docs/run-folder.md`)."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.errors import UserError, listed
from dasvit.io.files import SUFFIX, append_line, read_object, sweep, write_whole
from dasvit.io.shipped import find_shipped, is_shipped, shipped_names

LOCK = ".lock"
"""The file that a process holds while it writes into a run folder."""
HEAD = {"config.yaml", "environment.json", "data.json", "held_out.txt", "report.html"}
"""What is written before a run's first epoch."""
LONGEST_VALUE = 60
"""Letters of a value that a message shows."""
PACKAGES = ("dasvit", "torch", "torchvision", "timm", "accelerate", "numpy")


class RunFolder:
    """One run's folder.

    Attributes:
        path: The folder.
        kind: What runs in it: search or train.
    """

    def __init__(self, path: str | Path, kind: str) -> None:
        self.path = Path(path)
        self.kind = kind

    def open(
        self, config: Config, subject: str, resume: bool = False, init: str = "", may_be_longer: bool = False
    ) -> None:
        """Make the folder this run's own, or find that it already is.

        The same run (kind, subject, first weights and configuration) may come back, to go on where it stopped.

        Args:
            config: The resolved configuration.
            subject: What is run, as the name of the cell that is trained.
            resume: The run must be there already.
            init: Checksum of the trained weights that it begins with. Empty: with fresh ones.
            may_be_longer: A training that has ended may come back with more epochs.

        Raises:
            UserError: The folder holds something else, or cannot be written; or there is nothing to resume.
        """
        identity = {"kind": self.kind, "subject": subject, **({"init": init} if init else {})}
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: give --run the name of a folder.")
        if self._has_begun():
            if not self.config_path.exists() or not self.identity():
                raise UserError(f"{self.path} is not empty and holds no run: give --run another folder.")
            kept = recipes.load(self.config_path, searching=self.kind == "search")
            changes = {**differences(self.identity(), identity), **differences(_fields(kept), _fields(config))}
            if may_be_longer and changes.keys() == {"train.epochs"} and config.train.epochs > kept.train.epochs:
                self._lengthen(config, kept.train.epochs)
            elif changes:
                raise UserError(
                    f"{self.path} already holds another run ({self.identity().get('kind', 'unknown')}), which has "
                    f"{_described(changes)}: give --run another folder, or the same configuration"
                    f"{' and first weights' if init else ''} to go on."
                )
            for folder in (self.path, self.path / "model"):
                sweep(folder)
            return
        if resume and not self.identity():
            raise UserError(f"there is no run in {self.path} to resume: leave out --resume to start one.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # In this order: a lone config.yaml is never ours, so it is never written over.
            self.write_json("environment.json", {**identity, **describe_environment(config)})
            self.write_text("config.yaml", recipes.to_yaml(config))
        except OSError as error:
            raise UserError(f"cannot write the run folder {self.path}: {error.strerror}.") from None

    def _lengthen(self, config: Config, before: int) -> None:
        """Let a training that has ended go on to more epochs; its model stays until the new one is there.

        Raises:
            UserError: It has not ended, or its state is gone.
        """
        if not (self.path / "result.json").exists():
            raise UserError(
                f"the training in {self.path} has not come to the end of its {before} epochs yet: let it end with "
                f"--train.epochs {before}, then give --train.epochs {config.train.epochs} to go on."
            )
        if not self.checkpoints.is_dir() or not any(self.checkpoints.iterdir()):
            raise UserError(f"{self.checkpoints} holds no state to go on from: give --run another folder.")
        self.note(lengthened_after=[*self.notes().get("lengthened_after", []), before])
        (self.path / "result.json").unlink()  # first: without it, and with the old recipe, the training ends once more
        self.write_text("config.yaml", recipes.to_yaml(config))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from writing into the folder.

        The lock is the operating system's (`flock`), on a file that stays: it goes with the process, however that ends,
        and holds between the machines of a network file system that has locks.

        Raises:
            UserError: Another process writes into it now, or the folder cannot be made.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: give --run the name of a folder.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK, blocking=False)
            lock.acquire()
        except Timeout:
            raise UserError(
                f"another process writes into {self.path} now: wait until it has ended, or give --run another folder."
            ) from None
        except NotImplementedError:  # a file system without locks
            yield
            return
        except OSError as error:
            raise UserError(f"cannot write the run folder {self.path}: {error.strerror}.") from None
        try:
            yield
        finally:
            lock.release()
            if not self.identity():  # no run began: what was refused leaves nothing
                (self.path / LOCK).unlink(missing_ok=True)
                if not any(self.path.iterdir()):
                    self.path.rmdir()

    def _has_begun(self) -> bool:
        """Tell whether the folder holds more than the head of a run that failed before its first epoch."""
        if not self.path.exists():
            return False
        names = {path.name for path in self.path.iterdir() if not path.name.endswith(SUFFIX)} - {LOCK}
        return bool(names) and not (names <= HEAD and self.identity())

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Where the run's state is kept."""
        return self.path / "checkpoints"

    def identity(self) -> dict[str, Any]:
        """Return the kind and subject of the run that is in the folder, and what weights it began with."""
        return {key: value for key, value in self.notes().items() if key in ("kind", "subject", "init")}

    def notes(self) -> dict[str, Any]:
        """Return what `environment.json` holds."""
        return read_object(self.path / "environment.json")

    def note(self, **facts: Any) -> None:
        """Add facts to `environment.json`."""
        self.write_json("environment.json", {**self.notes(), **facts})

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the folder at once: readers see the old one or the new one.

        A command line may hold bytes that are no text; they stand as escapes, which JSON reads back.
        """
        write_whole(self.path / name, text.encode(errors="backslashreplace"))

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the folder at once."""
        self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Append one line to a JSON-lines file."""
        append_line(self.path / name, json.dumps(row, ensure_ascii=False))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of a JSON-lines file, none where it is not there; half a line at the end does not count.

        Raises:
            UserError: A line is not JSON.
        """
        path = self.path / name
        rows = []
        for number, line in enumerate(_whole_lines(path), start=1):
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise UserError(f"{path}: line {number} is not JSON.") from None
        return rows

    def truncate(self, name: str, count: int, exact: bool = True) -> None:
        """Drop all lines of a JSON-lines file but the first few: those (or parts of one) after the last checkpoint.

        Args:
            name: The file.
            count: Lines to keep.
            exact: Fewer than these are an error.

        Raises:
            UserError: There are fewer.
        """
        path = self.path / name
        lines = _whole_lines(path)
        if exact and len(lines) < count:
            raise UserError(
                f"{path} has {len(lines)} lines, but the checkpoint knows of {count}: put the file back as it was, or "
                f"delete {self.checkpoints} to start the run again."
            )
        if path.exists():
            write_whole(path, b"".join(lines[:count]))


def comparable(config: Config) -> Config:
    """Return a configuration as it is compared with another: its weights whole, its paths as what they mean.

    Processes that share weights go on with a run that did not, and the other way round. A run's latency table is its
    own copy, wherever the first one lay.
    """
    places = {name: os.path.realpath(place) for name in ("path", "csv") if (place := getattr(config.data, name))}
    search = replace(config.search, latency=replace(config.search.latency, table=""))
    runtime, train = replace(config.runtime, shard=False), replace(config.train, teacher=placed(config.train.teacher))
    return replace(config, data=replace(config.data, **places), search=search, runtime=runtime, train=train)


def placed(teacher: str) -> str:
    """Return where a teacher lies, as its absolute path; a name of timm's as it is."""
    path = os.path.expanduser(teacher)
    return os.path.realpath(path) if teacher and os.path.exists(path) else teacher


def _fields(config: Config) -> dict[str, Any]:
    return recipes.flatten(recipes.to_dict(comparable(config)))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the fields whose values differ, with both values."""
    return {key: (before.get(key), now.get(key)) for key in {**before, **now} if before.get(key) != now.get(key)}


def _described(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Return fields with what they were and what was asked for, as train.epochs 2 (not 3)."""
    said = [f"{key} {_value(before)} (not {_value(now)})" for key, (before, now) in changes.items()]
    return listed(said)


def _value(value: Any) -> str:
    """Return a value in a few letters; a cell's subject is its whole JSON."""
    text = "none" if value is None else "''" if value == "" else " ".join(str(value).split())
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that end, none where it is not there."""
    return [line + b"\n" for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def find_run(path: str | Path) -> Path | None:
    """Return the run folder that a path is, or that a file or folder of a run (`model/`, `derived/*.json`) lies in."""
    if not str(path) or not Path(path).exists():
        return None
    for folder in [Path(path), *list(Path(path).parents)[:2]]:
        if (folder / "config.yaml").is_file() and (folder / "environment.json").is_file():
            return folder
    return None


def find_model(path: str | Path) -> Path:
    """Return the model folder of a path: itself, its `model/`, or that of the training inside a search's folder.

    A name of `shipped_names()` is that model, unless something of that name lies here.

    Raises:
        UserError: There is none.
    """
    if not Path(path).exists():
        if shipped := find_shipped(str(path)):
            return shipped
        raise UserError(
            f"there is no model {path}: give a run folder of `dasvit train`, a model folder, or the name of a model "
            f"that comes with dasvit ({', '.join(shipped_names())})."
        )
    for inner in ("", "model", "train/model"):
        if (Path(path) / inner / "config.json").is_file():
            return Path(path) / inner
    raise UserError(f"{path} holds no trained model: train one with `dasvit train --cell {path}`.")


def place_for(model: Path) -> Path:
    """Return the folder that what is made of a model goes into, by the model's folder: its run's, or its own.

    Nothing is written into the package: for a model that comes with it, a folder of its name below runs/.
    """
    return Path("runs") / model.name if is_shipped(model) else find_run(model) or model


def describe_environment(config: Config) -> dict[str, Any]:
    """Return versions, machine, seed and command: what a reader needs to repeat the run."""
    return {
        "command": sys.argv,
        "seed": config.runtime.seed,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
