"""What a study runs: search methods and their variants, and cells drawn at random within the found ones' budget."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.cell.space import Space
from dasvit.config import Config, FairnessConfig
from dasvit.config.limits import MAX_SEED
from dasvit.config.methods import with_method
from dasvit.config.validation import validate
from dasvit.errors import UserError
from dasvit.search.cost import make_budget
from dasvit.search.proposal import SHIPPED
from dasvit.search.sampling import Cells
from dasvit.study.compute import matched_finalists

TRAINING_SEEDS = 1000
"""How far above the searches' first seed that of the trainings lies: a search never saw what its cell is judged by.

With its search's own seed, a finalist would be trained again from the very weights whose luck chose it.
"""
CONTROL = "control"
"""The key of the control, and its group."""
JUDGED = 1000
"""Validation images that the monitor judges by where `search.monitor` does not say."""
LAMBDAS = (0.0, 0.25, 1.0, 4.0)
RHOS = (0.25, 0.5, 0.75, 1.0)
"""What --sweep tries."""
ENOUGH = 300
"""Draws without a new cell, one after the other, after which the cells within a tolerance count as too few."""


@dataclass(frozen=True)
class Variant:
    """A search method, or DASViT with something changed.

    Attributes:
        key: Its folder.
        label: Its name in tables.
        group: methods, control, ablation, lambda or rho.
        config: Its recipe.
        value: What a sweep sets.
    """

    key: str
    label: str
    group: str
    config: Config
    value: float | None = None


def plan_variants(config: Config, methods: Sequence[str], ablate: bool, sweep: bool) -> list[Variant]:
    """Return what is searched with; of several that come to the same recipe, each is listed, under one key.

    Raises:
        UserError: No or doubled methods, a method that does not exist, or no dasvit to change something of.
    """
    if not methods or len(set(methods)) < len(methods):
        raise UserError("--methods takes each method once, as dasvit,darts.")
    base = replace(config, search=replace(config.search, monitor=config.search.monitor or JUDGED))
    found = [Variant(name, name, "methods", with_method(base, name)) for name in methods]
    if (ablate or sweep) and "dasvit" not in methods:
        raise UserError("--ablate and --sweep change something of dasvit: name it among --methods.")
    whole = with_method(base, "dasvit")
    if ablate:
        found += ablations(whole)
    if sweep:
        found += sweeps(whole)
    keys: list[tuple[Config, str]] = []
    shared = []
    for variant in found:
        validate(variant.config)
        key = next((key for known, key in keys if known == variant.config), variant.key)
        keys.append((variant.config, key))
        shared.append(replace(variant, key=key))
    return shared


def ablations(config: Config) -> list[Variant]:
    """Return DASViT without each of its parts; the parts that the recipe lacks already are left out."""
    search = config.search
    changed: dict[str, dict[str, Any]] = {
        "token selection": {"tokens": replace(search.tokens, ratio=1.0)},
        "fairness": {"fairness": replace(search.fairness, skip=0.0, types=0.0)},
        "stages": {"stages": with_method(config, "darts").search.stages},
        "finals": {"finals": replace(search.finals, cells=0)},
    }
    found = []
    for part, change in changed.items():
        less = replace(config, search=replace(search, **change))
        if less != config:
            found.append(Variant(f"without-{part.replace(' ', '-')}", f"without {part}", "ablation", less))
    return found


def sweeps(config: Config) -> list[Variant]:
    """Return DASViT with several λ (both of them alike) and ρ."""
    search, found = config.search, []
    for value in LAMBDAS:
        fairness: FairnessConfig = replace(search.fairness, skip=value, types=value)
        changed = replace(config, search=replace(search, fairness=fairness))
        found.append(Variant(f"lambda-{value:g}", f"λ = {value:g}", "lambda", changed, value))
    for value in RHOS:
        changed = replace(config, search=replace(search, tokens=replace(search.tokens, ratio=value)))
        found.append(Variant(f"rho-{value:g}", f"ρ = {value:g}", "rho", changed, value))
    return found


def plan_control(first: Config, half: int) -> Variant:
    """Return the control of a study: the best of evenly drawn cells, as luck with a choice at its end would find it.

    As many candidates and rungs as the first method has, drawn evenly within the same rule and budget, none learning
    from another and the shipped cell not among them; the best on the validation images is the cell. Where that method
    has no finals, as many candidates as train on about as many images as its search does.

    Raises:
        UserError: Its recipe cannot be one of finals.
    """
    search = first.search
    finals = replace(search.finals, learn=False, shipped=False)
    if not finals.cells:
        finals = replace(finals, cells=matched_finalists(first, half))
    search = replace(
        search,
        finals=finals,
        target_params=0,
        target_macs=0,
        random=replace(search.random, reference=""),
        derive=replace(search.derive, rule="darts" if search.derive.rule == "perturbation" else search.derive.rule),
    )
    config = with_method(replace(first, search=search), "finals")
    validate(config)
    return Variant(CONTROL, f"best of {finals.cells} drawn evenly", CONTROL, config)


def check_seeds(config: Config, searches: int, trainings: int) -> None:
    """Check that searches and trainings have seeds of their own.

    Raises:
        UserError: So many have not.
    """
    if searches > TRAINING_SEEDS:
        raise UserError(f"a study has at most {TRAINING_SEEDS} searches of a method, not {searches}.")
    last = config.runtime.seed + TRAINING_SEEDS + trainings - 1
    if last > MAX_SEED:
        raise UserError(
            f"the trainings' seeds begin {TRAINING_SEEDS} above runtime.seed and would end at {last}, beyond the "
            f"largest seed {MAX_SEED}: lower runtime.seed."
        )


def reference_cells(config: Config) -> dict[str, Genotype]:
    """Return the cells that found ones are held against, where the width allows their heads.

    They are the paper's CIFAR-10 cell (`published`) and, where all of its operations are in the space, the one that the
    package ships (`shipped`): what a user has without any search.
    """
    cells = {"published": load_genotype("dasvit_cifar10"), "shipped": load_genotype(SHIPPED)}
    if not set(cells["shipped"].ops) <= set(Space.from_config(config.space).operations):
        del cells["shipped"]
    heads = {name: [int(op.split("_")[1]) for op in cell.ops if op.startswith("msa")] for name, cell in cells.items()}
    return {name: cell for name, cell in cells.items() if all(config.model.width % n == 0 for n in heads[name])}


@dataclass(frozen=True)
class Drawn:
    """Cells drawn at random.

    Attributes:
        cells: Each another one.
        macs: The multiply-adds that they were to have.
        tolerance: The share of these that they may have more or less.
    """

    cells: list[Genotype]
    macs: float
    tolerance: float


def draw_cells(config: Config, classes: int, found: Sequence[int], count: int) -> Drawn:
    """Draw cells uniformly among the viable ones that derivation could give, of the found ones' mean multiply-adds.

    Within `search.random.tolerance` of these; where fewer cells are there than are wanted, it is doubled until enough
    are. The draw depends on the seed, the found cells' mean cost and the recipe alone.

    Raises:
        UserError: The space has not so many cells.
    """
    macs = statistics.fmean(found)
    space, derive = Space.from_config(config.space), config.search.derive
    keep = 0 if derive.rule == "strongest" else derive.edges_per_node
    budget = make_budget(config, classes, derive)
    tolerance = config.search.random.tolerance or 0.01
    while True:
        most = round(macs * (1 + tolerance))
        limit = min(most, derive.max_macs) if derive.max_macs else most
        cells = Cells(space, keep, replace(budget, max_macs=limit), round(macs * (1 - tolerance)))
        drawn = _distinct(cells, count, random.Random(config.runtime.seed))
        if len(drawn) == count:
            return Drawn(drawn, macs, tolerance)
        if tolerance > 1:
            raise UserError(f"the space holds fewer than {count} cells: lower --random.")
        tolerance *= 2


def _distinct(cells: Cells, count: int, chance: random.Random) -> list[Genotype]:
    """Return so many different cells, or fewer where draws do not find them."""
    drawn: dict[Genotype, None] = {}
    in_vain = 0
    while len(drawn) < count and in_vain < ENOUGH:
        try:
            cell = cells.draw(chance)
        except UserError:  # none within the tolerance
            break
        in_vain = in_vain + 1 if cell in drawn else 0
        drawn[cell] = None
    return list(drawn)
