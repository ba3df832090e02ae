"""Spectral merging against hand-made groups and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import SpectralClustering
from torch.nn import functional as F

from model.errors import InputError
from model.merging import affinity_matrix, merge_segments, pool_features, spectral_bipartition

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


@pytest.mark.parametrize("num_segments", [3, 4, 5])
def test_agrees_with_scikit_learn(num_segments: int) -> None:
    """On pooled-like features (non-negative, clustered) the two agree on 99 % of graphs."""
    generator = np.random.default_rng(num_segments)
    centres = generator.random((60, 2, 16))
    labels = generator.integers(0, 2, (60, num_segments))
    vectors = centres[np.arange(60)[:, None], labels] + 0.25 * generator.random((60, num_segments, 16))
    affinity = affinity_matrix(F.normalize(torch.from_numpy(vectors), dim=2))
    ours = spectral_bipartition(affinity).numpy()
    agree = 0
    for graph, mine in zip(affinity.numpy(), ours, strict=True):
        theirs = SpectralClustering(2, affinity="precomputed", random_state=0).fit_predict(graph).astype(bool)
        agree += bool((theirs ^ theirs[0] == mine).all())
    assert agree >= 59  # 99 %, rounded down


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
