import os
from pathlib import Path

import pytest
import torch

# Nothing is downloaded by a test, and workers that share two cores do not fight over threads.
os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Decoded images go to a folder of the test session."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("DASVIT_CACHE", str(folder))
    return folder
