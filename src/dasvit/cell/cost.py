"""Parameters and multiply-adds in closed form (method, section 12), with no torch in sight.

They add up exactly to what the counter of `dasvit.models.cost` finds: a network costs its skeleton and, for every
layer, the operations of its cell.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dasvit.cell.genotype import BLOCK, Genotype, parse_operation
from dasvit.cell.graph import live_edges
from dasvit.config import ModelConfig
from dasvit.config.validation import check_patches, check_stem


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

    def to_dict(self) -> dict[str, int]:
        """Return the figures by name, as JSON holds them."""
        return {"params": self.params, "macs": self.macs, "macs_linear": self.macs_linear}

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.params + other.params, self.macs + other.macs, self.macs_linear + other.macs_linear)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.params * times, self.macs * times, self.macs_linear * times)


def _attention(number: float, dim: int, tokens: int) -> Cost:
    linear = 4 * tokens * dim**2
    return Cost(2 * dim + 4 * dim**2 + 4 * dim, linear + 2 * tokens**2 * dim, linear)


def _mlp(number: float, dim: int, tokens: int) -> Cost:
    hidden = max(1, round(dim * number))
    linear = 2 * tokens * dim * hidden
    return Cost(2 * dim + 2 * dim * hidden + hidden + dim, linear, linear)


def _conv(number: float, dim: int, tokens: int) -> Cost:
    hidden = max(1, round(dim * number))
    depthwise = 9 * (tokens - 1) * hidden
    return _mlp(number, dim, tokens) + Cost(10 * hidden, depthwise, depthwise)


def _block(number: float, dim: int, tokens: int) -> Cost:
    return _attention(number, dim, tokens) + _mlp(4, dim, tokens)


COSTS: dict[str, Callable[[float, int, int], Cost]] = {
    "msa": _attention,
    "mlp": _mlp,
    "shift": _mlp,
    "conv": _conv,
    BLOCK: _block,
}
"""A kind of operation and its cost, from the number behind its name, the width D and the tokens N; others are free."""


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
    return COSTS[operation.kind](operation.number, dim, tokens) if operation.kind in COSTS else Cost()


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


def skeleton_cost(config: ModelConfig, num_classes: int) -> Cost:
    """Return the cost of everything but the layers: embedding, positions, final norm and head."""
    tokens, dim = token_count(config), config.width
    stem = stem_cost(config)
    linear = stem.macs + dim * num_classes
    tables = dim + tokens * dim
    return Cost(stem.params + tables + 2 * dim + dim * num_classes + num_classes, linear, linear)


def stem_channels(dim: int, patch_size: int) -> list[int]:
    """Return the channels behind each 3 × 3 convolution of a convolutional stem: they double up to the width D.

    Raises:
        UserError: The patch's side is no power of two.
    """
    check_stem("conv", patch_size)
    steps = patch_size.bit_length() - 1
    return [max(1, dim >> (steps - 1 - step)) for step in range(steps)]


def stem_cost(config: ModelConfig) -> Cost:
    """Return the cost of what makes patches into tokens."""
    patches, dim = token_count(config) - 1, config.width
    if config.stem == "patch":
        patch = 3 * config.patch_size**2
        return Cost(patch * dim + dim, patches * patch * dim, patches * patch * dim)
    pooled = config.stem == "cct"  # its convolutions come before the image is halved, and none of 1 × 1 behind them
    params, macs, before, side = 0, 0, 3, config.image_size
    for channels in stem_channels(dim, config.patch_size):
        params += 9 * before * channels + 2 * channels
        macs += 9 * before * channels * (side if pooled else side // 2) ** 2
        before, side = channels, side // 2
    last = Cost() if pooled else Cost(dim * dim + dim, patches * dim * dim, patches * dim * dim)
    return Cost(params, macs, macs) + last


def network_cost(genotype: Genotype, config: ModelConfig, num_classes: int) -> Cost:
    """Return the cost of a derived network in closed form: what `cost_of` counts, without building it."""
    config = genotype.at(config)
    layer = cell_cost(genotype, config.width, token_count(config))
    return skeleton_cost(config, num_classes) + layer * config.layers


VIT_LAYER = ("msa_1", "mlp_4")
"""The operations of a ViT's encoder layer; the number of heads costs nothing."""


def vit_cost(config: ModelConfig, num_classes: int) -> Cost:
    """Return the cost of the ViT of the same width, depth and tokens (the baseline `vit`) in closed form."""
    parts = (operation_cost(name, config.width, token_count(config)) for name in VIT_LAYER)
    return skeleton_cost(config, num_classes) + sum(parts, start=Cost()) * config.layers
