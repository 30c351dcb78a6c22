"""`dasvit cost`: parameters and multiply-adds (section 12)."""

from __future__ import annotations

from dasvit.commands.common import print_json
from dasvit.commands.options import CostOptions
from dasvit.compare.networks import cost_of_named
from dasvit.config import Config
from dasvit.config.limits import MAX_CLASSES
from dasvit.errors import UserError


def cost_command(options: CostOptions, config: Config) -> None:
    name, classes = options.subject, options.classes
    if not 0 <= classes <= MAX_CLASSES:
        raise UserError(f"--classes must lie between 0 and {MAX_CLASSES:,}, not {classes}.")
    cost = cost_of_named(name, config.model, classes)
    if options.json:
        print_json({"name": name, **cost.to_dict()})
        return
    print(
        f"{name}: {cost.params:,} parameters; {cost.macs / 1e9:.3f} G multiply-adds an image "
        f"({cost.macs_linear / 1e9:.3f} G of them in linear layers, convolutions and the patch embedding)"
    )
