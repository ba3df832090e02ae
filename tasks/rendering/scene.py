"""A scene and its geometry: which material point every pixel shows at a moment, and where it goes.

Three planes: frame pixels, where an integer is a pixel's centre; the stage and the background layers, in units; the
resting object ("material"), in units. All maps between them are known in closed form in both directions, and the
exact optical flow is nothing but: frame pixel -> material at time t -> frame pixel at time t + gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from tasks.rendering.motion import Bend, Points, Pose, Track, apply, inverse, similarity
from tasks.rendering.noise import Array, Canvas

UNITS_PER_HEIGHT = 216.0
"""A frame is 216 units high at every size in pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sprite:
    """A painted surface.

    pixels: [h, w, 4], colour times alpha, and alpha, both 0..1.
    canvas: where its texels lie.
    """

    pixels: Array
    canvas: Canvas

    def sample(self, points: Points) -> Array:
        """Return its pixels [..., 4] at points in units, bilinear; transparent outside."""
        return self._remapped(self.pixels, points)

    def coverage(self, points: Points) -> Array:
        """Return its alpha at points in units, 0..1."""
        return self._remapped(self._alpha, points)

    @cached_property
    def _alpha(self) -> Array:
        return np.ascontiguousarray(self.pixels[..., 3])

    def _remapped(self, image: Array, points: Points) -> Array:
        density = np.float32(self.canvas.density)
        x = (points[0] + np.float32(self.canvas.half_width)) * density - np.float32(0.5)
        y = (points[1] + np.float32(self.canvas.half_height)) * density - np.float32(0.5)
        return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def sprite(canvas: Canvas, colour: Array, alpha: Array | None = None) -> Sprite:
    """Make a sprite of a colour image [h, w, 3] and its coverage [h, w]; opaque without coverage."""
    cover = np.ones(canvas.shape, np.float32) if alpha is None else alpha.astype(np.float32)
    colour = np.clip(colour, 0, 1) * cover[..., None]
    return Sprite(pixels=np.dstack([colour, cover]).astype(np.float32), canvas=canvas)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A plane of the background; ``parallax`` is the share of the camera's travel that it shows (far: less than 1)."""

    surface: Sprite
    parallax: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A rigid piece of the object; ``joint`` gives the 3x3 matrix that places it on the resting body in a pose."""

    surface: Sprite
    joint: Callable[[Pose], npt.NDArray[np.float64]] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Actor:
    """The foreground object.

    parts: from the lowest to the topmost. bends: applied to the body in this order.
    reach: no point of it is ever farther than this from its position, units.
    shadow_offset, shadow_blur: units; how far its shadow lies to the lower right and how soft it is.
    shadow: darkness of the shadow, 0..1.
    """

    parts: tuple[Part, ...]
    bends: tuple[Bend, ...] = ()
    reach: float
    shadow: float = 0.4
    shadow_offset: float = 6.0
    shadow_blur: float = 4.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One clip before rendering: background layers from far to near, and the object above them all."""

    name: str
    kind: str
    size: tuple[int, int]
    num_frames: int
    frames_per_second: int
    seed: tuple[int, ...]
    layers: tuple[Layer, ...]
    actor: Actor
    actor_track: Track
    camera_track: Track
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    grain: float = 0.008

    @property
    def pixels_per_unit(self) -> float:
        """Pixels of the frame per unit of the scene."""
        return self.size[0] / UNITS_PER_HEIGHT

    def pixel_grid(self) -> Points:
        """Return x and y of every pixel's centre, both [h, w]."""
        x, y = np.meshgrid(np.arange(self.size[1], dtype=np.float32), np.arange(self.size[0], dtype=np.float32))
        return x, y

    def frame_to_layer(self, parallax: float, time: float) -> npt.NDArray[np.float64]:
        """Return the 3x3 matrix from frame pixels to the units of a plane."""
        camera = self.camera_track.camera(time)
        centre = similarity(-(self.size[1] - 1) / 2, -(self.size[0] - 1) / 2, 0.0)
        scale = 1 / (self.pixels_per_unit * camera.zoom)
        return similarity(parallax * camera.x, parallax * camera.y, camera.roll, scale) @ centre

    def frame_to_parts(self, points: Points, time: float) -> Iterator[Points]:
        """Follow frame pixels back to the material of each part, in the parts' order."""
        pose = self.actor_track.pose(time)
        to_body = inverse(similarity(pose.x, pose.y, pose.angle)) @ self.frame_to_layer(1.0, time)
        body = apply(to_body, points)
        for bend in reversed(self.actor.bends):
            body = bend.inverse(body, pose)
        for part in self.actor.parts:
            yield body if part.joint is None else apply(inverse(part.joint(pose)), body)

    def part_to_frame(self, part: Part, points: Points, time: float) -> Points:
        """Follow material points of a part to the frame."""
        pose = self.actor_track.pose(time)
        body = points if part.joint is None else apply(part.joint(pose), points)
        for bend in self.actor.bends:
            body = bend.forward(body, pose)
        to_frame = inverse(self.frame_to_layer(1.0, time)) @ similarity(pose.x, pose.y, pose.angle)
        return apply(to_frame, body)

    def window(self, time: float) -> tuple[slice, slice]:
        """Return rows and columns of the frame outside which the object can not be."""
        pose = self.actor_track.pose(time)
        to_frame = inverse(self.frame_to_layer(1.0, time))
        x, y, _ = to_frame @ (pose.x, pose.y, 1.0)
        reach = self.actor.reach * float(np.hypot(to_frame[0, 0], to_frame[1, 0])) + 2
        rows = np.clip([np.floor(y - reach), np.ceil(y + reach) + 1], 0, self.size[0]).astype(int)
        columns = np.clip([np.floor(x - reach), np.ceil(x + reach) + 1], 0, self.size[1]).astype(int)
        return slice(*rows), slice(*columns)


def surface_at(scene: Scene, points: Points, time: float) -> npt.NDArray[np.int8]:
    """Return which surface is visible at points of the frame: layers 0, 1, ..., then the object's parts.

    A surface hides what is behind it where its coverage is at least one half; the mask is where a part is visible.
    """
    owner = np.zeros(points[0].shape, np.int8)
    for number, layer in enumerate(scene.layers[1:], start=1):
        units = apply(scene.frame_to_layer(layer.parallax, time), points)
        owner[layer.surface.coverage(units) >= 0.5] = number
    materials = scene.frame_to_parts(points, time)
    for number, (part, material) in enumerate(zip(scene.actor.parts, materials, strict=True), len(scene.layers)):
        owner[part.surface.coverage(material) >= 0.5] = number
    return owner


def object_mask(scene: Scene, time: float) -> npt.NDArray[np.bool_]:
    """Return where the object is visible, [h, w]."""
    return surface_at(scene, scene.pixel_grid(), time) >= len(scene.layers)


def exact_flow(scene: Scene, frame: int, gap: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the optical flow from a frame to the one ``gap`` later, and where it can be seen.

    Returns:
        Flow [2, h, w] in pixels, columns first; validity [h, w]: False where the point leaves the frame or is hidden
        in the second frame.
    """
    start, end = float(frame), float(frame + gap)
    points = scene.pixel_grid()
    owner = surface_at(scene, points, start)
    target = (np.empty_like(points[0]), np.empty_like(points[1]))
    for number, layer in enumerate(scene.layers):
        there = inverse(scene.frame_to_layer(layer.parallax, end)) @ scene.frame_to_layer(layer.parallax, start)
        _place(target, apply(there, points), owner == number)
    materials = scene.frame_to_parts(points, start)
    for number, (part, material) in enumerate(zip(scene.actor.parts, materials, strict=True), len(scene.layers)):
        here = owner == number
        _place(target, scene.part_to_frame(part, material, end), here)
    height, width = scene.size
    inside = (target[0] >= 0) & (target[0] <= width - 1) & (target[1] >= 0) & (target[1] <= height - 1)
    valid = inside & (surface_at(scene, target, end) == owner)
    return np.stack([target[0] - points[0], target[1] - points[1]]), valid


def _place(target: Points, values: Points, where: npt.NDArray[np.bool_]) -> None:
    for destination, source in zip(target, values, strict=True):
        destination[where] = source[where]
