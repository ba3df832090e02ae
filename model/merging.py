"""From K segments to two groups by the features under them, as GWM merges before it scores a video.

GWM, section 3.3 and its released code: pool a feature map under each segment, take cosine affinities, cluster the K x K
graph spectrally into two. The features are any map: DINO keys where weights are at hand, decoder features, colour.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from model.errors import InputError

MASS_FLOOR = 1e-12  # least mass of a segment when pooling (released code)
NORM_FLOOR = 1e-6  # least norm of a pooled feature (released code)
AFFINITY_FLOOR = 1e-6  # released code
PAPER_AFFINITY_FLOOR = 1e-12  # section 3.3


def pool_features(
    probabilities: Float[Tensor, "b k h w"], features: Float[Tensor, "b c hf wf"]
) -> Float[Tensor, "b k c"]:
    """Return the mean feature under each soft segment, L2-normalised; features are resized to the masks."""
    if features.shape[-2:] != probabilities.shape[-2:]:
        features = F.interpolate(features, size=probabilities.shape[-2:], mode="bilinear", align_corners=False)
    masks = probabilities.flatten(2)
    pooled = masks @ features.flatten(2).mT / masks.sum(-1, keepdim=True).clamp_min(MASS_FLOOR)
    return F.normalize(pooled, dim=-1, eps=NORM_FLOOR)


def affinity_matrix(pooled: Float[Tensor, "b k c"], *, floor: float = AFFINITY_FLOOR) -> Float[Tensor, "b k k"]:
    """Return cosine similarities of unit features, at least ``floor`` so that the graph stays connected."""
    if not 0 < floor < 1:
        raise InputError(
            f"floor={floor}: expected an affinity between 0 and 1, such as {AFFINITY_FLOOR:g} (released code) or "
            f"{PAPER_AFFINITY_FLOOR:g} (paper); at 0 unlike segments fall apart into more than two groups"
        )
    return (pooled @ pooled.mT).clamp_min(floor)


def spectral_bipartition(affinity: Float[Tensor, "b k k"]) -> Bool[Tensor, "b k"]:
    """Split each graph in two: 2-means on the second eigenvector of its normalised Laplacian.

    The first eigenvector divided by the root of the degrees is constant, so the two-dimensional embedding that
    spectral clustering uses differs only along the second, and 2-means on a line is exact: the best of K - 1 cuts of
    the sorted values. Node 0 is always in group False.

    scikit-learn's spectral clustering gives the same groups, but for two cases: the best of its ten random starts is
    not always the best there is, and where eigenvalues coincide, as in a graph whose affinities are all equal, the
    second eigenvector is anyone's choice; both groups have members even so.
    """
    if affinity.shape[-1] < 2:
        raise InputError(f"affinity of {affinity.shape[-1]} segment: expected K >= 2 to split in two")
    weights = affinity.double().clone()
    weights.diagonal(dim1=-2, dim2=-1).zero_()
    root_degree = weights.sum(-1).clamp_min(MASS_FLOOR).sqrt()
    normalised = weights / root_degree[:, :, None] / root_degree[:, None, :]
    _, vectors = torch.linalg.eigh(-normalised)  # same vectors as the Laplacian I - W, in ascending order
    labels = _two_means_on_a_line(vectors[..., 1] / root_degree)
    return labels ^ labels[:, :1]


def merge_segments(
    probabilities: Float[Tensor, "b k h w"], features: Float[Tensor, "b c hf wf"], *, floor: float = AFFINITY_FLOOR
) -> Bool[Tensor, "b k"]:
    """Return which of two groups each segment of each image belongs to; K=2 needs no merging.

    floor: least affinity; raises InputError unless it lies between 0 and 1.
    """
    batch, num_segments = probabilities.shape[:2]
    if num_segments == 2:
        return torch.tensor([False, True], device=probabilities.device).expand(batch, 2)
    return spectral_bipartition(affinity_matrix(pool_features(probabilities, features), floor=floor))


def _two_means_on_a_line(values: Float[Tensor, "b k"]) -> Bool[Tensor, "b k"]:
    ordered, order = values.sort(dim=-1)
    count = torch.arange(1, values.shape[-1], device=values.device)
    left = ordered.cumsum(-1)[:, :-1]
    right = ordered.sum(-1, keepdim=True) - left
    # the within-cluster spread is smallest where the between-cluster sum of squares is largest
    between = left.square() / count + right.square() / (values.shape[-1] - count)
    cut = between.argmax(-1, keepdim=True)
    ranks = order.argsort(-1)
    return ranks > cut
