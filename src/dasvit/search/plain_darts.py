"""Plain DARTS on a ViT, as the DARTS family publishes it: what our supernet's speed and memory are measured against.

An `nn.Module` an operation, each with its own LayerNorm; PyTorch's fused attention; every operation's output written
out, scaled by its weight and summed; the alpha step by a full backward pass whose weight gradients are thrown away.
Parameters carry the names of `dasvit.search.supernet.Supernet` at ratio 1, so that one loads the other's state
(`tests/test_plain_darts.py` holds their outputs and gradients together). This is the only code here that may be slow.

Shapes: B images, N tokens, D width, E edges, O operations.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from dasvit.cell import ops as cell_ops
from dasvit.cell.genotype import edge_list, parse_operation
from dasvit.config import SearchConfig
from dasvit.models.skeleton import TokenEmbedding
from dasvit.runtime.distributed import Runtime
from dasvit.search.probe import optimizer_states
from dasvit.search.state import Batch
from dasvit.training.optim import make_optimizer
from dasvit.training.steps import at_least_float32


class Zero(nn.Module):
    """A tensor of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros, [B, N, D]."""
        return torch.zeros_like(x)


class SelfAttention(nn.Module):
    """Pre-norm multi-head self-attention on PyTorch's fused kernel."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.inner = nn.Linear(dim, 3 * dim)
        self.outer = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention of x, [B, N, D]."""
        batch, tokens, dim = x.shape
        qkv = self.inner(self.norm(x)).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        mixed = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        output: Tensor = self.outer(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return output


class FeedForward(nn.Module):
    """Pre-norm MLP."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the MLP of x, [B, N, D]."""
        output: Tensor = self.outer(F.gelu(self.inner(self.norm(x))))
        return output


def make_operation(name: str, dim: int) -> nn.Module:
    """Return the module of an operation's name."""
    operation = parse_operation(name)
    if operation.kind == "msa":
        return SelfAttention(dim, int(operation.number))
    if operation.kind == "mlp":
        return FeedForward(dim, round(dim * operation.number))
    if operation.kind in ("zero", "identity"):
        return Zero() if operation.kind == "zero" else nn.Identity()
    return cell_ops.make_operation(operation, dim)  # of a registered kind there is one version


class MixedLayer(nn.Module):
    """An encoder layer in which every edge runs all its operations and sums their scaled outputs."""

    def __init__(self, nodes: int, operations: Sequence[str], dim: int) -> None:
        super().__init__()
        self.nodes, self.pairs = nodes, edge_list(nodes)
        self.edges = nn.ModuleDict(
            {
                f"{source}_{target}": nn.ModuleDict({n.replace(".", "_"): make_operation(n, dim) for n in operations})
                for source, target in self.pairs
            }
        )

    def forward(self, prev2: Tensor, prev1: Tensor, weights: Tensor, grid: cell_ops.Grid) -> Tensor:
        """Return the layer's output [B, N, D] for edge weights [E, O] and the rows and columns of the patches."""
        values = {"prev2": prev2, "prev1": prev1}
        for node in range(self.nodes):
            target = f"x{node + 1}"
            total = torch.zeros_like(prev1)
            for index, (source, end) in enumerate(self.pairs):
                if end == target:
                    bank = self.edges[f"{source}_{target}"].children()
                    outputs = (op(values[source], **cell_ops.grid_argument(op, grid)) for op in bank)
                    total = total + sum(w * output for w, output in zip(weights[index], outputs, strict=True))
            values[target] = total
        return torch.stack([values[f"x{node + 1}"] for node in range(self.nodes)]).sum(dim=0)


class PlainSupernet(nn.Module):
    """The ViT skeleton over plain mixed layers."""

    def __init__(
        self,
        nodes: int,
        operations: Sequence[str],
        *,
        image_size: int,
        patch_size: int,
        dim: int,
        layers: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.embed = TokenEmbedding(image_size, patch_size, 3, dim)
        self.blocks = nn.ModuleList(MixedLayer(nodes, operations, dim) for _ in range(layers))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        """Return logits [B, classes] for images [B, 3, S, S] under edge weights [E, O]."""
        prev2 = prev1 = self.embed(images)
        for block in self.blocks:
            prev2, prev1 = prev1, block(prev2, prev1, weights, self.embed.grid(images))
        logits: Tensor = self.head(self.norm(prev1[:, 0]))
        return logits


def alpha_gradient(
    supernet: PlainSupernet,
    images: Tensor,
    labels: Tensor,
    alpha: Tensor,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """Return the gradient of the validation loss in alpha, [E, O], by a full backward pass."""
    loss_of(supernet, images, labels, alpha.softmax(dim=-1), autocast).backward()
    for parameter in supernet.parameters():
        parameter.grad = None
    gradient = alpha.grad
    assert gradient is not None, "alpha is no leaf that requires a gradient"
    alpha.grad = None
    return gradient


def loss_of(
    supernet: PlainSupernet,
    images: Tensor,
    labels: Tensor,
    weights: Tensor,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """Return the loss of a batch under edge weights [E, O]; `autocast` makes the forward pass's context."""
    with autocast():
        logits = supernet(images, weights)
    return F.cross_entropy(at_least_float32(logits), labels)


class PlainStep:
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
        self.supernet, self.alpha, self.batches, self.runtime = supernet, alpha, list(batches), runtime
        self.clip = config.weights.clip_grad
        self.optimizer = make_optimizer(supernet, config.weights)
        alphas = config.alphas
        self.alpha_optimizer = torch.optim.Adam([alpha], alphas.lr, alphas.betas, weight_decay=alphas.weight_decay)

    def __call__(self) -> None:
        """Do a step."""
        self.alpha_step()
        self.weight_step()

    def alpha_step(self) -> None:
        """Move alpha."""
        self.alpha.grad = alpha_gradient(self.supernet, *self.batches[1], self.alpha, self.runtime.autocast)
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
        return loss_of(self.supernet, *batch, alpha.softmax(dim=-1), self.runtime.autocast)

    def optimizers(self) -> list[Optimizer]:
        """Return the optimisers of the weights and of alpha."""
        return [self.optimizer, self.alpha_optimizer]

    def tensors(self) -> list[Tensor]:
        """Return what is alive between two steps."""
        owned = [*self.supernet.parameters(), *self.supernet.buffers(), self.alpha]
        return [*owned, *(t for batch in self.batches for t in batch), *optimizer_states(self.optimizers())]
