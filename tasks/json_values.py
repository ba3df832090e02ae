"""Values as JSON takes them."""

from __future__ import annotations

import math
from typing import Any


def with_nulls(tree: Any) -> Any:
    """Return a tree of plain values with None in the place of NaN, which JSON does not know."""
    if isinstance(tree, dict):
        return {key: with_nulls(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [with_nulls(value) for value in tree]
    return None if isinstance(tree, float) and math.isnan(tree) else tree
