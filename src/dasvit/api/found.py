"""What a search found, in Python."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dasvit.api.recipe import count
from dasvit.cell.cost import Cost
from dasvit.cell.genotype import Genotype
from dasvit.cell.subnet import Found, Subnet
from dasvit.config import Config
from dasvit.config.units import parse_time
from dasvit.errors import UserError, unknown
from dasvit.extras import frame
from dasvit.latency.table import past_table
from dasvit.models.cost import cost_of
from dasvit.report.run.page import PAGE
from dasvit.search.autoformer.loop import EvolvedNetwork
from dasvit.search.front import axis_of, front_of
from dasvit.search.halving import Candidate, Rung
from dasvit.search.past_run import read_search
from dasvit.search.pipeline import SearchResult
from dasvit.search.sized import cost_counter

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FoundCell:
    """What a search found: a cell, or with the method autoformer a network.

    Attributes:
        found: The cell or network.
        reason: Why it is not the one that derivation chose first; empty where it is.
        candidates: The cells that were trained for a short while, best first; empty where weights alone decided.
        cost: Parameters and multiply-adds of its network at the recipe's sizes.
        config: The search's recipe.
        run: Its run folder.
        latency: Seconds that an inference of the cell's network took, under a latency budget. None: not measured.
        costs: Parameters and multiply-adds of every candidate's network, and under a latency budget its microseconds.
    """

    found: Found
    reason: str
    candidates: Sequence[Candidate]
    cost: Cost
    config: Config
    run: Path
    latency: float | None = None
    costs: Sequence[tuple[int, ...]] = ()

    @classmethod
    def of(cls, result: SearchResult) -> FoundCell:
        """Return what a search's pipeline found."""
        session, found = result.session, result.found
        cost = cost_of(found, session.config.model, session.classes)
        reason = "" if isinstance(result.derivation, EvolvedNetwork) else result.derivation.reason
        latency = next((trial.median for trial in result.trials if trial.cell == found), None)
        count = cost_counter(session.config, session.classes, session.config.search.derive)
        costs = [count(candidate.cell) for candidate in result.candidates]
        return cls(found, reason, result.candidates, cost, session.config, session.run.path, latency, costs)

    @property
    def cell(self) -> Genotype:
        """The cell.

        Raises:
            UserError: A network was found.
        """
        if isinstance(self.found, Subnet):
            raise UserError(f"the method {self.config.search.method} found a network, not a cell: it is `found`.")
        return self.found

    @property
    def report(self) -> Path:
        """The run's page."""
        return self.run / PAGE

    def derive(
        self,
        *,
        max_macs: str | int = 0,
        max_params: str | int = 0,
        max_latency: str = "",
        latency_table: str | Path = "",
        rule: str = "",
        max_skips: int = -1,
    ) -> Genotype:
        """Return another cell of the same search, without training: within a budget, or by another rule.

        Args:
            max_macs: Most multiply-adds of its network for one image, as "50M". 0: the recipe's limit.
            max_params: Most parameters, likewise.
            max_latency: Most time of an inference, as "8ms", by the latency table. Empty: the recipe's limit.
            latency_table: That table, as `dasvit latency` writes it. Empty: this machine's own, measured once.
            rule: darts or strongest, by the weights of the edges. Empty: by what candidates reached, if there are any.
            max_skips: Most skips. -1: the recipe's limit.

        Raises:
            UserError: No cell of the space fits.
        """
        if rule not in ("", "darts", "strongest"):
            raise unknown("rule", rule, ["darts", "strongest"])
        parse_time(max_latency, "max_latency")
        past = read_search(self.run)
        base = past.config.search.derive
        choice = replace(
            base,
            rule=rule or base.rule,  # type: ignore[arg-type] # checked below
            max_macs=count(max_macs, "max_macs") or base.max_macs,
            max_params=count(max_params, "max_params") or base.max_params,
            max_latency=max_latency or base.max_latency,
            max_skips=max_skips if max_skips >= 0 else base.max_skips,
        )
        if choice.max_latency:
            past = replace(past, config=past_table(past.config, self.run, str(latency_table)))
        return past.derive(choice, by_weights=bool(rule)).genotype

    def front(self) -> list[Candidate]:
        """Return the candidates that none beats at no more cost, the cheapest first (docs/sizes.md).

        What costs is what the search limited, time before all else; without a budget, multiply-adds.
        """
        axis = axis_of(self.config.search.derive)
        return [self.candidates[place] for place in front_of(self.candidates, [cost[axis] for cost in self.costs])]

    def to_frame(self) -> pd.DataFrame:
        """Return the candidates, best first, as a pandas table; the cell alone where none was trained.

        With their costs, and whether they are of the `front`; where sizes were searched, with these.
        """
        found = self.candidates or [Candidate(self.cell, [Rung(0, float("nan"), float("nan"))])]
        columns: dict[str, list[Any]] = {
            "cell": [" ".join(one.cell.ops) for one in found],
            ("val_top1" if all(one.last.map is None for one in found) else "val_map"): [
                one.last.score for one in found
            ],
            "val_loss": [one.last.loss for one in found],
            "epochs": [one.last.epochs for one in found],
        }
        costs = self.costs if self.candidates else [(self.cost.params, self.cost.macs)]
        for place, name in enumerate(("params", "macs", "microseconds")):
            if all(len(cost) > place for cost in costs):
                columns[name] = [cost[place] for cost in costs]
        front = self.front()
        columns["front"] = [one in front for one in found]
        if sizes := [one.cell.sizes for one in found if one.cell.sizes]:
            columns |= {name: [getattr(one, name) for one in sizes] for name in sizes[0].to_dict()}
        return frame(columns)

    def __str__(self) -> str:
        return f"{self.found}\n{self.cost.params:,} parameters, {self.cost.macs:,} multiply-adds; {self.run}"

    def _repr_svg_(self) -> str | None:
        """Return the cell as a drawing, which is what a notebook shows; a network has none, and shows its text."""
        if isinstance(self.found, Subnet):
            return None
        from dasvit.report.run.figures import draw_cell  # matplotlib is slow to import

        text = io.StringIO()
        draw_cell(self.cell, {}, list(dict.fromkeys(self.cell.ops))).savefig(text, format="svg")
        return text.getvalue()
