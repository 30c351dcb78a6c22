"""Processes that share the weights (FSDP2) train as one that holds them all; on gloo, in float64."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dasvit.config import Config, RuntimeConfig
from dasvit.config.validation import validate
from dasvit.errors import UserError
from dasvit.runtime.distributed import Runtime, layers_of
from dasvit.runtime.progress import Reporter
from dasvit.training.steps import BatchLoss, Steps
from helpers import ForkServer, call_cli
from runs import COMMANDS, difference, newest
from test_distributed import SAME

# A clipped gradient, an average of the weights, batches of 25 for two, and a last test batch of one image for both.
OPTIONS = [*SAME, "--data.limit=100", "--train.epochs=2", "--train.optim.clip_grad=0.5", "--data.eval_limit=101"]
SHARD = "--runtime.shard=true"


def command(run: Path, *more: str) -> list[str]:
    return [*COMMANDS["train"], *OPTIONS, "--run", str(run), *more]


@pytest.fixture(scope="module")
def alone(forks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one process that holds all weights."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert forks.run(*command(run), float64=True, always_save=False) == 0, forks.said()
    return run


def assert_same_end(run: Path, alone: Path) -> None:
    assert difference(newest(run), newest(alone)) < 1e-9
    assert difference(load_file(run / "model/model.safetensors"), load_file(alone / "model/model.safetensors")) < 1e-9
    names = [{str(p.relative_to(f)) for p in f.rglob("*") if p.suffix != ".pt"} for f in (run, alone)]
    assert names[0] == names[1]


def test_a_training_ends_where_one_process_does(forks: ForkServer, alone: Path, tmp_path: Path) -> None:
    """Weights, moments, average, losses; begun by one process that held everything, and killed."""
    run = tmp_path / "run"
    place = "dasvit.training.loop.weight_step"
    assert forks.run(*command(run), float64=True, place=place, call=2) != 0
    status = forks.run(*command(run, SHARD, "--resume"), float64=True, processes=2, always_save=False)
    assert status == 0, forks.said()
    assert_same_end(run, alone)
    (counts,) = re.findall(r"weights: ([\d,]+), of which this process keeps ([\d,]+)", forks.said())
    total, kept = (int(count.replace(",", "")) for count in counts)
    assert total == json.loads((run / "result.json").read_text())["params"] and 0.5 <= kept / total < 0.6


def test_one_process_goes_on_with_what_two_shared(forks: ForkServer, alone: Path, tmp_path: Path) -> None:
    run, place = tmp_path / "run", "dasvit.training.loop.weight_step"
    assert forks.run(*command(run, SHARD), float64=True, processes=2, place=place, call=4) != 0
    assert newest(run)["step"] == 3
    status = forks.run(*command(run, SHARD, "--resume"), float64=True, always_save=False)
    assert status == 0 and "this one process keeps all weights" in forks.said()
    assert_same_end(run, alone)


def test_float32_and_evaluation(forks: ForkServer, tmp_path: Path) -> None:
    """Backends may divide gradients of this type themselves. The second process gets no image of the last batch."""
    run = tmp_path / "run"
    assert forks.run(*command(run, SHARD, "--train.epochs=1"), processes=2, always_save=False) == 0, forks.said()
    said = []
    for more in ([], [SHARD]):
        arguments = ["evaluate", run, "--data.eval_limit=101", "--runtime.device=cpu", "--json", *more]
        assert forks.run(*arguments, processes=2) == 0, forks.said()
        said += [json.loads(line) for line in forks.said().splitlines() if line.startswith("{")]
    assert said[0].pop("loss") == pytest.approx(said[1].pop("loss"), rel=1e-6)
    assert said[0] == said[1] and said[0]["images"] == 101


def test_each_process_computes_as_often_as_its_peers() -> None:
    """Thirteen and twelve rows of a batch that was cut into eight: both must ask for the weights eight times."""
    for rows in (13, 12):
        steps = Steps(Runtime(RuntimeConfig(device="cpu")), Reporter(quiet=True))
        steps.runtime.shards, steps.runtime.world, steps.micro_batches = True, 2, 8
        seen: list[slice] = []

        def of(part: slice, seen: list[slice] = seen) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            seen.append(part)
            return torch.tensor(25.0), {}

        assert [float(term) for term in steps._terms(BatchLoss(rows, 25, of))] == [p.stop - p.start for p in seen]
        assert [row for part in seen for row in range(rows)[part]] == list(range(rows))
        assert len(seen) == 8


def test_too_little_memory_is_no_deadlock() -> None:
    steps = Steps(Runtime(RuntimeConfig(device="cpu")), Reporter(quiet=True))
    steps.runtime.shards = True

    def of(part: slice) -> Any:
        raise torch.OutOfMemoryError("raised by the test")

    loss = BatchLoss(4, 8, of)
    with pytest.raises(UserError, match=r"Lower train\.batch_size"):
        steps.within_memory(lambda: steps.backward(loss, []), [], loss)


def test_layers_are_the_outermost_of_a_kind() -> None:
    block = [nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(3)]
    stages = nn.ModuleList([nn.ModuleList(block[:2]), nn.ModuleList(block[2:])])
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), stages)
    assert layers_of(network) == [*block[:2], *block[2][:]]


def test_a_search_shares_nothing(tmp_path: Path) -> None:
    config = Config(runtime=RuntimeConfig(shard=True))
    with pytest.raises(UserError, match="a search keeps all of its weights"):
        validate(config)
    validate(config, searching=False)
    status, _, err = call_cli("search", "--config=digits", SHARD, "--run", tmp_path / "run")
    assert status == 2 and "a search keeps all" in err and not (tmp_path / "run").exists()
