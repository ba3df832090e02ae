"""Clusterings against scikit-learn, and as a stand-in for a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn import functional as F

from model.clustering import KeyClustering, k_means, leading_eigenvectors, spectral_clusters
from model.errors import InputError
from model.methods.base import Method
from model.types import FramePair, Segmentation


def blobs(num_clusters: int, *, spread: float, seed: int, num_points: int = 300, channels: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_clusters, channels, generator=generator)
    which = torch.randint(num_clusters, (num_points,), generator=generator)
    return centres[which] + spread * torch.randn(num_points, channels, generator=generator)


def inertia(points: Tensor, labels: Tensor) -> float:
    groups = [points[labels == label] for label in labels.unique()]
    return float(sum(((group - group.mean(0)) ** 2).sum() for group in groups))


@pytest.mark.parametrize("num_clusters", [2, 4])
@pytest.mark.parametrize("spread", [0.1, 0.8])
def test_k_means_explains_as_much_as_scikit_learns(num_clusters: int, spread: float) -> None:
    points = torch.stack([blobs(num_clusters, spread=spread, seed=seed) for seed in range(3)])
    for image, labels in zip(points, k_means(points, num_clusters), strict=True):
        theirs = KMeans(num_clusters, n_init=10, random_state=0).fit(image.numpy())
        assert inertia(image, labels) <= 1.001 * theirs.inertia_
        if spread == 0.1:
            assert adjusted_rand_score(theirs.labels_, labels.numpy()) == 1


@pytest.mark.parametrize("num_clusters", [2, 3])
def test_spectral_clusters_are_scikit_learns(num_clusters: int) -> None:
    points = torch.stack([blobs(num_clusters, spread=0.3, seed=seed, num_points=150) for seed in range(2)])
    for image, labels in zip(points, spectral_clusters(points, num_clusters), strict=True):
        unit = F.normalize(image.double(), dim=-1)
        affinity = (unit @ unit.T).clamp_min(1e-6).numpy()
        theirs = SpectralClustering(num_clusters, affinity="precomputed", random_state=0).fit_predict(affinity)
        assert adjusted_rand_score(theirs, labels.numpy()) > 0.97


@pytest.mark.parametrize("spread", [0.3, 50.0], ids=["eigenvalues fall off", "they hardly do"])
def test_leading_eigenvectors_are_those_of_the_full_decomposition(spread: float) -> None:
    unit = F.normalize(blobs(4, spread=spread, seed=1, num_points=400, channels=64).double(), dim=-1)
    matrix = (unit @ unit.T).clamp_min(1e-6)
    vectors = leading_eigenvectors(matrix, 3)
    expected = torch.linalg.eigh(matrix)[1][:, -3:]
    torch.testing.assert_close((vectors.T @ expected).abs(), torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("cluster", [k_means, spectral_clusters])
def test_an_image_is_clustered_alike_in_any_batch(cluster: Callable[[Tensor, int], Tensor]) -> None:
    points = torch.stack([blobs(3, spread=0.5, seed=seed, num_points=80) for seed in range(3)])
    together = cluster(points, 3)
    alone = torch.cat([cluster(points[index : index + 1], 3) for index in range(3)])
    assert torch.equal(together, alone)
    assert torch.equal(together, cluster(points, 3))


def test_points_that_are_all_alike_are_one_cluster_and_no_error() -> None:
    labels = k_means(torch.ones(1, 12, 3), 3)
    assert labels.shape == (1, 12)
    two_places = torch.tensor([0.0, 0, 0, 5, 5, 5]).view(1, 6, 1)
    found = k_means(two_places, 2)[0]
    assert found[0] != found[3]
    assert len(set(found[:3].tolist())) == len(set(found[3:].tolist())) == 1


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(InputError, match="expected 1 to 3"):
        k_means(torch.rand(1, 3, 2), 4)
    with pytest.raises(InputError, match="expected 2 to 3"):
        spectral_clusters(torch.rand(1, 3, 2), 1)
    with pytest.raises(InputError, match="num_segments=1"):
        KeyClustering(colours, algorithm="k-means", num_segments=1)
    with pytest.raises(InputError, match="expected one of k-means, spectral"):
        KeyClustering(colours, algorithm="ward", num_segments=2)


def colours(images: Tensor, segmentation: Segmentation, flow: Tensor | None = None) -> Tensor:
    return F.avg_pool2d(images, 4) / 255


@pytest.mark.parametrize("algorithm", ["k-means", "spectral"])
def test_an_object_that_looks_unlike_the_rest_becomes_the_first_segment(algorithm: str) -> None:
    images = torch.zeros(2, 3, 48, 64)
    images[:, 0] = 200
    images[0, :, 16:32, 20:44] = torch.tensor([10.0, 30, 220]).view(3, 1, 1)
    images[1, :, 8:24, 32:52] = torch.tensor([10.0, 220, 30]).view(3, 1, 1)
    method = KeyClustering(colours, algorithm=algorithm, num_segments=2)
    assert isinstance(method, Method)
    segmentation = method.segment(images)
    assert segmentation.probabilities.shape == (2, 2, 12, 16)
    assert torch.equal(segmentation.probabilities.sum(1), torch.ones(2, 12, 16))
    assert np.array_equal(segmentation.probabilities[0, 0].nonzero().amin(0), [4, 5])
    assert segmentation.probabilities[0, 0].sum() == 4 * 6
    assert segmentation.probabilities[1, 0].sum() == 4 * 5
    assert segmentation.features is not None


def test_a_clustering_is_not_trained() -> None:
    method = KeyClustering(colours, algorithm="k-means", num_segments=2)
    pair = FramePair(image=torch.zeros(3, 8, 8, dtype=torch.uint8), flow=torch.zeros(2, 8, 8), gap=1)
    with pytest.raises(InputError, match="not trained"):
        method.prepare(pair)
    with pytest.raises(InputError, match="no training loss"):
        method.training_loss({})
