"""Backward warping by optical flow, and the occlusions that a flow in the other direction reveals."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

MIN_COVERAGE = 0.2
"""Share of a pixel that must be covered by the other frame for it to be visible (released ARFlow and AMD code)."""


def warp(
    image: Float[Tensor, "b c h w"],
    flow: Float[Tensor, "b 2 h w"],
    padding: Literal["border", "zeros"] = "border",
) -> Float[Tensor, "b c h w"]:
    """Sample ``image`` at pixel + flow, bilinearly: the content of the second frame on the grid of the first.

    flow: pixels of this resolution, channel 0 along columns. padding: what lies outside the image; ``border`` repeats
    its outermost pixels (ARFlow, AMD), ``zeros`` fades to 0 over one pixel (PWC-Net). Differentiable in both.
    """
    height, width = image.shape[-2:]
    columns, rows = (pixel_grid(flow) + flow).unbind(1)
    # -1 and 1 are the centres of the outermost pixels
    scaled = torch.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], dim=-1)
    return F.grid_sample(image, scaled, mode="bilinear", padding_mode=padding, align_corners=True)


def pixel_grid(like: Float[Tensor, "b c h w"]) -> Float[Tensor, "2 h w"]:
    """Return the column and the row number of each pixel, in the type and place of ``like``."""
    height, width = like.shape[-2:]
    columns = torch.arange(width, dtype=like.dtype, device=like.device)
    rows = torch.arange(height, dtype=like.dtype, device=like.device)
    return torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)])


def occluded(opposite_flow: Float[Tensor, "b 2 h w"], min_coverage: float = MIN_COVERAGE) -> Bool[Tensor, "b 1 h w"]:
    """Tell which pixels of a frame the other frame does not show.

    opposite_flow: from the other frame to this one. Each of its pixels is spread bilinearly over the four pixels it
    lands on; where less than ``min_coverage`` of a pixel arrives, nothing in the other frame corresponds to it
    (Wang et al., CVPR 2018; released ARFlow and AMD code). No gradient.
    """
    return coverage(opposite_flow.detach()) < min_coverage


def coverage(flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return how many pixels ``flow`` brings to each pixel: 1 everywhere without motion; what leaves is lost."""
    batch, _, height, width = flow.shape
    position = pixel_grid(flow) + flow
    corner = position.floor()
    towards_next = position - corner  # 0: all on this pixel, 1: all on the next one
    counts = flow.new_zeros(batch, height * width)
    for right in (0, 1):
        for below in (0, 1):
            column, row = corner[:, 0] + right, corner[:, 1] + below
            share = (1 - right - towards_next[:, 0]).abs() * (1 - below - towards_next[:, 1]).abs()
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            counts.scatter_add_(1, index.long().flatten(1), (share * inside).flatten(1))
    return counts.unflatten(1, (1, height, width))
