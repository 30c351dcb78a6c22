"""`dasvit cost`: parameters and multiply-adds (section 12)."""

from __future__ import annotations

from pathlib import Path

from dasvit.cli import Request
from dasvit.commands.common import print_json
from dasvit.compare.networks import named_network
from dasvit.config.validation import MAX_CLASSES
from dasvit.errors import UserError
from dasvit.models.cost import cost_of, count_cost
from dasvit.models.folder import load_model
from dasvit.training.classifier import read_input


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
        print_json({"name": name, **cost.to_dict()})
        return
    print(
        f"{name}: {cost.params:,} parameters; {cost.macs / 1e9:.3f} G multiply-adds an image "
        f"({cost.macs_linear / 1e9:.3f} G of them in linear layers, convolutions and the patch embedding)"
    )


def trained_model(path: Path) -> Path | None:
    """Return the folder of the trained model that a path is or holds; a search's folder stands for its cell."""
    folders = (path / inner for inner in ("", "model"))
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)
