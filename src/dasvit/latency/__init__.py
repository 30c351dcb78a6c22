"""What a network's inference takes: measured, and predicted by a table of what its operations take."""
