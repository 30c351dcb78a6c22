"""Parameters and multiply-adds (method, section 12), counted on the network itself.

The count comes from PyTorch's flop counter on the meta device, where no arithmetic is done and where every
kernel is seen (on the CPU the fused attention has gone uncounted). `dasvit.cell.cost` has the closed forms.
"""

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dasvit.cell.cost import Cost
from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import Found
from dasvit.config import ModelConfig
from dasvit.config.validation import ImageSize, size_pair
from dasvit.errors import UserError
from dasvit.models.build import build_network

LINEAR = frozenset({"mm", "addmm", "convolution"})
"""What linear layers, convolutions and the patch embedding become; attention products are none of these."""


def count_cost(model: nn.Module, image_size: ImageSize, in_chans: int = 3) -> Cost:
    """Count a network on one image.

    Args:
        model: The network, on any device; it is neither changed nor run.
        image_size: Height and width of the image.
        in_chans: Its channels.
    """
    shadow = _on_meta(model).eval()
    dtype = next((p.dtype for p in shadow.parameters()), torch.float32)
    image = torch.empty(1, in_chans, *size_pair(image_size), device="meta", dtype=dtype)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(image)
    flops = counter.get_flop_counts().get("Global", {})
    linear = sum(count for kernel, count in flops.items() if str(kernel).removeprefix("aten.") in LINEAR)
    return Cost(sum(p.numel() for p in shadow.parameters()), sum(flops.values()) // 2, linear // 2)


def _on_meta(model: nn.Module) -> nn.Module:
    """Return a copy of a model on the meta device, without copying its weights on the way."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    memo: dict[int, object] = {id(t): t.detach().to("meta") for t in tensors if not isinstance(t, nn.Parameter)}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    return copy.deepcopy(model, memo)


def cost_of(model: str | Found, config: ModelConfig, num_classes: int) -> Cost:
    """Count a network that need not exist, from its name (see `make_model`), its cell or its sizes.

    Raises:
        UserError: Unknown name, or sizes that do not fit together.
    """
    config = sized(model, config)
    return count_cost(make_on_meta(model, config, num_classes), config.image_size)


def sized(model: str | Found, config: ModelConfig) -> ModelConfig:
    """Return a recipe's section model with the sizes that a cell's file has of its own; of all else as it is."""
    return model.at(config) if isinstance(model, Genotype) else config


def make_on_meta(
    model: str | Found, config: ModelConfig, num_classes: int, drop_path: float = 0.0, token: bool = False
) -> nn.Module:
    """Build a network without its weights, on the meta device: for counting, and to see whether it can be built.

    Args:
        model: A name, a cell or sizes.
        config: The sizes of a cell's network and of our baselines.
        num_classes: Classes.
        drop_path: Rate of stochastic depth at the last layer.
        token: With a distillation token, where it can have one.

    Raises:
        UserError: Unknown name, or sizes that do not fit together.
    """
    try:
        with torch.device("meta"):
            return build_network(model, config, num_classes, drop_path, token)
    except UserError as error:
        if not isinstance(error.__cause__, NotImplementedError):
            raise
    # Some constructors of timm's compute with tensors in ways that older torch cannot on the meta device.
    return _on_meta(build_network(model, config, num_classes, drop_path, token))
