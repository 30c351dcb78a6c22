"""Print the oldest versions that pyproject.toml allows, as pip constraints."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
for requirement in [
    *project["dependencies"],
    *extras["hub"],
    *extras["ptflops"],
    *extras["export"],
    *extras["cluster"],
]:
    print(re.sub(r"\[.*?\]", "", requirement).replace(">=", "=="))
