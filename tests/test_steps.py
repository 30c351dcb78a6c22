"""Steps under faults: too little memory, and numbers that are not finite."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.config import RuntimeConfig
from dasvit.errors import UserError
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.search.bilevel import second_order
from dasvit.training.steps import PATIENCE, BatchLoss, Steps
from helpers import Faults, ForkServer
from runs import COMMANDS


class Small:
    """A network of two layers whose second one is scaled by alpha, and seven images, in float64."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        for parameter in self.net.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.alpha = torch.ones(3, dtype=torch.float64, requires_grad=True)
        self.images = torch.randn(7, 5, dtype=torch.float64, generator=generator)
        self.labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
        self.weights = list(self.net.parameters())
        self.largest = 7

    def loss(self) -> BatchLoss:
        """The mean loss; a machine that holds `largest` images at once."""

        def of(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
            images = self.images[rows]
            if len(images) > self.largest:
                raise torch.OutOfMemoryError("raised by the test")
            loss = F.cross_entropy(self.net(images) * self.alpha, self.labels[rows])
            return loss, {"loss": loss}

        return BatchLoss(7, 7, of)


def make_steps(said: list[str] | None = None) -> Steps:
    reporter = Reporter(quiet=True)
    if said is not None:
        reporter.__dict__["warn"] = said.append
    return Steps(Runtime(RuntimeConfig(device="cpu"), "float32"), reporter)


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 6])
def test_micro_batches_give_the_gradients_of_the_whole_batch(largest: int, faults: Faults) -> None:
    small, said = Small(), list[str]()
    steps, loss = make_steps(said), small.loss()
    expected = torch.autograd.grad(loss(), [*small.weights, small.alpha])
    mean = loss().detach()
    small.largest = largest
    faults.provoked("out of memory (raised)")
    steps.within_memory(lambda: steps.backward(loss, small.weights), small.weights, loss)
    for parameter, gradient in zip(small.weights, expected, strict=False):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(loss.means["loss"], mean, rtol=1e-9, atol=1e-9)
    (found,) = steps.differentiate(loss, [small.alpha])
    torch.testing.assert_close(found, expected[-1], rtol=1e-9, atol=1e-9)
    assert said and "accumulated over micro-batches" in said[-1] and "batch of 7 stays" in said[-1]
    faults.survived("out of memory (raised)")


def test_second_order_in_micro_batches() -> None:
    """It runs out of memory with the weights moved, and puts them back before it is tried again."""
    small = Small()
    weights = copy.deepcopy(small.weights)
    expected = second_order(small.loss(), small.loss(), [small.alpha], small.weights, 0.1)
    small.largest = 3
    steps, found, tries = make_steps(), list[Tensor](), list[int]()

    def step() -> None:
        tries.append(len(tries))
        small.largest = 7 if len(tries) == 1 else 3
        below, above = small.loss(), small.loss()
        if len(tries) == 1:
            above.of = out_of_memory
        found[:] = second_order(below, above, [small.alpha], small.weights, 0.1, steps.differentiate)

    steps.within_memory(step, small.weights, small.loss())
    assert len(tries) > 1
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(old, new) for old, new in zip(weights, small.weights, strict=True))


def out_of_memory(rows: slice) -> Any:
    raise torch.OutOfMemoryError("raised by the test")


def test_not_even_one_image() -> None:
    small = Small()
    small.largest = 0
    steps, loss = make_steps(), small.loss()
    with pytest.raises(UserError, match="does not hold a single image"):
        steps.within_memory(lambda: steps.backward(loss, small.weights), small.weights, loss)


def test_ten_bad_steps_in_a_row() -> None:
    steps = make_steps()
    for _ in range(PATIENCE - 1):
        steps.count(False, "step 3", 0.1, "the rate")
    steps.count(True, "step 4", 0.1, "the rate")
    for _ in range(PATIENCE - 1):
        steps.count(False, "step 5", 0.1, "the rate")
    with pytest.raises(UserError, match=r"10 steps in a row, up to step 6, at a learning rate of 0\.1"):
        steps.count(False, "step 6", 0.1, "the rate")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_numbers_that_are_not_finite(bad: float, what: str) -> None:
    steps, loss = make_steps(), Small().loss()
    loss.means = {"loss": torch.tensor(bad if what == "loss" else 1.0)}
    gradients = [None, torch.tensor([1.0, bad if what == "gradient" else 0.0])]
    assert steps.norm(loss, gradients) is None
    loss.means = {"loss": torch.tensor(1.0)}
    assert steps.norm(loss, [None, torch.tensor([3.0, 4.0])]) == 5


THIRD = {"search": 7, "train": 3}
"""The third loss of a run; a search counts its memory before, by an alpha step and a weight step of each stage."""


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_step_with_no_finite_loss_is_left_out_and_counted(
    kind: str, forks: ForkServer, tmp_path: Path, faults: Faults
) -> None:
    place = "dasvit.training.steps.Steps._terms"
    faults.provoked("non-finite loss")
    status = forks.run(*COMMANDS[kind], "--run", tmp_path / "run", place=place, call=THIRD[kind], spoil=True)
    assert status == 0, forks.said()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["skipped_steps"] for row in rows] == [1] + [0] * (len(rows) - 1)
    faults.survived("non-finite loss")


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_step_that_runs_out_of_memory_is_done_in_halves(
    kind: str, forks: ForkServer, tmp_path: Path, faults: Faults
) -> None:
    place = "dasvit.training.steps.Steps._terms"
    faults.provoked("out of memory (raised)")
    status = forks.run(*COMMANDS[kind], "--run", tmp_path / "run", place=place, call=THIRD[kind], exhaust=True)
    assert status == 0 and forks.said().count("out of memory: ") == 1, forks.said()
    faults.survived("out of memory (raised)")
