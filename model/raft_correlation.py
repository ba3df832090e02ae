"""How alike every pixel of one frame is to every pixel of another, at four scales, and reading around where they match.

The peer pools a volume of all pairs three times. Pooling is linear, so the same numbers come from the products with
pooled features: those belong to one frame, are computed once, and are much smaller than the volume. The volume itself
(220 MB a pair at 480x854) goes to the same memory for every pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

NUM_LEVELS = 4  # of both networks (paper, section 3.2)


def pooled_features(features: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n c _ _"], ...]:
    """Return the features in float32 at NUM_LEVELS scales, each half the one before; odd last rows are dropped."""
    levels = [features.float()]
    for _ in range(NUM_LEVELS - 1):
        levels.append(F.avg_pool2d(levels[-1], kernel_size=2))
    return tuple(levels)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Level:
    volume: Float[Tensor, "p 1 h w"]
    scale: Float[Tensor, " xy"]
    offsets: Float[Tensor, "side side xy"]


class CorrelationPyramid:
    """Correlation of pairs of frames in float32, for one thread: ``build`` for some pairs, then any number of lookups.

    radius: a lookup reads (2 radius + 1)^2 values a level, one pixel of that level apart.
    """

    def __init__(self, radius: int) -> None:
        steps = torch.linspace(-radius, radius, 2 * radius + 1)
        # torchvision adds the first index to columns, the second to rows
        self._offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
        self._levels: list[_Level] = []

    def build(self, first: Float[Tensor, "n c h w"], second: Sequence[Float[Tensor, "n c _ _"]]) -> None:
        """Correlate features of the first frames with ``pooled_features`` of the second ones."""
        self._make_room(first, second)
        pixels = first.flatten(2).mT * first.shape[1] ** -0.5  # (n, h w, c)
        for level, features in zip(self._levels, second, strict=True):
            torch.bmm(pixels, features.flatten(2), out=level.volume.view(*pixels.shape[:2], -1))

    def lookup(self, position: Float[Tensor, "n 2 h w"]) -> Float[Tensor, "n h w k"]:
        """Return correlations around ``position`` (column, row; in pixels of the features), level by level.

        What is outside the second frame counts as 0.
        """
        num_pairs, _, height, width = position.shape
        centres = position.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)  # (n h w, 1, 1, 2)
        read = []
        for level in self._levels:
            grid = torch.addcmul(level.offsets, centres, level.scale)
            values = F.grid_sample(level.volume, grid, align_corners=True)  # (n h w, 1, side, side)
            read.append(values.view(num_pairs, height, width, -1))
        return torch.cat(read, dim=-1)

    def _make_room(self, first: Tensor, second: Sequence[Tensor]) -> None:
        """Keep the memory of the last call when it fits."""
        num_pixels = first.shape[0] * first.shape[-2] * first.shape[-1]
        shapes = [(num_pixels, 1, *level.shape[-2:]) for level in second]
        if shapes == [tuple(level.volume.shape) for level in self._levels]:
            return
        self._levels = []  # give the old memory back before asking for more
        self._levels = [self._new_level(number, shape, first.device) for number, shape in enumerate(shapes)]

    def _new_level(self, number: int, shape: tuple[int, ...], device: torch.device) -> _Level:
        """Level ``number``, with what takes positions to grid_sample's coordinates: -1 to 1, first to last pixel."""
        to_unit = 2 / (torch.tensor([shape[3], shape[2]]) - 1)
        return _Level(
            volume=torch.empty(shape, device=device),
            scale=(to_unit / 2**number).to(device),
            offsets=(self._offsets * to_unit - 1).to(device),
        )


def volume_bytes(features: Sequence[Float[Tensor, "1 c _ _"]]) -> int:
    """Memory that the pyramid of one pair takes, from ``pooled_features`` of one of its frames."""
    num_pixels = [level.shape[-2] * level.shape[-1] for level in features]
    return num_pixels[0] * sum(num_pixels) * torch.float32.itemsize
