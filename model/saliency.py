"""Motion saliency: which pixels move unlike the scene around them. Needs optical flow and no label.

The camera's motion over a mostly rigid background is close to a quadratic in (x, y) for small angles and gentle depth.
A robust quadratic is fitted to the whole flow, started from the image's border, where objects rarely are; what it does
not explain is salient.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from model.losses.motion_models import fit_motion, motion_fields, motion_model

BORDER_FRACTION = 0.15  # width of the border strip that starts the fit, as a share of each side
NUM_REWEIGHTINGS = 10  # the weights change by less than 1 % after about six
PERCENTILE = 0.98  # residual that counts as fully salient


def global_motion(flow: Float[Tensor, "n 2 h w"]) -> Float[Tensor, "n 2 h w"]:
    """Return the robust global quadratic motion of each flow field, px.

    Iteratively reweighted least squares with Geman-McClure weights, whose scale is the median residual: up to half of
    the image may move on its own.
    """
    flow = flow.double()
    weights = _border_weights(flow)
    for _ in range(NUM_REWEIGHTINGS):
        residual = (flow - _weighted_quadratic(flow, weights)).square().sum(1)
        scale = residual.flatten(1).median(dim=1).values.clamp_min(1e-4)[:, None, None]
        weights = (scale / (scale + residual)).square()
    return _weighted_quadratic(flow, weights).float()


def motion_saliency(flow: Float[Tensor, "n 2 h w"]) -> Float[Tensor, "n h w"]:
    """Return in 0..1 how far each pixel departs from the global motion, as a share of its frame's 98th percentile."""
    residual = (flow - global_motion(flow)).square().sum(1).sqrt()
    top = residual.flatten(1).quantile(PERCENTILE, dim=1).clamp_min(1e-6)
    return (residual / top[:, None, None]).clamp_max(1)


def _border_weights(flow: Float[Tensor, "n 2 h w"]) -> Float[Tensor, "n h w"]:
    number, _, height, width = flow.shape
    rows, columns = max(1, round(height * BORDER_FRACTION)), max(1, round(width * BORDER_FRACTION))
    weights = flow.new_ones(number, height, width)
    weights[:, rows : height - rows, columns : width - columns] = 0
    return weights


def _weighted_quadratic(flow: Float[Tensor, "n 2 h w"], weights: Float[Tensor, "n h w"]) -> Float[Tensor, "n 2 h w"]:
    model = motion_model("quadratic")
    theta = fit_motion(weights[:, None], flow, model)
    return motion_fields(theta, (flow.shape[-2], flow.shape[-1]), model)[:, 0]


__all__ = ["global_motion", "motion_saliency"]
