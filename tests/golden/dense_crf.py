"""pydensecrf on two DAVIS frames: labels and probabilities under both settings."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from model.dense_crf import DenseCrf, crf_preset
from tests.golden.comparison import Comparison, absolute

OTHER_LABELS_ALLOWED = 1e-3
"""Share of pixels; none was found to differ."""

PROBABILITY_TOLERANCE = 1e-3
"""Largest difference; 2.6e-4 was found after 50 iterations of float32, on a pixel between both labels."""

PROBABILITY_LEVELS = 65535


def check_dense_crf(archive: Path, davis_root: Path) -> list[Comparison]:
    """Two labels from a low-resolution mask, as ``shared/README.md`` has it, for every setting in the archive."""
    with np.load(archive, allow_pickle=False) as arrays:
        recorded = dict(arrays)
    comparisons = []
    for name, foreground in recorded.items():
        frame, _, rest = name.partition(".")
        setting, _, quantity = rest.partition(".")
        if quantity != "foreground":
            continue
        image = _image(davis_root, frame)
        given = _probabilities(recorded[f"{frame}.low_resolution_foreground"], foreground.shape)
        refined = DenseCrf(crf_preset(setting)).refine(image, given)[0].numpy()
        other = float(((refined > 0.5) != foreground).mean())
        probability = recorded[f"{frame}.{setting}.probability"] / PROBABILITY_LEVELS
        comparisons += [
            absolute(f"{frame} {setting} other labels", other, 0.0, OTHER_LABELS_ALLOWED, "of all pixels"),
            absolute(f"{frame} {setting} probability", refined, probability, PROBABILITY_TOLERANCE),
        ]
    return comparisons


def _image(davis_root: Path, frame: str) -> torch.Tensor:
    sequence, _, number = frame.rpartition("_")
    picture = np.array(Image.open(davis_root / "JPEGImages" / "480p" / sequence / f"{number}.jpg"))
    return torch.from_numpy(picture).permute(2, 0, 1)


def _probabilities(low_resolution: np.ndarray, size: tuple[int, ...]) -> torch.Tensor:
    foreground = cv2.resize(low_resolution, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    foreground = np.clip(0.1 + 0.8 * foreground, 0.05, 0.95)
    return torch.from_numpy(np.stack([foreground, 1 - foreground]))
