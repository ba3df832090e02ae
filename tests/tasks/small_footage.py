"""Clips of a few frames whose motion is known, for tests of the ingest."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tasks.identity import Recipe
from tasks.schema import SCHEMA_VERSION

RECIPE = Recipe(gaps=(1, -1, 2), schema_version=SCHEMA_VERSION)
HEIGHT, WIDTH = 48, 64


def pictures(count: int, seed: int) -> np.ndarray:
    """A texture that moves 2 pixels to the right per frame: uint8 [count, HEIGHT, WIDTH, 3], RGB."""
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH + 2 * count, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return np.stack([texture[:, 2 * (count - index) :][:, :WIDTH] for index in range(count)])


def write_clip(folder: Path, count: int, seed: int, extension: str = ".png") -> Path:
    folder.mkdir(parents=True)
    for index, picture in enumerate(pictures(count, seed)):
        assert cv2.imwrite(str(folder / f"{index:05}{extension}"), picture[..., ::-1])
    return folder


def shard_files(dataset: Path) -> set[str]:
    return {path.name for path in (dataset / "frames").glob("*.parquet")}
