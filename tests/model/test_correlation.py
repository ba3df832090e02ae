"""Local correlation against its definition, another implementation, and shifted features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.networks.correlation import RADIUS, local_correlation


def maps(batch: int, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height * 100 + width)
    first, second = torch.randn(2, batch, channels, height, width, generator=generator, dtype=torch.float64)
    return first, second


def by_definition(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """One output at a time."""
    batch, _, height, width = first.shape
    reach = range(-radius, radius + 1)
    out = first.new_zeros(batch, len(reach) ** 2, height, width)
    for y in range(height):
        for x in range(width):
            for channel, (dy, dx) in enumerate((dy, dx) for dy in reach for dx in reach):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    out[:, channel, y, x] = (first[:, :, y, x] * second[:, :, y + dy, x + dx]).mean(1)
    return out


def by_unfolding(first: Tensor, second: Tensor) -> Tensor:
    """All neighbourhoods at once: 81 times the memory of the features."""
    neighbours = F.unfold(second, 2 * RADIUS + 1, padding=RADIUS).unflatten(1, (first.shape[1], -1))
    return torch.einsum("bcn,bcdn->bdn", first.flatten(2), neighbours).unflatten(2, first.shape[2:]) / first.shape[1]


@pytest.mark.parametrize("radius", [0, 1, 4])
def test_equals_its_definition(radius: int) -> None:
    first, second = maps(2, 3, 5, 11)
    torch.testing.assert_close(
        local_correlation(first, second, radius), by_definition(first, second, radius), rtol=0, atol=1e-14
    )


@given(height=st.integers(1, 20), width=st.integers(1, 40))
@settings(deadline=None, max_examples=30)
def test_equals_unfolding_at_any_size(height: int, width: int) -> None:
    first, second = maps(1, 4, height, width)
    torch.testing.assert_close(local_correlation(first, second), by_unfolding(first, second), rtol=0, atol=1e-14)


def test_gradients_are_those_of_unfolding() -> None:
    leaves = [tensor.requires_grad_() for tensor in maps(2, 3, 6, 13)]
    weights = torch.randn(2, 81, 6, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = torch.autograd.grad((weights * local_correlation(*leaves)).sum(), leaves)
    expected = torch.autograd.grad((weights * by_unfolding(*leaves)).sum(), leaves)
    for gradient, true_gradient in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, true_gradient, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (3, -2), (-4, 4)])
def test_the_peak_is_at_the_true_shift(rows: int, columns: int) -> None:
    scene = F.normalize(maps(1, 16, 30, 40)[0], dim=1)
    first = scene[..., 8:20, 8:25]
    second = scene[..., 8 - rows : 20 - rows, 8 - columns : 25 - columns]  # its content moved by (rows, columns)
    peaks = local_correlation(first, second).argmax(1)
    inside = peaks[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
    assert (inside == (rows + RADIUS) * 9 + columns + RADIUS).all()


def test_nothing_is_alike_outside() -> None:
    ones = torch.ones(1, 2, 3, 10)
    volume = local_correlation(ones, ones)
    assert volume[0, 40].eq(1).all()  # no displacement
    assert volume[0, 0].eq(0).all()  # four rows up, of three
    assert volume[0, 44, 1].tolist() == [1.0] * 6 + [0.0] * 4  # four columns to the right
