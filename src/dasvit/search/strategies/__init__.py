"""The search methods: what each changes of plain DARTS (`docs/methods.md`)."""

from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.search.strategies.base import Strategy
from dasvit.search.strategies.beta_darts import BetaDarts
from dasvit.search.strategies.darts import Darts, Dasvit
from dasvit.search.strategies.darts_minus import DartsMinus
from dasvit.search.strategies.darts_plus import DartsPlus
from dasvit.search.strategies.evolution import Evolution
from dasvit.search.strategies.fair_darts import FairDarts
from dasvit.search.strategies.gdas import Gdas
from dasvit.search.strategies.p_darts import PDarts
from dasvit.search.strategies.pc_darts import PcDarts

STRATEGIES: dict[str, type[Strategy]] = {
    "dasvit": Dasvit,
    "darts": Darts,
    "pc-darts": PcDarts,
    "p-darts": PDarts,
    "darts+": DartsPlus,
    "darts-": DartsMinus,
    "fair-darts": FairDarts,
    "beta-darts": BetaDarts,
    "gdas": Gdas,
    "evolution": Evolution,
}
"""A method's name, as `dasvit.config.validation.METHODS` has it, and what it does."""


def make_strategy(config: Config, space: Space, classes: int) -> Strategy:
    """Return a recipe's search method."""
    return STRATEGIES[config.search.method](config, space, classes)
