"""How well a soft mask of a still image fits its annotation: accuracy, J, F_beta, max F_beta and mean absolute error.

As GWM's released image evaluation has them: a pixel is foreground above a threshold, not at it; every measure is a mean
over images; max F_beta is the best threshold for all images together, not for each. The mean absolute error is that of
the soft mask, as the literature on salient objects has it; GWM does not report it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model.errors import InputError
from model.metrics import region_similarity

ImageMeasure = Literal["accuracy", "J", "F_beta", "max_F_beta", "MAE"]
IMAGE_MEASURES: tuple[ImageMeasure, ...] = get_args(ImageMeasure)

BETA_SQUARED = 0.3
"""Weight of precision against recall in F_beta (Achanta et al., CVPR 2009, and all benchmarks of salient objects)."""

HARD_THRESHOLD = 0.5
NUM_LEVELS = 255
"""Thresholds of max F_beta are k / 255 for k = 1 to 254 (released code)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageScores:
    """Scores of one image, 0..1.

    f_curve: F_beta at each threshold k / 255 for k = 1 to 254, float64; its mean over images gives max F_beta.
    """

    accuracy: float
    j: float
    f_beta: float
    mean_absolute_error: float
    f_curve: Float[Tensor, " t"]


def score_image(soft: Float[Tensor, "H W"], annotation: Bool[Tensor, "H W"]) -> ImageScores:
    """Score the probability of foreground at each pixel.

    J is 0 where neither mask has a pixel. Raises InputError when the shapes differ or a probability is not finite.
    """
    if soft.shape != annotation.shape:
        raise InputError(
            f"got a mask of {tuple(soft.shape)} and an annotation of {tuple(annotation.shape)}: expected equal shapes; "
            "resize the mask to the annotation"
        )
    if not bool(torch.isfinite(soft).all()):
        raise InputError("the mask holds values that are not finite: expected probabilities from 0 to 1")
    hard = soft > HARD_THRESHOLD
    return ImageScores(
        accuracy=float((hard == annotation).double().mean()),
        j=float(region_similarity(hard, annotation, empty_score=0.0)),
        f_beta=float(f_beta_above(soft, annotation, soft.new_tensor([HARD_THRESHOLD]))),
        mean_absolute_error=float((soft.double() - annotation.double()).abs().mean()),
        f_curve=f_beta_above(soft, annotation, thresholds(soft.dtype, soft.device)).cpu(),
    )


def thresholds(dtype: torch.dtype, device: torch.device | None = None) -> Float[Tensor, " t"]:
    """Return the 254 thresholds of max F_beta."""
    return (torch.arange(1, NUM_LEVELS, dtype=torch.float64, device=device) / NUM_LEVELS).to(dtype)


def f_beta_above(
    soft: Float[Tensor, "H W"], annotation: Bool[Tensor, "H W"], levels: Float[Tensor, " t"]
) -> Float[Tensor, " t"]:
    """Return F_beta of the pixels above each of ``levels``, which ascend, in float64.

    Precision is 1 where nothing is predicted, recall is 1 where nothing is annotated, and F_beta is 0 where both are 0.
    All levels cost one pass: a pixel's place among the levels says how many of them it exceeds.
    """
    exceeded = torch.bucketize(soft.flatten(), levels)  # levels that a pixel is above
    predicted = _above(exceeded, len(levels))
    correct = _above(exceeded[annotation.flatten()], len(levels))
    annotated = annotation.sum().double()
    precision = torch.where(predicted > 0, correct / predicted.clamp_min(1), 1.0)
    recall = correct / annotated if annotated > 0 else torch.ones_like(correct)
    divisor = BETA_SQUARED * precision + recall
    score = (1 + BETA_SQUARED) * precision * recall / divisor.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(divisor > 0, score, 0.0)


def _above(exceeded: Tensor, num_levels: int) -> Float[Tensor, " t"]:
    """Return how many pixels are above each level."""
    counts = torch.bincount(exceeded, minlength=num_levels + 1).double()
    return counts.flip(0).cumsum(0).flip(0)[1:]
