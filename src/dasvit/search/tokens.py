"""Attention-based partial token selection (eq. 13 to 15).

Shapes: B images, N tokens with the class token in front, P = N - 1 patch tokens, K kept tokens with the
class token in front, D embedding width, d width of the score.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dasvit.cell.ops import NORM_EPS


class TokenSelector(nn.Module):
    """Chooses the patch tokens that receive the most attention; the class token always stays.

    A hard top-k gives W_Q and W_K no gradient. So each kept token counts as multiplied by 1 + s - stopgrad(s): no
    value changes, and the gradient reaches the scores.

    Args:
        dim: Embedding width D.
        ratio: Share of the patch tokens that is kept, rho in (0, 1); k = ceil(rho * P).
        score_dim: Width d of queries and keys.
        norm: Score tokens of mean 0 and variance 1 instead of tokens as they are.
    """

    def __init__(self, dim: int, ratio: float, score_dim: int, norm: bool = False) -> None:
        super().__init__()
        self.ratio, self.norm = ratio, norm
        self.query = nn.Linear(dim, min(score_dim, dim), bias=False)
        self.key = nn.Linear(dim, min(score_dim, dim), bias=False)

    def scores(self, x: Tensor) -> Tensor:
        """Return the attention that every token receives, s_j = (1/N) sum_i A_ij: [B, N, D] -> [B, N]."""
        if self.norm:
            x = F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)
        q, k = F.linear(x, torch.cat([self.query.weight, self.key.weight])).chunk(2, dim=-1)
        attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
        received: Tensor = attention.mean(dim=-2)
        return received

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Choose tokens by x, [B, N, D].

        Returns:
            Their places [B, K] in ascending order (0 first, the class token), and their scores [B, K].
        """
        scores = self.scores(x)
        count = kept_tokens(x.shape[1] - 1, self.ratio)
        patches = scores[:, 1:].topk(count, dim=1).indices.sort(dim=1).values + 1
        places = torch.cat([patches.new_zeros(len(x), 1), patches], dim=1)
        return places, scores.gather(1, places)


def kept_tokens(patches: int, ratio: float) -> int:
    """Return k = ceil(rho * P), with a hair's breadth for products that should be whole numbers."""
    return min(patches, max(1, math.ceil(ratio * patches - 1e-9)))


def gather_tokens(x: Tensor, places: Tensor, scores: Tensor) -> Tensor:
    """Return the tokens of x at these places, which carry a gradient to their scores: [B, N, D] -> [B, K, D]."""
    batch, tokens, dim = x.shape
    rows = (places + tokens * torch.arange(batch, device=x.device).unsqueeze(1)).flatten()
    kept: Tensor = _Scored.apply(x.reshape(-1, dim).index_select(0, rows).view(batch, -1, dim), scores)
    return kept


class _Scored(torch.autograd.Function):
    """x * (1 + s - stopgrad(s)): x itself, but for the gradient, so that no product has to be kept beside x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scores: Tensor) -> Tensor:
        """Return x [B, K, D] as it is."""
        ctx.save_for_backward(x, scores)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of x and of the scores [B, K]."""
        x, scores = ctx.saved_tensors
        return grad, (grad * x).sum(dim=-1).to(scores.dtype) if ctx.needs_input_grad[1] else None


def scatter_tokens(x: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """Return x [B, N, D] with tokens [B, K, D] at these places: the others carry x on unchanged."""
    return x.scatter(1, places.unsqueeze(-1).expand(-1, -1, x.shape[-1]), tokens.to(x.dtype))
