"""How well a trained model does on a data set."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dasvit.config import Config, DataConfig
from dasvit.config import recipe as recipes
from dasvit.data import Data, load_data
from dasvit.data.given import GIVEN
from dasvit.errors import UserError, listed
from dasvit.io.run_folder import find_model, find_run
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.session import say_data
from dasvit.training.classifier import check_finite, load_classifier, read_input
from dasvit.training.evaluation import Evaluation, evaluate
from dasvit.training.loop import test_batches

OPEN_SOURCES = ("imagefolder", "parquet", GIVEN)
"""Sources that can be any images; the others have splits of their own, or the package's."""


@dataclass(frozen=True)
class ModelEvaluation:
    """What a trained model reached on a data set.

    Attributes:
        model: The model's folder.
        evaluation: Accuracies, loss and confusion matrix.
        classes: Names of the classes.
    """

    model: Path
    evaluation: Evaluation
    classes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name, as JSON holds them."""
        figures, confusion = self.evaluation.summary(), self.evaluation.confusion
        return {"model": str(self.model), **figures, "classes": list(self.classes), "confusion": confusion}


def evaluate_model(path: str | Path, config: Config, reporter: Reporter) -> ModelEvaluation:
    """Evaluate a trained model on the test images of a data set.

    Args:
        path: Run folder of a training, or a model folder.
        config: Which data, and the runtime.
        reporter: Where progress goes.

    Raises:
        UserError: No model, no data, or data of other classes.
    """
    folder = find_model(path)
    described = read_input(folder)
    names = described.classes
    precision = config.runtime.precision
    runtime = Runtime(config.runtime, "float32" if precision == "auto" else precision)  # nothing is measured
    with runtime.first_of_machine():
        data = _images_of(config, folder, described.side, names)
    say_data(data, reporter)
    if tuple(data.classes) != tuple(names):
        raise UserError(
            f"the data's classes ({listed(data.classes)}) are not those that the model knows ({listed(names)}): "
            "evaluate it on its own classes."
        )
    model = load_classifier(folder, described, torch.device("cpu"))
    runtime.place(model)
    batches = reporter.track(test_batches(data, config, runtime), "evaluating")
    preprocess = described.preprocess.to(runtime.device)
    evaluation = evaluate(model, preprocess, batches, runtime, len(names))
    check_finite(folder, evaluation.loss)
    return ModelEvaluation(folder, evaluation, names)


def _images_of(config: Config, folder: Path, side: int, classes: tuple[str, ...]) -> Data:
    """Load the images that a model is judged on.

    Of the images that it was trained on, these are the test images, or the share that was held out then. Of others they
    are the test split, or all where there is none; sets with splits of their own have theirs.
    """
    run = find_run(folder)
    own = recipes.load(run / "config.yaml", searching=False) if run else None
    if own is not None and own.data.name == config.data.name and _place(own.data) == _place(config.data):
        return load_data(replace(config.data, val_fraction=own.data.val_fraction), side, own.runtime.seed)
    known = config.data.name not in OPEN_SOURCES
    return load_data(config.data, side, config.runtime.seed, None if known else classes)


def _place(data: DataConfig) -> str:
    return os.path.realpath(os.path.expanduser(data.path)) if data.name != GIVEN else data.path
