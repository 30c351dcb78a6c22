"""What candidates say of cells that were not trained: a Bayesian linear model of the loss (docs/method.md).

The loss of a cell is a sum: of its operations on their edges, of its operations wherever they stand, of its
multiply-adds, and of what a supernet's weights say of it; and noise. Each of these groups has a Gaussian prior around
0. The scales of priors and noise are those that make what was seen most probable (type-II maximum likelihood; Bishop
2006, section 3.5). So a group that explains nothing gets a scale near 0 by itself. As every term belongs to an
operation on an edge, a draw from the posterior is a table of scores, and exact derivation finds its best cell within
rule and budget: Thompson sampling (Thompson 1933; Russo et al. 2018, arXiv:1707.02038).

Where sizes are searched as well, a network's loss also has a term for its width, its depth, its patches, stem and
pooling each, and one for the logarithm of the multiply-adds of a mean cell at its sizes. At given sizes these are
constants, so that derivation stays exact there (`dasvit.search.sized`).

Shapes: N cells, E edges, O operations, S sizes, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from dasvit.cell.genotype import Genotype
from dasvit.cell.sizes import Sizes
from dasvit.cell.space import Space
from dasvit.search.halving import Candidate

Array = NDArray[np.float64]
GROUPS = ("operation on its edge", "operation anywhere", "multiply-adds", "supernet")
SIZED = ("sizes", "cost of the sizes")
"""Groups of networks whose sizes differ: each size of its own, and the logarithm of what they cost together."""
PRIOR_SCALE = 0.5
"""Where the scales of groups and noise are expected, in standard deviations of what was seen."""
PRIOR_SPREAD = 1.5
"""How surely: a standard deviation of their logarithms."""


@dataclass(frozen=True)
class Features:
    """How cells become rows of numbers.

    Attributes:
        space: The search space.
        macs: Multiply-adds of every operation, by name.
        supernet: Logarithms of a supernet's edge weights, `[E][O]`. None: there was no supernet.
        sizes: Multiply-adds of the network of a mean cell at every size. Empty: sizes are fixed.
    """

    space: Space
    macs: dict[str, float]
    supernet: Array | None = None
    sizes: Mapping[Sizes, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups."""
        return (*GROUPS, *SIZED) if self.sizes else GROUPS

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Place in `names` of every feature, [F]."""
        edges, operations = len(self.space.edges), len(self.space.operations)
        counts = [edges * operations, operations, 1, 1 if self.supernet is not None else 0]
        if self.sizes:
            counts += [len(self.levels), 1]
        return np.repeat(np.arange(len(counts)), counts)

    @cached_property
    def levels(self) -> list[tuple[str, Any]]:
        """The values that sizes differ in, as (width, 96)."""
        names = [one.name for one in fields(Sizes)]
        found = {name: sorted({getattr(sizes, name) for sizes in self.sizes}) for name in names}
        return [(name, value) for name, values in found.items() if len(values) > 1 for value in values]

    @cached_property
    def size_rows(self) -> Array:
        """What sizes add to their features, [S, levels + 1]: ones at their values, and their cost, scaled."""
        ones = [[float(getattr(sizes, name) == value) for name, value in self.levels] for sizes in self.sizes]
        logs = np.log(np.array([*self.sizes.values()]))
        scaled = (logs - logs.mean()) / (logs.std() or 1.0)
        return np.column_stack([np.array(ones).reshape(len(logs), -1), scaled])

    @cached_property
    def terms(self) -> Array:
        """What an operation on an edge adds to every feature, [E, O, F]: a cell's row is the sum over its edges.

        Cost and supernet are centred and scaled over all operations and edges, so that one prior serves any data.
        """
        edges, operations = len(self.space.edges), len(self.space.operations)
        here = np.eye(edges * operations).reshape(edges, operations, -1)
        anywhere = np.broadcast_to(np.eye(operations), (edges, operations, operations))
        macs = np.array([self.macs[op] for op in self.space.operations])
        columns = [np.broadcast_to(macs, (edges, operations))]
        if self.supernet is not None:
            columns.append(self.supernet)
        scaled = [(column - column.mean()) / (column.std() or 1.0) for column in columns]
        beside = np.zeros((edges, operations, len(self.levels) + 1)) if self.sizes else np.zeros((edges, operations, 0))
        return np.concatenate([here, anywhere, np.stack(scaled, axis=-1), beside], axis=-1)

    def rows(self, cells: Sequence[Genotype]) -> Array:
        """Return the rows of cells, [N, F]."""
        places = np.array([[self.space.operations.index(op) for op in cell.ops] for cell in cells])
        rows: Array = self.terms[np.arange(places.shape[1]), places].sum(axis=1)
        if self.sizes:
            known = {sizes: place for place, sizes in enumerate(self.sizes)}
            own = [known[cell.sizes] for cell in cells if cell.sizes is not None]
            rows[:, -self.size_rows.shape[1] :] = self.size_rows[own]
        return rows


@dataclass(frozen=True)
class LinearModel:
    """The posterior of a linear model, fitted to losses.

    Attributes:
        features: How cells become rows.
        cells: What was seen, N cells.
        losses: Their losses, [N].
    """

    features: Features
    cells: Sequence[Genotype]
    losses: Array
    _scale: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_scale", float(self.losses.std()) or 1.0)

    @cached_property
    def scales(self) -> Array:
        """Standard deviations of the priors of all groups, and of the noise, in those of the losses, [groups + 1]."""
        x, y, groups = self.features.rows(self.cells), self._standardised, self.features.groups
        kernels = [x[:, groups == group] @ x[:, groups == group].T for group in range(len(self.features.names))]
        kernels.append(np.eye(len(y)))
        offset = np.ones((len(y), len(y)))  # the mean is not known: a wide prior of its own

        def cost(logs: Array) -> float:
            covariance = offset + sum(np.exp(2 * log) * kernel for log, kernel in zip(logs, kernels, strict=True))
            lower = linalg.cholesky(covariance, lower=True)
            solved = linalg.solve_triangular(lower, y, lower=True)
            prior = ((logs - np.log(PRIOR_SCALE)) / PRIOR_SPREAD) ** 2
            return float(solved @ solved / 2 + np.log(np.diag(lower)).sum() + prior.sum() / 2)

        start = np.full(len(kernels), np.log(PRIOR_SCALE))
        found = optimize.minimize(cost, start, method="L-BFGS-B", bounds=[(np.log(1e-3), np.log(10.0))] * len(start))
        scales: Array = np.exp(found.x)
        return scales

    @cached_property
    def posterior(self) -> tuple[Array, Array]:
        """Mean [F + 1] and covariance of the coefficients, the offset last, in standard deviations of the losses."""
        x = np.column_stack([self.features.rows(self.cells), np.ones(len(self.cells))])
        priors = np.append(self.scales[self.features.groups] ** 2, 1.0)
        covariance = (x * priors) @ x.T + self.scales[-1] ** 2 * np.eye(len(x))
        gain = linalg.solve(covariance, x * priors, assume_a="pos").T
        return gain @ self._standardised, np.diag(priors) - gain @ (x * priors)

    @property
    def _standardised(self) -> Array:
        values: Array = (self.losses - self.losses.mean()) / self._scale
        return values

    def predict(self, cells: Sequence[Genotype]) -> tuple[Array, Array]:
        """Return mean and standard deviation of cells' losses as they would be seen, noise included, [N] each."""
        x = np.column_stack([self.features.rows(cells), np.ones(len(cells))])
        mean, covariance = self.posterior
        variance = np.einsum("nf,fg,ng->n", x, covariance, x) + self.scales[-1] ** 2
        return x @ mean * self._scale + self.losses.mean(), np.sqrt(variance) * self._scale

    def table(self, coefficients: Array) -> Array:
        """Return what every operation on every edge adds to a cell's loss under coefficients [F + 1], [E, O]."""
        table: Array = self.features.terms @ coefficients[:-1] * self._scale
        return table

    def draw(self, chance: np.random.Generator) -> Array:
        """Return a table [E, O] drawn from the posterior."""
        return self.table(self.draw_coefficients(chance))

    def draw_coefficients(self, chance: np.random.Generator) -> Array:
        """Return coefficients [F + 1], the offset last, drawn from the posterior."""
        drawn: Array = chance.multivariate_normal(*self.posterior, method="eigh")
        return drawn

    def spreads(self) -> dict[str, float]:
        """Return by how much each group tells the cells seen apart, and the noise that is left (units: loss).

        Of a group, the standard deviation over these cells of what it adds to the expected loss. A group that explains
        nothing, as the scores of a useless supernet, has about 0.
        """
        rows, mean = self.features.rows(self.cells), self.posterior[0][:-1]
        found = {
            name: float((rows[:, self.features.groups == group] @ mean[self.features.groups == group]).std())
            for group, name in enumerate(self.features.names)
            if (self.features.groups == group).any()
        }
        return {name: value * self._scale for name, value in {**found, "noise": float(self.scales[-1])}.items()}

    def effects(self) -> tuple[Array, Array]:
        """Return mean and standard deviation of every operation's effect on the loss wherever it stands, [O] each.

        The effect is that of the operation in place of the mean of all, averaged over the edges: cost and supernet
        count.
        """
        mean, covariance = self.posterior
        by_operation = self.features.terms.mean(axis=0)  # [O, F]
        by_operation = by_operation - by_operation.mean(axis=0)
        variance = np.einsum("of,fg,og->o", by_operation, covariance[:-1, :-1], by_operation)
        return by_operation @ mean[:-1] * self._scale, np.sqrt(np.maximum(variance, 0)) * self._scale


def common_losses(candidates: Sequence[Candidate]) -> Array:
    """Return what candidates are ranked by on the scale of the first rung, [N], each by its last.

    A later rung orders candidates better, but has only the best of those before, and other losses. So its losses are
    moved and stretched until those that reached it have the mean and the spread that they had in the rung before.

    Args:
        candidates: Each has reached the first rung.
    """
    values = np.array([candidate.rungs[0].ranked_by for candidate in candidates])
    for rung in range(1, max(len(candidate.rungs) for candidate in candidates)):
        here = np.array([len(candidate.rungs) > rung for candidate in candidates])
        losses = np.array([one.rungs[rung].ranked_by for one in candidates if len(one.rungs) > rung])
        before = values[here]
        values[here] = before.mean() + (losses - losses.mean()) * (before.std() / (losses.std() or 1.0))
    return values
