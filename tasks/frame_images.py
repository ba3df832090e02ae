"""Image files of clips: frames as RGB, masks as booleans, both scaled to a longest side.

Pillow decodes, since it refuses a file that was cut off where OpenCV returns it half grey, and keeps the indices of
palette PNGs. Only the formats that are expected are looked at.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tasks.decode_limits import DecodeLimits
from tasks.errors import FootageError

_LIMITS = DecodeLimits()
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_EXIF_ORIENTATION = 0x0112  # Exif 2.32, tag Orientation; 1 is upright
_DAVIS_THRESHOLD = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedImage:
    """An image file's content.

    image: uint8 [H, W, 3], RGB, upright.
    is_plain_jpeg: whether the file's own bytes show the same in any JPEG decoder: 8-bit RGB and upright.
    """

    image: NDArray[np.uint8]
    is_plain_jpeg: bool


def decode_image(data: bytes, name: str, limits: DecodeLimits = _LIMITS) -> DecodedImage:
    """Decode an image file; EXIF orientation is applied, transparency dropped, grey and palettes become RGB.

    Raises FootageError: "corrupt" when the bytes can not be decoded, "too_large" beyond the limit on pixels.
    """
    picture = load_picture(data, name, limits)
    orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
    is_plain = picture.format == "JPEG" and picture.mode == "RGB" and orientation == 1
    upright = picture if orientation == 1 else ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    image = np.ascontiguousarray(np.asarray(upright.convert("RGB")))
    return DecodedImage(image=image, is_plain_jpeg=is_plain)


def decode_annotation(data: bytes, name: str, limits: DecodeLimits = _LIMITS) -> NDArray[np.bool_]:
    """Decode a mask file to bool [H, W], true for foreground.

    Masks whose maximum is full white (DAVIS2016: 0/255) are foreground above 128, as the authors' code does. In all
    others (palette PNGs, label maps of several objects) any label but 0 is foreground. Raises FootageError
    "corrupt" or "too_large".
    """
    picture = load_picture(data, name, limits)
    values: NDArray[Any] = np.asarray(picture)
    if values.ndim == 3:  # grey stored as colour, with or without transparency
        values = values[..., :3].max(axis=-1) if values.shape[-1] > 2 else values[..., 0]
    if picture.mode in ("L", "RGB", "RGBA", "LA") and values.max(initial=0) == 255:
        return values > _DAVIS_THRESHOLD
    return values != 0


def scaled_size(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """(height, width) whose longer side is at most ``max_side``, aspect kept to half a pixel, never enlarged."""
    longest = max(height, width)
    if max_side is None or longest <= max_side:
        return height, width
    return max(1, round(height * max_side / longest)), max(1, round(width * max_side / longest))


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink an image [H, W, 3] to (height, width) by averaging areas; the same array when it fits already."""
    if image.shape[:2] == size:
        return image
    resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)


def resize_annotation(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask [H, W] to (height, width) by the nearest pixel's centre, so that it stays a mask."""
    if mask.shape == size:
        return mask
    # INTER_NEAREST takes the pixel's corner and shifts the mask by half a pixel; INTER_NEAREST_EXACT does not.
    resized = cv2.resize(mask.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, dtype=np.bool_)


def load_picture(
    data: bytes, name: str, limits: DecodeLimits = _LIMITS, *, formats: Sequence[str] = _FORMATS
) -> Image.Image:
    """Decode an image file to Pillow's image; formats: Pillow's names of those that are looked at.

    Raises FootageError: "corrupt" when the bytes can not be decoded, "too_large" beyond the limit on pixels.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=formats)
        limits.check_frame_size(picture.width, picture.height, name)
        picture.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FootageError("too_large", f"{name}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's readers raise for damaged files
        raise FootageError("corrupt", f"{name} can not be decoded as an image: {error}") from error
    return picture
