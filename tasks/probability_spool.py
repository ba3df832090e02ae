"""Soft segments of a clip on disk, so that memory stays constant and the network runs once."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from torch import Tensor

from tasks.errors import InputError

_SPOOL_SCALE = 65535  # probabilities as uint16: error 8e-6, half the size of float32


class ProbabilitySpool:
    """Soft segments of a clip on disk: appended once, read in any order, deleted by ``close``."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="gwm_segments_")  # noqa: SIM115 - closed by close()
        self._shape: tuple[int, int, int] | None = None
        self.num_frames = 0

    def append(self, probabilities: Tensor) -> None:
        """Add frames [t, k, h, w]; every frame of a clip has the same shape."""
        shape = (int(probabilities.shape[1]), int(probabilities.shape[2]), int(probabilities.shape[3]))
        if self._shape not in (None, shape):
            raise InputError(f"segments of shape {shape} after {self._shape}: one clip has one size")
        self._shape = shape
        levels = (probabilities.detach().cpu().float() * _SPOOL_SCALE).round().clamp(0, _SPOOL_SCALE)
        self._file.seek(self.num_frames * self._frame_bytes)
        self._file.write(levels.numpy().astype(np.uint16).tobytes())
        self.num_frames += len(probabilities)

    def read(self, frame: int) -> Tensor:
        """Return frame ``frame`` as float32 [k, h, w]."""
        if self._shape is None or not 0 <= frame < self.num_frames:
            raise InputError(f"frame {frame}: the clip has frames 0 to {self.num_frames - 1}")
        self._file.seek(frame * self._frame_bytes)
        levels = np.frombuffer(self._file.read(self._frame_bytes), dtype=np.uint16)
        return torch.from_numpy(levels.astype(np.float32) / _SPOOL_SCALE).view(self._shape)

    @property
    def num_segments(self) -> int:
        """K; 0 before the first frame."""
        return self._shape[0] if self._shape else 0

    @property
    def _frame_bytes(self) -> int:
        return int(np.prod(self._shape)) * 2 if self._shape else 0

    def close(self) -> None:
        """Delete the temporary file."""
        self._file.close()
