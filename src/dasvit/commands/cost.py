"""`dasvit cost`: parameters and multiply-adds (section 12), and latency where it is asked for."""

from __future__ import annotations

from dasvit.commands.common import print_json
from dasvit.commands.options import CostOptions
from dasvit.compare.networks import cost_of_named
from dasvit.config import Config
from dasvit.config.limits import MAX_CLASSES
from dasvit.errors import UserError
from dasvit.latency.measure import MeasuredCost
from dasvit.report.tables import number


def cost_command(options: CostOptions, config: Config) -> None:
    name, classes = options.subject, options.classes
    if not 0 <= classes <= MAX_CLASSES:
        raise UserError(f"--classes must lie between 0 and {MAX_CLASSES:,}, not {classes}.")
    how = options.where(config.search.latency) if options.latency else None
    cost, classes = cost_of_named(name, config.model, classes, how, resized=True)
    if options.json:
        print_json({"name": name, "classes": classes, **cost.to_dict()})
        return
    print(
        f"{name}: {number(cost.params)} parameters ({cost.params:,}), {number(cost.macs)} multiply-adds an image "
        f"({number(cost.macs_linear)} of them in linear layers, convolutions and the patch embedding); "
        f"a head of {classes:,} classes"
    )
    if isinstance(cost, MeasuredCost):
        print(f"An inference takes {cost.latency} on {cost.latency.machine}.")
