"""How long a training will take: the training loop's own first steps on a network that is thrown away."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from torch import nn

from dasvit.config import TrainConfig
from dasvit.data import Data, Preprocess
from dasvit.io.run_folder import RunFolder
from dasvit.runtime.estimate import AT_LEAST, AT_MOST, ENOUGH, Estimate, time_steps
from dasvit.runtime.progress import Reporter, SizedIterable
from dasvit.runtime.saver import NEVER
from dasvit.session import Session
from dasvit.training.evaluation import evaluate
from dasvit.training.loop import test_batches, train

T = TypeVar("T")


class _EnoughTimed(Exception):
    pass


class Stopwatch(Reporter):
    """Says nothing, notes how long each step took, and ends the loop when that is known.

    Args:
        same_everywhere: End it after the same number of steps on every process.

    Attributes:
        times: Seconds of every step but the first one, with the loading of its batch.
    """

    def __init__(self, same_everywhere: bool) -> None:
        super().__init__(quiet=True)
        self.same_everywhere, self.times = same_everywhere, list[float]()

    def track(self, items: SizedIterable[T], *_: Any, **__: Any) -> Iterator[T]:
        """Yield the items, and note the time between them.

        Raises:
            _EnoughTimed: The time of a step is known.
        """
        moments: list[float] = []
        for item in items:
            moments.append(time.perf_counter())
            steps = [after - before for before, after in pairwise(moments)]
            if len(steps) > 1:
                self.times.append(steps[-1])
            most = AT_LEAST if self.same_everywhere else AT_MOST
            if len(self.times) >= most or (
                len(self.times) >= AT_LEAST and sum(self.times) > ENOUGH and not self.same_everywhere
            ):
                raise _EnoughTimed
            yield item


@dataclass(frozen=True)
class Pace:
    """How fast a network trains.

    Attributes:
        step: Time of a step, with the loading of its batch.
        image: Time of an image of an evaluation.
    """

    step: Estimate
    image: Estimate

    def epoch(self, options: TrainConfig, data: Data) -> Estimate:
        """Return the time of an epoch's steps."""
        return self.step * max(1, len(data.train) // options.batch_size)

    def look(self, data: Data) -> Estimate:
        """Return the time of an evaluation of all test images."""
        return self.image * len(data.test)

    def training(self, options: TrainConfig, data: Data) -> Estimate:
        """Return the time of a training, with its evaluations."""
        looks = -(-options.epochs // options.eval_every)
        return self.epoch(options, data) * options.epochs + self.look(data) * looks


def measure_pace(make: Callable[[], nn.Module], session: Session) -> Pace:
    """Time steps and evaluation of a training; random numbers are drawn, and nothing is written into the run.

    Args:
        make: Builds the network.
        session: Of the training: its recipe's section train counts.
    """
    config, data, runtime = session.config, session.data, session.runtime
    several = runtime.world > 1
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch(several)
        run = RunFolder(folder, "train")
        own = replace(session, run=run, reporter=watch, followers=(), deadline=NEVER)
        model = make()
        start = time.perf_counter()
        with suppress(_EnoughTimed):
            train(model, own)
    few = data.test.select(np.arange(min(len(data.test), 4 * config.train.batch_size)))
    batches = test_batches(replace(data, test=few), config, runtime)
    preprocess = Preprocess(config.model.image_size).to(runtime.device)
    look = time_steps(lambda: evaluate(model, preprocess, batches, runtime, session.classes), several)
    whole = max(1, config.train.epochs * (len(data.train) // config.train.batch_size))
    # A training of so few steps that none could be timed alone has just been done.
    step = Estimate.of(watch.times) if watch.times else Estimate.of([(time.perf_counter() - start) / whole])
    return Pace(step, look * (1 / len(few)))


def estimate_training(make: Callable[[], nn.Module], session: Session) -> Estimate:
    """Return how long a training will take.

    Args:
        make: Builds the network.
        session: Of the training, its precision settled.
    """
    return measure_pace(make, session).training(session.config.train, session.data)
