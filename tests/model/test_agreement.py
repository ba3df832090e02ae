"""Agreement of label maps: against scikit-learn, and where the optical flow is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from torch import Tensor
from torch.nn.functional import one_hot

from model.agreement import agreement_along_flow, cohens_kappa

HEIGHT, WIDTH = 12, 20


def soft(labels: Tensor, num_labels: int = 3) -> Tensor:
    """Probabilities [b, k, h, w] whose largest is the label."""
    return one_hot(labels, num_labels).permute(0, 3, 1, 2).float()


def shift(columns: int, rows: int = 0) -> Tensor:
    return torch.tensor([columns, rows]).float()[None, :, None, None].repeat(1, 1, HEIGHT, WIDTH)


@given(seed=st.integers(0, 2**31), num_labels=st.integers(2, 5), noise=st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_kappa_is_that_of_scikit_learn(seed: int, num_labels: int, noise: float) -> None:
    random = np.random.default_rng(seed)
    first = random.integers(0, num_labels, (2, 9, 11))
    second = np.where(random.random(first.shape) < noise, random.integers(0, num_labels, first.shape), first)
    valid = random.random(first.shape) < 0.7
    found = cohens_kappa(*(torch.from_numpy(array) for array in (first, second)), num_labels, torch.from_numpy(valid))
    for index, kappa in enumerate(found.tolist()):
        counted = valid[index]
        expected = cohen_kappa_score(
            first[index][counted], second[index][counted], labels=np.arange(num_labels).tolist()
        )
        assert kappa == pytest.approx(expected, abs=1e-12)


def test_one_segment_everywhere_shows_nothing_by_agreeing() -> None:
    labels, everywhere = torch.ones(1, HEIGHT, WIDTH, dtype=torch.long), torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    assert cohens_kappa(labels, labels, 3, everywhere).tolist() == [0]
    assert cohens_kappa(labels, labels, 3, ~everywhere).tolist() == [0]


def test_segments_that_move_as_the_flow_says_agree_wholly() -> None:
    labels = torch.randint(0, 3, (1, HEIGHT, WIDTH))
    later = labels.roll((2, 3), (1, 2))  # rows, columns
    assert agreement_along_flow(soft(labels), soft(later), shift(3, 2)).item() == pytest.approx(1)
    assert agreement_along_flow(soft(labels), soft(later), shift(0, 0)).item() < 0.2


def test_pixels_whose_flow_leads_nowhere_are_not_counted() -> None:
    labels = torch.randint(0, 3, (1, HEIGHT, WIDTH))
    later = labels.clone()
    later[..., :5] = (labels[..., :5] + 1) % 3  # wrong there
    flow = shift(0)
    assert agreement_along_flow(soft(labels), soft(later), flow).item() < 0.8
    for nowhere in (float("nan"), float("inf"), -100.0):
        flow[..., :5] = nowhere
        assert agreement_along_flow(soft(labels), soft(later), flow).item() == pytest.approx(1)
