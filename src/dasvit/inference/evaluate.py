"""How well a trained model does on a data set."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dasvit.config import Config, DataConfig
from dasvit.config import recipe as recipes
from dasvit.data import Data, ImageSet, load_data, test_names
from dasvit.data.given import GIVEN
from dasvit.data.multilabel import has_several
from dasvit.errors import UserError, listed
from dasvit.extras import frame
from dasvit.io.files import write_whole
from dasvit.io.run_folder import find_model, find_run
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.session import say_data
from dasvit.training.classifier import ModelInput, check_finite, load_classifier, read_input
from dasvit.training.evaluation import Evaluation, evaluate
from dasvit.training.loop import test_batches
from dasvit.training.predictions import prediction_rows, write_predictions

if TYPE_CHECKING:
    import pandas as pd

OPEN_SOURCES = ("imagefolder", "parquet", "csv", "webdataset", GIVEN)
"""Sources that can be any images; the others have splits of their own, or the package's."""


@dataclass(frozen=True)
class ModelEvaluation:
    """What a trained model reached on a data set.

    Attributes:
        model: The model's folder.
        evaluation: Its figures, and every image's logits.
        classes: Names of the classes.
        images: The images.
        names: Names of their files, below the data's folder; their numbers where they are no files.
    """

    model: Path
    evaluation: Evaluation
    classes: tuple[str, ...]
    images: ImageSet
    names: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name, as JSON holds them."""
        return {"model": str(self.model), "classes": list(self.classes), **self.evaluation.record(self.classes)}

    def write(self, folder: str | Path) -> None:
        """Write the record, every image's prediction and the confusion matrix into a folder (docs/run-folder.md)."""
        write_predictions(Path(folder), self.evaluation, self.classes, self.names, self.images)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        write_whole(Path(folder) / "result.json", text.encode("utf-8", "backslashreplace"))

    def to_frame(self) -> pd.DataFrame:
        """Return every image's prediction as a pandas table, as `predictions.csv` holds them."""
        heads, *rows = prediction_rows(self.evaluation, self.classes, self.names)
        shares = range(3, len(heads))
        values = [[float(str(x)) if i in shares else x for i, x in enumerate(row)] for row in rows]
        return frame([dict(zip(map(str, heads), row, strict=True)) for row in values])


def evaluate_model(path: str | Path, config: Config, reporter: Reporter, out: Path | None = None) -> ModelEvaluation:
    """Evaluate a trained model on the test images of a data set.

    Args:
        path: Run folder of a training, or a model folder.
        config: Which data, and the runtime.
        reporter: Where progress goes.
        out: Folder that the evaluation is written into, by one of several processes. None: it is not.

    Raises:
        UserError: No model, no data, or data of other classes; or the folder cannot be written.
    """
    folder = find_model(path)
    described = read_input(folder)
    names = described.classes
    precision = config.runtime.precision
    runtime = Runtime(config.runtime, "float32" if precision == "auto" else precision)  # nothing is measured
    with runtime.first_of_machine():
        data, files = images_of(config, folder, described)
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
    if described.temperature is not None:
        evaluation = evaluation.calibrated(described.temperature)
    found = ModelEvaluation(folder, evaluation, names, data.test, files)
    if out and runtime.is_main:
        try:
            found.write(out)
        except OSError as error:
            raise UserError(f"cannot write into {out} ({error.strerror}): give --out another folder.") from None
    return found


def images_of(config: Config, folder: Path, described: ModelInput) -> tuple[Data, list[str]]:
    """Load the images that a model is judged on, as it was trained, and return them with the names of their files.

    Of the images that it was trained on, these are the test images, or the share that was held out then. Of others they
    are the test split, or all where there is none; sets with splits of their own have theirs.
    """
    run = find_run(folder)
    own = recipes.load(run / "config.yaml", searching=False) if run else None
    asked, side = described.view.asked_by(config.data), described.side
    if own is not None and own.data.name == config.data.name and _place(own.data) == _place(config.data):
        kept = {name: getattr(own.data, name) for name in ("val_fraction", "groups", "group_column")}
        where, seed, judged = replace(asked, **kept), own.runtime.seed, None
    else:
        where, seed = asked, config.runtime.seed
        judged = described.classes if config.data.name in OPEN_SOURCES else None

    def check(labels: NDArray[np.int64], classes: Sequence[str]) -> None:
        if has_several(labels) != described.multilabel:
            what = ("several labels an image", "one label an image")
            knows, has = what if described.multilabel else what[::-1]
            raise UserError(
                f"the model was trained on {knows}, and the data were read as {has}: say how their labels are parted "
                "with --data.label_separator (docs/data.md), or evaluate it on data of its own kind."
            )

    data = load_data(where, side, seed, judged, check)
    return data, test_names(where, data, seed, judged)


def _place(data: DataConfig) -> tuple[str, ...]:
    if data.name == GIVEN:
        return (data.path,)
    return tuple(os.path.realpath(os.path.expanduser(place)) for place in (data.path, data.csv))
