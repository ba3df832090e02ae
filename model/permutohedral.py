"""Where points of a feature space lie in the permutohedral lattice, and one integer to name each lattice point by.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Computer Graphics Forum 2010.
A Gaussian filter with unit standard deviation over scattered points of d dimensions becomes three sparse steps::

    splat   each point gives its value to the d + 1 corners of the simplex around it, by barycentric weights
    blur    along each of the d + 1 axes of the lattice: own value + half of both neighbours, where they exist
    slice   each point takes back from its corners by the same weights

Features are first lifted to the hyperplane of R^(d+1) whose coordinates sum to zero. Lattice points there have integer
coordinates that are all equal modulo d + 1, so any d of the coordinates name a point; they are packed into one integer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import InputError

_LARGEST_KEY = 2**62  # of int64, with room for the sums on the way
_LARGEST_COORDINATE = 2**24  # float32 can not tell larger whole numbers apart


@dataclass(frozen=True, kw_only=True)
class LatticeGeometry:
    """The lift of features that lie in 0..largest, and the numbering of the lattice points around them.

    scales: factor of each of the d features before the lift; the blur then has unit standard deviation.
    strides: what a step of one adds to a packed key, for each of the d + 1 coordinates; 0 for the first, which the
        others determine.
    """

    scales: tuple[float, ...]
    strides: tuple[int, ...]

    @classmethod
    def up_to(cls, largest: Sequence[float]) -> LatticeGeometry:
        """Return the geometry for features between 0 and ``largest``, in standard deviations.

        Raises InputError when the lattice is too fine for float32, or for naming its points by 62 bits.
        """
        num_features = len(largest)
        # Adams et al. 2010, sections 3.1 and 3.2: the orthogonal lift, and the spread of splat, blur and slice.
        spread = (num_features + 1) * math.sqrt(2 / 3)
        scales = tuple(spread / math.sqrt((axis + 1) * (axis + 2)) for axis in range(num_features))
        scaled = [scale * bound for scale, bound in zip(scales, largest, strict=True)]
        num_values = [_num_values(axis, scaled) for axis in range(1, num_features + 1)]
        if max(num_values) > _LARGEST_COORDINATE or math.prod(num_values) > _LARGEST_KEY:
            raise InputError(
                f"features up to {', '.join(f'{bound:.3g}' for bound in largest)} standard deviations: the lattice "
                f"would have {' x '.join(f'{count:.3g}' for count in num_values)} places, expected at most 2^24 along "
                "an axis and 2^62 in all; use larger standard deviations"
            )
        strides = (0, *(math.prod(num_values[:axis]) for axis in range(num_features)))
        return cls(scales=scales, strides=strides)

    @property
    def num_vertices(self) -> int:
        """Corners of a simplex, which are also the axes of the blur: d + 1."""
        return len(self.strides)

    @property
    def diagonal(self) -> int:
        """What a step of one along all coordinates adds to a packed key."""
        return sum(self.strides)

    def neighbour_step(self, axis: int) -> int:
        """Return what leads from a packed key to its neighbour along an axis: d on the axis, -1 on all others."""
        return self.num_vertices * self.strides[axis] - self.diagonal


def _num_values(axis: int, lifted: Sequence[float]) -> int:
    """Count the values of one lattice coordinate: those of the points, their corners and the corners' neighbours."""
    lowest, highest = -axis * lifted[axis - 1], sum(lifted[axis:])
    around = 2 * (len(lifted) + 1)
    return math.ceil(highest) - math.floor(lowest) + 2 * around + 1
