"""The run folder: what a run writes, and where (`docs/run-folder.md`)."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from dasvit import recipe as recipes
from dasvit.config import Config
from dasvit.errors import UserError

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

    def open(self, config: Config, subject: str) -> None:
        """Make the folder this run's own, or find that it already is.

        The same run (kind, subject and configuration) may come back, to go on where it stopped.

        Args:
            config: The resolved configuration.
            subject: What is run, as the name of the cell that is trained.

        Raises:
            UserError: The folder holds something else, or cannot be written.
        """
        identity = {"kind": self.kind, "subject": subject}
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: give --run the name of a folder.")
        if self._has_begun():
            if not self.config_path.exists() or not self.identity():
                raise UserError(f"{self.path} is not empty and holds no run: give --run another folder.")
            kept = recipes.load(self.config_path, searching=self.kind == "search")
            if self.identity() != identity or kept != config:
                raise UserError(
                    f"{self.path} already holds another run ({self.identity().get('kind', 'unknown')}): give --run "
                    "another folder, or the same configuration to go on."
                )
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # In this order: a lone config.yaml is never ours, so it is never written over.
            self.write_json("environment.json", {**identity, **describe_environment(config)})
            self.write_text("config.yaml", recipes.to_yaml(config))
        except OSError as error:
            raise UserError(f"cannot write the run folder {self.path}: {error.strerror}.") from None

    def _has_begun(self) -> bool:
        """Tell whether the folder holds more than the head of a run that failed before its first epoch."""
        if not self.path.exists():
            return False
        names = {path.name for path in self.path.iterdir()}
        return bool(names) and not (names <= {"config.yaml", "environment.json", "report.html"} and self.identity())

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Where the run's state is kept."""
        return self.path / "checkpoints"

    def identity(self) -> dict[str, Any]:
        """Return the kind and subject of the run that is in the folder."""
        return {key: value for key, value in self.notes().items() if key in ("kind", "subject")}

    def notes(self) -> dict[str, Any]:
        """Return what `environment.json` holds."""
        try:
            notes = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def note(self, **facts: Any) -> None:
        """Add facts to `environment.json`."""
        self.write_json("environment.json", {**self.notes(), **facts})

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the folder at once: readers see the old one or the new one."""
        temporary = self.path / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.path / name)

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the folder at once."""
        self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Append one line to a JSON-lines file."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of a JSON-lines file, none where it is not there.

        Raises:
            UserError: A line is not JSON.
        """
        path = self.path / name
        if not path.exists():
            return []
        rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise UserError(f"{path}: line {number} is not JSON.") from None
        return rows

    def truncate(self, name: str, count: int) -> None:
        """Drop all lines of a JSON-lines file but the first few: those (or parts of one) after the last checkpoint."""
        path = self.path / name
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)[:count]
            self.write_text(name, b"".join(lines).decode("utf-8"))


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

    Raises:
        UserError: There is none.
    """
    if not Path(path).exists():
        raise UserError(f"there is no model {path}: give a run folder of `dasvit train`, or a model folder.")
    for inner in ("", "model", "train/model"):
        if (Path(path) / inner / "config.json").is_file():
            return Path(path) / inner
    raise UserError(f"{path} holds no trained model: train one with `dasvit train --cell {path}`.")


def describe_environment(config: Config) -> dict[str, Any]:
    """Return versions, machine, seed and command: what a reader needs to repeat the run."""
    return {
        "command": sys.argv,
        "seed": config.runtime.seed,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
