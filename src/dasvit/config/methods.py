"""The search methods as records: all that the package knows of a method stands here, but for what its class does.

Imports no torch: the command line lists the methods, and validation checks them, before anything is searched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from dasvit.config.fields import Config, SearchConfig
from dasvit.errors import UserError, unknown


@dataclass(frozen=True)
class Method:
    """A search method.

    Attributes:
        name: Its name, as `search.method` has it.
        summary: What it does, in a line.
        strategy: Its class, a `dasvit.search.strategies.base.Strategy`: as "module:Class", imported when a search of it
            begins, or the class itself. None: no supernet of cells is trained.
        of_recipe: What it makes of a recipe's section search; doing it twice changes nothing more.
        learns_alphas: Whether alphas move by gradients, so that a target of cost or a mixture to perturb makes sense.
        finals: Whether short trainings of candidates decide among cells: where the recipe wants it, never, or always.
        normalises_edges: Whether edges have parameters of their own.
        channel_share: Gives K of a section search: the operations see the first D/K channels.
        finds: What its searches end with: a cell, or a whole network, whose supernet is of another kind.
    """

    name: str
    summary: str
    strategy: str | type | None
    of_recipe: Callable[[SearchConfig], SearchConfig] = lambda search: search
    learns_alphas: bool = True
    finals: Literal["optional", "never", "always"] = "optional"
    normalises_edges: bool = False
    channel_share: Callable[[SearchConfig], int] = lambda search: 1
    finds: Literal["cell", "network"] = "cell"

    @property
    def trains_supernet(self) -> bool:
        """Whether there is a supernet of cells to train, and so to count memory and time a precision for."""
        return self.strategy is not None


def without_parts(search: SearchConfig) -> SearchConfig:
    """Leave out DASViT's parts, and the finals, but not the stages."""
    tokens = replace(search.tokens, ratio=1.0)
    fairness = replace(search.fairness, skip=0.0, types=0.0)
    finals = replace(search.finals, cells=0)
    return replace(search, tokens=tokens, fairness=fairness, finals=finals)


def plain_darts(search: SearchConfig) -> SearchConfig:
    """Leave out all of DASViT's parts: one stage of the first one's depth, as many epochs as all together."""
    stages = search.stages
    one_stage = replace(
        stages,
        layers=stages.layers[:1],
        keep=[0],
        epochs=[sum(stages.epochs)],
        weight_epochs=stages.weight_epochs[:1],
    )
    return replace(without_parts(search), stages=one_stage)


def _p_darts(search: SearchConfig) -> SearchConfig:
    skips = 2 if search.derive.max_skips < 0 else search.derive.max_skips
    return replace(without_parts(search), derive=replace(search.derive, max_skips=skips))


def _fair_darts(search: SearchConfig) -> SearchConfig:
    return replace(plain_darts(search), relaxation="sigmoid")


def _beta_darts(search: SearchConfig) -> SearchConfig:
    return replace(plain_darts(search), alphas=replace(search.alphas, weight_decay=0.0))


def _gdas(search: SearchConfig) -> SearchConfig:
    plain = replace(plain_darts(search), order=1)
    if search.temperature == search.final_temperature == 1.0:
        return replace(plain, temperature=10.0, final_temperature=0.1, annealing="linear")
    return plain


def _finals(search: SearchConfig) -> SearchConfig:
    """Leave out the supernet: finals alone, sixteen candidates where the recipe has none."""
    finals = search.finals if search.finals.cells else replace(search.finals, cells=16)
    return replace(plain_darts(search), finals=finals)


def _autoformer(search: SearchConfig) -> SearchConfig:
    """Have the budget of cells hold for networks, where these have none of their own."""
    own, cells = search.autoformer, search.derive
    params, macs = own.max_params or cells.max_params, own.max_macs or cells.max_macs
    return replace(plain_darts(search), autoformer=replace(own, max_params=params, max_macs=macs))


HOME = "dasvit.search.strategies"
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("dasvit", "token selection, fairness, stages", f"{HOME}.base:Strategy"),
        Method("darts", "bilevel, first or second order", f"{HOME}.base:Strategy", plain_darts),
        Method(
            "pc-darts",
            "partial channels, edges normalised",
            f"{HOME}.pc_darts:PcDarts",
            plain_darts,
            normalises_edges=True,
            channel_share=lambda search: search.pc_darts.channels,
        ),
        Method(
            "p-darts",
            "progressive depth, dropout on skips, few skips in the cell",
            f"{HOME}.p_darts:PDarts",
            _p_darts,
        ),
        Method("darts+", "stops when skips take over", f"{HOME}.darts_plus:DartsPlus", plain_darts),
        Method("darts-", "an auxiliary skip that fades", f"{HOME}.darts_minus:DartsMinus", plain_darts),
        Method("fair-darts", "sigmoids and a zero-one loss", f"{HOME}.fair_darts:FairDarts", _fair_darts),
        Method("beta-darts", "log-sum-exp of the alphas held down", f"{HOME}.beta_darts:BetaDarts", _beta_darts),
        Method("gdas", "one sampled operation an edge", f"{HOME}.gdas:Gdas", _gdas),
        Method("random", "draws a cell", None, plain_darts, learns_alphas=False, finals="never"),
        Method("finals", "DASViT's finals without its supernet", None, _finals, learns_alphas=False, finals="always"),
        Method(
            "evolution",
            "one-shot supernet of single paths, then an evolution of cells",
            f"{HOME}.evolution:Evolution",
            plain_darts,
            learns_alphas=False,
            finals="never",
        ),
        Method(
            "autoformer",
            "entangled supernet of whole networks, then an evolution of these",
            None,
            _autoformer,
            learns_alphas=False,
            finals="never",
            finds="network",
        ),
    )
}
"""Every search method by name; a script of your own adds its own (docs/extending.md)."""


def find_method(name: str) -> Method:
    """Return the method of a name.

    Raises:
        UserError: Unknown method.
    """
    if name not in METHODS:
        raise unknown("search method", name, METHODS)
    return METHODS[name]


def with_method(config: Config, method: str, given: Collection[str] = ()) -> Config:
    """Return the configuration under a search method; doing it twice changes nothing more.

    Args:
        config: The configuration.
        method: The method's name.
        given: Dotted names of fields that the user set, and that stay as they are for it (`search.stages` do not: how
            many there are is the method's).

    Raises:
        UserError: Unknown method.
    """
    search = find_method(method).of_recipe(replace(config.search, method=method))
    return replace(config, search=_keep_given(config.search, search, "search", given))


def _keep_given(before: Any, after: Any, prefix: str, given: Collection[str]) -> Any:
    """Return a section as a method makes it, with the fields that the user set as they were before."""
    kept = {}
    for field in dataclasses.fields(after):
        name, old, new = f"{prefix}.{field.name}", getattr(before, field.name), getattr(after, field.name)
        if name in ("search.method", "search.stages"):
            continue
        if name in given:
            kept[field.name] = old
        elif dataclasses.is_dataclass(new):
            kept[field.name] = _keep_given(old, new, name, given)
    return replace(after, **kept)


def check_method(search: SearchConfig, width: int, heads: Collection[int]) -> None:
    """Check what a search method asks for beside the rest.

    Args:
        search: The section search.
        width: Embedding width of the supernet.
        heads: Head counts of the attention operations.

    Raises:
        UserError: It is not there.
    """
    method = find_method(search.method)
    _check_channels(method.channel_share(search), width, heads)
    if method.learns_alphas:
        return
    if search.target_params or search.target_macs:
        raise UserError(
            f"the method {search.method} moves no alphas, so it takes no target: limit the cell by "
            "search.derive.max_params and search.derive.max_macs."
        )
    _check_finals(method, search)
    if search.derive.rule == "perturbation":
        raise UserError(f"the method {search.method} has no mixture for the rule perturbation: take darts.")


def _check_channels(share: int, width: int, heads: Collection[int]) -> None:
    if width % share:
        raise UserError(f"the supernet's width {width} is not divisible by search.pc_darts.channels {share}.")
    for count in heads:
        if share > 1 and width // share % count:
            raise UserError(
                f"a share of {width // share} channels is not divisible by {count} attention heads: lower "
                "search.pc_darts.channels or raise search.width."
            )


def _check_finals(method: Method, search: SearchConfig) -> None:
    """Check what a method without alphas can do with finals."""
    if method.finals == "never" and search.finals.cells:
        raise UserError(
            f"the method {search.method} ends with one {method.finds}: leave search.finals.cells at 0, or take the "
            "method finals."
        )
    if method.finals != "always":
        return
    if not search.finals.cells:
        raise UserError(f"the method {search.method} needs finalists: raise search.finals.cells.")
    if search.random.reference:
        raise UserError(
            "search.random.reference asks for one cell of that cost, and finals try others: limit them all by "
            "search.derive.max_macs, or take the method random."
        )
