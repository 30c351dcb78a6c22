"""The evolution of subnets within a budget; sees networks as data and their scores, never modules."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from dasvit.cell.subnet import Subnet
from dasvit.config import AutoFormerConfig
from dasvit.search.autoformer.space import SubnetSpace

PATIENCE = 10
"""Draws for each network that mutations and crosses shall give, after which the rest of a population is drawn."""
TRIES = 20_000
"""Draws in a row after which the space is taken to hold no further network within the budget."""


@dataclass
class Evolution:
    """An evolution of networks: AutoFormer's, of random ones, mutations and crosses.

    Attributes:
        space: The networks.
        fits: Tells whether a network is within the budget; the space's smallest one is.
        options: Sizes and rates.
        chance: Where draws come from.
        known: The networks that were scored, in order, and their scores.
    """

    space: SubnetSpace
    fits: Callable[[Subnet], bool]
    options: AutoFormerConfig
    chance: random.Random
    known: dict[Subnet, float] = field(default_factory=dict)

    def run(self, score: Callable[[Subnet], float], ended: Callable[[int], None]) -> Subnet:
        """Return the best network that is found; none is scored twice.

        Args:
            score: Gives a network's score; larger is better.
            ended: Told of each generation that has been scored; the first one, 0, is drawn.
        """
        population = self._drawn(self.options.population, ()) or [self.space.smallest]
        for generation in range(self.options.generations + 1):
            for subnet in population:
                self.known[subnet] = score(subnet)
            ended(generation)
            population = self._next()
        return self.best(1)[0]

    def best(self, count: int) -> list[Subnet]:
        """Return the best networks so far; of equals the one that was scored first."""
        return sorted(self.known, key=self.known.__getitem__, reverse=True)[:count]

    def _next(self) -> list[Subnet]:
        """Return new networks: half mutations of the best, half crosses of two of them, and drawn ones to fill up."""
        parents, options, half = self.best(self.options.parents), self.options, self.options.population // 2
        mutants = self._new(
            lambda: self.space.mutate(
                self.chance.choice(parents), options.mutation, options.depth_mutation, self.chance
            ),
            half,
            (),
            PATIENCE * half,
        )
        wanted = options.population - half
        crosses = self._new(lambda: self.space.cross(parents, self.chance), wanted, mutants, PATIENCE * wanted)
        found = [*mutants, *crosses]
        return [*found, *self._drawn(options.population - len(found), found)]

    def _drawn(self, count: int, others: Collection[Subnet]) -> list[Subnet]:
        """Draw so many networks that are new and fit; fewer where no others are found."""
        return self._new(lambda: self.space.draw(self.chance), count, others, TRIES)

    def _new(self, make: Callable[[], Subnet], count: int, others: Collection[Subnet], tries: int) -> list[Subnet]:
        """Return what is made, where it fits and neither was scored nor is among others; fewer after so many tries."""
        found: dict[Subnet, None] = {}
        for _ in range(tries):
            if len(found) == count:
                break
            subnet = make()
            if subnet not in self.known and subnet not in others and self.fits(subnet):
                found[subnet] = None
        return list(found)
