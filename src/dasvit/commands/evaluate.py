"""`dasvit evaluate`: how well a trained model does on a data set."""

from __future__ import annotations

from rich.console import Console

from dasvit.commands.common import print_json
from dasvit.commands.options import EvaluateOptions
from dasvit.config import Config
from dasvit.inference.evaluate import evaluate_model
from dasvit.report.tables import confusion_table
from dasvit.runtime.progress import Reporter


def evaluate_command(options: EvaluateOptions, config: Config) -> None:
    found = evaluate_model(options.model, config, Reporter())
    if options.json:
        print_json(found.to_dict())
        return
    reached = found.evaluation
    print(f"{reached.images} images: top-1 {reached.top1:.2f} %, top-5 {reached.top5:.2f} %, loss {reached.loss:.4f}")
    Console().print(confusion_table(reached.confusion, found.classes))
