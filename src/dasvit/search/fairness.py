"""Operation fairness regularisation (eq. 16 to 19): skips and operation types must not win by default.

Shapes: E edges, O operations. Sees edge weights, never modules.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dasvit.cell.genotype import NUMBERED, SKIPS
from dasvit.cell.space import Space
from dasvit.config import FairnessConfig


@dataclass(frozen=True)
class Fairness:
    """The terms of the regularisation, each a scalar tensor.

    Attributes:
        total: L_fair (eq. 19).
        skip: L_skip (eq. 16).
        types: L_type (eq. 18).
        type_weights: W_t (eq. 17) of every type that has an operation left.
    """

    total: Tensor
    skip: Tensor
    types: Tensor
    type_weights: dict[str, Tensor]


def fairness(weights: Tensor, alive: Tensor, space: Space, config: FairnessConfig) -> Fairness:
    """Return L_fair and its terms for edge weights.

    The weights are averaged over the edges first: a global term, since asked of each edge it would forbid
    any edge to decide.

    Args:
        weights: Edge weights [E, O].
        alive: Which operations are still candidates, [E, O] bool.
        space: The search space, for the operations' kinds.
        config: The lambdas and bounds.
    """
    mean = weights.mean(dim=0)
    left = alive.any(dim=0).tolist()
    kinds = space.kinds()
    zero = mean.new_zeros(())
    skips = [mean[i] for i, kind in enumerate(kinds) if kind in SKIPS and left[i]]
    skip = torch.stack(skips).mean() if skips else zero
    type_weights = {}
    types = zero
    share = 2 / max(2, len(set(kinds) & set(NUMBERED)))  # the bounds l and u are for two types; a space may have T
    for name in NUMBERED:
        members = [mean[i] for i, kind in enumerate(kinds) if kind == name and left[i]]
        if members:
            total = torch.stack(members).sum()
            over = (total - share * config.upper).clamp(min=0)
            under = (share * config.lower - total).clamp(min=0)
            types = types + config.over * over + config.under * under
            type_weights[name] = total
    return Fairness(config.skip * skip + config.types * types, skip, types, type_weights)
