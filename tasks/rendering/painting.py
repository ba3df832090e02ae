"""Drawing by strokes on a canvas: smooth outlines, filled shapes, and many small dabs such as leaves or blades."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from tasks.rendering.noise import Array, Canvas, relief, rgb

_SUBPIXEL_BITS = 4  # cv2 draws at 1/16 of a texel


def outline(points: npt.ArrayLike, *, mirrored: bool = False, num_points: int = 16, closed: bool = True) -> Array:
    """Draw a smooth curve through points in units (Catmull-Rom).

    Args:
        points: [n, 2]. With ``mirrored`` they run along one side, y >= 0, and come back along the other.
        mirrored: make the shape symmetric about the x axis.
        num_points: points of the curve between two given ones.
        closed: join the last point to the first.

    Returns:
        [m, 2].
    """
    p = np.asarray(points, np.float64)
    if mirrored:
        back = p[::-1] * (1, -1)
        p = np.concatenate([p, back[np.abs(back[:, 1]) > 1e-6]])
    before, after, later = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    if not closed:
        before[0], after[-1], later[-1], later[-2] = p[0], p[-1], p[-1], p[-1]
    t = (np.arange(num_points) / num_points)[:, None, None]
    curve = 0.5 * (
        2 * p
        + (after - before) * t
        + (2 * before - 5 * p + 4 * after - later) * t**2
        + (3 * p - before - 3 * after + later) * t**3
    )
    by_segment = curve.transpose(1, 0, 2)  # (n, num_points, 2)
    if not closed:
        return np.concatenate([by_segment[:-1].reshape(-1, 2), p[-1:]]).astype(np.float32)
    return by_segment.reshape(-1, 2).astype(np.float32)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> Array:
    """Return the outline of an ellipse in units, 48 points; angle in radians."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = radii[0] * np.cos(t), radii[1] * np.sin(t)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], -1).astype(np.float32)


def _fixed(points: Array) -> npt.NDArray[np.int32]:
    return np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def coverage(canvas: Canvas, *outlines: Array) -> Array:
    """Return how much of every texel the union of the outlines covers, 0..1."""
    image = np.zeros(canvas.shape, np.uint8)
    for shape in outlines:
        cv2.fillPoly(image, [_fixed(canvas.texels(shape))], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    return image.astype(np.float32) / 255


def strokes(canvas: Canvas, lines: Sequence[Array], *, width: float) -> Array:
    """Return coverage 0..1 of open lines, ``width`` units thick."""
    image = np.zeros(canvas.shape, np.uint8)
    thickness = max(round(width * canvas.density), 1)
    cv2.polylines(
        image, [_fixed(canvas.texels(line)) for line in lines], False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS
    )
    return image.astype(np.float32) / 255


def dome(mask: Array, canvas: Canvas, *, width: float, strength: float = 1.0) -> Array:
    """Shade a silhouette as a body that bulges towards the viewer; ``width`` units is its half thickness."""
    inside = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    reach = width * canvas.density
    t = np.clip(inside / reach, 0, 1)
    height = reach * np.sqrt(1 - (1 - t) ** 2)
    height = cv2.GaussianBlur(height.astype(np.float32), (0, 0), max(reach / 6, 0.8))
    return relief(height, strength=strength)


def dabs(
    image: Array,
    canvas: Canvas,
    rng: np.random.Generator,
    *,
    shape: Array,
    positions: Array,
    angles: Array,
    sizes: Array,
    colours: Sequence[str],
    shadow: float = 0.35,
    vary: float = 0.08,
) -> Array:
    """Paint one small shape many times, later ones over earlier ones, each with its shadow and its own colour.

    Args:
        image: [h, w, 3] to paint on; it is not changed.
        canvas: its canvas.
        rng: chooses colours.
        shape: outline of one dab, [n, 2], about one unit large.
        positions: [m, 2] in units. angles: [m] in radians. sizes: [m] in units.
        colours: each dab takes one.
        shadow: darkness of the shadow under a dab, 0 for none.
        vary: spread of brightness between dabs.

    Returns:
        The painted image.
    """
    painted = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    palette = np.stack([rgb(code) for code in colours]) * 255
    chosen = palette[rng.integers(len(colours), size=len(positions))] * (1 + rng.normal(0, vary, (len(positions), 1)))
    dark = rgb(colours[0]) * 255 * (1 - shadow) * 0.6
    cosine, sine = np.cos(angles), np.sin(angles)
    turn = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)  # (m, 2, 2)
    placed = np.einsum("mij,nj->mni", turn, shape) * sizes[:, None, None] + positions[:, None]
    fixed = _fixed(canvas.texels(placed))
    offset = _fixed(np.array([0.9, 1.1], np.float32) * canvas.density)
    for points, colour in zip(fixed, np.clip(chosen, 0, 255), strict=True):
        if shadow > 0:
            cv2.fillPoly(painted, [points + offset], dark.tolist(), cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.fillPoly(painted, [points], colour.tolist(), cv2.LINE_AA, _SUBPIXEL_BITS)
    return painted.astype(np.float32) / 255


def scatter(canvas: Canvas, rng: np.random.Generator, *, spacing: float) -> Array:
    """Return positions over the whole canvas about ``spacing`` units apart, in random order, [m, 2]."""
    count = int(4 * canvas.half_width * canvas.half_height / spacing**2)
    extent = np.array([canvas.half_width, canvas.half_height], np.float32)
    return (rng.uniform(-1, 1, (count, 2)) * extent).astype(np.float32)


LEAF = outline([(-0.5, 0), (-0.2, 0.2), (0.15, 0.2), (0.5, 0), (0.15, -0.2), (-0.2, -0.2)], num_points=3)
"""A leaf, one unit long."""

PEBBLE = ellipse((0, 0), (0.5, 0.38))[::4]
"""A pebble, one unit long."""

BLADE = np.array([(-0.05, 0), (-0.03, -0.5), (0.06, -1.0), (0.05, -0.5), (0.05, 0)], np.float32)
"""A blade of grass, one unit high, standing on its root."""
