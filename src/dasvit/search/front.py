"""What candidates reached against what they cost: whom none beats that is cheaper, and how much of a budget is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dasvit.config import DeriveConfig
from dasvit.search.derive import Budget
from dasvit.search.halving import Candidate

LIMITS = ("max_params", "max_macs", "max_latency")
"""Names of the limits, in the order of a cost."""
WORDS = ("parameters", "multiply-adds", "time")
"""What they limit."""


def axis_of(choice: DeriveConfig) -> int:
    """Return the place in a cost that candidates are held against: what is limited, time first; else multiply-adds."""
    limited = [place for place, name in enumerate(LIMITS) if getattr(choice, name)]
    return limited[-1] if limited else 1


def front_of(candidates: Sequence[Candidate], costs: Sequence[float]) -> list[int]:
    """Return the places of the candidates that none beats at no more cost, the cheapest first.

    Trainings of different lengths are compared where both have been: a candidate is beaten by one that was trained at
    least as long, costs no more, and was no worse at the last rung of the shorter training (and better in either).
    Where two are alike in both, the first stands for them.

    Args:
        candidates: What was trained.
        costs: What their networks cost.
    """

    def beats(other: int, one: int) -> bool:
        mine, theirs = candidates[one], candidates[other]
        if theirs.diverged or len(theirs.rungs) < len(mine.rungs):
            return False
        here, there = mine.last.ranked_by, theirs.rungs[len(mine.rungs) - 1].ranked_by
        pairs = ((costs[other], there, other), (costs[one], here, one))
        return costs[other] <= costs[one] and there <= here and pairs[0] < pairs[1]

    places = [place for place, one in enumerate(candidates) if one.rungs and not one.diverged]
    free = [one for one in places if not any(beats(other, one) for other in places if other != one)]
    return sorted(free, key=lambda place: costs[place])


def budget_use(cost: Sequence[int], budget: Budget) -> dict[str, Mapping[str, float]]:
    """Return every limit, what a network has of it, and the share that this is, by the limit's name."""
    rows = zip(LIMITS, cost, budget.limits, strict=False)
    return {name: {"limit": limit, "has": has, "share": has / limit} for name, has, limit in rows if limit}


def describe_use(used: Mapping[str, Mapping[str, float]]) -> str:
    """Return how much of a budget a network uses, in a sentence; empty without a budget."""
    texts = [f"{100 * row['share']:.0f} % of the {WORDS[LIMITS.index(name)]}" for name, row in used.items()]
    return f"It uses {' and '.join(texts)} that the budget allows." if texts else ""
