"""Image measures against their definitions, closed cases and recorded numbers of the reference computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.border_rule import border_contact, foreground_of_two
from model.errors import InputError
from model.image_metrics import f_beta_above, score_image, thresholds

ROWS, COLUMNS = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")


def synthetic_masks() -> Tensor:
    """Three soft masks of 6x8 pixels given by formulas, float64, and the numbers that others computed of them."""
    i, j = ROWS.double(), COLUMNS.double()
    logits = torch.stack([torch.sin(0.7 * i + 0.3 * j), torch.cos(0.5 * i - 0.4 * j), 0.2 * i - 0.1 * j])
    return logits.softmax(0)


def f_by_definition(soft: np.ndarray, annotation: np.ndarray, level: float) -> float:
    mask = soft > level
    correct = (mask & annotation).sum()
    precision = correct / mask.sum() if mask.any() else 1.0
    recall = correct / annotation.sum() if annotation.any() else 1.0
    return 1.3 * precision * recall / (0.3 * precision + recall) if precision + recall else 0.0


def test_recorded_numbers() -> None:
    soft = synthetic_masks()[0]
    assert soft[0, 0].item() == pytest.approx(0.21194156, abs=1e-8)
    target = (ROWS + COLUMNS) % 3 == 0
    scores = score_image(soft, target)
    assert scores.f_curve.max().item() == pytest.approx(0.41489362, abs=1e-8)
    assert scores.f_beta == pytest.approx(0.28260870, abs=1e-8)
    assert scores.j == pytest.approx(0.13636364, abs=1e-8)


def test_recorded_border_contact() -> None:
    masks = synthetic_masks()
    groups = torch.stack([masks[0] + masks[1], masks[2]])
    assert border_contact(groups).tolist() == pytest.approx([4.0, 2.44991287], abs=1e-6)  # which was taken in float32
    assert foreground_of_two(groups) == 1
    assert foreground_of_two(groups.flip(0)) == 0


def test_border_contact_of_rectangles() -> None:
    masks = torch.zeros(3, 10, 20)
    masks[0] = 1
    masks[1, :, :2] = 1  # the left side, and 2 of 20 columns of the upper and the lower strip
    masks[2, 3:6, 5:9] = 1
    assert border_contact(masks).tolist() == pytest.approx([4.0, 1 + 0.1 + 0.1, 0.0])
    assert foreground_of_two(torch.stack([masks[0], masks[0]])) == 1  # a tie


@given(
    seed=st.integers(0, 2**31),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    levels=st.sampled_from([1, 4, 255]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(deadline=None, max_examples=60)
def test_f_follows_its_definition_at_every_threshold(
    seed: int, density: float, levels: int, dtype: torch.dtype
) -> None:
    """Few levels put many probabilities exactly on thresholds, where a pixel must not count as above."""
    generator = np.random.default_rng(seed)
    soft = torch.from_numpy(generator.integers(0, levels + 1, (5, 7)) / levels).to(dtype)
    annotation = torch.from_numpy(generator.random((5, 7)) < density)
    found = f_beta_above(soft, annotation, thresholds(dtype))
    expected = [f_by_definition(soft.numpy(), annotation.numpy(), level) for level in thresholds(dtype).numpy()]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    assert found.dtype == torch.float64


def test_closed_cases() -> None:
    empty, full = torch.zeros(4, 6), torch.ones(4, 6)
    left = torch.zeros(4, 6)
    left[:, :3] = 1
    perfect = score_image(left, left > 0)
    assert (perfect.accuracy, perfect.j, perfect.f_beta, perfect.mean_absolute_error) == (1, 1, 1, 0)
    assert perfect.f_curve.tolist() == [1] * 254
    everything = score_image(full, left > 0)
    assert (everything.accuracy, everything.j, everything.mean_absolute_error) == (0.5, 0.5, 0.5)
    assert everything.f_beta == pytest.approx(1.3 * 0.5 / (0.3 * 0.5 + 1))
    nothing = score_image(empty, left > 0)
    assert (nothing.j, nothing.f_beta) == (0, 0)  # precision 1, recall 0
    both_empty = score_image(empty, empty > 0)
    assert (both_empty.accuracy, both_empty.j, both_empty.f_beta) == (1, 0, 1)
    assert score_image(torch.full((4, 6), 0.5), left > 0).accuracy == 0.5  # 0.5 itself is background
    assert score_image(torch.full((4, 6), 0.25), left > 0).mean_absolute_error == pytest.approx(0.5)


def test_unusable_masks_are_refused() -> None:
    target = torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises((InputError, TypeError), match=r"\(2, 3\)|\[2,3\]"):  # the shape check of the tests is first
        score_image(torch.zeros(2, 4), target)
    with pytest.raises(InputError, match="not finite"):
        score_image(torch.full((2, 3), torch.nan), target)
