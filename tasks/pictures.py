"""Pictures people look at: overlays, optical flow in colours, segments, strips. Pixels are uint8 RGB.

Used by training (pictures to MLflow), the report and the overlay video, so a mask looks the same everywhere.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.errors import InputError

Picture = NDArray[np.uint8]
"""RGB, shape [H, W, 3]."""

Colour = tuple[int, int, int]

FOREGROUND_COLOUR: Colour = (255, 72, 58)
"""Coral red: no natural background is of this hue, and it keeps its contrast to green, blue and grey."""

# Okabe and Ito's palette for readers who are colour blind (jfly.uni-koeln.de/color, 2008),
# most distinct pairs first.
_SEGMENT_COLOURS: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (86, 180, 233),
    (213, 94, 0),
)

# Steps between the hues of the Middlebury wheel: red-yellow, yellow-green, green-cyan, cyan-blue,
# blue-magenta, magenta-red (Baker et al., A database and evaluation methodology for optical flow, IJCV 2011,
# released colorcode.cpp, where the lengths follow how different neighbouring hues look).
_WHEEL_STEPS = (15, 6, 4, 11, 13, 6)


def overlay(
    frame: Picture,
    mask: NDArray[Any],
    *,
    colour: Colour = FOREGROUND_COLOUR,
    opacity: float = 0.45,
    outline_px: int | None = None,
) -> Picture:
    """Draw a mask [H, W] (bool, or 0 and not 0) over a frame: translucent fill and a solid outline.

    outline_px: width of the outline inside the mask; None takes 1/240 of the shorter side, at least 1; 0 for
    none.
    """
    _require_picture("overlay(frame)", frame)
    if mask.shape != frame.shape[:2]:
        raise InputError(
            f"overlay(mask={mask.shape}, frame={frame.shape}): expected a mask as high and wide as the frame;"
            " resize the mask to the frame first"
        )
    inside = np.ascontiguousarray(mask != 0).view(np.uint8)
    if not inside.any():
        return frame.copy()
    width = max(1, round(min(frame.shape[:2]) / 240)) if outline_px is None else outline_px
    tint = np.empty_like(frame)
    tint[:] = colour
    filled = cv2.addWeighted(frame, 1 - opacity, tint, opacity, 0)
    picture = np.where(inside[..., None] != 0, filled, frame)
    if width:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
        core = cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
        picture[(inside != 0) & (core == 0)] = colour
    return picture


def colour_wheel() -> NDArray[np.float64]:
    """Return the 55 hues of the Middlebury flow wheel, RGB rows in 0..1, from red by yellow around to red."""
    hues: list[tuple[float, float, float]] = []
    for segment, steps in enumerate(_WHEEL_STEPS):
        for step in range(steps):
            ramp = float(255 * step // steps)
            rising, falling = ramp / 255, (255 - ramp) / 255
            hues.append(
                (
                    (1.0, rising, 0.0),
                    (falling, 1.0, 0.0),
                    (0.0, 1.0, rising),
                    (0.0, falling, 1.0),
                    (rising, 0.0, 1.0),
                    (1.0, 0.0, falling),
                )[segment]
            )
    return np.array(hues)


def flow_picture(flow: NDArray[np.floating[Any]], *, max_px: float | None = None, legend: bool = False) -> Picture:
    """Colour optical flow [2, H, W] in pixels as Middlebury does: hue is direction, saturation is length.

    Motion to the right is red, down is yellow, left is cyan, up is blue; no motion is white.
    max_px: the length shown fully saturated, longer ones darken; None takes the longest vector of this flow.
    legend: draw the wheel itself into the lower right corner.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise InputError(f"flow_picture(flow={flow.shape}): expected [2, H, W], columns then rows, in pixels")
    vectors = np.nan_to_num(flow.astype(np.float64), posinf=0.0, neginf=0.0)
    length = np.hypot(vectors[0], vectors[1])
    longest = float(length.max(initial=0.0)) if max_px is None else max_px
    picture = _direction_colours(vectors / max(longest, np.finfo(np.float64).eps))
    return _with_legend(picture) if legend else picture


def wheel_legend(side: int) -> Picture:
    """Draw the flow wheel on a white square of ``side`` pixels: a point is coloured as motion towards it."""
    centred = (np.arange(side) + 0.5) / side * 2 - 1
    columns, rows = np.meshgrid(centred, centred)
    vectors = np.stack([columns, rows])
    disc = _direction_colours(vectors)
    disc[np.hypot(columns, rows) > 1] = 255
    return disc


def segments_picture(
    probabilities: NDArray[np.floating[Any]], *, frame: Picture | None = None, opacity: float = 0.8
) -> Picture:
    """Blend one colour per segment by the soft segments [k, h, w]; over ``frame``, at its size, if given."""
    if probabilities.ndim != 3:
        raise InputError(f"segments_picture(probabilities={probabilities.shape}): expected [k, h, w]")
    colours = np.array(segment_colours(probabilities.shape[0]), dtype=np.float32)
    blended = np.einsum("khw,kc->hwc", probabilities.astype(np.float32), colours)
    if frame is None:
        return np.clip(np.rint(blended), 0, 255).astype(np.uint8)
    _require_picture("segments_picture(frame)", frame)
    enlarged = cv2.resize(blended, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    # The frame's light and dark stay visible beneath the colours, so one can see what a segment covers.
    mixed = enlarged * opacity + frame.astype(np.float32) * (1 - opacity)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def segment_colours(num_segments: int) -> tuple[Colour, ...]:
    """Return one distinct colour per segment."""
    if num_segments <= len(_SEGMENT_COLOURS):
        return _SEGMENT_COLOURS[:num_segments]
    hues = [(index * 0.61803398875) % 1 for index in range(num_segments)]  # golden ratio: spread for any count
    colours = [colorsys.hsv_to_rgb(hue, 0.65, 0.95) for hue in hues]
    return tuple((round(red * 255), round(green * 255), round(blue * 255)) for red, green, blue in colours)


def mask_picture(mask: NDArray[Any]) -> Picture:
    """Show a mask [H, W] in white on black."""
    levels = np.where(mask != 0, np.uint8(255), np.uint8(0))
    return np.repeat(levels[..., None], 3, axis=2)


def resized(picture: Picture, *, height: int) -> Picture:
    """Scale a picture to ``height`` pixels, keeping its shape; averages when it shrinks."""
    _require_picture("resized(picture)", picture)
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    method = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_LINEAR
    result: Picture = cv2.resize(picture, (width, height), interpolation=method)
    return result


def jpeg_bytes(picture: Picture, *, quality: int = 82) -> bytes:
    """Encode a picture as JPEG; 82 keeps outlines crisp at half the size of 95."""
    _require_picture("jpeg_bytes(picture)", picture)
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise InputError(f"jpeg_bytes(picture={picture.shape}): can not be encoded; expected at least 1x1 pixels")
    return bytes(data)


def contact_strip(
    pictures: Sequence[Picture], *, height: int = 180, gap_px: int = 4, background: Colour = (255, 255, 255)
) -> Picture:
    """Set pictures side by side at one height."""
    if not pictures:
        raise InputError("contact_strip([]): expected at least one picture")
    tiles = [resized(picture, height=height) for picture in pictures]
    spacer = np.empty((height, gap_px, 3), dtype=np.uint8)
    spacer[:] = background
    row: list[Picture] = [tiles[0]]
    for tile in tiles[1:]:
        row += [spacer, tile]
    return np.concatenate(row, axis=1)


def contact_sheet(
    rows: Sequence[Sequence[Picture]],
    *,
    height: int = 180,
    gap_px: int = 4,
    background: Colour = (255, 255, 255),
) -> Picture:
    """Set strips beneath one another; shorter ones are filled up with background."""
    strips = [contact_strip(row, height=height, gap_px=gap_px, background=background) for row in rows]
    if not strips:
        raise InputError("contact_sheet([]): expected at least one row")
    width = max(strip.shape[1] for strip in strips)
    sheet = np.empty((len(strips) * (height + gap_px) - gap_px, width, 3), dtype=np.uint8)
    sheet[:] = background
    for index, strip in enumerate(strips):
        top = index * (height + gap_px)
        sheet[top : top + height, : strip.shape[1]] = strip
    return sheet


def _direction_colours(vectors: NDArray[np.float64]) -> Picture:
    """Colour vectors [2, H, W], unit length fully saturated (computeColor in Middlebury's colorcode.cpp)."""
    wheel = colour_wheel()
    length = np.hypot(vectors[0], vectors[1])[..., None]
    turn = (np.arctan2(-vectors[1], -vectors[0]) / np.pi + 1) / 2 * (len(wheel) - 1)
    first = np.floor(turn).astype(np.int64)
    fraction = (turn - first)[..., None]
    hue = (1 - fraction) * wheel[first] + fraction * wheel[(first + 1) % len(wheel)]
    shade = np.where(length <= 1, 1 - length * (1 - hue), hue * 0.75)
    return np.floor(shade * 255).astype(np.uint8)


def _with_legend(picture: Picture) -> Picture:
    side = max(16, min(picture.shape[:2]) // 5)
    margin = max(2, side // 10)
    if picture.shape[0] < side + margin or picture.shape[1] < side + margin:
        return picture
    disc = wheel_legend(side)
    corner = picture[-side - margin : -margin, -side - margin : -margin]
    centred = (np.arange(side) + 0.5) / side * 2 - 1
    radius = np.hypot(*np.meshgrid(centred, centred))
    corner[radius <= 1] = disc[radius <= 1]
    corner[(radius > 1 - 3 / side) & (radius <= 1)] = 40  # a thin dark rim parts the wheel from the flow beneath
    return picture


def _require_picture(what: str, picture: Picture) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(f"{what}: got {picture.dtype} {picture.shape}, expected uint8 [H, W, 3] RGB")
