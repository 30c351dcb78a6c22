"""Plain DARTS on a ViT, as the DARTS family publishes it: what our supernet's speed and memory are measured against.

An `nn.Module` an operation, each with its own LayerNorm; PyTorch's fused attention; every operation's output written
out, scaled by its weight and summed; the alpha step by a full backward pass whose weight gradients are thrown away.
Skeleton and parameters are those of `dasvit.search.supernet.Supernet` at ratio 1, so that one loads the other's state
(`tests/test_plain_darts.py` holds their outputs and gradients together). This is the only code here that may be slow.

Shapes: B images, N tokens, D width, E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.ops import Attention, Grid, grid_argument
from dasvit.cell.space import Space
from dasvit.config import SearchConfig, TokensConfig
from dasvit.runtime.distributed import Runtime
from dasvit.search.probe import Step
from dasvit.search.state import Batch
from dasvit.search.supernet import EVERYTHING, ForwardMode, MixedCell, Supernet
from dasvit.training.optim import make_optimizer
from dasvit.training.steps import at_least_float32

ALL_TOKENS = TokensConfig(ratio=1.0)


class FusedAttention(Attention):
    """Self-attention on PyTorch's fused kernel, whatever the device."""

    def features(self, h: Tensor) -> Tensor:
        """Return the heads' outputs side by side for queries, keys and values, [B, N, 3D] -> [B, N, D]."""
        batch, tokens, width = h.shape
        qkv = h.reshape(batch, tokens, 3, self.heads, width // (3 * self.heads))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return mixed.transpose(1, 2).reshape(batch, tokens, width // 3)


class PlainCell(MixedCell):
    """An encoder layer in which every edge runs all its operations and sums their scaled outputs."""

    def __init__(self, space: Space, dim: int) -> None:
        super().__init__(space, space.everything(), dim, ALL_TOKENS)
        for bank in self.edges.values():
            assert isinstance(bank, nn.ModuleDict)
            for name, operation in bank.items():
                if isinstance(operation, Attention):
                    bank[name] = FusedAttention(dim, operation.heads)

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
        """Return the layer's output [B, N, D] for edge weights [E, O]: at all tokens, of all operations."""
        values = {"prev2": prev2, "prev1": prev1}
        for target in dict.fromkeys(target for _, target in self.space.edges):
            total = torch.zeros_like(prev1)
            for index, (source, end) in enumerate(self.space.edges):
                if end == target:
                    outputs = self._outputs(self.names[index], values[source], grid)
                    total = total + sum(w * output for w, output in zip(weights[index], outputs, strict=True))
            values[target] = total
        return torch.stack(list(values.values())[2:]).sum(dim=0)

    def _outputs(self, edge: str, x: Tensor, grid: Grid | None) -> Iterator[Tensor]:
        bank = iter(self.edges[edge].children())
        for name in self.space.operations:
            if name == "zero":
                yield torch.zeros_like(x)
            else:
                operation = next(bank)
                yield operation(x, **grid_argument(operation, grid))


class PlainSupernet(Supernet):
    """The ViT skeleton over plain mixed layers; the arguments are those of `Supernet`."""

    def __init__(
        self,
        space: Space,
        *,
        image_size: int,
        patch_size: int,
        dim: int,
        layers: int,
        num_classes: int,
        stem: str = "patch",
        pool: str = "token",
    ) -> None:
        sizes = {"image_size": image_size, "patch_size": patch_size, "dim": dim, "num_classes": num_classes}
        super().__init__(space, space.everything(), **sizes, layers=0, tokens=ALL_TOKENS, stem=stem, pool=pool)
        self.blocks = nn.ModuleList(PlainCell(space, dim) for _ in range(layers))


class PlainStep(Step):
    """One step of plain DARTS: alpha by a full backward pass, and the weights, each with its optimiser.

    Args:
        supernet: The supernet.
        alpha: The architecture parameters [E, O], a leaf.
        batches: Images and labels for the weights, and for alpha.
        config: The recipe's search: its optimisers count.
        runtime: Makes the context that forward passes run in.
    """

    def __init__(
        self, supernet: PlainSupernet, alpha: Tensor, batches: Sequence[Batch], config: SearchConfig, runtime: Runtime
    ) -> None:
        self.supernet, self.alpha, self.runtime = supernet, alpha, runtime
        self.clip = config.weights.clip_grad
        alphas = config.alphas
        self.optimizer = make_optimizer(supernet, config.weights)
        self.alpha_optimizer = torch.optim.Adam([alpha], alphas.lr, alphas.betas, weight_decay=alphas.weight_decay)
        super().__init__([supernet], [alpha], [self.optimizer, self.alpha_optimizer], batches)

    def alpha_step(self) -> None:
        """Move alpha."""
        self.loss(self.batches[1], self.alpha).backward()
        self.optimizer.zero_grad(set_to_none=True)
        self.alpha_optimizer.step()
        self.alpha_optimizer.zero_grad(set_to_none=True)

    def weight_step(self) -> None:
        """Move the weights."""
        self.loss(self.batches[0], self.alpha.detach()).backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.supernet.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self, batch: Batch, alpha: Tensor) -> Tensor:
        """Return the loss of a batch under alphas [E, O]."""
        images, labels = batch
        with self.runtime.autocast():
            logits = self.supernet(images, alpha.softmax(dim=-1))
        return F.cross_entropy(at_least_float32(logits), labels)
