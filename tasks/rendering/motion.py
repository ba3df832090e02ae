"""Where the camera and the object are at every moment, and how the object bends.

Time runs in frames and is continuous, since motion blur needs the moments between frames. Positions are in units on
the stage, the plane that the object moves on. Every bend is a shear or a scaling along one axis by an amount that
depends on the other axis alone: such maps invert in closed form, and so the optical flow is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.rendering.noise import Array

Points = tuple[Array, Array]
"""x and y of points, two arrays of one shape."""

SAMPLES_PER_FRAME = 8
"""Resolution of a track; between its samples it is linear, off by less than 0.01 unit at the speeds used here."""

MARGIN_FRAMES = 8
"""A track starts this long before frame 0 and ends this long after the last: room for blur, gaps and smoothing."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """The object at one moment.

    x, y: position on the stage, units. angle: where its nose points, radians, 0 = right, clockwise on the screen.
    gait: phase of its limbs, radians; runs with the distance travelled. turn: angular speed, radians per frame.
    speed: units per frame on the stage.
    """

    x: float
    y: float
    angle: float
    gait: float
    turn: float
    speed: float


@dataclass(frozen=True, kw_only=True)
class CameraPose:
    """The camera at one moment: the stage point it looks at (units), its roll (radians) and zoom (1 = no zoom)."""

    x: float
    y: float
    roll: float
    zoom: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """Named curves over time, sampled ``SAMPLES_PER_FRAME`` times a frame; [n] each."""

    curves: dict[str, npt.NDArray[np.float64]]

    def at(self, time: float) -> dict[str, float]:
        """Return every curve's value at a moment, in frames; before the start and after the end it stands still."""
        position = (time + MARGIN_FRAMES) * SAMPLES_PER_FRAME
        return {name: float(np.interp(position, np.arange(len(v)), v)) for name, v in self.curves.items()}

    def pose(self, time: float) -> Pose:
        """Return the object's pose, for a track that has its curves."""
        return Pose(**self.at(time))

    def camera(self, time: float) -> CameraPose:
        """Return the camera's pose, for a track that has its curves."""
        return CameraPose(**self.at(time))


def num_samples(num_frames: int) -> int:
    """Return the samples of a track over a clip with its margins."""
    return (num_frames + 2 * MARGIN_FRAMES) * SAMPLES_PER_FRAME


def smooth(values: npt.NDArray[np.float64], frames: float) -> npt.NDArray[np.float64]:
    """Average over a Gaussian of ``frames`` standard deviation; the ends repeat their values."""
    sigma = max(frames * SAMPLES_PER_FRAME, 1e-3)
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def rotation_about(centre: tuple[float, float], angle: float) -> npt.NDArray[np.float64]:
    """Return the 3x3 matrix that turns the plane about a point."""
    c, s = np.cos(angle), np.sin(angle)
    x, y = centre
    return np.array([[c, -s, x - c * x + s * y], [s, c, y - s * x - c * y], [0, 0, 1]])


def similarity(x: float, y: float, angle: float, scale: float = 1.0) -> npt.NDArray[np.float64]:
    """Return the 3x3 matrix that scales, turns, then moves the origin to (x, y)."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y], [0, 0, 1]])


def inverse(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the inverse of a 3x3 matrix."""
    return np.linalg.inv(matrix).astype(np.float64)


def apply(matrix: npt.NDArray[np.float64], points: Points) -> Points:
    """Move points by a 3x3 affine matrix."""
    x, y = points
    m = matrix.astype(np.float32)
    return m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]


@dataclass(frozen=True, kw_only=True)
class LateralShift:
    """Move points across the body, y, by an amount that depends on where along it, x, they lie: swimming, swaying."""

    offset: Callable[[Array, Pose], Array]

    def forward(self, points: Points, pose: Pose) -> Points:
        """From the resting body to the bent one."""
        x, y = points
        return x, y + self.offset(x, pose).astype(np.float32)

    def inverse(self, points: Points, pose: Pose) -> Points:
        """From the bent body to the resting one."""
        x, y = points
        return x, y - self.offset(x, pose).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class AxialShift:
    """Move points along the body, x, by an amount that depends on y: wings swept back, a jelly's wobble."""

    offset: Callable[[Array, Pose], Array]

    def forward(self, points: Points, pose: Pose) -> Points:
        """From the resting body to the bent one."""
        x, y = points
        return x + self.offset(y, pose).astype(np.float32), y

    def inverse(self, points: Points, pose: Pose) -> Points:
        """From the bent body to the resting one."""
        x, y = points
        return x - self.offset(y, pose).astype(np.float32), y


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Foreshorten what lies more than ``root`` units off the body's axis by a factor: wings seen from above."""

    root: float
    factor: Callable[[Pose], float]

    def _scaled(self, points: Points, factor: float) -> Points:
        x, y = points
        beyond = np.maximum(np.abs(y) - np.float32(self.root), 0)
        return x, y + np.sign(y) * beyond * np.float32(factor - 1)

    def forward(self, points: Points, pose: Pose) -> Points:
        """From spread wings to raised ones."""
        return self._scaled(points, self.factor(pose))

    def inverse(self, points: Points, pose: Pose) -> Points:
        """From raised wings to spread ones."""
        return self._scaled(points, 1 / self.factor(pose))


@dataclass(frozen=True, kw_only=True)
class Squash:
    """Stretch along the body by a factor and squeeze across it by its inverse: the area stays."""

    factor: Callable[[Pose], float]

    def forward(self, points: Points, pose: Pose) -> Points:
        """From the resting body to the stretched one."""
        f = np.float32(self.factor(pose))
        return points[0] * f, points[1] / f

    def inverse(self, points: Points, pose: Pose) -> Points:
        """From the stretched body to the resting one."""
        f = np.float32(self.factor(pose))
        return points[0] / f, points[1] * f


Bend = LateralShift | AxialShift | Fold | Squash
"""One step of an object's deformation, invertible in closed form."""
