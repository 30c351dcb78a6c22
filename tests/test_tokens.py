import math

import pytest
import torch
from torch import Tensor

from dasvit.search.tokens import TokenSelector, gather_tokens, kept_tokens, scatter_tokens


def naive_scores(x: Tensor, selector: TokenSelector) -> Tensor:
    """Eq. 13 to 15 as loops: s_j = (1/N) sum_i softmax_j(q_i · k_j / sqrt(d))."""
    batch, tokens, _ = x.shape
    w_q, w_k = selector.query.weight.detach(), selector.key.weight.detach()
    scores = torch.zeros(batch, tokens, dtype=x.dtype)
    for b in range(batch):
        for i in range(tokens):
            q = w_q @ x[b, i]
            logits = [float(q @ (w_k @ x[b, j])) / math.sqrt(len(w_q)) for j in range(tokens)]
            total = sum(math.exp(logit) for logit in logits)
            for j in range(tokens):
                scores[b, j] += math.exp(logits[j]) / total / tokens
    return scores


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 10, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def make(ratio: float) -> TokenSelector:
    torch.manual_seed(1)
    return TokenSelector(8, ratio, 6).double()


def test_scores_against_the_loop(x: Tensor) -> None:
    selector = make(0.5)
    torch.testing.assert_close(selector.scores(x), naive_scores(x, selector), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75])
def test_the_highest_scores_and_the_class_token_are_kept(x: Tensor, ratio: float) -> None:
    selector = make(ratio)
    places, kept = selector(x)
    scores = naive_scores(x, selector)
    for b in range(3):
        ranked = sorted(range(1, 10), key=lambda j: -float(scores[b, j]))
        assert places[b].tolist() == [0, *sorted(ranked[: math.ceil(ratio * 9)])]
    torch.testing.assert_close(kept, scores.gather(1, places), rtol=1e-12, atol=1e-12)


def test_number_of_tokens() -> None:
    assert kept_tokens(196, 0.5) == 98
    assert kept_tokens(64, 0.3) == 20
    assert kept_tokens(10, 0.7) == 7  # 0.7 * 10 is a little over 7 in floating point
    assert kept_tokens(5, 0.01) == 1


def test_take_and_put_are_inverse_and_leave_the_rest_alone(x: Tensor) -> None:
    places, scores = make(0.5)(x)
    tokens = gather_tokens(x, places, scores)
    assert torch.equal(scatter_tokens(x, places, tokens), x)
    changed = scatter_tokens(x, places, tokens + 1)
    for b in range(3):
        for n in range(10):
            assert torch.equal(changed[b, n], x[b, n] + (n in places[b].tolist()))


def test_the_scores_learn(x: Tensor) -> None:
    selector = make(0.5)
    gather_tokens(x, *selector(x)).square().sum().backward()
    for parameter in selector.parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


def test_gradients_are_those_of_a_factor_that_is_one(x: Tensor) -> None:
    places, scores = make(0.5)(x)
    scores = scores.detach().requires_grad_()
    x = x.requires_grad_()
    factors = (1 + (scores - scores.detach())).unsqueeze(-1)
    naive = x.gather(1, places.unsqueeze(-1).expand(-1, -1, 8)) * factors
    outputs = [gather_tokens(x, places, scores), naive]
    assert torch.equal(*outputs)
    found, expected = (torch.autograd.grad(o.square().sum(), [x, scores]) for o in outputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_norm_scores_what_attention_sees() -> None:
    """Tokens of any scale and offset are scored alike."""
    torch.manual_seed(0)
    selector = TokenSelector(8, 0.5, 4, norm=True)
    x = torch.randn(2, 5, 8)
    z = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    q, k = z @ selector.query.weight.T, z @ selector.key.weight.T
    expected = (q @ k.transpose(1, 2) / 2).softmax(-1).mean(1)
    assert torch.allclose(selector.scores(x), expected, atol=1e-6)
    assert torch.allclose(selector.scores(3 * x + 1), expected, atol=1e-4)
    assert not torch.allclose(TokenSelector(8, 0.5, 4).scores(3 * x), TokenSelector(8, 0.5, 4).scores(x), atol=1e-4)
