"""Parameters and multiply-adds (method, section 12): counted on the network itself, and in closed form.

The count comes from PyTorch's flop counter on the meta device, where no arithmetic is done and where every
kernel is seen (on the CPU the fused attention has gone uncounted). The closed forms add up exactly to it:
a network costs its skeleton and, for every layer, the operations of its cell.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dasvit.cell.genotype import Genotype, parse_operation
from dasvit.cell.graph import live_edges
from dasvit.config import ModelConfig
from dasvit.errors import UserError
from dasvit.models.baselines import make_model, make_network
from dasvit.models.skeleton import ImageSize, check_patches, size_pair

LINEAR = frozenset({"mm", "addmm", "convolution"})
"""What linear layers, convolutions and the patch embedding become; attention products are none of these."""


@dataclass(frozen=True)
class Cost:
    """What a network, or a part of one, costs for one image.

    Attributes:
        params: Parameters.
        macs: Multiply-adds, attention products included.
        macs_linear: Those of linear layers and convolutions alone.
    """

    params: int = 0
    macs: int = 0
    macs_linear: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.params + other.params, self.macs + other.macs, self.macs_linear + other.macs_linear)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.params * times, self.macs * times, self.macs_linear * times)


def count_cost(model: nn.Module, image_size: ImageSize, in_chans: int = 3) -> Cost:
    """Count a network on one image.

    Args:
        model: The network, on any device; it is neither changed nor run.
        image_size: Height and width of the image.
        in_chans: Its channels.
    """
    shadow = _on_meta(model).eval()
    image = torch.empty(1, in_chans, *size_pair(image_size), device="meta", dtype=_dtype(shadow.parameters()))
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


def _dtype(parameters: Iterable[Tensor]) -> torch.dtype:
    return next((p.dtype for p in parameters), torch.float32)


def cost_of(model: str | Genotype, config: ModelConfig, num_classes: int) -> Cost:
    """Count a network that need not exist, from its name (see `make_model`) or its cell.

    Raises:
        UserError: Unknown name, or sizes that do not fit together.
    """
    return count_cost(make_on_meta(model, config, num_classes), config.image_size)


def make_on_meta(model: str | Genotype, config: ModelConfig, num_classes: int, drop_path: float = 0.0) -> nn.Module:
    """Build a network without its weights, on the meta device: for counting, and to see whether it can be built.

    Raises:
        UserError: Unknown name, or sizes that do not fit together.
    """
    if isinstance(model, Genotype):
        with torch.device("meta"):
            return make_network(model, config, num_classes, drop_path)
    try:
        with torch.device("meta"):
            return make_model(model, config, num_classes, drop_path=drop_path)
    except UserError as error:
        if not isinstance(error.__cause__, NotImplementedError):
            raise
    # Some constructors of timm's compute with tensors in ways that older torch cannot on the meta device.
    return _on_meta(make_model(model, config, num_classes, drop_path=drop_path))


def operation_cost(name: str, dim: int, tokens: int) -> Cost:
    """Return the cost of one operation, in closed form.

    Args:
        name: Its name, as msa_4.
        dim: Embedding width D.
        tokens: Tokens N, class token included.

    Raises:
        UserError: Unknown name.
    """
    operation = parse_operation(name)
    if operation.kind == "msa":
        linear = 4 * tokens * dim**2
        return Cost(2 * dim + 4 * dim**2 + 4 * dim, linear + 2 * tokens**2 * dim, linear)
    if operation.kind == "mlp":
        hidden = max(1, round(dim * operation.number))
        linear = 2 * tokens * dim * hidden
        return Cost(2 * dim + 2 * dim * hidden + hidden + dim, linear, linear)
    return Cost()


def cell_cost(genotype: Genotype, dim: int, tokens: int) -> Cost:
    """Return the cost of one layer: the sum over the edges that carry something."""
    costs = (operation_cost(genotype.edges[index].op, dim, tokens) for index in live_edges(genotype))
    return sum(costs, start=Cost())


def token_count(config: ModelConfig) -> int:
    """Return the tokens N of an image, class token included.

    Raises:
        UserError: The patches do not cover the image.
    """
    check_patches(config.image_size, config.patch_size)
    return (config.image_size // config.patch_size) ** 2 + 1


def skeleton_cost(config: ModelConfig, num_classes: int, in_chans: int = 3) -> Cost:
    """Return the cost of everything but the layers: embedding, positions, final norm and head."""
    tokens, dim = token_count(config), config.width
    patch = in_chans * config.patch_size**2
    linear = (tokens - 1) * patch * dim + dim * num_classes
    embedding = patch * dim + dim + dim + tokens * dim
    return Cost(embedding + 2 * dim + dim * num_classes + num_classes, linear, linear)


def network_cost(genotype: Genotype, config: ModelConfig, num_classes: int, in_chans: int = 3) -> Cost:
    """Return the cost of a derived network in closed form: what `cost_of` counts, without building it."""
    layer = cell_cost(genotype, config.width, token_count(config))
    return skeleton_cost(config, num_classes, in_chans) + layer * config.layers
