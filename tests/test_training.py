import itertools
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, top_k_accuracy_score
from torch import nn

from dasvit.api.recipe import make_config
from dasvit.cell.genotype import PUBLISHED
from dasvit.config import Config, OptimConfig, RuntimeConfig
from dasvit.config import recipe as recipes
from dasvit.data import Preprocess, load_data
from dasvit.errors import UserError
from dasvit.io.run_folder import RunFolder
from dasvit.models.baselines import make_network
from dasvit.runtime.checkpoint import Damaged, load_checkpoint, read_checkpoint, save_checkpoint
from dasvit.runtime.distributed import (
    Runtime,
    bfloat16_slowdown,
    find_device,
    measure_precision,
    reseed,
    seed_everything,
)
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import NEVER, Saver
from dasvit.session import load_session
from dasvit.training.evaluation import evaluate
from dasvit.training.loop import Trained, train
from dasvit.training.optim import make_optimizer, make_schedule
from helpers import TINY_TRAINING, cut_off, merge, untimed


def make(**changes: Any) -> Config:
    return recipes.from_dict(merge(TINY_TRAINING, changes), searching=False)


def run_training(config: Config, folder: Path) -> Trained:
    session = load_session(config, str(folder), "train", Reporter(quiet=True))
    session.claim("cell")
    seed_everything(config.runtime.seed)
    model = make_network(PUBLISHED["dasvit_cifar10"], config.model, session.classes, config.train.drop_path)
    return train(model, session)


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_one_seed_gives_identical_weights_and_another_seed_others(tmp_path: Path) -> None:
    first = weights(run_training(make(), tmp_path / "a"))
    assert same(weights(run_training(make(), tmp_path / "b")), first)
    assert not same(weights(run_training(make(runtime={"seed": 1}), tmp_path / "c")), first)


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_training_cut_off_after_an_epoch_ends_as_if_it_had_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    whole = run_training(make(), tmp_path / "whole")
    cut_off(monkeypatch, stop_after, lambda: run_training(make(), tmp_path / "cut"))
    cut = run_training(make(), tmp_path / "cut")
    assert same(weights(cut), weights(whole)) and cut.evaluation == whole.evaluation
    metrics = [untimed(tmp_path / name / "metrics.jsonl") for name in ("cut", "whole")]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 3


def test_training_learns(tmp_path: Path) -> None:
    plain = {"mixup": 0.0, "cutmix": 0.0, "erasing": 0.0, "crop_padding": 0}
    section = {"epochs": 25, "ema": 0.0, "drop_path": 0.0, "augment": plain, "eval_every": 25, "optim": {"lr": 3e-3}}
    config = make(data={"limit": 0, "eval_limit": 0}, train=section)
    assert run_training(config, tmp_path).evaluation.top1 > 60


def test_evaluation_against_scikit_learn() -> None:
    config = make()
    data = load_data(config.data, 8, 0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    pixels = torch.from_numpy(data.test.images[np.arange(100)]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(data.test.labels)
    batches = [(pixels[i : i + 33], labels[i : i + 33]) for i in range(0, 100, 33)]
    judged = evaluate(model, Preprocess(8), batches, Runtime(config.runtime, "float32"), 10)
    with torch.no_grad():
        logits = model(Preprocess(8)(pixels)).double().numpy()
    assert judged.images == 100
    assert judged.top1 == pytest.approx(100 * (logits.argmax(1) == labels.numpy()).mean())
    assert judged.top5 == pytest.approx(100 * top_k_accuracy_score(labels, logits, k=5, labels=range(10)))
    assert judged.confusion == confusion_matrix(labels, logits.argmax(1), labels=range(10)).tolist()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert judged.loss == pytest.approx(-np.log(shares[np.arange(100), labels]).mean(), rel=1e-5)


def test_schedule_is_a_cosine_with_a_warm_up() -> None:
    model = nn.Linear(2, 2)
    config = OptimConfig(lr=1.0, min_lr=0.1, warmup_epochs=1, warmup_lr=0.0)
    optimizer = make_optimizer(model, config)
    schedule = make_schedule(optimizer, config, epochs=5, steps=10)
    rates = []
    for step in range(51):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == 0 and rates[5] == pytest.approx(0.5)
    for step in range(10, 50):
        assert rates[step] == pytest.approx(0.1 + 0.45 * (1 + np.cos(np.pi * step / 50)))
    assert rates[50] == pytest.approx(0.1)


def test_vectors_positions_and_class_token_are_spared_the_decay() -> None:
    model = make_network(PUBLISHED["dasvit_cifar10"], make().model, 10, make().train.drop_path)
    optimizer = make_optimizer(model, OptimConfig(weight_decay=0.05))
    spared = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in spared}
    assert {"embed.cls_token", "embed.pos_embed", "norm.weight", "head.bias"} <= names
    assert not any(name.endswith("inner.weight") for name in names)


def test_checkpoints_keep_two(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step, "tensor": torch.arange(step)})
    (tmp_path / ".000000004.pt.tmp").write_bytes(b"half a file")
    state = load_checkpoint(tmp_path, print)
    assert state is not None and state["step"] == 3 and torch.equal(state["tensor"], torch.arange(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000002.pt", "000000003.pt"]
    assert torch.load(tmp_path / "000000003.pt", weights_only=True)["step"] == 3


def test_every_byte_of_a_checkpoint_counts(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"step": 1})
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Damaged):
            read_checkpoint(path)
    path.write_bytes(whole)
    assert read_checkpoint(path) == {"step": 1}


def test_no_checkpoint_and_damaged_ones(tmp_path: Path) -> None:
    said: list[str] = []
    assert load_checkpoint(tmp_path, said.append) is None and not said
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})
    (tmp_path / "000000002.pt").write_bytes(b"half a file")
    assert load_checkpoint(tmp_path, said.append) == {"step": 1}
    assert len(said) == 1 and "000000002.pt is damaged" in said[0]
    (tmp_path / "000000001.pt").write_bytes(b"")
    with pytest.raises(UserError, match="delete that folder"):
        load_checkpoint(tmp_path, said.append)


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    """Sealed as ours are, so that it is torch that refuses it."""

    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was-here",))

    path = save_checkpoint(tmp_path, 1, {"rng": Malicious()})
    with pytest.raises(Damaged, match="UnpicklingError"):
        read_checkpoint(path)
    assert not (tmp_path / "was-here").exists()


def test_random_numbers_are_a_function_of_the_place() -> None:
    def draw(*place: int) -> list[float]:
        reseed(5, *place)
        return [torch.rand(1).item(), float(np.random.rand()), random.random()]

    first = draw(1, 2)
    assert draw(1, 2) == first
    for other in (draw(2, 1), draw(1), draw(1, 3)):
        assert all(one != two for one, two in zip(first, other, strict=True))


def test_checkpoints_cost_their_share_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own: steps of a second, checkpoints of three."""
    clock = [0.0]
    monkeypatch.setattr("dasvit.runtime.saver.time.perf_counter", lambda: clock[0])

    def slow(*arguments: Any) -> None:
        clock[0] += 3
        saved.append(clock[0])

    saved: list[float] = []
    monkeypatch.setattr("dasvit.runtime.saver.save_checkpoint", slow)
    config = RuntimeConfig(device="cpu")
    with Saver(RunFolder(tmp_path, "train"), (), Runtime(config, "float32"), Reporter(quiet=True), NEVER) as saver:
        for step in range(3000):
            clock[0] += 1
            saver.step(step, dict, "")
        saver.finish(3000, dict)
    assert len(saved) * 3 <= 0.02 * clock[0]
    assert (
        max(later - earlier for earlier, later in itertools.pairwise(saved)) < 3 * 50 * 3
    )  # what the first cost beyond the guess is paid back
    assert saved[0] < 20


def test_half_a_line_is_no_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "train")
    run.append("metrics.jsonl", {"epoch": 1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2')
    assert run.rows("metrics.jsonl") == [{"epoch": 1}]
    with pytest.raises(UserError, match="knows of 2"):
        run.truncate("metrics.jsonl", 2)
    run.truncate("metrics.jsonl", 1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n'


def test_devices() -> None:
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UserError, match="unknown device"):
        find_device("quantum")
    with pytest.raises(UserError, match="is not there"):
        find_device(f"cuda:{torch.cuda.device_count()}")


def test_the_faster_precision_is_taken_and_no_random_number_is_used_up() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)

    def step() -> None:
        torch.rand(10)
        if not torch.is_autocast_enabled("cpu"):
            time.sleep(0.01)

    precision, seconds = measure_precision(torch.device("cpu"), step)
    assert precision == "bfloat16" and seconds["bfloat16"] < seconds["float32"]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("slowdown", "is_said"), [(12.0, True), (1.5, False)])
def test_a_pinned_precision_that_is_slow_here_is_said(
    slowdown: float, is_said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dasvit.session.bfloat16_slowdown", lambda device: slowdown)
    config = make_config("digits", options={"runtime.precision": "bfloat16"})
    session = load_session(config, str(tmp_path / "run"), "train", Reporter())
    session.claim("vit")
    session.settle_precision(lambda device: lambda: None)
    said = capfd.readouterr().err
    assert ("takes 12 times as long" in said and "--runtime.precision auto" in said) == is_said
    assert session.runtime.precision == "bfloat16"  # what was asked for


def test_bfloat16_is_timed_against_float32() -> None:
    assert 0.01 < bfloat16_slowdown(torch.device("cpu")) < 1000


def test_runtimes_of_two_precisions_live_in_one_process() -> None:
    config = RuntimeConfig(device="cpu")
    product = torch.ones(2, 2)
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with Runtime(config, name).autocast():  # type: ignore[arg-type]
            assert (product @ product).dtype == dtype
