"""Print the oldest versions that pyproject.toml allows, as pip constraints."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["hub"]]:
    print(re.sub(r"\[.*?\]", "", requirement).replace(">=", "=="))
