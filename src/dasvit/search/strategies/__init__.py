"""The search methods: what each changes of plain DARTS (`docs/methods.md`); `dasvit.config.methods` lists them."""

import pkgutil

from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.config.methods import find_method
from dasvit.search.strategies.base import Strategy


def make_strategy(config: Config, space: Space, classes: int) -> Strategy:
    """Return a recipe's search method.

    Raises:
        UserError: Unknown method.
    """
    home = find_method(config.search.method).strategy
    assert home is not None, f"{config.search.method} trains no supernet"
    strategy = (pkgutil.resolve_name(home) if isinstance(home, str) else home)(config, space, classes)
    assert isinstance(strategy, Strategy), f"{home} is no search strategy"
    return strategy
