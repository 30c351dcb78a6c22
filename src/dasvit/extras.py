"""Packages that only some features need."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from dasvit.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def need(extra: str, *packages: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        UserError: One is not; the text has the command that installs it.
    """
    specs = {name: importlib.util.find_spec(name) for name in packages}
    missing = [name for name, spec in specs.items() if spec is None or spec.origin is None]  # a mere folder has none
    if missing:
        raise UserError(f"this needs {' and '.join(missing)}: pip install 'dasvit[{extra}]'.")


def frame(content: Any) -> pd.DataFrame:
    """Return rows, or columns by name, as a pandas table.

    Raises:
        UserError: pandas is not installed.
    """
    need("frame", "pandas")
    import pandas as pd

    return pd.DataFrame(content)
