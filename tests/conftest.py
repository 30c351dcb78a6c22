import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from helpers import SMALL, call_cli

# Nothing is downloaded by a test, and workers that share two cores do not fight over threads.
os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)


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
