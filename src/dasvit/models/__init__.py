"""What a network is: the skeleton, the derived network, baselines by name, model folders and costs."""
