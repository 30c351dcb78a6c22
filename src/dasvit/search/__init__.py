"""How a cell is found: alphas, supernet, token selection, fairness, stages, derivation, the loop."""
