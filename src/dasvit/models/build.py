"""Any network that is asked for, its weights fresh: a cell's, one of sizes, or a baseline."""

from __future__ import annotations

from torch import nn

from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import Found, Subnet
from dasvit.config import ModelConfig
from dasvit.models.baselines import make_model, make_network
from dasvit.models.distilled import make_distilled, takes_token
from dasvit.models.subnet import make_subnet


def build_network(
    subject: Found | str, config: ModelConfig, num_classes: int, drop_path: float = 0.0, token: bool = False
) -> nn.Module:
    """Build a network.

    Args:
        subject: A cell, a network that was found, or the name of a baseline or of a model of timm's.
        config: The sizes of a cell's network, where it has none of its own, and of our baselines.
        num_classes: Classes.
        drop_path: Rate of stochastic depth at the last layer.
        token: With a distillation token, where it can have one.

    Raises:
        UserError: Unknown name, or sizes that do not fit together.
    """
    if token and takes_token(subject, config):
        return make_distilled(subject, config, num_classes, drop_path)
    if isinstance(subject, Genotype):
        return make_network(subject, config, num_classes, drop_path)
    if isinstance(subject, Subnet):
        return make_subnet(subject, config, num_classes, drop_path)
    return make_model(subject, config, num_classes, drop_path=drop_path)
