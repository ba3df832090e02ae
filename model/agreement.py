"""How far two label maps agree beyond chance, and where optical flow takes one to the other."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model.warp import pixel_grid, warp


def cohens_kappa(
    first: Int[Tensor, "b h w"], second: Int[Tensor, "b h w"], num_labels: int, valid: Bool[Tensor, "b h w"]
) -> Float[Tensor, " b"]:
    """Return Cohen's kappa of two label maps over the valid pixels (Cohen, 1960): 1 for equal maps, 0 for chance.

    Where chance agrees everywhere, as on maps of one label, nothing is shown by agreeing, and kappa is 0; so too
    without a valid pixel.
    """
    pairs = (first * num_labels + second).flatten(1)
    counts = torch.zeros(len(pairs), num_labels**2, dtype=torch.float64, device=pairs.device)
    counts.scatter_add_(1, pairs, valid.flatten(1).double())
    shares = counts.unflatten(1, (num_labels, num_labels)) / counts.sum(1).clamp_min(1)[:, None, None]  # (b, k, k)
    observed = shares.diagonal(dim1=1, dim2=2).sum(1)
    expected = (shares.sum(1) * shares.sum(2)).sum(1)
    by_chance = 1 - expected
    return torch.where(by_chance > 1e-9, (observed - expected) / by_chance.clamp_min(1e-9), 0.0)


def agreement_along_flow(
    probabilities: Float[Tensor, "b k h w"], later: Float[Tensor, "b k h w"], flow: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, " b"]:
    """Return kappa between the segments of a frame and those of the frame that ``flow`` leads to.

    flow: pixels of this resolution. Pixels whose flow is not finite or leaves the image are not counted.
    """
    finite = flow.isfinite().all(1)
    known = flow.nan_to_num(0.0, 0.0, 0.0)
    columns, rows = (pixel_grid(known) + known).unbind(1)
    height, width = flow.shape[-2:]
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    moved = warp(later, known).argmax(1)
    return cohens_kappa(probabilities.argmax(1), moved, probabilities.shape[1], finite & inside)
