"""What a cell is: its graph, its operations, its genotype."""
