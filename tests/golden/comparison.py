"""How far our numbers are from recorded ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One quantity of an archive.

    relative_error: largest difference over the largest recorded magnitude. error: what is held against ``tolerance``,
    in ``unit``.
    """

    quantity: str
    relative_error: float
    error: float
    tolerance: float
    unit: str

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # false for NaN

    def __str__(self) -> str:
        return f"{self.quantity}: {self.error:.1e} {self.unit}, allowed {self.tolerance:.0e}"


def relative(quantity: str, ours: Any, recorded: Any, tolerance: float) -> Comparison:
    """Compare by the relative error."""
    error, scale = _difference(quantity, ours, recorded)
    ratio = error / scale
    return Comparison(quantity=quantity, relative_error=ratio, error=ratio, tolerance=tolerance, unit="relative")


def absolute(quantity: str, ours: Any, recorded: Any, tolerance: float, unit: str = "absolute") -> Comparison:
    """Compare by the largest difference, in the unit of the quantity."""
    error, scale = _difference(quantity, ours, recorded)
    return Comparison(quantity=quantity, relative_error=error / scale, error=error, tolerance=tolerance, unit=unit)


def _difference(quantity: str, ours: Any, recorded: Any) -> tuple[float, float]:
    """Return the largest difference and the largest recorded magnitude, 1 where all recorded values are 0."""
    left, right = (_as_array(value) for value in (ours, recorded))
    if left.shape != right.shape:
        raise ValueError(f"{quantity} has shape {left.shape}, recorded {right.shape}")
    if right.size == 0 or not np.isfinite(right).all():
        raise ValueError(f"{quantity} was recorded without values or with values that are not finite")
    return float(np.abs(left - right).max()), float(np.abs(right).max()) or 1.0


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=np.float64)
