"""Warping and occlusion: shifts by whole and half pixels, and what AMD's code recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.warp import coverage, occluded, warp
from tests.shared import GOLDEN, shared_or_skip


def uniform(columns: float, rows: float, height: int, width: int) -> Tensor:
    """The same displacement everywhere."""
    return torch.tensor([columns, rows], dtype=torch.float64)[None, :, None, None].expand(1, 2, height, width)


@given(columns=st.integers(-12, 12), rows=st.integers(-9, 9))
@settings(deadline=None, max_examples=30)
def test_a_whole_shift_moves_pixels_and_repeats_the_border(columns: int, rows: int) -> None:
    image = torch.rand(1, 3, 7, 10, dtype=torch.float64)
    from_row = (torch.arange(7) + rows).clamp(0, 6)
    from_column = (torch.arange(10) + columns).clamp(0, 9)
    expected = image[:, :, from_row][..., from_column]
    warped = warp(image, uniform(columns, rows, 7, 10))
    torch.testing.assert_close(warped, expected, rtol=0, atol=1e-12)


def test_a_fraction_interpolates_and_zeros_fade() -> None:
    image = torch.arange(1.0, 5, dtype=torch.float64).expand(1, 1, 3, 4)
    half = uniform(0.5, 0, 3, 4)
    assert warp(image, half)[0, 0, 1].tolist() == pytest.approx([1.5, 2.5, 3.5, 4.0])
    assert warp(image, half, padding="zeros")[0, 0, 1].tolist() == pytest.approx([1.5, 2.5, 3.5, 2.0])
    assert warp(image, uniform(0, 2.25, 3, 4), padding="zeros")[0, 0, 0].tolist() == pytest.approx([0.75, 1.5, 2.25, 3])


def test_a_single_row_or_column_can_be_warped() -> None:
    image = torch.arange(4.0)[None, None, None]
    assert warp(image, uniform(1, 0, 1, 4).float())[0, 0, 0].tolist() == pytest.approx([1, 2, 3, 3])
    assert warp(image.mT, uniform(0, 1, 4, 1).float())[0, 0, :, 0].tolist() == pytest.approx([1, 2, 3, 3])


def test_the_gradient_of_a_warp_is_the_slope_of_the_image() -> None:
    image = (3 * torch.arange(8.0, dtype=torch.float64)).expand(1, 1, 6, 8)
    flow = uniform(0.3, 0.2, 6, 8).clone().requires_grad_()
    warp(image, flow)[..., :-1, :-1].sum().backward()
    assert flow.grad is not None
    torch.testing.assert_close(flow.grad[0, 0, :-1, :-1], torch.full((5, 7), 3.0, dtype=torch.float64))


def test_coverage_keeps_what_lands_inside() -> None:
    still = coverage(uniform(0, 0, 5, 6))
    assert torch.equal(still, torch.ones(1, 1, 5, 6, dtype=torch.float64))
    right = coverage(uniform(2.25, 0, 5, 6))[0, 0, 2]
    assert right.tolist() == pytest.approx([0, 0, 0.75, 1, 1, 1])
    assert coverage(uniform(0, -4.5, 5, 6)).sum().item() == pytest.approx(0.5 * 6)
    assert coverage(uniform(100, 0, 5, 6)).sum() == 0


def test_only_what_a_moving_square_uncovers_is_occluded() -> None:
    to_here = torch.zeros(1, 2, 12, 20)
    to_here[:, 0, 3:9, 4:10] = 5  # from the other frame to this one
    hidden = occluded(to_here)[0, 0]
    expected = torch.zeros(12, 20, dtype=torch.bool)
    expected[3:9, 4:9] = True  # in the other frame the square is in front of it
    assert torch.equal(hidden, expected)


def test_matches_the_authors_code() -> None:
    with np.load(shared_or_skip(GOLDEN / "amd_warp.npz")) as arrays:
        recorded = {name: torch.from_numpy(arrays[name]) for name in arrays}
    warped = warp(recorded["image2"], recorded["flow_forward"])
    assert (warped - recorded["warped"]).abs().max() <= 1e-6
    hidden = occluded(recorded["flow_backward"])
    assert torch.equal(hidden.float(), recorded["occluded_from_backward"])
    assert 0 < hidden.sum() < hidden.numel()
