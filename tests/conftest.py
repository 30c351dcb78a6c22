import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from helpers import SMALL, Faults, ForkServer, call_cli
from runs import COMMANDS

# Nothing is downloaded by a test, and workers that share two cores do not fight over threads.
os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)
# Warnings are errors here; said once in a process, one would strike whichever test comes first.
torch.set_warn_always(True)


# The same cases every time in `make test`; HYPOTHESIS_PROFILE=nightly (or --hypothesis-profile) tries more, new ones.
_UNUSUAL = list(HealthCheck)
settings.register_profile("short", max_examples=25, derandomize=True, deadline=None, suppress_health_check=_UNUSUAL)
settings.register_profile("nightly", max_examples=500, deadline=None, database=None, suppress_health_check=_UNUSUAL)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search's run folder with the training of its cell in it, as small as they come; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "small"
    for arguments in (["search", *SMALL, "--run", run], ["train", "--cell", run]):
        status, _, err = call_cli(*arguments)
        assert status == 0, err
    return run


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Decoded images go to a folder of the test session."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("DASVIT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASVIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        process = ForkServer(tmp_path_factory.mktemp("forks") / "output")
    yield process
    process.close()


@pytest.fixture(scope="session")
def undisturbed(forks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, float]]:
    """The run folder of each command, and its seconds, when nothing happens."""
    runs = {}
    for kind, command in COMMANDS.items():
        run = tmp_path_factory.mktemp("undisturbed") / kind
        start = time.perf_counter()
        assert forks.run(*command, "--run", run) == 0, forks.said()
        runs[kind] = run, time.perf_counter() - start
    return runs


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """What a test provokes, and what it survives; the sums of all tests are shown at the end."""
    tally = Faults()
    yield tally
    request.node.user_properties.append(("faults", tally.counts))


TALLY: dict[str, list[int]] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a test that is marked with a fault's name count as that fault, once."""
    item.user_properties += [("fault", mark.args[0]) for mark in item.iter_markers("fault")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for fault in (str(value) for name, value in report.user_properties if name == "fault"):
            count(fault, 1, int(report.passed))
    if report.when == "teardown":
        for counts in (value for name, value in report.user_properties if name == "faults"):
            assert isinstance(counts, dict)
            for fault, (provoked, survived) in counts.items():
                count(fault, provoked, survived)


def count(fault: str, provoked: int, survived: int) -> None:
    total = TALLY.setdefault(fault, [0, 0])
    total[0] += provoked
    total[1] += survived


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the faults as the table that docs/reliability.md holds."""
    if TALLY and terminalreporter.config.option.markexpr != "not faults":
        rows = "".join(
            f"| {fault} | {provoked} | {survived} |\n" for fault, (provoked, survived) in sorted(TALLY.items())
        )
        head = "| fault | provoked | survived with nothing lost |\n|---|---|---|\n"
        terminalreporter.write(f"\n{head}{rows}\n")
