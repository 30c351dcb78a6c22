"""The supernet: every candidate operation on every edge, mixed by edge weights it is given (eq. 8 and 9).

It owns no alphas, no optimiser and no schedule. Shapes: B images, N tokens, D width, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.genotype import Genotype
from dasvit.cell.graph import add
from dasvit.cell.ops import NORM_EPS, Grid, Identity, Parametric, grid_argument, init_weights, make_operation
from dasvit.cell.space import OperationMask, Space
from dasvit.config import TokensConfig
from dasvit.models.skeleton import TokenEmbedding
from dasvit.search.mixture import mix, product_dtype
from dasvit.search.tokens import TokenSelector, gather_tokens, scatter_tokens


def _key(operation: str) -> str:
    return operation.replace(".", "_")  # a submodule's name holds no dot


@dataclass(frozen=True)
class ForwardMode:
    """How a forward pass goes through the edges; by default it evaluates all operations, and nothing drops out.

    Attributes:
        active: For every edge the index of the one operation that is evaluated. None: all are.
        skip_dropout: Rate at which numbers that `identity` passes on drop out in training.
    """

    active: Sequence[int] | None = None
    skip_dropout: float = 0.0


EVERYTHING = ForwardMode()
"""All operations are evaluated, and nothing drops out."""


class _Pass(NamedTuple):
    mode: ForwardMode = EVERYTHING
    kept: Tensor | None = None  # where the tokens stand that were selected, [B, K]
    grid: Grid | None = None


class MixedCell(nn.Module):
    """An encoder layer whose edges mix their candidate operations.

    Args:
        space: The search space.
        alive: The candidates of every edge; others are not built.
        dim: Embedding width D.
        tokens: Token selection; at ratio 1 there is none, and none of its parameters.
        share: K: the first D/K channels alone pass through the operations, the others bypass them.
    """

    def __init__(self, space: Space, alive: OperationMask, dim: int, tokens: TokensConfig, share: int = 1) -> None:
        super().__init__()
        self.space = space
        self.share, self.channels = share, dim // share
        self.selector = TokenSelector(dim, tokens.ratio, tokens.dim, tokens.norm) if tokens.ratio < 1 else None
        names = space.operations
        self.candidates = [[o for o, name in enumerate(names) if row[o] and name != "zero"] for row in alive]
        banks = [
            nn.ModuleDict({_key(names[o]): make_operation(names[o], self.channels) for o in row})
            for row in self.candidates
        ]
        self.names = [f"{source}_{target}" for source, target in space.edges]
        self.edges = nn.ModuleDict(dict(zip(self.names, banks, strict=True)))

    def forward(
        self,
        prev2: Tensor,
        prev1: Tensor,
        weights: Tensor,
        mode: ForwardMode = EVERYTHING,
        *,
        class_only: bool = False,
        grid: Grid | None = None,
    ) -> Tensor:
        """Return the layer's output [B, N, D] from those of the two before it and the edge weights [E, O].

        With `class_only`, as the last layer is asked, only its class token [B, 1, D]. Edge weights [E, O + 1] hold in
        their last column the weight of what bypasses an edge's operations: its source. `grid` are the rows and columns
        of the patches (None: they form a square).
        """
        if self.selector is None:
            return self._mix(prev2, prev1, weights, _Pass(mode, None, grid), class_only)
        places, scores = self.selector(prev1)
        seen = gather_tokens(prev2, places, scores), gather_tokens(prev1, places, scores)
        mixed = self._mix(*seen, weights, _Pass(mode, places, grid), class_only)
        return mixed if class_only else scatter_tokens(prev1, places, mixed)

    def _mix(self, prev2: Tensor, prev1: Tensor, weights: Tensor, how: _Pass, class_only: bool) -> Tensor:
        """Compute the nodes in turn; no one but the head reads the last one, so it may hold the class token alone."""
        values: dict[str, Tensor | None] = {"prev2": prev2, "prev1": prev1}
        normalised: dict[str, Tensor] = {}
        output = None
        for node in range(1, self.space.nodes + 1):
            target = f"x{node}"
            at_class = class_only and node == self.space.nodes
            value = None
            for index, (source, end) in enumerate(self.space.edges):
                x = values[source] if end == target else None
                if x is None:
                    continue
                if source not in normalised:
                    normalised[source] = normalise(self._seen(x))
                value = add(value, self._edge(index, x, normalised[source], weights[index], how, at_class))
            values[target] = value
            output = add(output, value[:, :1] if class_only and value is not None else value)
        return torch.zeros_like(prev1[:, :1] if class_only else prev1) if output is None else output

    def _seen(self, x: Tensor) -> Tensor:
        """Return the channels of x that pass through operations, [B, N, D] -> [B, N, D/K]."""
        return x if self.share == 1 else x[..., : self.channels]

    def _edge(
        self, index: int, x: Tensor, z: Tensor, weights: Tensor, how: _Pass, at_class: bool = False
    ) -> Tensor | None:
        """Return an edge's output for its source x [B, N, D], normalised z, under its weights [O] or [O + 1]."""
        mixed = self._operations(index, self._seen(x), z, weights, how, at_class)
        if len(weights) == len(self.space.operations):
            return mixed
        around = weights[-1].to(x.dtype) * (x[:, :1] if at_class else x)
        if self.share == 1:
            return add(mixed, around)
        # The other channels go around the operations, and all are dealt out anew.
        first, rest = around[..., : self.channels], around[..., self.channels :]
        joined = torch.cat([torch.zeros_like(first) if mixed is None else mixed.to(rest.dtype), rest], dim=-1)
        dealt: Tensor = joined.unflatten(-1, (self.share, self.channels)).transpose(-1, -2).flatten(-2)
        return dealt

    def _operations(
        self, index: int, x: Tensor, z: Tensor, weights: Tensor, how: _Pass, at_class: bool = False
    ) -> Tensor | None:
        """Mix an edge's candidates for what they see of its source, x [B, N, D/K], normalised z."""
        output: Tensor | None = None
        parametric: dict[int, Parametric] = {}
        for o, operation in zip(self.candidates[index], self.edges[self.names[index]].children(), strict=True):
            if how.mode.active is not None and how.mode.active[index] != o:
                continue
            if isinstance(operation, Parametric):
                parametric[o] = operation
            else:
                found = operation(x, **grid_argument(operation, how.grid, how.kept))
                if how.mode.skip_dropout and isinstance(operation, Identity):
                    found = F.dropout(found, how.mode.skip_dropout, self.training)
                output = add(output, weights[o].to(x.dtype) * (found[:, :1] if at_class else found))
        if parametric and not at_class:
            mixed = mix(list(parametric.values()), z, weights[list(parametric)], how.kept, how.grid)
            return add(output, mixed)
        for o, one in parametric.items():
            output = add(output, weights[o].to(z.dtype) * one.class_token(z, **grid_argument(one, how.grid)))
        return output


def normalise(x: Tensor) -> Tensor:
    """Return x with mean 0 and variance 1 at every token, in the precision of matrix products, [B, N, D]."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS).to(product_dtype(x))


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
        share: K of partial channels: D/K of them pass through the operations. 1: all.
        stem: How an image becomes tokens, as of the derived network.
        pool: What the head reads, likewise: the class token, or the mean of the patches.
    """

    def __init__(
        self,
        space: Space,
        alive: OperationMask,
        *,
        image_size: int,
        patch_size: int,
        dim: int,
        layers: int,
        num_classes: int,
        tokens: TokensConfig,
        share: int = 1,
        stem: str = "patch",
        pool: str = "token",
    ) -> None:
        super().__init__()
        self.space, self.pool = space, pool
        self.embed = TokenEmbedding(image_size, patch_size, 3, dim, stem=stem)
        self.blocks = nn.ModuleList(MixedCell(space, alive, dim, tokens, share) for _ in range(layers))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head = nn.Linear(dim, num_classes)
        self.blocks.apply(init_weights)
        init_weights(self.head)

    def forward(self, images: Tensor, weights: Tensor, mode: ForwardMode = EVERYTHING) -> Tensor:
        """Return logits [B, classes] for images [B, 3, S, S] under edge weights [E, O] (see `MixedCell.forward`)."""
        prev2 = prev1 = self.embed(images)
        grid = self.embed.grid(images)
        for depth, block in enumerate(self.blocks, start=1):
            class_only = self.pool == "token" and depth == len(self.blocks)
            prev2, prev1 = prev1, block(prev2, prev1, weights, mode, class_only=class_only, grid=grid)
        read = self.norm(prev1[:, 0]) if self.pool == "token" else self.norm(prev1[:, 1:]).mean(dim=1)
        logits: Tensor = self.head(read)
        return logits

    def kept_tokens(self, images: Tensor, weights: Tensor) -> list[Tensor]:
        """Return the places of the tokens that each layer keeps, [B, K] a layer; no layer's without selection.

        Args:
            images: [B, 3, S, S].
            weights: Edge weights, as in `forward`.
        """
        prev2 = prev1 = self.embed(images)
        kept = []
        for block in self.blocks:
            assert isinstance(block, MixedCell)
            if block.selector is not None:
                kept.append(block.selector(prev1)[0])
            prev2, prev1 = prev1, block(prev2, prev1, weights, grid=self.embed.grid(images))
        return kept

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
