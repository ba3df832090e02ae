"""The animals of the footage: silhouette, skin and the way each bends. The made things are in ``vehicles.py``.

Each rests at the origin with its nose towards +x, y to its right. Skins share colours with the scenes they are put
into, so that colour alone does not tell the object from its background, but differ in pattern and shading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tasks.rendering.motion import AxialShift, Fold, LateralShift, Pose, Squash, rotation_about
from tasks.rendering.noise import Array, Canvas, banded, fractal, mix, ramp, rgb, smoothstep, warp
from tasks.rendering.painting import coverage, dome, ellipse, outline, strokes
from tasks.rendering.scene import Actor, Part, Sprite, sprite


class Painter:
    """Builds a sprite by laying pieces over each other."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self._colour: Array = np.zeros((*canvas.shape, 3), np.float32)
        self._alpha: Array = np.zeros(canvas.shape, np.float32)

    def lay(self, colour: Array, mask: Array, *, within: bool = False) -> None:
        """Lay a colour (an image, or one colour) where ``mask`` is 1; ``within`` keeps it inside what is there."""
        self._colour = mix(self._colour, np.broadcast_to(colour, self._colour.shape), mask)
        if not within:
            self._alpha = np.maximum(self._alpha, mask)

    def sprite(self) -> Sprite:
        """Return what was painted."""
        return sprite(self.canvas, self._colour, self._alpha)


def _shaded(colour: Array, shade: Array) -> Array:
    return colour * shade[..., None]


def _eyes(painter: Painter, centres: Sequence[tuple[float, float]], radius: float) -> None:
    for x, y in centres:
        painter.lay(rgb("#f2ead2"), coverage(painter.canvas, ellipse((x, y), (radius, radius))), within=True)
        pupil = ellipse((x + 0.25 * radius, y), (0.62 * radius, 0.62 * radius))
        painter.lay(rgb("#14110f"), coverage(painter.canvas, pupil), within=True)
        glint = ellipse((x - 0.1 * radius, y - 0.35 * radius), (0.2 * radius, 0.2 * radius))
        painter.lay(rgb("#ffffff"), coverage(painter.canvas, glint), within=True)


def koi(rng: np.random.Generator, density: float) -> Actor:
    """A koi carp from above, 180 units long: its body swings from side to side, most at the tail."""
    canvas = Canvas(half_width=104, half_height=62, density=density)
    x, y = canvas.grid()
    body = coverage(
        canvas, outline([(80, 0), (73, 11), (54, 23), (25, 29), (-8, 27), (-38, 18), (-66, 9)], mirrored=True)
    )
    fins = coverage(
        canvas,
        outline([(40, 20), (30, 42), (10, 55), (2, 48), (14, 22)]),
        outline([(40, -20), (30, -42), (10, -55), (2, -48), (14, -22)]),
        outline([(-60, 4), (-78, 16), (-101, 30), (-97, 14), (-88, 0), (-97, -14), (-101, -30), (-78, -16), (-60, -4)]),
    )
    patches = warp(fractal(canvas, rng, feature=46, fall=2.6), canvas, rng, feature=20, amount=4)
    ink = fractal(canvas, rng, feature=30, fall=2.4)
    skin = mix(
        ramp(0.3 + 0.4 * ink, ["#cfc3a0", "#efe6cb", "#f7f1de"]), rgb("#c8501f"), smoothstep(0.46, 0.52, patches)
    )
    skin = mix(skin, rgb("#e08a35"), 0.6 * smoothstep(0.7, 0.95, patches))
    skin = mix(skin, rgb("#20242a"), 0.92 * smoothstep(0.77, 0.82, ink))
    scales = np.sin(x * 0.75 + y * 0.62) * np.sin(x * 0.75 - y * 0.62)
    skin = _shaded(skin, 0.9 + 0.2 * smoothstep(-0.7, 0.5, scales.astype(np.float32)))
    rays = 0.78 + 0.3 * np.sin(np.arctan2(y, x + 18 * np.sign(x - -30) + 40) * 70)
    painter = Painter(canvas)
    fin_colour = mix(ramp(patches, ["#f3e3c0", "#dca56a", "#c8622c"]), rgb("#7b8c7d"), 0.2)
    painter.lay(_shaded(fin_colour, (rays * dome(fins, canvas, width=6, strength=0.5)).astype(np.float32)), fins)
    painter.lay(_shaded(skin, dome(body, canvas, width=24)), body)
    spine = strokes(canvas, [outline([(40, 0), (10, 1.5), (-20, -1), (-52, 0)], closed=False)], width=3.5)
    painter.lay(rgb("#9c3d17"), 0.7 * spine, within=True)
    _eyes(painter, [(63, 13), (63, -13)], 4.5)

    def swing(x: Array, pose: Pose) -> Array:
        growth = (np.clip((70 - x) / 170, 0, 1) ** 1.6) * 13 + 1.2
        return growth * np.sin(x * 0.028 + pose.gait) + np.clip(pose.turn, -0.12, 0.12) * 0.012 * x * x

    return Actor(
        parts=(Part(surface=painter.sprite()),), bends=(LateralShift(offset=swing),), reach=128,
        shadow=0.34, shadow_offset=13, shadow_blur=7,
    )  # fmt: skip


def _leg(
    canvas: Canvas,
    rng: np.random.Generator,
    hip: tuple[float, float],
    knee: tuple[float, float],
    foot: tuple[float, float],
) -> Sprite:
    painter = Painter(canvas)
    thigh = strokes(canvas, [np.array([hip, knee], np.float32)], width=12)
    shin = strokes(canvas, [np.array([knee, foot], np.float32)], width=9)
    mask = np.maximum(thigh, shin)
    tone = ramp(fractal(canvas, rng, feature=5, fall=1.2), ["#4a2f1a", "#8a5a2c", "#d39a4e"])
    painter.lay(_shaded(tone, dome(mask, canvas, width=5)), mask)
    return painter.sprite()


def _swinging(hip: tuple[float, float], phase: float) -> Callable[[Pose], npt.NDArray[np.float64]]:
    return lambda pose: rotation_about(hip, 0.26 * float(np.sin(pose.gait + phase)))


def _beetle_legs(canvas: Canvas, rng: np.random.Generator) -> list[Part]:
    """Six legs; three of them step together, the other three half a cycle later, as beetles walk."""
    parts = []
    for index, (hip_x, knee, foot) in enumerate(
        [(30, (43, 50), (58, 60)), (4, (5, 57), (0, 70)), (-24, (-42, 52), (-60, 62))]
    ):
        for side in (1, -1):
            hip = (float(hip_x), 30.0 * side)
            leg = _leg(canvas, rng, hip, (knee[0], knee[1] * side), (foot[0], foot[1] * side))
            phase = np.pi * ((index + (side < 0)) % 2)
            parts.append(Part(surface=leg, joint=_swinging(hip, phase)))
    return parts


def beetle(rng: np.random.Generator, density: float) -> Actor:
    """A flower beetle from above, 130 units long: a stiff body and six stepping legs, seven parts in all."""
    canvas = Canvas(half_width=88, half_height=80, density=density)
    x, y = canvas.grid()
    back = coverage(canvas, ellipse((-12, 0), (57, 46)))
    neck = coverage(canvas, outline([(54, 11), (46, 28), (30, 37), (20, 34), (22, 0)], mirrored=True))
    head = coverage(canvas, ellipse((56, 0), (14, 15)), outline([(64, 6), (74, 12), (80, 8), (72, 5)], mirrored=False),
                    outline([(64, -6), (74, -12), (80, -8), (72, -5)]))  # fmt: skip
    sheen = warp(fractal(canvas, rng, feature=34, fall=2.4), canvas, rng, feature=30, amount=5)
    metal = ramp(sheen, ["#1f5138", "#3f7d3a", "#a8a23c", "#d39a4e", "#a2532e"])
    furrows = (0.84 + 0.2 * np.cos(y * np.float32(2 * np.pi / 6.2))) * (
        0.85 + 0.3 * fractal(canvas, rng, feature=2.4, fall=1.0)
    )
    spots = smoothstep(0.86, 0.9, banded(canvas, rng, feature=20, band=0.2))
    skin = mix(_shaded(metal, furrows.astype(np.float32)), rgb("#ecd9a0"), spots)
    painter = Painter(canvas)
    painter.lay(_shaded(ramp(sheen, ["#1c1a14", "#4a3b20"]), dome(head, canvas, width=9)), head)
    painter.lay(_shaded(skin, dome(back, canvas, width=34)), back)
    painter.lay(
        rgb("#15130d"), 0.8 * strokes(canvas, [np.array([(-69, 0), (34, 0)], np.float32)], width=1.6), within=True
    )
    collar = mix(_shaded(metal, 0.8 + 0.3 * fractal(canvas, rng, feature=3, fall=1.0)), rgb("#2a2415"), 0.35)
    painter.lay(_shaded(collar, dome(neck, canvas, width=16)), neck)
    painter.lay(
        rgb("#ecd9a0"),
        0.8
        * strokes(
            canvas, [outline([(52, 11), (45, 26), (31, 35)], closed=False) * (1, side) for side in (1, -1)], width=3
        ),
        within=True,
    )
    painter.lay(rgb("#fff6d8"), 0.4 * smoothstep(1, 0, np.hypot((x + 24) / 20, (y + 17) / 9)), within=True)
    legs = _beetle_legs(canvas, rng)
    return Actor(parts=(*legs, Part(surface=painter.sprite())), reach=100, shadow=0.5, shadow_offset=7, shadow_blur=3.5)


def macaw(rng: np.random.Generator, density: float) -> Actor:
    """A macaw in flight from above, 205 units across: its wings fold and sweep as they beat."""
    canvas = Canvas(half_width=108, half_height=108, density=density)
    x, y = canvas.grid()
    wing_points = [(30, 9), (34, 36), (27, 66), (9, 97), (-3, 102), (-9, 92), (-15, 80), (-21, 60), (-24, 36), (-20, 9)]
    wings = coverage(canvas, outline(wing_points), outline(np.array(wing_points) * (1, -1)))
    body = coverage(
        canvas, outline([(60, 0), (55, 8), (42, 13), (22, 17), (-10, 15), (-36, 9), (-44, 0)], mirrored=True)
    )
    tail = coverage(canvas, outline([(-30, 10), (-60, 12), (-92, 9), (-105, 0)], mirrored=True))
    beak = coverage(canvas, outline([(56, 7), (66, 6), (74, 0)], mirrored=True))
    barbs = (0.8 + 0.24 * np.sin(np.abs(y) * 1.15 + 0.25 * x)) * (
        0.84 + 0.3 * fractal(canvas, rng, feature=3, fall=1.1)
    )
    span = np.clip((np.abs(y) - 0.5 * x + 14 * (fractal(canvas, rng, feature=14, fall=1.8) - 0.5)) / 95, 0, 1)
    plumage = ramp(span, ["#a8231c", "#c9341f", "#e3b53a", "#5c9a3c", "#2c6fa8", "#1f4486"])
    plumage = _shaded(plumage, barbs.astype(np.float32))
    down = 0.8 + 0.35 * banded(canvas, rng, feature=5, band=0.3)
    painter = Painter(canvas)
    quills = _shaded(
        ramp(np.clip((-x - 30) / 75, 0, 1), ["#c9341f", "#a8231c", "#2c6fa8"]),
        (0.8 + 0.2 * np.sin(y * 1.6)).astype(np.float32),
    )
    painter.lay(_shaded(quills, dome(tail, canvas, width=9, strength=0.7)), tail)
    painter.lay(_shaded(plumage, dome(wings, canvas, width=16, strength=0.6)), wings)
    painter.lay(
        _shaded(
            ramp(0.5 + 0.5 * (down - 0.97), ["#8f1d17", "#c9341f", "#e05a33"]), dome(body, canvas, width=14) * down
        ),
        body,
    )
    painter.lay(_shaded(rgb("#2b2824") * np.ones_like(plumage), dome(beak, canvas, width=6)), beak)
    painter.lay(
        rgb("#f1e7d3"),
        0.9 * coverage(canvas, ellipse((47, 8), (6, 3.4), -0.3), ellipse((47, -8), (6, 3.4), 0.3)),
        within=True,
    )
    _eyes(painter, [(48, 8), (48, -8)], 2.6)
    return Actor(
        parts=(Part(surface=painter.sprite()),),
        bends=(
            Fold(root=12, factor=lambda pose: 0.86 + 0.14 * float(np.sin(pose.gait))),
            AxialShift(offset=lambda y, pose: -((y / 100) ** 2) * np.float32(8 + 10 * np.cos(pose.gait))),
        ),
        reach=112, shadow=0.3, shadow_offset=34, shadow_blur=9,
    )  # fmt: skip


def jelly(rng: np.random.Generator, density: float) -> Actor:
    """A creature without bones, 125 units across: it wobbles, stretches and creeps."""
    canvas = Canvas(half_width=76, half_height=72, density=density)
    x, y = canvas.grid()
    t = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    phases = rng.uniform(0, 2 * np.pi, 3)
    radius = 58 * (
        1 + sum(a * np.sin(n * t + p) for a, n, p in zip((0.05, 0.06, 0.03), (2, 3, 5), phases, strict=True))
    )
    body = coverage(canvas, outline(np.stack([radius * np.cos(t), 0.92 * radius * np.sin(t)], -1)))
    maze = warp(banded(canvas, rng, feature=15, band=0.16), canvas, rng, feature=24, amount=2.5)
    tone = fractal(canvas, rng, feature=40, fall=2.2)
    flesh = ramp(tone, ["#2f6b58", "#4f9a6a", "#93bf62", "#d9d27a"])
    skin = mix(flesh, ramp(tone, ["#4a2350", "#7c3a6b", "#b2577a"]), smoothstep(0.5, 0.62, maze))
    skin = _shaded(skin, 0.88 + 0.24 * fractal(canvas, rng, feature=4, fall=1.1))
    painter = Painter(canvas)
    painter.lay(_shaded(skin, dome(body, canvas, width=46, strength=1.1)), body)
    gleam = smoothstep(1, 0.2, np.hypot((x + 20) / 19, (y + 26) / 9)) + smoothstep(
        1, 0.2, np.hypot((x - 6) / 6, (y + 34) / 4)
    )
    painter.lay(rgb("#fdfbe6"), 0.65 * np.clip(gleam, 0, 1), within=True)
    _eyes(painter, [(14, -6), (40, -4)], 9.5)
    smile = outline([(14, 16), (26, 22), (40, 17)], closed=False)
    painter.lay(rgb("#2a1430"), strokes(canvas, [smile], width=3), within=True)
    return Actor(
        parts=(Part(surface=painter.sprite()),),
        bends=(
            Squash(factor=lambda pose: 1 + 0.1 * float(np.sin(pose.gait))),
            LateralShift(offset=lambda x, pose: np.float32(4.5) * np.sin(x * 0.045 + 0.7 * pose.gait)),
            AxialShift(offset=_trail),
        ),
        reach=92, shadow=0.45, shadow_offset=9, shadow_blur=6,
    )  # fmt: skip


def _trail(y: Array, pose: Pose) -> Array:
    """Ripple from top to bottom, and lean back when it hurries."""
    return 4.5 * np.sin(y * 0.05 - 0.8 * pose.gait + 1.0) - y * np.float32(0.02 * pose.speed)
