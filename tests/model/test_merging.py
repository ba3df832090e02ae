"""Spectral merging against hand-made groups and scikit-learn."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import SpectralClustering
from sklearn.manifold import spectral_embedding
from torch import Tensor
from torch.nn import functional as F

from model.errors import InputError
from model.merging import (
    AFFINITY_FLOOR,
    PAPER_AFFINITY_FLOOR,
    affinity_matrix,
    merge_segments,
    pool_features,
    spectral_bipartition,
)

FEATURES = torch.tensor([[1, 0, 0, 0.1], [0.9, 0.2, 0, 0.1], [0, 1, 0.3, 0], [0, 0.8, 0.5, 0.1]])


def test_affinities_of_the_fact_sheet() -> None:
    affinity = affinity_matrix(F.normalize(FEATURES, dim=1)[None])[0]
    expected = {
        (0, 1): 0.976408,
        (0, 2): 1e-6,
        (0, 3): 0.010489,
        (1, 2): 0.206570,
        (1, 3): 0.193232,
        (2, 3): 0.959156,
    }
    for (i, j), value in expected.items():
        assert affinity[i, j].item() == pytest.approx(value, abs=6e-7)
    assert spectral_bipartition(affinity[None])[0].tolist() == [False, False, True, True]


def pooled_random(num_segments: int) -> Tensor:
    """Features without any structure under soft masks without any: [60, K, 32]."""
    generator = torch.Generator().manual_seed(num_segments)
    masks = (2 * torch.randn(60, num_segments, 12, 20, generator=generator)).softmax(1)
    return pool_features(masks.double(), torch.randn(60, 32, 12, 20, generator=generator).double())


def pooled_clusters(num_segments: int) -> Tensor:
    """Features of two things, such as follow a ReLU, under soft masks of parts of either: [60, K, 16]."""
    generator = torch.Generator().manual_seed(num_segments)
    part = torch.randint(0, num_segments, (60, 12, 20), generator=generator)
    thing = torch.randint(0, 2, (60, num_segments), generator=generator).gather(1, part.flatten(1)).view(part.shape)
    colours = torch.rand(60, 2, 16, generator=generator)
    noise = torch.rand(60, 16, 12, 20, generator=generator)
    features = colours[torch.arange(60)[:, None, None], thing].permute(0, 3, 1, 2) + noise
    logits = 4 * F.one_hot(part, num_segments).permute(0, 3, 1, 2)
    return pool_features(
        (logits + torch.randn(logits.shape, generator=generator)).softmax(1).double(), features.double()
    )


def test_agrees_with_scikit_learn_on_99_percent_of_affinities() -> None:
    """And where not, scikit-learn's random starts missed the better 2-means: its cost is above ours."""
    agreed = total = 0
    for pooled, num_segments, floor in product(
        (pooled_random, pooled_clusters), (3, 4, 5), (AFFINITY_FLOOR, PAPER_AFFINITY_FLOOR)
    ):
        affinity = affinity_matrix(pooled(num_segments), floor=floor)
        for graph, ours in zip(affinity.numpy(), spectral_bipartition(affinity).numpy(), strict=True):
            clustering = SpectralClustering(2, affinity="precomputed", random_state=0).fit_predict(graph)
            theirs = (clustering != clustering[0]).astype(bool)
            total += 1
            agreed += bool((theirs == ours).all())
            assert (theirs == ours).all() or two_means_cost(graph, ours) < two_means_cost(graph, theirs)
    assert agreed >= 0.99 * total


def two_means_cost(graph: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Cost of a grouping in scikit-learn's own embedding."""
    embedding = spectral_embedding(graph, n_components=2, random_state=0, drop_first=False)
    groups = (embedding[labels], embedding[~labels])
    return float(sum(((group - group.mean(0)) ** 2).sum() for group in groups))


@pytest.mark.parametrize("floor", [AFFINITY_FLOOR, PAPER_AFFINITY_FLOOR])
def test_segments_of_nothing_in_common_still_make_two_groups(floor: float) -> None:
    """Two pairs that are as good as disconnected, a segment that is empty, and segments that are all unlike."""
    pairs = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1.0], [-0.1, 0, 0.9]])
    empty = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0.8, 0.2, 0], [0, 0, 0]])
    unlike = torch.cat([torch.eye(3), -torch.ones(1, 3)])
    affinity = affinity_matrix(F.normalize(torch.stack([pairs, empty, unlike]), dim=2), floor=floor)
    groups = spectral_bipartition(affinity)
    assert groups[:2].tolist() == [[False, False, True, True], [False, False, False, True]]
    assert 1 <= groups[2].sum() <= 3


@pytest.mark.parametrize("floor", [0.0, -1e-6, 1.0, float("nan")])
def test_a_floor_that_connects_nothing_is_refused(floor: float) -> None:
    with pytest.raises(InputError, match=r"floor=.*1e-06 \(released code\) or 1e-12 \(paper\)"):
        merge_segments(torch.rand(1, 3, 4, 4), torch.rand(1, 5, 2, 2), floor=floor)


def test_the_floor_decides_between_segments_that_are_all_unlike() -> None:
    """Below the paper's floor no affinity of these is lifted, above the code's all are the same."""
    vectors = torch.tensor([[1.0, 0, 0], [1e-8, 1.0, 0], [0, 1e-9, 1.0]], dtype=torch.float64)
    probabilities = torch.eye(3, dtype=torch.float64)[None, :, None]  # one pixel a segment
    features = vectors.T[None, :, None]
    groups = merge_segments(probabilities, features, floor=PAPER_AFFINITY_FLOOR)
    assert groups[0].tolist() == [False, False, True]
    lifted = affinity_matrix(pool_features(probabilities, features), floor=AFFINITY_FLOOR)[0]
    assert lifted[~torch.eye(3, dtype=torch.bool)].unique().tolist() == [AFFINITY_FLOOR]


def test_merging_pools_features_under_masks_whatever_the_order() -> None:
    labels = torch.arange(4).repeat_interleave(6).reshape(1, 4, 6)
    probabilities = F.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    features = FEATURES[labels].permute(0, 3, 1, 2)
    torch.testing.assert_close(pool_features(probabilities, features)[0], F.normalize(FEATURES, dim=1))
    assert merge_segments(probabilities, features)[0].tolist() == [False, False, True, True]
    order = [2, 0, 3, 1]
    assert merge_segments(probabilities[:, order], features)[0].tolist() == [False, True, False, True]


def test_two_segments_are_left_alone_and_one_is_refused() -> None:
    assert merge_segments(torch.rand(3, 2, 4, 4), torch.rand(3, 5, 2, 2)).tolist() == [[False, True]] * 3
    with pytest.raises(InputError, match="K >= 2"):
        spectral_bipartition(torch.ones(1, 1, 1))
