"""How much memory a search needs, counted without a device."""
