"""The supernet: every candidate operation on every edge, mixed by edge weights it is given (eq. 8 and 9).

It owns no alphas, no optimiser and no schedule. Shapes: B images, N tokens, D width, E edges, O operations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dasvit.cell.genotype import Genotype
from dasvit.cell.graph import add, walk
from dasvit.cell.ops import NORM_EPS, init_weights, make_operation
from dasvit.cell.space import Alive, Space
from dasvit.config import TokensConfig
from dasvit.models.skeleton import TokenEmbedding
from dasvit.search.tokens import TokenSelector, put, take


def _key(operation: str) -> str:
    return operation.replace(".", "_")  # a submodule's name holds no dot


class MixedCell(nn.Module):
    """An encoder layer whose edges mix their candidate operations.

    Args:
        space: The search space.
        alive: The candidates of every edge; others are not built.
        dim: Embedding width D.
        tokens: Token selection; at ratio 1 there is none, and none of its parameters.
    """

    def __init__(self, space: Space, alive: Alive, dim: int, tokens: TokensConfig) -> None:
        super().__init__()
        self.space = space
        self.selector = TokenSelector(dim, tokens.ratio, tokens.dim) if tokens.ratio < 1 else None
        self.candidates = [
            [(o, name) for o, name in enumerate(space.operations) if row[o] and name != "zero"] for row in alive
        ]
        banks = [
            nn.ModuleDict({_key(name): make_operation(name, dim) for _, name in candidates})
            for candidates in self.candidates
        ]
        names = [f"{source}_{target}" for source, target in space.edges]
        self.edges = nn.ModuleDict(dict(zip(names, banks, strict=True)))

    def forward(self, prev2: Tensor, prev1: Tensor, weights: Tensor) -> Tensor:
        """Return the layer's output [B, N, D] from those of the two before it and the edge weights [E, O]."""
        if self.selector is None:
            return self._mix(prev2, prev1, weights)
        places, factors = self.selector(prev1)
        mixed = self._mix(take(prev2, places, factors), take(prev1, places, factors), weights)
        return put(prev1, places, mixed)

    def _mix(self, prev2: Tensor, prev1: Tensor, weights: Tensor) -> Tensor:
        banks = list(self.edges.values())

        def edge(index: int, x: Tensor) -> Tensor | None:
            output = None
            for (o, _), operation in zip(self.candidates[index], banks[index].children(), strict=True):
                output = add(output, weights[index, o].to(x.dtype) * operation(x))
            return output

        output = walk(self.space.nodes, prev2, prev1, edge)
        return torch.zeros_like(prev1) if output is None else output


class Supernet(nn.Module):
    """A ViT skeleton whose layers are mixed cells.

    Args:
        space: The search space.
        alive: The candidates of every edge.
        image_size: Side of the image in pixels.
        patch_size: Side of a patch in pixels.
        dim: Embedding width D.
        layers: Encoder layers.
        num_classes: Width of the head.
        tokens: Token selection.
    """

    def __init__(
        self,
        space: Space,
        alive: Alive,
        *,
        image_size: int,
        patch_size: int,
        dim: int,
        layers: int,
        num_classes: int,
        tokens: TokensConfig,
    ) -> None:
        super().__init__()
        self.space = space
        self.embed = TokenEmbedding(image_size, patch_size, 3, dim)
        self.blocks = nn.ModuleList(MixedCell(space, alive, dim, tokens) for _ in range(layers))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head = nn.Linear(dim, num_classes)
        self.blocks.apply(init_weights)
        init_weights(self.head)

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        """Return logits [B, classes] for images [B, 3, S, S] under edge weights [E, O]."""
        prev2 = prev1 = self.embed(images)
        for block in self.blocks:
            prev2, prev1 = prev1, block(prev2, prev1, weights)
        logits: Tensor = self.head(self.norm(prev1[:, 0]))
        return logits

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that weight decay spares (timm's convention)."""
        return {f"embed.{name}" for name, _ in self.embed.named_parameters() if "token" in name or "pos" in name}

    def state_of(self, genotype: Genotype) -> dict[str, Tensor]:
        """Return the state dictionary of the derived network that shares this supernet's weights."""
        chosen = {f"{e.source}_{e.target}": _key(e.op) for e in genotype.edges}
        state = {}
        for name, value in self.state_dict().items():
            if not name.startswith("blocks."):
                state[name] = value
                continue
            _, layer, group, *rest = name.split(".")
            if group == "edges" and chosen[rest[0]] == rest[1]:
                state[".".join(["blocks", layer, rest[0], *rest[2:]])] = value
        return state

    @torch.no_grad()
    def inherit(self, other: Supernet) -> None:
        """Copy the weights of a supernet of fewer layers, each of its layers serving its share of the deeper one."""
        mine, theirs = self.state_dict(), other.state_dict()
        for name, value in mine.items():
            if name.startswith("blocks."):
                _, layer, rest = name.split(".", 2)
                name = f"blocks.{int(layer) * len(other.blocks) // len(self.blocks)}.{rest}"
            if name in theirs:
                value.copy_(theirs[name])
