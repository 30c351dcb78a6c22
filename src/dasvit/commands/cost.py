"""`dasvit cost`: parameters and multiply-adds (section 12)."""

from __future__ import annotations

from pathlib import Path

import timm

from dasvit.cell.genotype import NAMED, Genotype, load_genotype
from dasvit.cli import Request
from dasvit.commands.common import describe_cost, noted_classes, print_json
from dasvit.commands.judge import read_input
from dasvit.config.validation import MAX_CLASSES
from dasvit.errors import UserError
from dasvit.io.run_folder import RunFolder, find_run
from dasvit.models.baselines import OURS, check_architecture
from dasvit.models.cost import cost_of, count_cost
from dasvit.models.folder import load_model


def cost_command(request: Request) -> None:
    """`dasvit cost`: parameters and multiply-adds of one image (section 12)."""
    assert request.config is not None
    name, classes = request.options["subject"], request.options["classes"]
    config = request.config.model
    if not 0 <= classes <= MAX_CLASSES:
        raise UserError(f"--classes must lie between 0 and {MAX_CLASSES:,}, not {classes}.")
    folder = trained_model(Path(name))
    if folder and classes:
        raise UserError(f"{name} is trained, with the head it has: leave out --classes.")
    if folder:
        cost = count_cost(load_model(folder), read_input(folder).side)
    else:
        subject, default = named_network(name)
        cost = cost_of(subject, config, classes or default)
    if request.options["json"]:
        print_json({"name": name, **describe_cost(cost)})
        return
    print(
        f"{name}: {cost.params:,} parameters; {cost.macs / 1e9:.3f} G multiply-adds an image "
        f"({cost.macs_linear / 1e9:.3f} G of them in linear layers, convolutions and the patch embedding)"
    )


def trained_model(path: Path) -> Path | None:
    """Return the folder of the trained model that a path is or holds; a search's folder stands for its cell."""
    folders = (path / inner for inner in ("", "model"))
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def named_network(name: str) -> tuple[Genotype | str, int]:
    """Return the cell or baseline of that name, and the classes it is counted with."""
    if name in NAMED or Path(name).exists() or name.endswith(".json") or "/" in name:
        run = find_run(name)
        return load_genotype(name), noted_classes(RunFolder(run, "search")) if run else 10
    if name in OURS:
        return name, 10
    check_architecture(name)
    return name, timm.get_pretrained_cfg_value(name, "num_classes") or 1000
