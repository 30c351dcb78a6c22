"""How a network is trained and evaluated; what search and training share."""
