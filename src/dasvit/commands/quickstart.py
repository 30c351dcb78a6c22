"""`dasvit quickstart`: the whole path on digits."""

from __future__ import annotations

from rich.console import Console

from dasvit.commands.common import print_json
from dasvit.commands.options import QuickstartOptions
from dasvit.config import Config
from dasvit.errors import UserError
from dasvit.report.tables import network_table
from dasvit.runtime.progress import Reporter
from dasvit.search.pipeline import run_search
from dasvit.training.pipeline import run_training


def quickstart_command(options: QuickstartOptions, config: Config) -> None:
    root, reporter = options.run, Reporter()
    if config.model.width % config.model.heads:  # before the search, not after it
        raise UserError(f"model.width {config.model.width} is not divisible by model.heads {config.model.heads}.")
    reporter.say("1/3 search a cell")
    found = run_search(config, root, reporter).found
    reporter.say(f"\n{found}\n\n2/3 train it from scratch")
    ours = run_training(config, found, f"{root}/train", reporter).to_dict()
    reporter.say("\n3/3 train a ViT of the same width and depth")
    vit = run_training(config, "vit", f"{root}/vit", reporter).to_dict()
    rows = [{"network": "searched cell", **ours}, {"network": "ViT", **vit}]
    if options.json:
        print_json({"run": root, "genotype": found.to_dict(), "networks": rows})
        return
    print(found)
    Console().print(network_table(rows, f"width {config.model.width}, {config.model.layers} layers"))
    print(f"The run is in {root} (docs/run-folder.md explains its files). Next, on your own images:")
    print("  dasvit search --config folder-small --data.path FOLDER --run runs/mine")
    print("  dasvit train --cell runs/mine")
