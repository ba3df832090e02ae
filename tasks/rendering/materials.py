"""What the ground, the water and the sky of the scenes look like: each material fills a canvas, [h, w, 3]."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from tasks.rendering.noise import (
    Array,
    Canvas,
    Cells,
    banded,
    cells,
    fractal,
    mix,
    ramp,
    relief,
    rgb,
    ridges,
    smoothstep,
    warp,
)
from tasks.rendering.painting import BLADE, LEAF, PEBBLE, dabs, scatter


def _domes(parts: Cells, size: float) -> Array:
    """Raise every cell to a flat dome, 0 at its border and 1 from 0.4 of ``size`` inwards."""
    return np.sqrt(1 - (1 - np.clip(parts.edge / np.float32(0.4 * size), 0, 1)) ** 2)


def pebbles(canvas: Canvas, rng: np.random.Generator, *, size: float, colours: Sequence[str], gap: str) -> Array:
    """Rounded stones of many colours lying side by side."""
    stones = cells(canvas, rng, size=size)
    tone = 0.8 * stones.shuffled(rng) + 0.2 * fractal(canvas, rng, feature=size, fall=1.4)
    colour = ramp(tone, colours) * (0.75 + 0.5 * stones.shuffled(rng))[..., None]
    height = soften(_domes(stones, size) * np.float32(0.3 * size * canvas.density), canvas, radius=0.09 * size)
    speckle = 0.86 + 0.28 * fractal(canvas, rng, feature=2.5, fall=1.2)
    shade = relief(height, strength=1.0) * speckle
    return mix(rgb(gap) * np.ones_like(colour), colour * shade[..., None], smoothstep(0, 0.16 * size, stones.edge))


def under_water(bed: Array, canvas: Canvas, rng: np.random.Generator, *, tint: str, depth: float) -> Array:
    """Sink a ground below water: tinted with depth, with the net of light that waves throw on it."""
    net = ridges(warp(banded(canvas, rng, feature=34, band=0.35), canvas, rng, feature=40, amount=9), sharpness=5)
    deep = depth * (0.55 + 0.6 * fractal(canvas, rng, feature=180, fall=2.6))
    sunk = mix(bed, rgb(tint) * np.ones_like(bed), deep)
    return sunk * (1 + 0.5 * net[..., None]) + rgb("#dff5e6") * (0.07 * net[..., None])


def grass(canvas: Canvas, rng: np.random.Generator, *, colours: Sequence[str], length: float = 11) -> Array:
    """A meadow from above: many blades over dark soil, in lighter and darker patches."""
    patches = fractal(canvas, rng, feature=70, fall=2.2)
    base = ramp(0.25 + 0.4 * patches, colours) * (0.6 + 0.5 * fractal(canvas, rng, feature=5, fall=1.2))[..., None]
    positions = scatter(canvas, rng, spacing=3.3)
    angles = rng.normal(0.35, 0.55, len(positions))
    sizes = length * rng.uniform(0.6, 1.25, len(positions))
    blades = dabs(
        base,
        canvas,
        rng,
        shape=BLADE * (1.6, 1),
        positions=positions,
        angles=angles,
        sizes=sizes,
        colours=colours,
        vary=0.14,
    )
    return blades * (0.72 + 0.5 * patches)[..., None]


def leaf_litter(canvas: Canvas, rng: np.random.Generator, *, colours: Sequence[str], size: float) -> Array:
    """A forest floor: fallen leaves over each other, with veins of light and shadow."""
    base = ramp(fractal(canvas, rng, feature=8, fall=1.4), [colours[0], colours[1]]) * 0.7
    positions = scatter(canvas, rng, spacing=0.42 * size)
    angles = rng.uniform(0, 2 * np.pi, len(positions))
    sizes = size * rng.uniform(0.55, 1.2, len(positions))
    litter = dabs(
        base, canvas, rng, shape=LEAF, positions=positions, angles=angles, sizes=sizes, colours=colours, vary=0.12
    )
    veins = 0.88 + 0.24 * fractal(canvas, rng, feature=3, fall=1.1)
    return litter * (veins * (0.78 + 0.4 * fractal(canvas, rng, feature=90, fall=2.4)))[..., None]


def sand(canvas: Canvas, rng: np.random.Generator, *, colours: Sequence[str], ripple: float = 15) -> Array:
    """Wind-blown sand: ripples, drifts and grains."""
    _, y = canvas.grid()
    x, _ = canvas.grid()
    wave = np.sin((0.35 * x + y) * np.float32(2 * np.pi / ripple)).astype(np.float32)
    wave = warp(wave, canvas, rng, feature=90, amount=10)
    drift = soften(fractal(canvas, rng, feature=70, fall=2.3), canvas, radius=1.5)
    grain = fractal(canvas, rng, feature=2.2, fall=0.9)
    shade = relief((wave * 0.9 + 9 * drift).astype(np.float32) * np.float32(canvas.density), strength=0.8)
    shells = scatter(canvas, rng, spacing=16)
    colour = ramp(0.25 + 0.5 * drift + 0.25 * (grain - 0.5), colours)
    dotted = dabs(
        colour, canvas, rng, shape=PEBBLE, positions=shells, angles=rng.uniform(0, 6.3, len(shells)),
        sizes=rng.uniform(1.5, 5, len(shells)), colours=colours, vary=0.25,
    )  # fmt: skip
    return dotted * (shade * (0.86 + 0.28 * grain))[..., None]


def bricks(canvas: Canvas, rng: np.random.Generator, *, colours: Sequence[str], mortar: str, size: float = 24) -> Array:
    """A weathered wall in running bond."""
    x, y = canvas.grid()
    course = np.floor(y / (size / 2.4)).astype(np.int32)
    along = x / size + 0.5 * (course % 2)
    number = np.floor(along).astype(np.int32)
    tone = rng.random(4096, dtype=np.float32)[(course * 131 + number * 17) % 4096]
    across = (y / (size / 2.4)) % 1
    edge = np.minimum(np.minimum(along % 1, 1 - along % 1) * size, np.minimum(across, 1 - across) * size / 2.4)
    edge = warp(edge.astype(np.float32), canvas, rng, feature=6, amount=0.7)
    inside = smoothstep(0.5, 1.5, edge)
    rough = fractal(canvas, rng, feature=9, fall=1.2)
    colour = ramp(np.clip(0.75 * tone + 0.35 * rough - 0.05, 0, 1), colours)
    wall = mix(rgb(mortar) * (0.8 + 0.4 * rough)[..., None], colour, inside)
    stain = 0.72 + 0.45 * fractal(canvas, rng, feature=120, fall=2.2)
    shade = relief((inside * 2.2 + 2.4 * rough) * np.float32(canvas.density), strength=0.8)
    return wall * (stain * shade)[..., None]


def asphalt(canvas: Canvas, rng: np.random.Generator, *, colours: Sequence[str]) -> Array:
    """Worn road: chippings, patches and cracks."""
    chips = cells(canvas, rng, size=3.6)
    patch = fractal(canvas, rng, feature=50, fall=1.7)
    tone = 0.25 + 0.5 * (chips.shuffled(rng) - 0.5) + 0.5 * patch
    cracks = smoothstep(0.93, 0.99, ridges(fractal(canvas, rng, feature=60, fall=1.9), sharpness=2))
    return ramp(np.clip(tone, 0, 1), colours) * (1 - 0.55 * cracks)[..., None]


def sky(canvas: Canvas, rng: np.random.Generator, *, colours: Sequence[str], clouds: Sequence[str]) -> Array:
    """A sky in full weather: a vertical ramp behind billowing clouds lit from above."""
    _, y = canvas.grid()
    blue = ramp(0.5 + y / np.float32(2 * canvas.half_height), colours)
    cover = warp(fractal(canvas, rng, feature=85, fall=1.9), canvas, rng, feature=70, amount=8)
    puffs = warp(fractal(canvas, rng, feature=26, fall=1.7), canvas, rng, feature=24, amount=3)
    body = 0.7 * cover + 0.3 * puffs
    thick = smoothstep(0.34, 0.62, body)
    lit = relief(soften(body, canvas, radius=2.2) * np.float32(34 * canvas.density), strength=0.6)
    tone = np.clip(0.5 + 0.9 * (lit - 0.95) + 0.5 * (puffs - 0.4), 0, 1)
    return (
        mix(blue, ramp(tone, clouds), 0.92 * thick)
        * (0.95 + 0.1 * fractal(canvas, rng, feature=6, fall=1.2))[..., None]
    )


def canopy(canvas: Canvas, rng: np.random.Generator, *, colours: Sequence[str], size: float) -> Array:
    """A forest from above: domed crowns of leaves with dark gaps between them."""
    crowns = cells(canvas, rng, size=size, bend=0.25)
    tone = 0.75 * crowns.shuffled(rng) + 0.25 * fractal(canvas, rng, feature=8, fall=1.3)
    lumps = fractal(canvas, rng, feature=7, fall=1.3)
    height = soften(_domes(crowns, size), canvas, radius=0.1 * size) * np.float32(0.32 * size) + lumps * 3
    shade = relief((height * canvas.density).astype(np.float32), strength=1.0)
    depth = 0.5 + 0.5 * smoothstep(0, 0.22 * size, crowns.edge)
    return ramp(tone, colours) * (1.25 * shade * depth * (0.75 + 0.5 * lumps))[..., None]


def foliage(canvas: Canvas, rng: np.random.Generator, *, colours: Sequence[str], size: float) -> Array:
    """Leaves of a bush or a tree, lit in clumps."""
    clumps = fractal(canvas, rng, feature=4 * size, fall=1.8)
    base = ramp(0.4 * clumps, colours) * 0.55
    positions = scatter(canvas, rng, spacing=0.62 * size)
    painted = dabs(
        base, canvas, rng, shape=LEAF, positions=positions, angles=rng.uniform(0, 6.3, len(positions)),
        sizes=size * rng.uniform(0.6, 1.3, len(positions)), colours=colours, vary=0.16,
    )  # fmt: skip
    return painted * (0.55 + 0.8 * clumps)[..., None]


def soften(image: Array, canvas: Canvas, *, radius: float) -> Array:
    """Blur by ``radius`` units: what is far off is never sharp."""
    return cv2.GaussianBlur(image, (0, 0), max(radius * canvas.density, 0.3))
