"""The spaces of networks that the method autoformer searches: what a layer and a network may be, and how they vary."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from dasvit.cell.subnet import Subnet

TRIES = 50
"""Draws of two parents after which those of unequal depth are not crossed."""


@dataclass(frozen=True, kw_only=True)
class SubnetSpace:
    """Networks by what each of their sizes may be, in rising order.

    Attributes:
        widths: Embedding widths D.
        depths: Numbers of layers.
        heads: Attention heads of a layer.
        ratios: Hidden width over D of a layer's MLP.
        head_width: Width of a head.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    ratios: tuple[float, ...]
    head_width: int = 64

    @property
    def largest(self) -> Subnet:
        """The network that holds the weights of all others."""
        depth = self.depths[-1]
        return Subnet(self.widths[-1], self.head_width, self.heads[-1:] * depth, self.ratios[-1:] * depth)

    @property
    def smallest(self) -> Subnet:
        """The network that costs least."""
        return Subnet(
            self.widths[0], self.head_width, self.heads[:1] * self.depths[0], self.ratios[:1] * self.depths[0]
        )

    def __contains__(self, subnet: Subnet) -> bool:
        """Tell whether a network is of the space."""
        sizes = subnet.width in self.widths and subnet.depth in self.depths and subnet.head_width == self.head_width
        return sizes and set(subnet.heads) <= set(self.heads) and set(subnet.ratios) <= set(self.ratios)

    def draw(self, chance: random.Random) -> Subnet:
        """Draw a network, each of its sizes uniformly."""
        depth = chance.choice(self.depths)
        return Subnet(chance.choice(self.widths), self.head_width, *self._layers(depth, chance))

    def mutate(self, subnet: Subnet, rate: float, depth_rate: float, chance: random.Random) -> Subnet:
        """Return a network like this one but for some of its sizes.

        Args:
            subnet: The network.
            rate: Rate at which each layer's heads, and each layer's ratio, are drawn anew.
            depth_rate: Likewise the depth, and the width; what a deeper network has more is drawn, too.
            chance: Where draws come from.
        """
        heads, ratios, width = subnet.heads, subnet.ratios, subnet.width
        if chance.random() < depth_rate:
            depth = chance.choice(self.depths)
            more = self._layers(max(0, depth - subnet.depth), chance)
            heads, ratios = (heads + more[0])[:depth], (ratios + more[1])[:depth]
        heads = tuple(chance.choice(self.heads) if chance.random() < rate else count for count in heads)
        ratios = tuple(chance.choice(self.ratios) if chance.random() < rate else ratio for ratio in ratios)
        if chance.random() < depth_rate:
            width = chance.choice(self.widths)
        return replace(subnet, width=width, heads=heads, ratios=ratios)

    def cross(self, parents: list[Subnet], chance: random.Random) -> Subnet:
        """Return a network that has each of its sizes from one of two parents of one depth."""
        for _ in range(TRIES):
            one, other = chance.choice(parents), chance.choice(parents)
            if one.depth == other.depth:
                break
        else:
            other = one
        heads = tuple(chance.choice(pair) for pair in zip(one.heads, other.heads, strict=True))
        ratios = tuple(chance.choice(pair) for pair in zip(one.ratios, other.ratios, strict=True))
        return replace(one, width=chance.choice([one.width, other.width]), heads=heads, ratios=ratios)

    def _layers(self, depth: int, chance: random.Random) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Draw the heads and the ratios of so many layers."""
        return tuple(chance.choices(self.heads, k=depth)), tuple(chance.choices(self.ratios, k=depth))


SPACES = {
    "tiny": SubnetSpace(widths=(192, 216, 240), depths=(12, 13, 14), heads=(3, 4), ratios=(3.5, 4.0)),
    "small": SubnetSpace(widths=(320, 384, 448), depths=(12, 13, 14), heads=(5, 6, 7), ratios=(3.0, 3.5, 4.0)),
    "base": SubnetSpace(widths=(528, 576, 624), depths=(14, 15, 16), heads=(8, 9, 10), ratios=(3.0, 3.5, 4.0)),
    "scaled": SubnetSpace(
        widths=(72, 96, 120),
        depths=(4, 5, 6, 7, 8),
        heads=(3, 4, 5),
        ratios=(1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
        head_width=24,
    ),
}
"""AutoFormer's three spaces, and one around the ViT of the study's size: width 96, 6 layers, 4 heads, ratio 4."""
