"""What candidates say of cells that were not trained: a Bayesian linear model of the loss (docs/method.md).

The loss of a cell is a sum: of its operations on their edges, of its operations wherever they stand, of its
multiply-adds, and of what a supernet's weights say of it; and noise. Each of these groups has a Gaussian prior around
0. The scales of priors and noise are those that make what was seen most probable (type-II maximum likelihood; Bishop
2006, section 3.5). So a group that explains nothing gets a scale near 0 by itself. As every term belongs to an
operation on an edge, a draw from the posterior is a table of scores, and exact derivation finds its best cell within
rule and budget: Thompson sampling (Thompson 1933; Russo et al. 2018, arXiv:1707.02038).

Trainings on other data may say beforehand which operations are good (`prior`). Then the coefficients' prior has a mean
and a covariance, those that were learned there times a factor, which is one more scale: data that do not follow make it
small.

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
TRUST = 1.0
"""Where the factor of what other data say is expected: effects of the same size, in standard deviations of losses."""
TRUST_SPREAD = 1.0
"""How surely, likewise."""
CHANGE_SCALE = 0.2
"""Where the scales of what these data change about it are expected."""


@dataclass(frozen=True)
class Prior:
    """What other data say of coefficients, in standard deviations of their losses.

    Attributes:
        mean: Of the features' first K, the operations and multiply-adds; [K].
        covariance: How surely, [K, K].
    """

    mean: Array
    covariance: Array


@dataclass(frozen=True)
class Features:
    """How cells become rows of numbers.

    Attributes:
        space: The search space.
        macs: Multiply-adds of every operation, by name.
        supernet: Logarithms of a supernet's edge weights, `[E][O]`. None: there was no supernet.
        sizes: Multiply-adds of the network of a mean cell at every size. Empty: sizes are fixed.
        prior: What other data say. None: nothing.
    """

    space: Space
    macs: dict[str, float]
    supernet: Array | None = None
    sizes: Mapping[Sizes, float] = field(default_factory=dict)
    prior: Prior | None = None

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
        cells: What was seen, N cells; none, and all that is known is the prior.
        losses: Their losses, [N].
    """

    features: Features
    cells: Sequence[Genotype]
    losses: Array
    _scale: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_scale", (float(self.losses.std()) if len(self.losses) else 0.0) or 1.0)

    @property
    def scales(self) -> Array:
        """Standard deviations of the priors of all groups, and of the noise, in those of the losses, [groups + 1]."""
        return self._most_probable[: len(self.features.names) + 1]

    @property
    def trust(self) -> float:
        """The factor of what other data say; 0 where they say nothing."""
        return float(self._most_probable[-1]) if self.features.prior else 0.0

    @cached_property
    def _most_probable(self) -> Array:
        """The scales, and where there is a prior of other data its factor."""
        groups, prior = self.features.groups, self.features.prior
        expected = np.full(len(self.features.names) + 1, PRIOR_SCALE)
        spread = np.full(len(expected), PRIOR_SPREAD)
        if prior:
            expected[: groups[len(prior.mean) - 1] + 1] = CHANGE_SCALE
            expected, spread = np.append(expected, TRUST), np.append(spread, TRUST_SPREAD)
        if not self.cells:
            return expected
        x, y = self._rows, self._standardised
        kernels = [x[:, groups == group] @ x[:, groups == group].T for group in range(len(self.features.names))]
        kernels.append(np.eye(len(y)))
        said = np.zeros(len(y))
        if prior:
            known = x[:, : len(prior.mean)]
            kernels.append(known @ prior.covariance @ known.T)
            said = known @ prior.mean
            said -= said.mean()  # the offset's mean is such that of these cells nothing is said together
        offset = np.ones((len(y), len(y)))  # the mean is not known: a wide prior of its own

        def cost(logs: Array) -> float:
            covariance = offset + sum(np.exp(2 * log) * kernel for log, kernel in zip(logs, kernels, strict=True))
            lower = linalg.cholesky(covariance, lower=True)
            left = y - np.exp(logs[-1]) * said
            solved = linalg.solve_triangular(lower, left, lower=True)
            unlikely = ((logs - np.log(expected)) / spread) ** 2
            return float(solved @ solved / 2 + np.log(np.diag(lower)).sum() + unlikely.sum() / 2)

        bounds = [(np.log(1e-3), np.log(10.0))] * len(expected)
        found = optimize.minimize(cost, np.log(expected), method="L-BFGS-B", bounds=bounds)
        scales: Array = np.exp(found.x)
        return scales

    @cached_property
    def _rows(self) -> Array:
        """The rows of what was seen, [N, F]."""
        return self.features.rows(self.cells)

    @cached_property
    def _before(self) -> tuple[Array, Array]:
        """Mean [F + 1] and covariance of the coefficients before a loss of these data is seen."""
        mean = np.zeros(len(self.features.groups) + 1)
        covariance = np.diag(np.append(self.scales[self.features.groups] ** 2, 1.0))
        if prior := self.features.prior:
            count = len(prior.mean)
            mean[:count] = self.trust * prior.mean
            covariance[:count, :count] += self.trust**2 * prior.covariance
            if self.cells:  # the mean of the losses is that of these cells
                mean[-1] = -float((self._rows @ mean[:-1]).mean())
        return mean, covariance

    @cached_property
    def posterior(self) -> tuple[Array, Array]:
        """Mean [F + 1] and covariance of the coefficients, the offset last, in standard deviations of the losses."""
        mean, before = self._before
        if not self.cells:
            return mean, before
        x = np.column_stack([self._rows, np.ones(len(self.cells))])
        covariance = x @ before @ x.T + self.scales[-1] ** 2 * np.eye(len(x))
        gain = linalg.solve(covariance, x @ before, assume_a="pos").T
        return mean + gain @ (self._standardised - x @ mean), before - gain @ x @ before

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
        nothing, as the scores of a useless supernet, has about 0. Where other data say something beforehand, that is a
        group of its own, and the others hold what these data change about it.
        """
        rows, said = self._rows, self._before[0][:-1]
        mean = self.posterior[0][:-1] - said
        found = {"other data": float((rows @ said).std())} if self.features.prior else {}
        found |= {
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

    def size_effects(self) -> dict[str, tuple[float, float]]:
        """Return mean and standard deviation of every size's effect on the loss, by its name as `width 96`.

        The effect is that of networks of this size against the mean of all sizes searched; their cost counts.
        """
        if not self.features.sizes:
            return {}
        mean, covariance = self.posterior
        rows, found = self.features.size_rows, {}
        place = slice(len(mean) - 1 - rows.shape[1], len(mean) - 1)
        for name, value in self.features.levels:
            own = np.array([getattr(sizes, name) == value for sizes in self.features.sizes])
            apart = rows[own].mean(axis=0) - rows.mean(axis=0)
            variance = float(apart @ covariance[place, place] @ apart)
            label = f"{name.replace('_', ' ')} {value}"
            found[label] = float(apart @ mean[place]) * self._scale, max(variance, 0.0) ** 0.5 * self._scale
        return found


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
