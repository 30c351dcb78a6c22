"""The method autoformer: an entangled supernet of whole networks, and an evolution of its subnets."""
