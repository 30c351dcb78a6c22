"""How a cell is found: alphas, supernet, token selection, fairness, stages, derivation, the loop."""

from dasvit._callable import make_callable

make_callable(__name__)
