"""Memory: closed forms, autograd's own hooks, and the same step on a CPU against the count that needs no device."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from dasvit.config import Config, recipe
from dasvit.config.methods import METHODS, with_method
from dasvit.memory import fits
from dasvit.memory.live_bytes import FLOAT32, LOWER, Kind, LiveBytes, Pretend
from dasvit.memory.search_step import PROBE, Memory, Subject, count, make_step, subjects
from dasvit.runtime.progress import Reporter
from dasvit.search.loop import train_loss
from dasvit.search.plain_darts import PlainStep
from dasvit.search.probe import LoneRuntime, SearchStep, Step
from helpers import TINY_SEARCH, call_cli, merge

SMALL = merge(
    TINY_SEARCH,
    {
        "model": {"layers": 12, "heads": 12},
        "space": {"heads": [2, 4, 8], "ratios": [0.5, 1.0, 2.0]},
        "search": {
            "batch_size": 6,
            "tokens": {"ratio": 0.5, "dim": 4},
            "stages": {"keep": [0, 4], "weight_epochs": [1, 1]},
        },
        "runtime": {"precision": "bfloat16"},
    },
)
CONFIG = recipe.from_dict(SMALL)
SUBJECTS = subjects(CONFIG)
IDS = [f"{subject.stage}: {subject.name}" for subject in SUBJECTS]


def on_cpu(subject: Subject, config: Config, batch: int, bfloat16: bool) -> Step:
    runtime = LoneRuntime(torch.device("cpu"), lambda: torch.autocast("cpu", torch.bfloat16, enabled=bfloat16))
    return make_step(subject, config, 10, batch, runtime)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_linear_layer_in_closed_form(device: str) -> None:
    with torch.device(device):
        layer, x = nn.Linear(5, 3), torch.zeros(7, 5)
    with LiveBytes() as live:
        live.hold([*layer.parameters(), x])
        held = 4 * (3 * 5 + 3 + 7 * 5)
        assert live.live == (held, 0)
        loss = layer(x).sum()
        assert live.live == (held + 4, 0)  # the output is needed by nobody
        assert live.peak == held + 4 * 7 * 3 + 4
        loss.backward()
        assert live.live == (held + 4 + 4 * (3 * 5 + 3), 0)
    assert layer.weight.grad is not None


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_mlp_in_closed_form(device: str) -> None:
    with torch.device(device):
        layers, x = nn.Sequential(nn.Linear(5, 11), nn.GELU(), nn.Linear(11, 3)), torch.zeros(PROBE, 5)
    with LiveBytes(PROBE) as live:
        live.hold([*layers.parameters(), x])
        weights = 4 * (5 * 11 + 11 + 11 * 3 + 3)
        assert live.live == (weights, 4 * 5)
        output = layers(x)
        assert live.live == (weights, 4 * (5 + 11 + 11 + 3))  # its input, before and after GELU, its output
        del output
        assert live.live == (weights, 4 * 5)


class Saved:
    """A tensor that autograd keeps, for as long as it keeps it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("subject", SUBJECTS, ids=IDS)
def test_what_a_forward_pass_leaves_is_what_autograd_saves(subject: Subject, bfloat16: bool) -> None:
    step = on_cpu(subject, CONFIG, 5, bfloat16)
    saved: weakref.WeakSet[Saved] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Saved:
        item = Saved(tensor)
        saved.add(item)
        return item

    held = step.tensors()
    with LiveBytes() as live, saved_tensors_hooks(pack, lambda item: item.tensor):
        live.hold(held)
        before = live.live[0]
        loss = forward(step)
        left = live.live[0] - before
    kept = sizes([loss, *(item.tensor for item in saved)])
    assert left == sum(size for key, size in kept.items() if key not in sizes(held)) > 0


def forward(step: Step) -> Tensor:
    """Return the loss of a weight step under edge weights that alphas' gradients reach, too."""
    if isinstance(step, PlainStep):
        return step.loss(step.batches[0], step.alpha)
    assert isinstance(step, SearchStep)
    weights = step.stage.edge_weights
    return train_loss(step.stage, step.batches[0], weights)()


def sizes(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return the bytes of every storage."""
    return {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("subject", SUBJECTS, ids=IDS)
def test_the_count_is_what_a_step_on_a_cpu_allocates(subject: Subject, bfloat16: bool) -> None:
    memory = count(subject, CONFIG, 10, "cpu", bfloat16)
    tolerance = 5e-3 if bfloat16 else 1e-3  # some casts of vectors are made at other moments
    for batch in (2, 37):
        measured = allocated(on_cpu(subject, CONFIG, batch, bfloat16))
        assert memory.peak(batch) == pytest.approx(measured, rel=tolerance)


def allocated(step: Step) -> int:
    """Return the peak of a step's second run, in which the optimisers have their states."""
    step.alpha_step()
    step.weight_step()
    with LiveBytes() as live:
        live.hold(step.tensors())
        live.hold(s for one in step.optimizers for states in one.state.values() for s in states.values())
        step.alpha_step()
        step.weight_step()
    peak: int = live.peak
    return peak


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.trains_supernet])
def test_every_method_is_counted(method: str) -> None:
    config = with_method(recipe.from_dict(merge(SMALL, {"space": {"heads": [2, 4]}})), method)
    subject = [s for s in subjects(config) if fits.is_searched(s, config)][-1]
    step = on_cpu(subject, config, 9, bfloat16=False)
    assert isinstance(step, SearchStep)
    fill_states(step)
    step.stage.begin_step()
    peak, measured = count(subject, config, 10, "cpu", bfloat16=False).peak(9), allocated(step)
    assert peak >= 0.999 * measured and (extreme_paths(step) or peak <= 1.001 * measured)


def test_the_second_order_is_counted() -> None:
    config = recipe.from_dict(merge(SMALL, {"search": {"order": 2, "weights": {"clip_grad": 1.0}}}))
    second = count(SUBJECTS[2], config, 10, "cpu", bfloat16=False).peak(3)
    assert second == pytest.approx(allocated(on_cpu(SUBJECTS[2], config, 3, False)), rel=1e-3)
    assert second > count(SUBJECTS[2], CONFIG, 10, "cpu", bfloat16=False).peak(3)


@pytest.mark.parametrize("method", ["gdas", "evolution"])
def test_a_method_that_evaluates_single_paths_is_counted_with_its_dearest(method: str) -> None:
    """The count is the most that any path of one operation takes on a CPU; drawn ones take no more."""
    config = with_method(recipe.from_dict(merge(SMALL, {"space": {"heads": [2], "ratios": [1.0, 2.0]}})), method)
    subject = subjects(config)[1]
    memory = count(subject, config, 10, "cpu", bfloat16=False)
    everything = count(subject, with_method(config, "darts"), 10, "cpu", bfloat16=False)
    for batch in (5, 40):
        step = on_cpu(subject, config, batch, bfloat16=False)
        assert isinstance(step, SearchStep)
        measured = []
        for path in extreme_paths(step):
            fill_states(step)
            step.stage.strategy.choose(path)
            measured.append(allocated(step))
        assert memory.peak(batch) == pytest.approx(max(measured), rel=1e-3)
        for number in range(5):
            step.stage.step = number
            step.stage.begin_step()
            assert allocated(step) <= memory.peak(batch) * 1.001
    assert slope(memory) < slope(everything)  # operations that are not drawn keep nothing of an image


def extreme_paths(step: SearchStep) -> list[list[int]]:
    return step.stage.strategy.extreme_paths(step.stage.alive)


def slope(memory: Memory) -> int:
    return memory.peak(10**6 + 1) - memory.peak(10**6)


def fill_states(step: SearchStep) -> None:
    """Let every weight have had a gradient."""
    for parameter in step.stage.params:
        parameter.grad = torch.ones_like(parameter)
    step.stage.weight_optimizer.step()
    step.stage.weight_optimizer.zero_grad()


def test_evolution_is_counted_without_an_alpha_step() -> None:
    step = on_cpu(SUBJECTS[1], with_method(CONFIG, "evolution"), 3, bfloat16=False)
    assert isinstance(step, SearchStep)
    before = step.stage.architecture.alpha.detach().clone()
    step()
    assert torch.equal(step.stage.architecture.alpha, before) and "val_loss" not in step.stage.metrics.means()
    step = on_cpu(SUBJECTS[1], CONFIG, 3, bfloat16=False)
    assert isinstance(step, SearchStep)
    step()
    assert step.stage.metrics.means().keys() == {"train_loss", "val_loss", "val_top1"}


def test_the_dropout_of_skips_is_counted() -> None:
    peaks = []
    for rate in (0.4, 0.0):
        config = with_method(recipe.from_dict(merge(SMALL, {"search": {"p_darts": {"dropout": [rate]}}})), "p-darts")
        subject = next(s for s in subjects(config) if not s.plain)
        peaks.append(count(subject, config, 10, "cpu", bfloat16=False).peak(7))
        assert peaks[-1] == pytest.approx(allocated_from_the_start(config, subject), rel=1e-3)
    assert peaks[0] > peaks[1]


def allocated_from_the_start(config: Config, subject: Subject) -> int:
    step = on_cpu(subject, config, 7, bfloat16=False)
    assert isinstance(step, SearchStep)
    step.stage.begin_step()
    return allocated(step)


def test_autocast_keeps_a_weights_cast() -> None:
    """Used twice, it is cast once."""
    left = []
    for device in ("cpu", "meta"):
        weight, x = torch.zeros(64, 64, device=device, requires_grad=True), torch.zeros(3, 64, device=device)
        pretend = Pretend("cpu")
        with LiveBytes() as live, pretend:
            native = torch.autocast("cpu", torch.bfloat16)
            with native if device == "cpu" else pretend.autocast():
                first, second = F.linear(x, weight), F.linear(x, weight)
                left.append(live.live)
        assert first.dtype == second.dtype == torch.bfloat16
    assert left[0] == left[1]


def test_subjects_are_the_stages_of_the_recipe() -> None:
    assert [(s.stage, s.layers, s.operations, s.ratio, s.plain) for s in SUBJECTS] == [
        (1, 1, 8, 1.0, True),
        (1, 1, 8, 1.0, False),
        (1, 1, 8, 0.5, False),
        (2, 2, 8, 1.0, True),
        (2, 2, 4, 1.0, False),
        (2, 2, 4, 0.5, False),
    ]
    assert SUBJECTS[-1].alive == ((False, False, True, True, True, False, False, True),) * 5


CAST = [
    *("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "addbmm", "baddbmm", "einsum", "conv2d"),
    *("scaled_dot_product_attention", "layer_norm", "softmax", "log_softmax", "logsumexp", "norm", "sum", "cumsum"),
    *("prod", "exp", "log", "pow", "__pow__", "square", "rsqrt", "mean", "var", "gelu", "relu", "tanh", "sqrt"),
]


def test_every_cast_is_tested() -> None:
    assert set(CAST) >= (LOWER | FLOAT32["cuda"] | FLOAT32["cpu"]) - {"cross_entropy", "nll_loss"}


@pytest.mark.parametrize("name", CAST)
def test_casts_are_those_of_cuda_autocast(name: str) -> None:
    """What the dispatcher does with a tensor that says it is on a GPU, which need not be there."""
    with autocast_flags("cuda"), FakeTensorMode():
        expected = call(name, "cuda")
    with Pretend("cuda") as pretend, pretend.autocast():
        assert call(name, "meta") == expected
    with torch.autocast("cpu", torch.bfloat16):
        expected = call(name, "cpu")
    with Pretend("cpu") as pretend, pretend.autocast():
        assert call(name, "meta") == expected


@contextmanager
def autocast_flags(kind: str) -> Iterator[None]:
    before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    torch.set_autocast_enabled(kind, True)
    torch.set_autocast_dtype(kind, torch.bfloat16)
    yield
    torch.set_autocast_enabled(kind, before[0])
    torch.set_autocast_dtype(kind, before[1])


def call(name: str, device: str) -> tuple[torch.dtype, torch.dtype]:
    """Return the type of a function's output for float32 and for bfloat16."""

    def output(dtype: torch.dtype) -> torch.dtype:
        x = torch.zeros(2, 4, 4, device=device, dtype=dtype)
        arguments: dict[str, tuple[Any, ...]] = {
            "linear": (x, x[0]),
            "mm": (x[0], x[0]),
            "addmm": (x[0], x[0], x[0]),
            "addbmm": (x[0], x, x),
            "baddbmm": (x, x, x),
            "matmul": (x, x),
            "__matmul__": (x, x),
            "__rmatmul__": (x, x),
            "bmm": (x, x),
            "einsum": ("bij,bjk->bik", x, x),
            "conv2d": (x[None], x[None]),
            "scaled_dot_product_attention": (x[None], x[None], x[None]),
            "layer_norm": (x, (4,)),
            "pow": (x, 2),
            "__pow__": (x, 2),
        }
        along = ("softmax", "log_softmax", "logsumexp", "cumsum")
        function = next(getattr(home, name) for home in (F, torch, Tensor) if hasattr(home, name))
        result: Tensor = function(*arguments.get(name, (x,)), **({"dim": -1} if name in along else {}))
        return result.dtype

    return output(torch.float32), output(torch.bfloat16)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_code_sees_the_device_that_is_pretended(kind: Kind) -> None:
    seen = []

    class Ours(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            seen.append((x.device.type, x.is_cuda))
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            made = torch.ones(2, device=gradients[0].device)
            seen.append((gradients[0].device.type, made.is_cuda))
            return gradients[0] * made

    x = torch.zeros(2, device="meta", requires_grad=True)
    with Pretend(kind):
        torch.autograd.grad(Ours.apply(x).sum(), x)
        Ours.apply(x).sum().backward()
    assert seen == [(kind, kind == "cuda")] * 4
    assert x.device.type == "meta" and not torch.is_autocast_enabled(kind)


def test_attention_keeps_no_probabilities() -> None:
    q, k, v = (torch.zeros(PROBE, 2, 64, 4, device="meta", requires_grad=True) for _ in range(3))
    with LiveBytes(PROBE) as live, Pretend("cuda"):
        output = F.scaled_dot_product_attention(q, k, v)
        assert live.live == (0, 4 * 2 * 64 * (4 + 1))  # the output and a number for every row
        assert output.transpose(1, 2).is_contiguous()
        output.sum().backward()


def test_largest_batch_is_the_last_that_fits() -> None:
    memory = count(SUBJECTS[2], CONFIG, 10, "cuda", bfloat16=True)
    for batch in (1, 7, 512):
        assert memory.largest(memory.peak(batch)) == batch
        assert memory.largest(memory.peak(batch) - 1) == batch - 1
    assert memory.largest(1000) == 0


def test_search_warns_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    total = 0
    counted = {s.stage: count(s, CONFIG, 10, "cpu", bfloat16=True) for s in SUBJECTS if fits.is_searched(s, CONFIG)}
    assert counted.keys() == {1, 2}
    monkeypatch.setattr(Reporter, "say", lambda self, text: said.append(text))
    monkeypatch.setattr(fits, "count", lambda subject, *_: counted[subject.stage])
    monkeypatch.setattr(fits, "total_memory", lambda device: total)
    total = counted[2].peak(6)
    fits.warn_memory(CONFIG, 10, Reporter())
    assert not said
    total -= 1
    fits.warn_memory(CONFIG, 10, Reporter())
    assert len(said) == 1 and "stage 2" in said[0] and "at batch 6" in said[0]
    assert 0 < int(said[0].split("--search.batch_size ")[1].split()[0]) < 6
    total = 1000
    fits.warn_memory(CONFIG, 10, Reporter())
    assert "not even a batch of one" in said[1]


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="the kernel is asked through a file of Linux")
def test_memory_of_this_machine() -> None:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    kibibytes = int(lines["MemTotal"].removesuffix("kB"))
    assert fits.total_memory(torch.device("cpu")) == pytest.approx(1024 * kibibytes, rel=1e-3)


def test_memory_adds_up() -> None:
    import numpy as np

    memory = Memory(np.array([10, 0]), np.array([0, 3]))
    assert [memory.peak(batch) for batch in (0, 3, 4)] == [10, 10, 12]
    assert memory.largest(12) == 4 and memory.largest(9) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_allocates_what_is_counted() -> None:
    from dasvit.memory.search_step import measure

    wide = {"model": {"image_size": 64, "patch_size": 8, "width": 384}, "runtime": {"device": "cuda"}}
    config = recipe.from_dict(merge(SMALL, wide))
    for subject in subjects(config):
        measured = measure(subject, config, 10, 64, torch.device("cuda"), bfloat16=True)
        assert count(subject, config, 10, "cuda", bfloat16=True).peak(64) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("method", ["random", "finals"])
def test_no_memory_is_counted_of_a_supernet_that_is_not_trained(method: str) -> None:
    status, _, err = call_cli("memory", "--config", "digits", "--search.method", method, "--search.finals.cells", "0")
    assert status == 2 and ("trains no supernet" in err or "needs finalists" in err)
