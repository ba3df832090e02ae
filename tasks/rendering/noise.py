"""The grain that every texture is made of: fractal noise, bands of noise, cells, and colour ramps over them.

Everything is drawn on a ``Canvas``, which measures in scene units (1/216 of the frame's height, so one unit is one
pixel of a 384x216 frame) and knows how many texels a unit has. A scene therefore looks the same at every frame size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
"""Images and coordinates: float32 wherever there is one value per texel or pixel."""

LIGHT = (-0.55, -0.65, 1.0)
"""Towards the light in every scene: from the upper left, out of the picture. Shadows fall to the lower right."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A rectangle of texels around the origin.

    half_width, half_height: extent in units, to each side of the origin.
    density: texels per unit.
    """

    half_width: float
    half_height: float
    density: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns in texels."""
        return int(np.ceil(2 * self.half_height * self.density)), int(np.ceil(2 * self.half_width * self.density))

    def grid(self) -> tuple[Array, Array]:
        """Return x and y of every texel centre in units, both [rows, columns]."""
        rows, columns = self.shape
        x = (np.arange(columns, dtype=np.float32) + 0.5) / np.float32(self.density) - np.float32(self.half_width)
        y = (np.arange(rows, dtype=np.float32) + 0.5) / np.float32(self.density) - np.float32(self.half_height)
        return np.broadcast_to(x, (rows, columns)), np.broadcast_to(y[:, None], (rows, columns))

    def texels(self, points: npt.ArrayLike) -> Array:
        """Turn points in units, [..., 2], into texel coordinates where an integer is a texel's centre."""
        origin = np.array([self.half_width, self.half_height], np.float32)
        return (np.asarray(points, np.float32) + origin) * np.float32(self.density) - np.float32(0.5)


def rgb(code: str) -> Array:
    """Turn ``"#rrggbb"`` into three floats in 0..1."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255


def _shaped_noise(
    canvas: Canvas, rng: np.random.Generator, *, feature: float, band: float | None, fall: float
) -> Array:
    """White noise filtered in the frequency domain, mapped to a uniform distribution over 0..1."""
    shape = canvas.shape
    padded = [cv2.getOptimalDFTSize(side + 8) for side in shape]
    spectrum = np.fft.rfft2(rng.standard_normal(padded, dtype=np.float32))
    radius = np.hypot(np.fft.fftfreq(padded[0])[:, None], np.fft.rfftfreq(padded[1])[None])
    base = 1 / max(feature * canvas.density, 2.0)
    if band is None:
        gain = (radius**2 + base**2) ** (-fall / 2)
    else:
        gain = np.exp(-((np.log(np.maximum(radius, 1e-6) / base)) ** 2) / (2 * band**2))
    gain[0, 0] = 0
    values = np.fft.irfft2(spectrum * gain, s=padded)[: shape[0], : shape[1]]
    values = (values - values.mean()) / values.std()
    return (1 / (1 + np.exp(-1.702 * values))).astype(np.float32)  # 1.702: the logistic nearest to the normal's CDF


def fractal(canvas: Canvas, rng: np.random.Generator, *, feature: float, fall: float = 2.0) -> Array:
    """Noise of every scale below ``feature`` units, uniform in 0..1; a smaller ``fall`` is rougher."""
    return _shaped_noise(canvas, rng, feature=feature, band=None, fall=fall)


def banded(canvas: Canvas, rng: np.random.Generator, *, feature: float, band: float = 0.25) -> Array:
    """Noise of one scale, ``feature`` units from crest to crest: coats, ripples, labyrinths."""
    return _shaped_noise(canvas, rng, feature=feature, band=band, fall=0)


def ridges(noise: Array, *, sharpness: float = 3.0) -> Array:
    """Thin bright lines where the noise crosses its middle: caustics, veins, foam."""
    return (1 - np.abs(2 * noise - 1)) ** np.float32(sharpness)


def warp(image: Array, canvas: Canvas, rng: np.random.Generator, *, feature: float, amount: float) -> Array:
    """Displace an image by smooth noise of up to ``amount`` units, so that nothing made by rule looks ruled."""
    rows, columns = canvas.shape
    scale = 2 * amount * canvas.density
    dx = (banded(canvas, rng, feature=feature, band=0.5) - 0.5) * np.float32(scale)
    dy = (banded(canvas, rng, feature=feature, band=0.5) - 0.5) * np.float32(scale)
    x, y = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    interpolation = cv2.INTER_NEAREST if image.dtype.kind in "iu" else cv2.INTER_LINEAR
    return cv2.remap(image, x + dx, y + dy, interpolation, borderMode=cv2.BORDER_REFLECT_101)


def smoothstep(low: float, high: float, values: Array) -> Array:
    """Rise from 0 at ``low`` to 1 at ``high`` without a corner."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def ramp(values: Array, colours: Sequence[str]) -> Array:
    """Colour values in 0..1 by evenly spaced stops: [h, w] to [h, w, 3]."""
    stops = np.linspace(0, 1, len(colours))
    table = np.stack([rgb(code) for code in colours])
    return np.stack([np.interp(values, stops, table[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def mix(below: Array, above: Array, amount: Array | float) -> Array:
    """Lay one colour image over another; ``amount`` is [h, w] or a number."""
    weight = np.asarray(amount, np.float32)
    if weight.ndim == 2:
        weight = weight[..., None]
    return (below + (above - below) * weight).astype(np.float32)


def relief(height: Array, *, strength: float) -> Array:
    """Shade a height map by the scene's light; flat ground gives exactly 1. Height in texels."""
    blurred = cv2.GaussianBlur(height, (0, 0), 0.8)
    slope_x = cv2.Sobel(blurred, cv2.CV_32F, 1, 0, ksize=3) / 8 * strength
    slope_y = cv2.Sobel(blurred, cv2.CV_32F, 0, 1, ksize=3) / 8 * strength
    lit = -slope_x * LIGHT[0] - slope_y * LIGHT[1] + LIGHT[2]
    return np.clip(lit / np.sqrt(slope_x**2 + slope_y**2 + 1) / LIGHT[2], 0.25, 1.6).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A plane cut into cells around jittered seeds.

    label: number of the cell of every texel, int32. edge: distance to the nearest other cell, in units.
    """

    label: npt.NDArray[np.int32]
    edge: Array
    num_cells: int

    def shuffled(self, rng: np.random.Generator) -> Array:
        """Give each cell a random value in 0..1."""
        return rng.random(self.num_cells + 1, dtype=np.float32)[self.label]


def cells(canvas: Canvas, rng: np.random.Generator, *, size: float, jitter: float = 0.45, bend: float = 0.06) -> Cells:
    """Cut the canvas into cells about ``size`` units wide; ``bend`` of a size makes their borders uneven."""
    rows, columns = canvas.shape
    pitch = max(size * canvas.density, 3.0)
    row, column = np.meshgrid(np.arange(-1, rows / pitch + 1), np.arange(-1, columns / pitch + 1), indexing="ij")
    column = column + 0.5 * (row % 2)
    jittered = np.stack([row, column], -1) + rng.uniform(-jitter, jitter, (*row.shape, 2))
    seed_row, seed_column = np.rint(jittered * pitch).astype(int).reshape(-1, 2).T
    inside = (seed_row >= 0) & (seed_row < rows) & (seed_column >= 0) & (seed_column < columns)
    empty = np.full((rows, columns), 255, np.uint8)
    empty[seed_row[inside], seed_column[inside]] = 0
    _, label = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    label = np.rint(warp(label.astype(np.int16), canvas, rng, feature=1.5 * size, amount=bend * size)).astype(np.int32)
    border = (cv2.dilate(label.astype(np.float32), np.ones((3, 3))) != label) | (
        cv2.erode(label.astype(np.float32), np.ones((3, 3))) != label
    )
    edge = cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, 5) / np.float32(canvas.density)
    return Cells(label=label, edge=edge, num_cells=int(label.max()))
