"""DASViT and DARTS: what the search loop does by itself."""

from dasvit.search.strategies.base import Strategy


class Dasvit(Strategy):
    """DASViT: Differentiable Architecture Search for Vision Transformer.

    Its parts (token selection, fairness, stages) are fields of the recipe, open to every method.
    """


class Darts(Strategy):
    """DARTS: Differentiable Architecture Search (Liu, Simonyan, Yang; 2018; arXiv:1806.09055).

    First order by default; `search.order` 2 unrolls a step of the weights. The recipe has none of DASViT's parts.
    """
