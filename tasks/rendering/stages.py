"""Put an object on its stage: one function and one row of numbers for each kind of clip.

Every clip has one object on two or three background layers. The layers' parallax runs from 0.7 (far) to 0.96; the
object's plane has 1. With a camera below 3 units a frame the layers part by at most 0.8 units a frame, so that one
quadratic motion fits most of the background, and yet there is real parallax in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from tasks.rendering import materials
from tasks.rendering.actors import beetle, jelly, koi, macaw
from tasks.rendering.choreography import Moves, Plan, plan_tracks
from tasks.rendering.noise import Array, Canvas, banded, fractal, rgb, smoothstep, warp
from tasks.rendering.scene import UNITS_PER_HEIGHT, Actor, Layer, Scene, Sprite, sprite
from tasks.rendering.vehicles import WHEEL_RADIUS, kite, van

_TEXELS_PER_PIXEL = 1.5  # at 1 the textures look soft, above 2 they cost time and alias

CanvasFor = Callable[[float], Canvas]
"""Gives a canvas large enough for a layer of some parallax, however the camera moves."""


def _cut(canvas: Canvas, colour: Array, mask: Array, *, halo: float = 5.0) -> Sprite:
    """Cut a layer out of a material, with the soft shadow that it throws on what lies below."""
    shift = np.array([[1, 0, 0.6 * halo * canvas.density], [0, 1, 0.7 * halo * canvas.density]], np.float32)
    thrown = cv2.warpAffine(mask, shift, mask.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    thrown = 0.45 * cv2.GaussianBlur(thrown, (0, 0), halo * 0.6 * canvas.density)  # below 0.5: never an owner
    cut = sprite(canvas, colour, mask)
    cut.pixels[..., 3] = np.maximum(mask, thrown)
    return cut


def _patches(canvas: Canvas, rng: np.random.Generator, *, feature: float, share: float, rough: float) -> Array:
    """Return a mask of islands that cover a share of the canvas, with an uneven edge."""
    noise = fractal(canvas, rng, feature=feature, fall=3.2)
    edge = fractal(canvas, rng, feature=0.16 * feature, fall=1.5) - 0.5
    return smoothstep(1 - share - 0.012, 1 - share + 0.012, noise + np.float32(rough) * edge)


def _pond(canvas_for: CanvasFor, rng: np.random.Generator) -> list[Layer]:
    bed = canvas_for(0.75)
    stones = ["#3f4a48", "#8a8f7c", "#b8874e", "#a2532e", "#d6cfae", "#55625c"]
    floor = materials.pebbles(bed, rng, size=15, colours=stones, gap="#1c2422")
    floor = materials.under_water(floor, bed, rng, tint="#2c6f6b", depth=0.5)
    near = canvas_for(0.93)
    boulders = materials.pebbles(
        near, rng, size=30, colours=["#4b5a4e", "#77806a", "#9a8a62", "#6b4a38"], gap="#20302a"
    )
    moss = fractal(near, rng, feature=18, fall=1.6)[..., None]
    boulders = boulders * (1 - 0.5 * moss) + rgb("#5d7a35") * 0.5 * moss * (0.6 + 0.8 * moss)
    boulders = materials.under_water(boulders, near, rng, tint="#3f8576", depth=0.22)
    heaps = _patches(near, rng, feature=90, share=0.3, rough=0.1)
    return [
        Layer(surface=sprite(bed, floor), parallax=0.75),
        Layer(surface=_cut(near, boulders, heaps, halo=7), parallax=0.93),
    ]


def _forest_floor(canvas_for: CanvasFor, rng: np.random.Generator) -> list[Layer]:
    far, near = canvas_for(0.82), canvas_for(0.95)
    browns = ["#3a2a1b", "#6b4423", "#9a6532", "#b98a4a", "#6d7136", "#7d3f23"]
    litter = materials.leaf_litter(far, rng, colours=browns, size=21)
    moss = materials.grass(near, rng, colours=["#33401a", "#566a25", "#84903a", "#a8a550"], length=7)
    return [
        Layer(surface=sprite(far, litter), parallax=0.82),
        Layer(surface=_cut(near, moss, _patches(near, rng, feature=80, share=0.33, rough=0.3)), parallax=0.95),
    ]


def _street(canvas_for: CanvasFor, rng: np.random.Generator) -> list[Layer]:
    far, middle, near = canvas_for(0.78), canvas_for(0.88), canvas_for(0.96)
    wall = materials.bricks(far, rng, colours=["#6a2f24", "#8d4330", "#a85a3e", "#b97a5c"], mortar="#b9aa97")
    _, y = middle.grid()
    crest = (
        26 + 16 * (fractal(middle, rng, feature=46, fall=2.4)[:1] - 0.5) + 5 * (fractal(middle, rng, feature=7) - 0.5)
    )
    hedge = materials.foliage(middle, rng, colours=["#1d3a2c", "#346148", "#5f8d4d", "#a7a552", "#b5533a"], size=9)
    hedge_mask = smoothstep(-0.7, 0.7, y - crest)
    _, y = near.grid()
    road = materials.asphalt(near, rng, colours=["#3b3a3b", "#5b5855", "#837b72", "#a89c8c"])
    kerb = smoothstep(49, 50, y) * smoothstep(57, 56, y)
    road = road * (1 - kerb[..., None]) + kerb[..., None] * (
        rgb("#c9bda6") * (0.75 + 0.4 * fractal(near, rng, feature=4, fall=1.2))[..., None]
    )
    return [
        Layer(surface=sprite(far, wall), parallax=0.78),
        Layer(surface=_cut(middle, hedge, hedge_mask), parallax=0.88),
        Layer(surface=_cut(near, road, smoothstep(48.5, 49.5, y), halo=2), parallax=0.96),
    ]


def _open_sky(canvas_for: CanvasFor, rng: np.random.Generator) -> list[Layer]:
    far, hills, trees = canvas_for(0.72), canvas_for(0.82), canvas_for(0.92)
    clouds = ["#8a8fa8", "#d3c6c4", "#ffe9cd", "#fff8ea"]
    heaven = materials.sky(far, rng, colours=["#2b63a6", "#6fa6d2", "#f0c79a", "#e8a06c"], clouds=clouds)
    ridge = 66 + 46 * (fractal(hills, rng, feature=130, fall=3.0)[:1] - 0.5)
    _, y = hills.grid()
    fields = materials.canopy(hills, rng, colours=["#34503f", "#5a7347", "#8a8a4c", "#a5713f"], size=13)
    _, y_trees = trees.grid()
    crowns = (
        92 + 30 * (fractal(trees, rng, feature=36, fall=2.2)[:1] - 0.5) + 8 * (fractal(trees, rng, feature=8) - 0.5)
    )
    leaves = materials.foliage(trees, rng, colours=["#1c2f22", "#37552c", "#6a7a33", "#a9813a"], size=8)
    return [
        Layer(surface=sprite(far, heaven), parallax=0.72),
        Layer(surface=_cut(hills, fields, smoothstep(-0.6, 0.6, y - ridge), halo=2), parallax=0.82),
        Layer(surface=_cut(trees, leaves, smoothstep(-0.7, 0.7, y_trees - crowns), halo=3), parallax=0.92),
    ]


def _rain_forest(canvas_for: CanvasFor, rng: np.random.Generator) -> list[Layer]:
    far, near = canvas_for(0.75), canvas_for(0.9)
    greens = ["#1f3d1c", "#3b6427", "#6b8f33", "#2f5b3a", "#a0a544"]
    ground = materials.canopy(far, rng, colours=greens, size=24)
    x, y = far.grid()
    bank = warp((y - 0.35 * x + 30).astype(np.float32), far, rng, feature=110, amount=22)
    river = smoothstep(30, 27, np.abs(bank))
    ripples = 0.8 + 0.4 * fractal(far, rng, feature=7, fall=1.4) + 0.15 * banded(far, rng, feature=4)
    water = rgb("#3f7f97") * ripples[..., None] + rgb("#c8a878") * 0.25 * smoothstep(14, 28, np.abs(bank))[..., None]
    ground = ground * (1 - river[..., None]) + water * river[..., None]
    tall = materials.canopy(near, rng, colours=["#2c5a24", "#7fa03a", "#c7a53c", "#b0432c"], size=34)
    return [
        Layer(surface=sprite(far, ground), parallax=0.75),
        Layer(surface=_cut(near, tall, _patches(near, rng, feature=70, share=0.24, rough=0.25), halo=9), parallax=0.9),
    ]


def _meadow(canvas_for: CanvasFor, rng: np.random.Generator) -> list[Layer]:
    far, near = canvas_for(0.82), canvas_for(0.95)
    ground = materials.grass(far, rng, colours=["#2c4a1d", "#4d7a2a", "#7ba03a", "#a9bf5a"])
    bloom = materials.foliage(near, rng, colours=["#3b5a35", "#6f9440", "#b2577a", "#d9c65a", "#8f4a86"], size=7)
    return [
        Layer(surface=sprite(far, ground), parallax=0.82),
        Layer(
            surface=_cut(near, bloom, _patches(near, rng, feature=60, share=0.24, rough=0.35), halo=4), parallax=0.95
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One kind of clip: who, where, and how it moves."""

    actor: Callable[[np.random.Generator, float], Actor]
    background: Callable[[CanvasFor, np.random.Generator], list[Layer]]
    moves: Moves
    frames_per_second: int = 24


# Speeds are what the object does on the stage. Against the far layer it does a little more or less, since the camera
# adds its parallax. 2.4 to 5 leaves every kind well above DIS's error while resting, turning and cruising differ; the
# van has the narrowest range because its wheels alias beyond a sixth of a turn a frame. Frame rates differ because
# footage does: no step downstream may assume one.
STAGES: dict[str, Stage] = {
    "koi": Stage(actor=koi, background=_pond, frames_per_second=24,
        moves=Moves(speed=(3.0, 4.6), home=(80, 35), extent=(70, 45), stride=62, idle=0.025)),
    "beetle": Stage(actor=beetle, background=_forest_floor, frames_per_second=20,
        moves=Moves(speed=(2.8, 4.2), home=(70, 30), extent=(66, 55), stride=34, idle=0.0, max_turn=0.075)),
    "van": Stage(actor=van, background=_street, frames_per_second=24,
        moves=Moves(speed=(3.0, 4.4), home=(85, 0), extent=(92, 50), stride=2 * np.pi * WHEEL_RADIUS, idle=0.0,
                    steered=False, signed_gait=True, leg_frames=(11, 15), follow=0.6)),
    "macaw": Stage(actor=macaw, background=_rain_forest, frames_per_second=20,
        moves=Moves(speed=(3.2, 5.0), home=(75, 25), extent=(80, 70), stride=58, idle=0.03, max_turn=0.06)),
    "jelly": Stage(actor=jelly, background=_meadow, frames_per_second=15,
        moves=Moves(speed=(2.4, 3.8), home=(65, 30), extent=(62, 58), stride=52, idle=0.015, steered=False, lean=0.03)),
    "kite": Stage(actor=kite, background=_open_sky, frames_per_second=24,
        moves=Moves(speed=(2.4, 4.2), home=(75, 12), extent=(60, 88), stride=60, idle=0.03, steered=False, lean=0.07)),
}  # fmt: skip
"""Every kind of clip, in the order in which they are rendered."""

# Where the object starts, off the stage's origin: the van stands on the road, the kite's tail stays in the frame.
_HEIGHT = {"van": 30.0, "kite": -22.0}


def _canvas_for(plan: Plan, size: tuple[int, int]) -> CanvasFor:
    """Measure, from the camera's track, how much of each layer the clip shows."""
    height, width = UNITS_PER_HEIGHT, UNITS_PER_HEIGHT * size[1] / size[0]
    curves = plan.camera.curves
    roll, zoom = float(np.abs(curves["roll"]).max()), float(curves["zoom"].min())
    half_width = (width * np.cos(roll) + height * np.sin(roll)) / (2 * zoom) + 6
    half_height = (height * np.cos(roll) + width * np.sin(roll)) / (2 * zoom) + 6
    travel = {axis: float(np.abs(curves[axis]).max()) for axis in ("x", "y")}
    density = _TEXELS_PER_PIXEL * size[0] / UNITS_PER_HEIGHT
    return lambda parallax: Canvas(
        half_width=half_width + parallax * travel["x"],
        half_height=half_height + parallax * travel["y"],
        density=density,
    )


def _white_balance(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return gains of red, green and blue: a warmer or a cooler light for every clip."""
    warmth = rng.uniform(-0.05, 0.05)
    return 1 + warmth, 1.0, 1 - warmth


def build_scene(kind: str, *, name: str, seed: tuple[int, ...], num_frames: int, size: tuple[int, int]) -> Scene:
    """Build one clip's scene; the same arguments give the same scene.

    Args:
        kind: a key of ``STAGES``.
        name: the clip's name.
        seed: entropy of the clip; textures, ways and silhouettes follow from it.
        num_frames: length of the clip.
        size: height and width of a frame in pixels.
    """
    stage = STAGES[kind]
    moving, painting, skin = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3))
    frame_units = (UNITS_PER_HEIGHT * size[1] / size[0], UNITS_PER_HEIGHT)
    plan = plan_tracks(moving, stage.moves, num_frames=num_frames, frame_units=frame_units)
    plan.actor.curves["y"] = plan.actor.curves["y"] + _HEIGHT.get(kind, 0.0)
    canvas_for = _canvas_for(plan, size)
    return Scene(
        name=name, kind=kind, size=size, num_frames=num_frames, frames_per_second=stage.frames_per_second, seed=seed,
        layers=tuple(stage.background(canvas_for, painting)),
        actor=stage.actor(skin, _TEXELS_PER_PIXEL * size[0] / UNITS_PER_HEIGHT),
        actor_track=plan.actor, camera_track=plan.camera, white_balance=_white_balance(painting),
    )  # fmt: skip
