"""`dasvit quickstart`: the whole path on digits."""

from __future__ import annotations

from rich.console import Console

from dasvit.cell.genotype import Genotype
from dasvit.cli import Request
from dasvit.commands.common import print_json
from dasvit.commands.search import do_search
from dasvit.commands.train import do_train
from dasvit.errors import UserError
from dasvit.report.tables import network_table
from dasvit.runtime.progress import Reporter


def quickstart_command(request: Request) -> None:
    """`dasvit quickstart`: search on digits, train what was found and a ViT, and compare."""
    assert request.config is not None
    config, root, reporter = request.config, request.options["run"], Reporter()
    if config.model.width % config.model.heads:  # before the search, not after it
        raise UserError(f"model.width {config.model.width} is not divisible by model.heads {config.model.heads}.")
    reporter.say("1/3 search a cell")
    found = do_search(config, root, reporter)
    genotype = Genotype.from_dict(found["genotype"])
    reporter.say(f"\n{genotype}\n\n2/3 train it from scratch")
    cell = do_train(config, genotype, f"{root}/train", reporter)
    reporter.say("\n3/3 train a ViT of the same width and depth")
    vit = do_train(config, "vit", f"{root}/vit", reporter)
    rows = [{"network": "searched cell", **cell}, {"network": "ViT", **vit}]
    if request.options["json"]:
        print_json({"run": root, "genotype": found["genotype"], "networks": rows})
        return
    print(genotype)
    Console().print(network_table(rows, f"width {config.model.width}, {config.model.layers} layers"))
    print(f"The run is in {root} (docs/run-folder.md explains its files). Next, on your own images:")
    print("  dasvit search --config folder-small --data.path FOLDER --run runs/mine")
    print("  dasvit train --cell runs/mine")
