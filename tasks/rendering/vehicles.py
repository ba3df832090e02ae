"""The made things of the footage: a van on turning wheels and a kite with its tail."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from tasks.rendering.actors import Painter
from tasks.rendering.motion import AxialShift, Pose, rotation_about
from tasks.rendering.noise import Array, Canvas, fractal, mix, ramp, rgb, smoothstep
from tasks.rendering.painting import coverage, dome, ellipse, outline, strokes
from tasks.rendering.scene import Actor, Part, Sprite

WHEEL_RADIUS = 17.0
"""Units; the van's stride must be one turn of its wheels, or they would slip."""

_AXLES = (-47.0, 50.0)
_AXLE_HEIGHT = 31.0


def _flowers(painter: Painter, rng: np.random.Generator, spots: Sequence[tuple[float, float, float]]) -> None:
    for index, (x, y, size) in enumerate(spots):
        petals = [
            ellipse((x + 0.55 * size * np.cos(a), y + 0.55 * size * np.sin(a)), (0.5 * size, 0.3 * size), a)
            for a in np.linspace(0, 2 * np.pi, 6)[:-1] + rng.uniform(0, 1)
        ]
        painter.lay(rgb(("#f3ead6", "#e2b13c", "#d9774a")[index % 3]), coverage(painter.canvas, *petals), within=True)
        painter.lay(rgb("#7d3a26"), coverage(painter.canvas, ellipse((x, y), (0.27 * size, 0.27 * size))), within=True)


def _wheel(rng: np.random.Generator, density: float) -> Sprite:
    canvas = Canvas(half_width=20, half_height=20, density=density)
    x, y = canvas.grid()
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    tyre = coverage(canvas, ellipse((0, 0), (WHEEL_RADIUS, WHEEL_RADIUS)))
    hub = coverage(canvas, ellipse((0, 0), (10.5, 10.5)))
    painter = Painter(canvas)
    tread = 0.75 + 0.5 * smoothstep(-0.2, 0.2, np.sin(angle * 14).astype(np.float32)) * smoothstep(12, 15, radius)
    painter.lay(ramp(fractal(canvas, rng, feature=5, fall=1.2), ["#1c1b1b", "#3a3836"]) * tread[..., None], tyre)
    spokes = smoothstep(-0.1, 0.3, np.cos(angle * 5).astype(np.float32))
    steel = mix(rgb("#5d5a55") * np.ones((*canvas.shape, 3), np.float32), rgb("#e9e2d2"), spokes)
    painter.lay(steel, hub)
    painter.lay(rgb("#b5432d"), coverage(canvas, ellipse((0, 0), (3.6, 3.6))), within=True)
    return painter.sprite()


def _windows(painter: Painter, rng: np.random.Generator) -> None:
    canvas = painter.canvas
    x, y = canvas.grid()
    panes = coverage(
        canvas,
        np.array([(-76, -34), (-46, -34), (-46, -10), (-80, -10)], np.float32),
        np.array([(-40, -34), (-6, -34), (-6, -10), (-40, -10)], np.float32),
        np.array([(0, -34), (32, -34), (32, -10), (0, -10)], np.float32),
        np.array([(38, -34), (62, -34), (76, -10), (38, -10)], np.float32),
    )
    frames = coverage(canvas, np.array([(-84, -37), (65, -37), (81, -7), (-84, -7)], np.float32))
    painter.lay(rgb("#efe6d0") * 0.92, frames, within=True)
    glass = ramp(fractal(canvas, rng, feature=26, fall=2.0), ["#24323a", "#3f5a63", "#7c949a"])
    streak = smoothstep(0.75, 0.95, np.sin((x + 0.9 * y) * 0.11).astype(np.float32))
    painter.lay(mix(glass, rgb("#d7e3e2"), 0.55 * streak), panes, within=True)


# Centre and radius of the flowers painted on the van's side, in its units; the last two sit on the roof.
_VAN_FLOWERS = [
    (-70, 12, 11),
    (-14, 10, 13),
    (14, 20, 8),
    (28, 8, 10),
    (74, 12, 9),
    (-26, 25, 7),
    (-82, 25, 6),
    (0, -43, 5),
    (-50, -43, 5),
]


def van(rng: np.random.Generator, density: float) -> Actor:
    """A painted camper van from its side, 185 units long: a rigid body on two wheels that roll."""
    canvas = Canvas(half_width=100, half_height=56, density=density)
    _, y = canvas.grid()
    body = coverage(
        canvas,
        outline([(-92, -34), (-82, -47), (-40, -50), (30, -50), (64, -45), (84, -10), (94, 2), (95, 26), (84, 32),
                 (0, 33), (-84, 33), (-94, 26), (-95, -4)], num_points=12),
    )  # fmt: skip
    wear = fractal(canvas, rng, feature=18, fall=1.5)
    lower = ramp(wear, ["#1f5a5c", "#2f7d79", "#4f9d93"])
    upper = ramp(wear, ["#d9c7a2", "#efe4c8", "#f7f0dd"])
    wave = y - 4 * np.sin(canvas.grid()[0] * np.float32(0.07))
    paint = mix(upper, lower, smoothstep(-4, -2, wave))
    paint = mix(paint, rgb("#b5532f"), smoothstep(-4.5, -3.5, wave) * smoothstep(1, 0, wave))
    paint = mix(paint, rgb("#8a4326"), 0.5 * smoothstep(0.78, 0.95, wear) * smoothstep(0, 30, y))
    painter = Painter(canvas)
    painter.lay(
        paint * (dome(body, canvas, width=11, strength=0.7) * (0.9 + 0.2 * fractal(canvas, rng, feature=3)))[..., None],
        body,
    )
    _windows(painter, rng)
    _flowers(painter, rng, _VAN_FLOWERS)
    seams = [
        np.array(line, np.float32) for line in ([(35, -38), (35, 31)], [(-43, -38), (-43, 20)], [(-3, -38), (-3, 31)])
    ]
    painter.lay(rgb("#12302f"), 0.6 * strokes(canvas, seams, width=1.3), within=True)
    arches = coverage(canvas, *(ellipse((x, _AXLE_HEIGHT), (21, 20)) for x in _AXLES))
    painter.lay(rgb("#171716"), arches * body, within=True)
    painter.lay(rgb("#f6e3a1"), coverage(canvas, ellipse((90, 10), (5, 7))), within=True)
    bumper = coverage(canvas, np.array([(-98, 27), (98, 27), (98, 34), (-98, 34)], np.float32))
    painter.lay(ramp(wear, ["#8f8a80", "#d8d2c4"]), bumper * (1 - arches))
    wheel = _wheel(rng, density)
    wheels = [Part(surface=wheel, joint=partial(_rolling, axle=x)) for x in _AXLES]
    return Actor(parts=(Part(surface=painter.sprite()), *wheels), reach=112, shadow=0.5, shadow_offset=5, shadow_blur=5)


def _rolling(pose: Pose, *, axle: float) -> npt.NDArray[np.float64]:
    place = np.array([[1, 0, axle], [0, 1, _AXLE_HEIGHT], [0, 0, 1]], np.float64)
    return place @ rotation_about((0.0, 0.0), pose.gait)


def kite(rng: np.random.Generator, density: float) -> Actor:
    """A patchwork kite, 120 units high, on the wind: the sail is nearly stiff, its tail waves."""
    canvas = Canvas(half_width=66, half_height=112, density=density)
    x, y = canvas.grid()
    corners = np.array([(0, -62), (54, -14), (0, 60), (-54, -14)], np.float32)
    sail = coverage(canvas, corners)
    tail = strokes(canvas, [np.array([(0, 58), (0, 106)], np.float32)], width=6)
    bows = coverage(
        canvas,
        *(np.array([(0, h), (s * 15, h - 6), (s * 15, h + 6)], np.float32) for h in (71, 87, 103) for s in (1, -1)),
    )
    checks = np.floor((x + y) / 15) + np.floor((x - y) / 15)
    tone = (checks % 4) / 4 + 0.12 * fractal(canvas, rng, feature=7, fall=1.3)
    cloth = ramp(np.clip(tone, 0, 1), ["#c23b2e", "#e8b04a", "#f2ead8", "#3b78ab", "#24507f"])
    quarter = np.where((x > 0) ^ (y > -14), 1.0, 0.8).astype(np.float32)
    dots = smoothstep(0.55, 0.75, (np.sin(x * 0.42) * np.sin(y * 0.42)).astype(np.float32))
    cloth = mix(cloth, rgb("#fbf4e2"), 0.75 * dots) * quarter[..., None]
    weave = 0.9 + 0.2 * fractal(canvas, rng, feature=3, fall=1.0)
    painter = Painter(canvas)
    painter.lay(ramp(0.5 + 0.5 * np.sin(y * 0.45), ["#e8b04a", "#c23b2e"]), tail)
    painter.lay(ramp(np.clip(np.abs(x) / 15, 0, 1), ["#24507f", "#3b78ab", "#f2ead8"]), bows)
    painter.lay(cloth * (weave * dome(sail, canvas, width=9, strength=0.45))[..., None], sail)
    spars = [np.array([(0, -61), (0, 59)], np.float32), np.array([(-53, -14), (53, -14)], np.float32)]
    hem = [np.concatenate([corners, corners[:1]])]
    painter.lay(rgb("#5a3420"), 0.85 * strokes(canvas, spars, width=2.2), within=True)
    painter.lay(rgb("#8c2f27"), 0.8 * strokes(canvas, hem, width=3.0) * sail, within=True)
    return Actor(
        parts=(Part(surface=painter.sprite()),), bends=(AxialShift(offset=_flutter),), reach=122,
        shadow=0.0, shadow_offset=0, shadow_blur=1,
    )  # fmt: skip


def _flutter(y: Array, pose: Pose) -> Array:
    growth = np.clip((y - 10) / 95, 0, 1) ** 1.4 * 15 + 1.0
    return (growth * np.sin(y * 0.045 - pose.gait)).astype(np.float32)
