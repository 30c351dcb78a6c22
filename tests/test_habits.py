"""What runs when: make's map, the workflows and pre-commit name what there is, with pyproject.toml's versions."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dasvit._version import __version__

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE, re.M)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(name: str) -> dict[Any, Any]:
    content = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def commands(content: dict[Any, Any]) -> list[str]:
    return [step["run"] for job in content["jobs"].values() for step in job["steps"] if "run" in step]


def test_help_lists_every_target() -> None:
    assert sorted(re.findall(r"^\t@echo \"make ([a-z-]+) ", MAKEFILE, re.M)) == sorted({*TARGETS} - {"help"})
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    assert phony and sorted(phony[1].split()) == sorted(TARGETS)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_is_there(path: Path) -> None:
    content = workflow(path.stem)
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert job["timeout-minutes"] and all(("uses" in step) != ("run" in step) for step in job["steps"])
    for command in commands(content):
        assert {*re.findall(r"make ([a-z-]+)", command)} <= {*TARGETS}
        assert all((ROOT / script).is_file() for script in re.findall(r"python (\S+\.py)", command))


def test_every_python_is_tested_and_every_check_has_its_hour() -> None:
    pythons = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert workflow("test")["jobs"]["test"]["strategy"]["matrix"]["python"] == pythons
    for name, command in (("floors", "make test-floors"), ("faults", "make test-faults")):
        content = workflow(name)
        assert content[True]["schedule"] and commands(content)[0].startswith(command)  # yaml reads `on` as true


def test_a_release_is_published_without_a_password() -> None:
    release = workflow("release")
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert release["jobs"]["publish"]["needs"] == "build" and "make wheel" in " ".join(commands(release))
    (pattern,) = re.findall(r"sed -n 's/(.*)/\\1/p'", " ".join(commands(release)))
    version = (ROOT / "src" / "dasvit" / "_version.py").read_text(encoding="utf-8")
    found = re.search(pattern.replace(r"\(", "(").replace(r"\)", ")"), version, re.M)
    assert found and found[1] == __version__


def test_pre_commit_has_the_ruff_of_the_project() -> None:
    (ours,) = (name for name in PROJECT["optional-dependencies"]["dev"] if name.startswith("ruff"))
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [hook["entry"].split()[:2] for hook in repo["hooks"]] == [["ruff", "check"], ["ruff", "format"]]
    assert all(hook["additional_dependencies"] == [ours] for hook in repo["hooks"])


def test_make_test_faults_runs_every_test_that_counts_faults() -> None:
    """A test file counts faults by the fixture, by a marker, or by `record`: none of them may be left out."""
    said = subprocess.run(["make", "-n", "test-faults"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    counting = ("faults: " + "Faults", "mark." + "fault", "record(" + "record_property")
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        counts = any(word in path.read_text(encoding="utf-8") for word in counting)
        assert (f"tests/{path.name}" in said.split()) == counts, path.name
