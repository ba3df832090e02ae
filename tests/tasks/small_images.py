"""Benchmarks of still images that are made in no time: a red rectangle on noise, and its mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

# images and masks of each benchmark, below the root
FOLDERS = {
    "cub": ("CUB_200_2011/test_images", "CUB_200_2011/test_segmentations"),
    "duts": ("DUTS/DUTS-TE/DUTS-TE-Image", "DUTS/DUTS-TE/DUTS-TE-Mask"),
    "ecssd": ("ECSSD/images", "ECSSD/ground_truth_mask"),
    "dut-omron": ("DUT_OMRON/DUT-OMRON-image", "DUT_OMRON/pixelwiseGT-new-PNG"),
}


def write_image(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write pixels as OpenCV has them: grey, or blue, green and red."""
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), pixels)


def grey_image(value: int, height: int = 20, width: int = 12) -> NDArray[np.uint8]:
    return np.full((height, width), value, np.uint8)


def red_rectangle(seed: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image (blue, green, red) and its mask of 0 and 255; the rectangle touches no border."""
    random = np.random.default_rng(seed)
    image = random.integers(40, 120, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    top, left = random.integers(3, height // 3), random.integers(3, width // 3)
    mask[top : top + height // 2, left : left + width // 2] = 255
    image[mask > 0] = (10, 10, 230)
    return image, mask


def write_images(
    root: Path, benchmark: str, names: Sequence[str], *, height: int = 20, width: int = 12, extension: str = "jpg"
) -> Path:
    """Write one image and mask per name; return the folder of the masks."""
    images, masks = (root / folder for folder in FOLDERS[benchmark])
    for seed, name in enumerate(names):
        image, mask = red_rectangle(seed, height, width)
        write_image(images / f"{name}.{extension}", image)
        write_image(masks / f"{name}.png", mask)
    return masks
