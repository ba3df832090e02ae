"""A red square over a still, textured background, and a method that segments it by colour: the truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.methods.base import Method
from model.types import FramePair, LossTerms, Segmentation
from tasks.config import resolve_experiment
from tasks.model_package import LoadedModel, Provenance

HEIGHT, WIDTH, SIDE, STEP_PX = 72, 96, 24, 2


def square_clip(
    num_frames: int, *, height: int = HEIGHT, width: int = WIDTH, step_px: int = STEP_PX, seed: int = 0
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.bool_]]]:
    """Frames [H, W, 3] and masks [H, W]; the square bounces between the sides."""
    random = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(random.integers(0, 256, (height, width), dtype=np.uint8), (0, 0), 1.2)
    background = np.stack([texture // 4, texture // 2 + 60, texture // 2 + 80], axis=-1).astype(np.uint8)
    patch = cv2.GaussianBlur(random.integers(0, 256, (SIDE, SIDE), dtype=np.uint8), (0, 0), 1.0)
    frames, masks = [], []
    reach = width - SIDE - 16
    for index in range(num_frames):
        along = (index * step_px) % (2 * reach)
        left, top = 8 + min(along, 2 * reach - along), (height - SIDE) // 2
        frame, mask = background.copy(), np.zeros((height, width), dtype=bool)
        frame[top : top + SIDE, left : left + SIDE] = np.stack([200 + patch // 5, patch // 5, patch // 5], axis=-1)
        mask[top : top + SIDE, left : left + SIDE] = True
        frames.append(frame)
        masks.append(mask)
    return frames, masks


class ColourMethod:
    """Three segments: what is red, and the left and right halves of the rest. Implements ``Method``."""

    num_segments = 3

    def __init__(self, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
        self.size = size
        self.batches: list[int] = []

    def prepare(self, pair: FramePair) -> dict[str, Tensor]:
        raise AssertionError("this method is not trained")

    def training_loss(self, batch: Mapping[str, Tensor], progress: float = 1.0) -> LossTerms:
        raise AssertionError("this method is not trained")

    def segment(self, images: Tensor) -> Segmentation:
        self.batches.append(len(images))
        resized = F.interpolate(images, size=self.size, mode="bilinear", align_corners=False)
        redness = (resized[:, 0] - resized[:, 1:].mean(1)) / 255
        inside = torch.sigmoid(20 * (redness - 0.3))
        left = (torch.arange(self.size[1]) < self.size[1] // 2).float().expand_as(inside)
        probabilities = torch.stack([(1 - inside) * left, inside, (1 - inside) * (1 - left)], dim=1)
        return Segmentation(probabilities=probabilities, features=resized / 255)


def loaded(method: object) -> LoadedModel:
    """Wrap a method as a model that was read from somewhere."""
    return LoadedModel(
        method=cast(Method, method),
        experiment=resolve_experiment({"name": "colour"}),
        provenance=Provenance(step=7),
        weights_sha256="0" * 64,
        uri="/models/colour",
    )


def write_davis(root: Path, clips: Mapping[str, tuple[list[Any], list[Any]]]) -> Path:
    """Write clips in the layout of DAVIS2016; frames as PNG, so that nothing is lost."""
    for name, (frames, masks) in clips.items():
        images, annotations = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for index, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
            cv2.imwrite(str(images / f"{index:05d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            if mask is not None:
                cv2.imwrite(str(annotations / f"{index:05d}.png"), mask.astype(np.uint8) * 255)
    return root


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((first & second).sum() / (first | second).sum())
