"""The search space: which operations stand on which edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dasvit.cell.genotype import BLOCK, OURS, Genotype, edge_list, parse_operation
from dasvit.config import SpaceConfig
from dasvit.errors import UserError

OperationMask = tuple[tuple[bool, ...], ...]
"""For every edge and operation of a space, whether it is still a candidate: `[E][O]`."""


def as_mask(rows: Iterable[Iterable[object]]) -> OperationMask:
    """Return a table of truth values `[E][O]`, as a file or tensor has it, as a mask of operations."""
    return tuple(tuple(map(bool, row)) for row in rows)


@dataclass(frozen=True)
class Space:
    """The cells that a search can find.

    Attributes:
        nodes: The cell's own nodes.
        operations: Names of the candidate operations (O of them), the same on each of the E edges.
        plain: Whether nothing comes from the layer before the previous one, as in a plain ViT.
    """

    nodes: int
    operations: tuple[str, ...]
    plain: bool = False

    @classmethod
    def from_config(cls, config: SpaceConfig) -> Space:
        """Return zero, identity, an attention a head count, an MLP a ratio (section 3), shifts, convs and extra ones.

        Raises:
            UserError: `space.extra` names an unknown operation, one of ours, or one twice.
        """
        if config.cell == BLOCK:
            return cls(1, ("zero", *(f"{BLOCK}_{heads}" for heads in config.heads)), plain=True)
        attentions = [f"msa_{heads}" for heads in config.heads]
        mlps = [f"mlp_{ratio:g}" for ratio in config.ratios]
        shifts = [f"shift_{ratio:g}" for ratio in config.shifts]
        convs = [f"conv_{ratio:g}" for ratio in config.convs]
        operations = ("zero", "identity", *attentions, *mlps, *shifts, *convs, *config.extra)
        for name in config.extra:
            if parse_operation(name).kind in OURS:
                raise UserError(
                    f"space.extra names {name}: attentions stand in space.heads, MLPs in space.ratios, shifts in "
                    "space.shifts, convolutions in space.convs."
                )
            if config.extra.count(name) > 1:
                raise UserError(f"space.extra names an operation twice: {name}.")
        return cls(config.nodes, operations)

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Every (source, target), in the order of computation."""
        return edge_list(self.nodes)

    @property
    def edge_names(self) -> list[str]:
        """The edges as they are written in files, as prev1→x2."""
        return [f"{source}→{target}" for source, target in self.edges]

    def kinds(self) -> list[str]:
        """Return the kind (zero, identity, msa, mlp, or a registered one) of every operation."""
        return [parse_operation(name).kind for name in self.operations]

    def everything(self) -> OperationMask:
        """Return the OperationMask of a search's start: all operations on all edges that there are."""
        return tuple(tuple(self.allows(source, op) for op in self.operations) for source, _ in self.edges)

    def allows(self, source: str, op: str) -> bool:
        """Tell whether an edge from a source can have an operation."""
        return not self.plain or source != "prev2" or op == "zero"

    def one_hot(self, genotype: Genotype) -> list[list[float]]:
        """Return the edge weights `[E][O]` that are 1 at the genotype's operations and 0 elsewhere."""
        assert genotype.nodes == self.nodes, "a genotype of another space"
        return [[float(name == op) for name in self.operations] for op in genotype.ops]
