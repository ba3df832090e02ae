"""Turn a scene into pictures: antialiasing and motion blur by sampling, soft shadows, light, and the camera's grain."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from tasks.rendering.motion import Points
from tasks.rendering.noise import Array
from tasks.rendering.scene import Layer, Scene

SHUTTER = 0.3
"""Frames. A shutter of 110 degrees: crisper than film's 180, so that flow estimators see texture while it moves."""

# Six samples of a rotated grid, each with its own moment. Both means are zero and time does not correlate with
# either axis, so that blur moves nothing: the exact flow is the flow of the picture.
_SAMPLES: tuple[tuple[float, float, float], ...] = (
    (-0.42, -0.08, -0.1),
    (-0.25, 0.25, 0.5),
    (-0.08, -0.42, 0.3),
    (0.08, 0.42, -0.5),
    (0.25, -0.25, 0.1),
    (0.42, 0.08, -0.3),
)

_SHADOW_COLOUR = np.array([0.06, 0.08, 0.14], np.float32)  # what is left in the shade is the sky's blue


def render_frame(scene: Scene, frame: int, *, effects: bool = True) -> npt.NDArray[np.uint8]:
    """Render one frame, RGB [h, w, 3] in 0..255.

    Args:
        scene: what to render.
        frame: its number.
        effects: shadow, vignette and grain, which do not move with any surface; without them the picture obeys
            the exact flow but for sampling.
    """
    samples: Sequence[tuple[float, float, float]] = _SAMPLES if effects else [(dx, dy, 0.0) for dx, dy, _ in _SAMPLES]
    shadow = _shadow(scene, float(frame)) if effects else None
    total = np.zeros((*scene.size, 3), np.float32)
    for dx, dy, moment in samples:
        total += _sample(scene, frame + SHUTTER * moment, (dx, dy), shadow)
    picture: Array = total / np.float32(len(samples))
    if effects:
        picture = _through_lens(picture, scene, frame)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _sample(scene: Scene, time: float, offset: tuple[float, float], shadow: Array | None) -> Array:
    """Render one moment through one point of every pixel."""
    picture = np.zeros((*scene.size, 3), np.float32)
    for layer in scene.layers:
        pixels = _layer_pixels(scene, layer, time, offset)
        picture *= 1 - pixels[..., 3:]
        picture += pixels[..., :3]
    if shadow is not None:
        picture += (picture * _SHADOW_COLOUR - picture) * shadow[..., None]
    window = scene.window(time)
    points = _window_points(window, offset)
    if points[0].size == 0:
        return picture
    target = picture[window]
    for part, material in zip(scene.actor.parts, scene.frame_to_parts(points, time), strict=True):
        pixels = part.surface.sample(material)
        target *= 1 - pixels[..., 3:]
        target += pixels[..., :3]
    return picture


def _layer_pixels(scene: Scene, layer: Layer, time: float, offset: tuple[float, float]) -> Array:
    canvas = layer.surface.canvas
    to_texels = np.array(
        [
            [canvas.density, 0, canvas.half_width * canvas.density - 0.5],
            [0, canvas.density, canvas.half_height * canvas.density - 0.5],
            [0, 0, 1],
        ]
    )
    shift = np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]])
    matrix = to_texels @ scene.frame_to_layer(layer.parallax, time) @ shift
    return cv2.warpAffine(
        layer.surface.pixels,
        matrix[:2],
        scene.size[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def _window_points(window: tuple[slice, slice], offset: tuple[float, float] = (0.0, 0.0)) -> Points:
    rows, columns = window
    x, y = np.meshgrid(
        np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(offset[0]),
        np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(offset[1]),
    )
    return x, y


def _shadow(scene: Scene, time: float) -> Array | None:
    """Return how dark the object's shadow makes the background, [h, w]; None for what flies too high."""
    actor, scale = scene.actor, scene.pixels_per_unit
    window = scene.window(time)
    points = _window_points(window)
    if actor.shadow == 0 or points[0].size == 0:
        return None
    body = np.zeros(scene.size, np.float32)
    for part, material in zip(actor.parts, scene.frame_to_parts(points, time), strict=True):
        np.maximum(body[window], part.surface.coverage(material), out=body[window])
    away = np.float32(actor.shadow_offset * scale)
    shift = np.array([[1, 0, 0.65 * away], [0, 1, 0.76 * away]], np.float32)
    thrown = cv2.warpAffine(body, shift, scene.size[::-1])
    return cv2.GaussianBlur(thrown, (0, 0), max(actor.shadow_blur * scale, 0.3)) * np.float32(actor.shadow)


def _through_lens(picture: Array, scene: Scene, frame: int) -> Array:
    """Add what the camera adds: a darker rim, white balance, drifting exposure, and grain new in every frame."""
    height, width = scene.size
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    vignette = 1 - 0.09 * (x**2 + y**2)
    exposure = np.float32(1.02 + 0.008 * np.sin(2 * np.pi * frame / 37))
    rng = np.random.default_rng((*scene.seed, 7, frame))
    grain = cv2.GaussianBlur(rng.standard_normal((height, width), dtype=np.float32), (0, 0), 0.6)
    balance = np.array(scene.white_balance, np.float32)
    return picture * (vignette * exposure)[..., None] * balance + (grain * np.float32(scene.grain * 2))[..., None]
