import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from dasvit.config import Config
from dasvit.config import recipe as recipes
from dasvit.config.methods import with_method
from dasvit.data import load_data
from dasvit.runtime.distributed import Precision, Runtime, seed_everything
from dasvit.runtime.progress import Reporter
from dasvit.search.loop import LOGS, search, temperature
from dasvit.search.past_run import read_search
from dasvit.search.pipeline import run_search
from dasvit.search.stages import Stages
from dasvit.session import load_session
from helpers import TINY_SEARCH, cut_off, merge, untimed

SMALL = merge(TINY_SEARCH, {"search": {"tokens": {"dim": 4}, "augment": {"crop_padding": 1}}})


def make(**changes: Any) -> Config:
    return recipes.from_dict(merge(SMALL, changes))


def train_supernet(config: Config, folder: Path, precision: Precision = "float32") -> Stages:
    session = load_session(config, str(folder), "search", Reporter(quiet=True))
    session.claim(config.search.method)
    session.runtime.precision = precision
    seed_everything(config.runtime.seed)
    return search(session).stages


def lines(folder: Path, name: str = "architecture.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_one_seed_gives_identical_alphas_and_another_seed_others(tmp_path: Path) -> None:
    first = train_supernet(make(), tmp_path / "a")
    torch.rand(7)  # what happened before does not matter
    assert train_supernet(make(), tmp_path / "b") == first
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert train_supernet(make(runtime={"seed": 1}), tmp_path / "c")[-1].weights != first[-1].weights


def test_stages_grow_and_prune(tmp_path: Path) -> None:
    found = train_supernet(make(), tmp_path)
    rows = lines(tmp_path)
    assert [(row["stage"], row["epoch"], row["layers"]) for row in rows] == [
        (1, 1, 1),
        (1, 2, 1),
        (2, 1, 2),
        (2, 2, 2),
    ]
    assert all(len(row["weights"]["prev1→x1"]) == 6 for row in rows[:2])
    assert all(len(ops) == 3 for row in rows[2:] for ops in row["weights"].values())
    assert all(sum(mask) == 3 for mask in found[-1].alive)
    # the survivors of the second stage are the strongest of the first
    for edge, survivors in rows[2]["weights"].items():
        last = rows[1]["weights"][edge]
        assert set(survivors) == set(sorted(last, key=lambda op: -last[op])[:3])


def test_alpha_rests_in_the_weights_only_epochs(tmp_path: Path) -> None:
    train_supernet(make(), tmp_path)
    rows = lines(tmp_path)
    for ops in rows[0]["weights"].values():  # as at the start: near uniform
        assert max(ops.values()) - min(ops.values()) < 0.01
    assert any(max(ops.values()) - min(ops.values()) > 0.01 for ops in rows[1]["weights"].values())
    metrics = lines(tmp_path, "metrics.jsonl")
    assert "val_loss" not in metrics[0] and "val_loss" in metrics[1]
    assert {"train_loss", "lr", "seconds", "images_per_second", "peak_memory_mib"} <= set(metrics[0])


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_run_cut_off_after_an_epoch_ends_as_if_it_had_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    config = make(search={"relaxation": "gumbel_softmax", "augment": {"erasing": 0.5}})
    whole = train_supernet(config, tmp_path / "whole")
    cut_off(monkeypatch, stop_after, lambda: train_supernet(config, tmp_path / "cut"))
    torch.rand(5)
    assert train_supernet(config, tmp_path / "cut") == whole
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    metrics = [untimed(tmp_path / name / "metrics.jsonl") for name in ("cut", "whole")]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 4


@pytest.mark.parametrize("checkpoints", [True, False])
def test_lines_after_the_last_checkpoint_are_written_anew(tmp_path: Path, checkpoints: bool) -> None:
    """A death between a line and its checkpoint leaves a surplus line, perhaps half of it."""
    whole = train_supernet(make(), tmp_path / "a")
    expected = lines(tmp_path / "a")
    if not checkpoints:
        shutil.rmtree(tmp_path / "a" / "checkpoints")
    for name in LOGS:
        with (tmp_path / "a" / name).open("a") as file:
            file.write('{"stage": 2, "epo')
    assert train_supernet(make(), tmp_path / "a") == whole
    assert lines(tmp_path / "a") == expected and len(lines(tmp_path / "a", "metrics.jsonl")) == 4


def test_workers_and_bfloat16(tmp_path: Path) -> None:
    whole = train_supernet(make(), tmp_path / "0")
    assert train_supernet(make(runtime={"workers": 1}), tmp_path / "1") == whole
    low = train_supernet(make(), tmp_path / "low", "bfloat16")
    assert low != whole and all(abs(sum(row) - 1) < 1e-5 for row in low[-1].weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": {"ratio": 1.0}},
        {"order": 2},
        {"relaxation": "sigmoid"},
        {"relaxation": "gumbel_softmax", "temperature": 5.0, "final_temperature": 0.1},
        {"fairness": {"skip": 0.0, "types": 0.0}},
        {"stages": {"inherit": "both"}},
        {"stages": {"layers": [1], "keep": [0], "epochs": [2], "weight_epochs": [0]}},
    ],
    ids=str,
)
def test_every_part_can_be_switched(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = train_supernet(make(search=changes), tmp_path / "changed")[-1]
    usual = train_supernet(make(), tmp_path / "usual")[-1]
    assert found.weights != usual.weights, "the switch changes nothing"
    last = len(make(search=changes).search.stages.epochs)
    assert [row["stage"] for row in lines(tmp_path / "changed")][-1] == last
    independent = changes.get("relaxation") == "sigmoid"
    for row, mask in zip(found.weights, found.alive, strict=True):
        assert all((weight > 0) == alive for weight, alive in zip(row, mask, strict=True))
        assert independent or sum(row) == pytest.approx(1, abs=1e-5)


def test_three_nodes(tmp_path: Path) -> None:
    assert len(train_supernet(make(space={"nodes": 3}), tmp_path)[-1].weights) == 9


def test_second_order_moves_alpha_elsewhere(tmp_path: Path) -> None:
    first, second = (train_supernet(make(search={"order": order}), tmp_path / str(order)) for order in (1, 2))
    assert first[-1].weights != second[-1].weights


def test_fairness_pushes_identity_down(tmp_path: Path) -> None:
    def mean_identity(strength: float) -> float:
        config = make(search={"fairness": {"skip": strength}})
        train_supernet(config, tmp_path / str(strength))
        return float(lines(tmp_path / str(strength))[1]["mean_weights"]["identity"])

    assert mean_identity(50.0) < mean_identity(0.0)


def test_temperature_falls_geometrically() -> None:
    config = make(search={"temperature": 8.0, "final_temperature": 1.0})
    assert [temperature(config, done) for done in range(4)] == pytest.approx([8, 4, 2, 1])


def test_the_test_set_is_never_looked_at(tmp_path: Path) -> None:
    from dasvit.search.state import SearchBatches

    config = make()
    data = load_data(config.data, 8, 0)
    batches = SearchBatches(data, config, Runtime(config.runtime, "float32"))
    used = [set(loader.batches.indices.tolist()) for loader in (batches.train, batches.val)]
    assert not used[0] & used[1]
    assert used[0] | used[1] == set(range(200))
    assert batches.train.batches.images is data.train and batches.val.batches.images is data.train


def test_a_loss_that_is_not_a_number_stops_the_run_with_a_sentence(tmp_path: Path) -> None:
    from dasvit.errors import UserError

    with pytest.raises(UserError, match=r"Lower search\.weights\.lr"):
        train_supernet(make(search={"weights": {"lr": 1e30, "min_lr": 1e30}}), tmp_path)


def test_a_run_folder_reads_back_what_the_search_found(tmp_path: Path) -> None:
    config = make()
    found = run_search(config, str(tmp_path), Reporter(quiet=True))
    past = read_search(tmp_path)
    assert past.config == config and past.classes == 10 and past.stages is not None and len(past.stages) == 2
    assert past.stages == found.stages
    assert json.loads((tmp_path / "genotype.json").read_text()) == found.found.to_dict()
    for weights, alive, _ in past.stages:
        assert all(abs(sum(row) - 1) < 1e-6 for row in weights)
        assert all(
            (w > 0) == a for row, mask in zip(weights, alive, strict=True) for w, a in zip(row, mask, strict=True)
        )


def test_the_terminal_shows_how_far_a_search_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage, epoch, step, losses, the leading operation of every edge, images/s and the time left."""
    monkeypatch.setattr("dasvit.runtime.progress.EVERY", 0)
    reporter, terminal = Reporter(), io.StringIO()
    reporter.console = Console(file=terminal, force_terminal=True, width=200, color_system=None)
    run_search(make(), str(tmp_path / "run"), reporter)
    shown = terminal.getvalue()
    assert re.search(r"stage 2/2, epoch 2/2 .* [1-4]/4", shown)
    assert re.search(r"loss \d\.\d{3}, val loss \d\.\d{3}, val top-1 .*; \d+ images/s; about .* left", shown)
    leading = re.search(r"prev2→x1 \S+ 0\.\d\d   prev1→x1 .*   x1→x2 (\S+) 0\.\d\d", shown)
    assert leading and leading[1] in ("zero", "identity", "msa_2", "msa_4", "mlp_0.5", "mlp_1")


def test_the_temperature_falls_geometrically_or_linearly() -> None:
    """From 10 to 0.1 in four epochs; GDAS's falls linearly."""
    config = make(search={"temperature": 10.0, "final_temperature": 0.1})
    assert [temperature(config, done) for done in range(4)] == pytest.approx([10, 10 ** (1 / 3), 10 ** (-1 / 3), 0.1])
    config.search.annealing = "linear"
    assert [temperature(config, done) for done in range(4)] == pytest.approx([10, 6.7, 3.4, 0.1])
    assert with_method(make(), "gdas").search.annealing == "linear"


@pytest.mark.parametrize("schedule", ["stage", "search"])
def test_the_cosine_begins_anew_in_each_stage_or_is_one(tmp_path: Path, schedule: str) -> None:
    """Two stages of two epochs of four steps; the rate logged is that after an epoch's last step."""
    train_supernet(make(search={"schedule": schedule, "weights": {"lr": 1.0, "min_lr": 0.0}}), tmp_path)
    rates = [row["lr"] for row in lines(tmp_path, "metrics.jsonl")]
    ends = [4 / 8, 1, 4 / 8, 1] if schedule == "stage" else [4 / 16, 8 / 16, 12 / 16, 1]
    assert rates == pytest.approx([(1 + math.cos(math.pi * share)) / 2 for share in ends], abs=1e-6)
