"""How a network is trained and judged; what search and training share."""
