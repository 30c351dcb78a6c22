"""Several runs or networks side by side."""
