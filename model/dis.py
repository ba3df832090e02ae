"""Dense Inverse Search optical flow of OpenCV: needs no weights and no GPU, so it is the default."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from model.errors import InputError

# OpenCV's own preset numbers. Measured per pair of 480x854 frames on two cores: 4, 7 and 28 ms.
PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}

# 8-pixel patches on a pyramid whose finest level is a quarter: below 32 px OpenCV 5.0 refuses some shapes,
# and kills the process with a segmentation fault on others (8x48, 16x100). Every shape from 32x32 up was
# found to work.
MIN_SIDE_PX = 32


class DisEstimator:
    """Optical flow by Dense Inverse Search (Kroeger et al., ECCV 2016).

    Deterministic: equal frames give equal bits, whatever the number of threads. May be called from several
    threads.
    """

    weights_sha256: str | None = None

    def __init__(self, preset: str = "medium") -> None:
        if preset not in PRESETS:
            raise InputError(f"DisEstimator(preset={preset!r}): expected one of {', '.join(PRESETS)}")
        self.preset = preset
        self.name = "dis" if preset == "medium" else f"dis-{preset}"
        # An OpenCV object keeps its pyramids between calls, so each thread has its own; and what it adapts to a small
        # frame, the finest scale, it keeps for the larger ones after it, so each size of frames begins with a new one.
        self._of_thread = threading.local()

    def encode(self, frame: UInt8[Tensor, "3 H W"]) -> UInt8[np.ndarray, "H W"]:
        """Return the gray image of an RGB frame; raise InputError when a side is under 32 px."""
        height, width = frame.shape[-2:]
        if min(height, width) < MIN_SIDE_PX:
            raise InputError(
                f"frame of {height}x{width} (rows x columns) is too small for DIS optical flow: its "
                f"8-pixel patches on a quarter-size level need at least {MIN_SIDE_PX} px on each side; "
                "enlarge the footage"
            )
        return cv2.cvtColor(frame.cpu().permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2GRAY)

    def flow(self, pairs: Sequence[tuple[object, object]]) -> Float[Tensor, "n 2 H W"]:
        """Return displacements in pixels from the first to the second gray image of each pair."""
        flows = [self._flow_of_pair(first, second) for first, second in pairs]
        planes = torch.empty(len(flows), 2, *flows[0].shape[:2])
        for flow, plane in zip(flows, planes.numpy(), strict=True):
            np.copyto(plane, flow.transpose(2, 0, 1))
        return planes

    def _flow_of_pair(self, first: object, second: object) -> Float[np.ndarray, "H W 2"]:
        if not isinstance(first, np.ndarray) or not isinstance(second, np.ndarray):
            raise InputError(
                f"got a pair of {type(first).__name__}, {type(second).__name__}: expected results of encode()"
            )
        if first.shape != second.shape:
            raise InputError(f"got a pair of {first.shape} and {second.shape}: expected frames of one size")
        return self._calculator(first.shape).calc(first, second, None)

    def _calculator(self, size: tuple[int, ...]) -> Any:
        if getattr(self._of_thread, "size", None) != size:
            self._of_thread.size, self._of_thread.calculator = size, cv2.DISOpticalFlow.create(PRESETS[self.preset])
        return self._of_thread.calculator

    def __reduce__(self) -> tuple[type[DisEstimator], tuple[str]]:
        return DisEstimator, (self.preset,)
