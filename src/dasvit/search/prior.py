"""What trainings on other data say of cells before a search has trained any: the prior of its model (docs/method.md).

A prior is a file of cells that were trained and the losses that they reached, or a run folder of another search. What
these say of operations is the mean, and how surely the covariance, with which `LinearModel` begins; how far the
data at hand follow it, the candidates' losses decide.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.errors import UserError
from dasvit.io.files import read_object
from dasvit.io.run_folder import RunFolder
from dasvit.search.halving import converged
from dasvit.search.stages import read_candidates
from dasvit.search.surrogate import Features, LinearModel, Prior, common_losses

FORMAT = "dasvit-prior/1"
OWN = "prior.json"
"""Where a run keeps its own copy, so that it goes on with what it began with."""
SHIPPED = "shipped"
LEAST = 8
"""Cells of a source that are of the search's space, below which it says nothing."""


@dataclass(frozen=True)
class Source:
    """Cells that were trained on the same data for the same time.

    Attributes:
        data: What the data are, in words.
        cells: Cells without sizes.
        losses: What they reached; only differences and ratios of differences count.
    """

    data: str
    cells: Sequence[Genotype]
    losses: Sequence[float]

    def within(self, space: Space) -> Source:
        """Return the part whose cells are of a space."""
        pairs = [
            (cell, loss)
            for cell, loss in zip(self.cells, self.losses, strict=True)
            if cell.nodes == space.nodes and set(cell.ops) <= set(space.operations)
        ]
        return replace(self, cells=[cell for cell, _ in pairs], losses=[loss for _, loss in pairs])

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds."""
        rows = [
            {"ops": list(cell.ops), "loss": round(float(loss), 5)}
            for cell, loss in zip(self.cells, self.losses, strict=True)
        ]
        return {"data": self.data, "nodes": self.cells[0].nodes if self.cells else 0, "cells": rows}


def prior_of(config: Config) -> list[str]:
    """Return what a search names as its prior; nothing where it has no candidates, or these learn nothing."""
    finals = config.search.finals
    return finals.prior if finals.cells and finals.learn else []


def make_prior(features: Features, sources: Sequence[Source]) -> Prior | None:
    """Return what sources say of the coefficients of a model; None where they say nothing of its space.

    The losses of each source are standardised, and one model is fitted to all.

    Args:
        features: The model's.
        sources: What was trained on other data.
    """
    parts = usable(sources, features.space)
    if not parts:
        return None
    cells = [cell for part in parts for cell in part.cells]
    losses = np.concatenate([standardised(part.losses) for part in parts])
    model = LinearModel(replace(features, supernet=None, sizes={}, prior=None), cells, losses)
    mean, covariance = model.posterior
    return Prior(mean[:-1], covariance[:-1, :-1])


def usable(sources: Sequence[Source], space: Space) -> list[Source]:
    """Return the parts of sources whose cells are of a space, where these are enough."""
    parts = [source.within(space) for source in sources]
    return [part for part in parts if len(part.cells) >= LEAST]


def standardised(losses: Sequence[float]) -> NDArray[np.float64]:
    """Return losses with mean 0 and standard deviation 1."""
    values = np.array(losses, dtype=np.float64)
    centred: NDArray[np.float64] = (values - values.mean()) / (values.std() or 1.0)
    return centred


def read_sources(names: Sequence[str]) -> list[Source]:
    """Read what priors name: `shipped`, files, and run folders of searches.

    Raises:
        UserError: One is not there, is damaged, or holds no candidates.
    """
    return [source for name in names for source in _read(name)]


def _read(name: str) -> list[Source]:
    if name == SHIPPED:
        with resources.as_file(resources.files("dasvit") / "search" / "shipped_prior.json") as path:
            return read_file(path)
    path = Path(name)
    if path.is_dir():
        return [read_run(path)]
    if not path.is_file():
        raise UserError(
            f"search.finals.prior: there is no {name}: name a run folder of a search, a file of the format {FORMAT}, "
            f"or {SHIPPED}."
        )
    return read_file(path)


def read_run(folder: Path) -> Source:
    """Return what the candidates of a search reached, those at one size.

    Raises:
        UserError: It is no such search.
    """
    found = [one for one in converged(read_candidates(RunFolder(folder, "search"))) if one.rungs]
    found = [one for one in found if one.cell.sizes is None]
    if len(found) < LEAST:
        raise UserError(
            f"search.finals.prior: {folder} holds {len(found)} trained candidates of cells alone, and a prior takes at "
            f"least {LEAST}: name a search that has ended with more of them."
        )
    return Source(folder.name, [one.cell for one in found], common_losses(found).tolist())


def read_file(path: Path) -> list[Source]:
    """Return the sources in a file.

    Raises:
        UserError: It is damaged, or of another format.
    """
    content = read_object(path)
    if content.get("format") != FORMAT:
        raise UserError(f"search.finals.prior: {path} is no file of the format {FORMAT}.")
    try:
        sources = [
            Source(
                str(part["data"]),
                [Genotype.from_ops(part["nodes"], row["ops"]) for row in part["cells"]],
                [float(row["loss"]) for row in part["cells"]],
            )
            for part in content["sources"]
        ]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"search.finals.prior: {path} is damaged: it does not list cells and losses.") from None
    if not all(np.isfinite(source.losses).all() for source in sources):
        raise UserError(f"search.finals.prior: {path} is damaged: a loss is no finite number.")
    return sources


def to_json(sources: Sequence[Source]) -> str:
    """Return the text of a file."""
    return json.dumps({"format": FORMAT, "sources": [source.to_dict() for source in sources]})


def check_prior(config: Config, folder: Path) -> None:
    """Refuse a prior that cannot be read, before an image is decoded; a run that has its own copy needs none.

    Raises:
        UserError: As `read_sources` does.
    """
    if not (folder / OWN).is_file():
        read_sources(prior_of(config))


def own_prior(config: Config, run: RunFolder) -> Config:
    """Return the recipe of a run with the run's own copy of its prior: it goes on with what it began with.

    Raises:
        UserError: As `read_sources` does.
    """
    names, path = prior_of(config), run.path / OWN
    if not names:
        return config
    if not path.is_file():
        run.write_text(OWN, to_json(read_sources(names)))
    return with_prior(config, [str(path)])


def past_prior(config: Config, folder: Path) -> Config:
    """Return the recipe of a past run with the prior that it had."""
    path = folder / OWN
    return with_prior(config, [str(path)] if path.is_file() else [])


def with_prior(config: Config, names: list[str]) -> Config:
    """Return a recipe with another prior."""
    finals = replace(config.search.finals, prior=names)
    return replace(config, search=replace(config.search, finals=finals))


def describe_prior(config: Config) -> str:
    """Return a line for the terminal: what a search knows before it begins; empty where nothing."""
    names = prior_of(config)
    used = [
        f"{len(part.cells)} cells trained on {part.data}"
        for part in usable(read_sources(names), Space.from_config(config.space))
    ]
    if not used:
        return "prior: none; the cells of search.finals.prior are not of this space" if names else ""
    return f"prior: {' and '.join(used)} (search.finals.prior)"
