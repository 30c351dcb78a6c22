"""The entangled supernet: all networks of a space share weights, each the first rows and columns of the largest's.

Shapes: B images, S side of the image.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dasvit.cell.subnet import Subnet
from dasvit.config import ModelConfig
from dasvit.models.autoformer import AutoFormer
from dasvit.models.subnet import make_subnet
from dasvit.search.autoformer.space import SubnetSpace


class EntangledSupernet(nn.Module):
    """A space's largest network, which computes as any other of the space on a part of its weights.

    Args:
        space: The networks.
        config: Image and patch size.
        classes: Classes of the head.
        seed: What the drawn networks are a function of, beside the step.

    Attributes:
        weights: The largest network.
        subnet: The network that it computes as.
    """

    def __init__(self, space: SubnetSpace, config: ModelConfig, classes: int, seed: int) -> None:
        super().__init__()
        self.space, self.config, self.classes, self.seed = space, config, classes, seed
        self.subnet = space.largest
        self.weights = make_subnet(space.largest, config, classes)

    def draw(self, step: int) -> None:
        """Compute as the network of a training step: drawn uniformly, the same on every process."""
        self.subnet = self.space.draw(random.Random(f"{self.seed} autoformer {step}"))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images, [B, 3, S, S] -> [B, classes]."""
        network = empty_network(self.subnet, self.config.image_size, self.config.patch_size, self.classes)
        tensors: dict[str, Tensor] = {**self.state_of(network), **dict(self.weights.named_buffers())}
        logits: Tensor = functional_call(network, tensors, (images,), strict=True)
        return logits

    def state_of(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the parameters of a network of the space, views of the shared ones."""
        shared: Mapping[str, Tensor] = dict(self.weights.named_parameters())
        return {name: part_of(name, shared[name], like.shape) for name, like in network.named_parameters()}

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that weight decay spares (timm's convention)."""
        return {f"weights.{name}" for name in self.weights.no_weight_decay()}


def part_of(name: str, shared: Tensor, shape: torch.Size) -> Tensor:
    """Return the first rows and columns of a shared parameter, as many as a shape has.

    Queries, keys and values stand in one matrix, a third of its rows each: of each third the first rows are meant.
    """
    if ".qkv." in name:
        thirds = shared.unflatten(0, (3, -1))[:, : shape[0] // 3]
        part: Tensor = thirds[..., : shape[1]].flatten(0, 1) if len(shape) == 2 else thirds.flatten()
        return part
    return shared[tuple(map(slice, shape))]


@functools.lru_cache(maxsize=4)
def empty_network(subnet: Subnet, image_size: int, patch_size: int, classes: int) -> AutoFormer:
    """Return a network without weights, on the meta device."""
    with torch.device("meta"):
        return make_subnet(subnet, ModelConfig(image_size=image_size, patch_size=patch_size), classes)
