"""`dasvit evaluate`: how well a trained model does on a data set."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from dasvit.commands.common import print_evaluation, print_json
from dasvit.commands.options import EvaluateOptions
from dasvit.config import Config
from dasvit.inference.evaluate import evaluate_model
from dasvit.io.run_folder import find_model, find_run
from dasvit.report.tables import MOST_CLASSES, class_table, confusion_table
from dasvit.runtime.progress import Reporter
from dasvit.training.predictions import CONFUSION, PREDICTIONS


def evaluate_command(options: EvaluateOptions, config: Config) -> None:
    run = find_run(find_model(options.model))
    out = Path(options.out) if options.out else run / "evaluation" if run else None
    found = evaluate_model(options.model, config, Reporter(), out)
    if options.json:
        print_json(found.to_dict())
        return
    reached, console = found.evaluation, Console()
    print_evaluation(reached, found.classes)
    if len(found.classes) <= MOST_CLASSES:
        console.print(class_table(reached.record(found.classes)["by_class"]))
    if not reached.confusion:
        if out:
            print(f"{out}/{PREDICTIONS} holds every image's labels and probabilities.")
        return
    console.print(confusion_table(reached.confusion, found.classes))
    if out:
        print(f"{out}/{PREDICTIONS} holds every image's prediction, {CONFUSION} the confusion matrix.")
