"""What the command line hands a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dasvit.config import Config


@dataclass(frozen=True)
class Request:
    """A parsed command line.

    Attributes:
        command: Name of the command.
        options: Its own options by name.
        config: The resolved recipe, for commands that read one.
    """

    command: str
    options: dict[str, Any]
    config: Config | None
