"""`dasvit cost`: parameters and multiply-adds (section 12)."""

from __future__ import annotations

from pathlib import Path

import timm

from dasvit.cell.genotype import PUBLISHED, Genotype, load_genotype
from dasvit.cli import Request
from dasvit.commands.common import describe_cost, print_json
from dasvit.commands.judge import find_model, is_model_folder, model_input
from dasvit.models.baselines import check_architecture
from dasvit.models.cost import cost_of, count_cost
from dasvit.models.folder import load_model, read_model_config


def cost_command(request: Request) -> None:
    """`dasvit cost`: parameters and multiply-adds of one image (section 12)."""
    assert request.config is not None
    name, classes = request.options["subject"], request.options["classes"]
    config = request.config.model
    if is_model_folder(name):
        folder = find_model(name)
        cost = count_cost(load_model(folder), model_input(read_model_config(folder)))
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


def named_network(name: str) -> tuple[Genotype | str, int]:
    """Return the cell or baseline of that name, and the classes it is counted with."""
    if name in PUBLISHED or Path(name).exists() or name.endswith(".json") or "/" in name:
        return load_genotype(name), 10
    if name == "vit":
        return name, 10
    check_architecture(name)
    return name, timm.get_pretrained_cfg_value(name, "num_classes") or 1000
