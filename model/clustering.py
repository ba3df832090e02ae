"""Segments without motion and without training: the keys of a DINO ViT, clustered image by image.

GWM's Table 6 asks what motion adds to features that already know objects: k-means and spectral clustering of the keys
of each image, scored as if they were a network's segments. Both are as scikit-learn defines them, batched over images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from model.clip_evidence import border_strip
from model.errors import InputError
from model.features import FeatureSource
from model.merging import AFFINITY_FLOOR
from model.types import FramePair, LossTerms, Segmentation

ClusteringAlgorithm = Literal["k-means", "spectral"]

NUM_STARTS = 10  # scikit-learn's n_init in SpectralClustering, which GWM's released code calls
MAX_ITERATIONS = 300  # scikit-learn's max_iter of KMeans
_SEED = 0  # of all draws, so that a baseline has one result

_SMALL_MATRIX = 256  # rows, below which all eigenvectors take milliseconds
_EXTRA_VECTORS = 8  # iterated beside those that are wanted, which speeds up these
_MOST_PRODUCTS = 100
_RESIDUAL = 1e-8  # of a unit eigenvector, in double precision


def k_means(
    points: Float[Tensor, "b n c"],
    num_clusters: int,
) -> Int[Tensor, "b n"]:
    """Return the cluster of each point: Lloyd's iterations from k-means++ starts, the start with least inertia.

    A cluster that loses its last point moves to the point farthest from its centre. The result depends on the points
    only, not on what else is in the batch. Raises InputError for fewer points than clusters.
    """
    batch, num_points, _ = points.shape
    if not 1 <= num_clusters <= num_points:
        raise InputError(f"num_clusters={num_clusters}: expected 1 to {num_points}, the number of points")
    centred = points - points.mean(1, keepdim=True)  # distances of small differences keep their digits
    starts = [_spread_start(image, num_clusters) for image in centred]
    centres = torch.stack(starts)  # (b, s, k, c)
    labels, inertia = _assign(centred, centres)
    for _ in range(MAX_ITERATIONS):
        centres = _means(centred, labels, centres)
        moved, inertia = _assign(centred, centres)
        if torch.equal(moved, labels):
            break
        labels = moved
    best = inertia.argmin(1)
    return labels[torch.arange(batch, device=points.device), best]


def spectral_clusters(points: Float[Tensor, "b n c"], num_clusters: int) -> Int[Tensor, "b n"]:
    """Return the cluster of each point by normalised cuts of the graph of cosine similarities, floored.

    k-means on the leading eigenvectors of the normalised Laplacian over the roots of the degrees, as many as clusters
    (von Luxburg, 2007; scikit-learn's SpectralClustering with a precomputed affinity). Cost grows with n cubed.
    """
    if not 2 <= num_clusters <= points.shape[1]:
        raise InputError(f"num_clusters={num_clusters}: expected 2 to {points.shape[1]}, the number of points")
    return torch.cat([_spectral_clusters(image, num_clusters) for image in points.split(1)])


def leading_eigenvectors(matrix: Float[Tensor, "n n"], count: int) -> Float[Tensor, "n m"]:
    """Return the eigenvectors of the ``count`` largest eigenvalues of a symmetric matrix, ascending.

    Subspace iteration with Rayleigh-Ritz (Golub and Van Loan, section 8.2): quick where eigenvalues fall off, as those
    of image affinities do. Where it does not converge, or the matrix is small, all eigenvectors are computed.
    """
    size = len(matrix)
    if size > _SMALL_MATRIX:
        generator = torch.Generator().manual_seed(_SEED)
        start = torch.randn(size, count + _EXTRA_VECTORS, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(start.to(matrix)).Q
        for _ in range(_MOST_PRODUCTS):
            image = matrix @ basis
            values, rotation = torch.linalg.eigh(basis.mT @ image)
            vectors, mapped = (basis @ rotation)[:, -count:], (image @ rotation)[:, -count:]
            if float((mapped - vectors * values[-count:]).norm(dim=0).max()) < _RESIDUAL:
                return vectors
            basis = torch.linalg.qr(image).Q
    return torch.linalg.eigh(matrix)[1][:, -count:]


class KeyClustering:
    """Clusters the features of each image; implements ``model.methods.base.Method`` as far as evaluation needs it.

    Clusters have no names that last from image to image, so they are ordered by how much of the border they own: the
    foreground of a whole clip can then be a set of segments. That order sees no label.
    """

    def __init__(self, features: FeatureSource, *, algorithm: str, num_segments: int) -> None:
        if algorithm not in get_args(ClusteringAlgorithm):
            raise InputError(f"algorithm={algorithm!r}: expected one of {', '.join(get_args(ClusteringAlgorithm))}")
        if num_segments < 2:
            raise InputError(f"num_segments={num_segments}: expected 2 or more, foreground and background")
        self.num_segments = num_segments
        self._features = features
        self._algorithm = algorithm

    def prepare(self, pair: FramePair) -> dict[str, Tensor]:
        """Refuse: there is nothing to train."""
        raise InputError("a clustering of features is not trained: evaluate it as it is")

    def training_loss(self, batch: Mapping[str, Tensor], progress: float = 1.0) -> LossTerms:
        """Refuse: there is nothing to train."""
        raise InputError("a clustering of features has no training loss: evaluate it as it is")

    @torch.no_grad()
    def segment(self, images: Float[Tensor, "b 3 H W"]) -> Segmentation:
        """Return hard segments at the resolution of the features, with the features to merge them by."""
        whole = torch.full((len(images), 2, 1, 1), 0.5, device=images.device)
        features = self._features(images, Segmentation(probabilities=whole))
        points = F.normalize(features.flatten(2).mT.float(), dim=-1)  # (b, n, c)
        cluster = k_means if self._algorithm == "k-means" else spectral_clusters
        labels = cluster(points, self.num_segments).unflatten(1, features.shape[-2:])
        masks = F.one_hot(labels, self.num_segments).permute(0, 3, 1, 2).float()
        return Segmentation(probabilities=_ordered_by_border(masks), features=features.float())


def _spread_start(points: Float[Tensor, "n c"], num_clusters: int) -> Float[Tensor, "s k c"]:
    """Draw starting centres by k-means++ (Arthur and Vassilvitskii, 2007): far points are likely to be next."""
    generator = torch.Generator().manual_seed(_SEED)
    draws = torch.rand(num_clusters, NUM_STARTS, generator=generator, dtype=torch.float64)
    first = (draws[0] * len(points)).long().clamp_max(len(points) - 1)
    centres = points[first.to(points.device)][:, None]  # (s, 1, c)
    for step in range(1, num_clusters):
        distance = _squared_distances(points[None], centres[None])[0].amin(-1).double()  # (s, n)
        distance = distance + (distance.sum(-1, keepdim=True) == 0)  # all points alike: any is as far
        cumulative = distance.cumsum(-1)
        wanted = draws[step].to(points.device)[:, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, wanted, right=True).clamp_max(len(points) - 1)
        centres = torch.cat([centres, points[chosen]], dim=1)
    return centres


def _assign(
    points: Float[Tensor, "b n c"], centres: Float[Tensor, "b s k c"]
) -> tuple[Int[Tensor, "b s n"], Float[Tensor, "b s"]]:
    """Return the nearest centre of every point for every start, and the inertia."""
    distance, labels = _squared_distances(points, centres).min(-1)
    return labels, distance.double().sum(-1)


def _means(
    points: Float[Tensor, "b n c"], labels: Int[Tensor, "b s n"], centres: Float[Tensor, "b s k c"]
) -> Float[Tensor, "b s k c"]:
    """Return the mean of each cluster; empty ones take the points that their start explains worst, one each."""
    member = F.one_hot(labels, centres.shape[2]).to(points)  # (b, s, n, k)
    count = member.sum(2)[..., None]  # (b, s, k, 1)
    means = torch.einsum("bsnk,bnc->bskc", member, points) / count.clamp_min(1)
    if bool((count > 0).all()):
        return means
    worst = _squared_distances(points, centres).amin(-1).argsort(dim=-1, descending=True)  # (b, s, n)
    empty = count[..., 0] == 0
    place = empty.cumsum(-1) - 1  # of each empty cluster among those of its start
    for image, start, cluster in empty.nonzero().tolist():
        means[image, start, cluster] = points[image, worst[image, start, place[image, start, cluster]]]
    return means


def _squared_distances(points: Float[Tensor, "b n c"], centres: Float[Tensor, "b s k c"]) -> Float[Tensor, "b s n k"]:
    product = torch.einsum("bnc,bskc->bsnk", points, centres)
    lengths = points.square().sum(-1)[:, None, :, None] + centres.square().sum(-1)[:, :, None]
    return (lengths - 2 * product).clamp_min(0)


def _spectral_clusters(points: Float[Tensor, "1 n c"], num_clusters: int) -> Int[Tensor, "1 n"]:
    unit = F.normalize(points[0].double(), dim=-1)
    weights = (unit @ unit.mT).clamp_min(AFFINITY_FLOOR)
    weights.fill_diagonal_(0)
    root_degree = weights.sum(-1).sqrt()
    vectors = leading_eigenvectors(weights / root_degree[:, None] / root_degree[None], num_clusters)
    embedding = vectors / root_degree[:, None]
    return k_means(embedding[None], num_clusters)


def _ordered_by_border(masks: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """Order segments by how much of the image's border they own, least first."""
    border = (masks * border_strip(*masks.shape[-2:], device=masks.device)).sum((2, 3))
    order = border.argsort(dim=1, stable=True)
    return masks.gather(1, order[:, :, None, None].expand_as(masks))
