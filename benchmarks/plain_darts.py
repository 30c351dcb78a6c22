"""Plain DARTS, which our supernet is measured against; it stands in the package, where `dasvit memory` counts it."""

from dasvit.search.plain_darts import PlainSupernet, alpha_gradient

__all__ = ["PlainSupernet", "alpha_gradient"]
