"""Under a latency budget the network of the chosen cell is measured; where it misses, the next takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from dasvit.cell.genotype import Genotype
from dasvit.cell.size_space import at_cell
from dasvit.config import Config, LatencyConfig
from dasvit.config.units import parse_time, time_text
from dasvit.errors import UserError
from dasvit.io.files import read_object
from dasvit.latency.measure import Latency, measure, this_machine
from dasvit.latency.table import LatencyTable, find_table
from dasvit.models.baselines import make_network
from dasvit.search.derive import Derivation
from dasvit.session import Session

TRIES = 6
"""Networks that are measured at most."""


@dataclass(frozen=True)
class Trial:
    """A network that was measured.

    Attributes:
        cell: Its cell.
        predicted: What the table says an inference takes, in seconds.
        median: Median of what one took, in seconds.
        iqr: The spread: their interquartile range.
    """

    cell: Genotype
    predicted: float
    median: float
    iqr: float

    def meets(self, limit: float) -> bool:
        """Tell whether it takes no longer than a limit, give or take the spread."""
        return self.median - self.iqr <= limit

    def to_dict(self) -> dict[str, Any]:
        """Return it as `derivation.json` holds it."""
        sizes = {"sizes": self.cell.sizes.to_dict()} if self.cell.sizes else {}
        times = {"predicted": self.predicted, "median": self.median, "iqr": self.iqr}
        return {"ops": list(self.cell.ops), **sizes, **times}


def confirm(
    derivation: Derivation, others: Iterable[Genotype], faster: Callable[[Config], Genotype], session: Session
) -> tuple[Derivation, list[Trial]]:
    """Return the derivation that measurements leave, and what was measured.

    What an earlier call measured is read from the run's `derivation.json`: the same call ends with the same cell.

    Args:
        derivation: What was chosen by the latency table.
        others: Cells to be tried next, the best first: those that were trained.
        faster: Gives the cell that a search under a recipe with a lower limit chooses.
        session: The search's session.

    Returns:
        The derivation as it was where its network meets the budget, nothing is limited, or the table is another
        machine's.
    """
    config = session.config
    limit = parse_time(config.search.derive.max_latency, "search.derive.max_latency")
    if not limit:
        return derivation, []
    table = find_table(at_cell(config, derivation.genotype), session.classes)
    how = where(table)
    if how is None:
        session.reporter.say(f"latency: not measured, for the table is of another machine, {table.machine}")
        return derivation, []
    measured = read_object(session.run.path / "derivation.json").get("measured", [])
    known = {(*row["ops"], str(row.get("sizes"))): row for row in measured}
    waiting = [derivation.genotype, *(cell for cell in others if cell != derivation.genotype)]
    trials: list[Trial] = []
    while waiting and len(trials) < TRIES:
        cell = waiting.pop(0)
        trials.append(tried(cell, find_table(at_cell(config, cell), session.classes), how, session, known))
        if trials[-1].meets(limit):
            break
        waiting = waiting or below(trials, limit, faster, config)
    return chosen(derivation, trials, limit), trials


def where(table: LatencyTable) -> LatencyConfig | None:
    """Return how networks are measured as those of a table were; None where it is another machine's."""
    machine = table.machine
    how = LatencyConfig(runtime=machine.runtime, batch=machine.batch, threads=machine.threads, device=machine.device)  # type: ignore[arg-type] # checked below
    try:
        here = this_machine(how)
    except UserError:
        return None
    return how if replace(here, versions=machine.versions) == machine else None


def tried(
    cell: Genotype, table: LatencyTable, how: LatencyConfig, session: Session, known: dict[Any, dict[str, float]]
) -> Trial:
    """Measure the network of a cell, unless it was, and say what it takes."""
    model = cell.at(session.config.model)
    predicted, key = table.predict(cell, model.layers), (*cell.ops, str(cell.sizes and cell.sizes.to_dict()))
    if key in known:
        return Trial(cell, predicted, known[key]["median"], known[key]["iqr"])
    latency: Latency = measure(make_network(cell, model, session.classes), model.image_size, how)
    session.reporter.say(f"latency: measured {latency}, predicted {time_text(predicted)}: {' '.join(cell.ops)}")
    return Trial(cell, predicted, latency.median, latency.iqr)


def below(trials: list[Trial], limit: float, faster: Callable[[Config], Genotype], config: Config) -> list[Genotype]:
    """Return the next cell: the best that the table puts below those that missed, by as much as the last one missed."""
    last = trials[-1]
    most = min(limit * last.predicted / last.median, *(trial.predicted for trial in trials)) - 1e-6
    if most < 1e-6:
        return []
    derive = replace(config.search.derive, max_latency=f"{int(1e6 * most)}us")
    try:
        return [faster(replace(config, search=replace(config.search, derive=derive)))]
    except UserError:  # nothing is that fast
        return []


def chosen(derivation: Derivation, trials: list[Trial], limit: float) -> Derivation:
    """Return the first derivation with the cell that meets the limit, or else the fastest, and why it is this one."""
    best = trials[-1] if trials[-1].meets(limit) else min(trials, key=lambda trial: trial.median)
    first, within = trials[0], time_text(limit)
    missed = f"takes {time_text(first.median)}, not the {time_text(first.predicted)} of the latency table"
    if not best.meets(limit):
        fate = f"Of {len(trials)} networks measured none keeps to {within}; this one is the fastest"
        return Derivation(best.cell, derivation.unconstrained, f"{derivation.reason} {fate}.".strip())
    if best.cell == derivation.genotype:
        return derivation
    reason = f"The cell chosen first {missed}; measured, this is the next that keeps to {within}."
    return Derivation(best.cell, derivation.genotype, f"{derivation.reason} {reason}".strip())
