"""The figure that networks are compared by."""


def figure_of(metric: str, multilabel: bool = False) -> str:
    """Return the share by which trained networks are compared, larger being better.

    Args:
        metric: `search.metric`: a share is that share; auto and loss, which choose among candidates, are the usual one.
        multilabel: Whether images have several labels.
    """
    return metric if metric not in ("auto", "loss") else "map" if multilabel else "top1"
