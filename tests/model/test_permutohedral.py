"""The permutohedral lattice: barycentric coordinates, the filter's width, and one lattice by two implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model import dense_crf_kernels, dense_crf_tensor
from model.dense_crf_compiled import CompiledLattice
from model.dense_crf_messages import CHUNK
from model.dense_crf_tensor import TensorLattice
from model.errors import InputError
from model.permutohedral import LatticeGeometry

LARGEST = {2: (30.0, 12.0), 5: (12.0, 7.0, 9.0, 9.0, 9.0)}


def scattered(num_features: int, num_points: int) -> tuple[Tensor, LatticeGeometry]:
    """Points all over the space, the two far corners of it and some that are the same."""
    largest = torch.tensor(LARGEST[num_features])
    features = torch.rand(num_points, num_features) * largest
    features[0], features[1] = 0, largest
    features[-20:] = features[20:40]
    return features, LatticeGeometry.up_to(LARGEST[num_features])


def lifted(features: Tensor, geometry: LatticeGeometry) -> Tensor:
    """The lift by its definition (Adams et al. 2010, section 3.1), float64: coordinate j is a sum minus j times one."""
    scaled = features.double() * torch.tensor(geometry.scales, dtype=torch.float64)
    rest = scaled.flip(1).cumsum(1).flip(1)
    rest = torch.cat([rest, torch.zeros_like(rest[:, :1])], dim=1)
    before = torch.cat([torch.zeros_like(scaled[:, :1]), scaled], dim=1)
    return rest - torch.arange(geometry.num_vertices) * before


def located(features: Tensor, geometry: LatticeGeometry) -> dict[str, tuple[Tensor, Tensor]]:
    """Keys and weights by both implementations."""
    keys = np.empty((len(features), geometry.num_vertices), np.int64)
    weights = np.empty(keys.shape, np.float32)
    scales = tuple(np.float32(scale) for scale in geometry.scales)
    dense_crf_kernels.locate(features.numpy(), scales, geometry.strides, keys, weights)
    return {
        "compiled": (torch.from_numpy(keys), torch.from_numpy(weights)),
        "tensor": dense_crf_tensor.locate(features, geometry),
    }


@pytest.mark.parametrize("num_features", [2, 5])
def test_a_point_is_the_weighted_mean_of_its_corners(num_features: int) -> None:
    features, geometry = scattered(num_features, 500)
    strides = torch.tensor(geometry.strides, dtype=torch.float64)
    packed = (lifted(features, geometry) * strides).sum(1)  # packing is linear, so it keeps weighted means
    assert torch.allclose(lifted(features, geometry).sum(1), torch.zeros(500, dtype=torch.float64), atol=1e-9)
    for keys, weights in located(features, geometry).values():
        assert weights.min() > -1e-5
        torch.testing.assert_close(weights.sum(1), torch.ones(500), rtol=0, atol=1e-6)
        mean = (keys.double() * weights.double()).sum(1)
        assert ((mean - packed).abs() / strides.max()).max() < 1e-4
        assert all(len(set(corners)) == num_features + 1 for corners in keys.tolist())


@pytest.mark.parametrize("num_features", [2, 5])
def test_both_implementations_are_one_lattice(num_features: int) -> None:
    features, geometry = scattered(num_features, 5000)  # more than one block, and tables that grow
    (keys, weights), (other_keys, other_weights) = located(features, geometry).values()
    assert torch.equal(keys, other_keys)
    torch.testing.assert_close(weights, other_weights, rtol=0, atol=2e-6)
    compiled, tensor = CompiledLattice(features.numpy(), geometry, 2, 3.0), TensorLattice(features, geometry)
    assert compiled.num_lattice_points == tensor.num_lattice_points == len(keys.unique())
    torch.testing.assert_close(torch.from_numpy(compiled.total), 3 * tensor.filtered_ones, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_features", [2, 5])
def test_what_does_not_move_is_left_out_and_nothing_else(num_features: int) -> None:
    """Messages stay those of a full filter, whether all, some or no probabilities have changed."""
    features, geometry = scattered(num_features, 5000)
    compiled, tensor = CompiledLattice(features.numpy(), geometry, 2, 3.0), TensorLattice(features, geometry)
    values = torch.rand(2, 5000)
    for first_changed in (0, 2500, 4990, 5000):
        values[:, first_changed:] = torch.rand(2, 5000 - first_changed)
        stale = np.arange(-(-5000 // CHUNK)) >= first_changed // CHUNK
        changed = np.zeros_like(stale)
        compiled.pass_on(values.numpy(), stale, changed)
        torch.testing.assert_close(torch.from_numpy(compiled.messages), 3 * tensor.filter(values), rtol=0, atol=1e-4)
        assert changed.any() == (first_changed < 5000)


def test_the_filter_has_unit_width_in_every_direction() -> None:
    """Covariance of the response to single points on a fine grid, averaged over where they fall in their simplex."""
    side, spacing = 48, 0.25
    steps = torch.arange(side) * spacing
    features = torch.stack([steps.repeat(side), steps.repeat_interleave(side)], dim=1)
    lattice = TensorLattice(features, LatticeGeometry.up_to([float(steps[-1])] * 2))
    centres = [row * side + column for row in range(21, 27) for column in range(21, 27)]
    responses = lattice.filter(torch.eye(len(features))[centres])
    shares = responses / responses.sum(1, keepdim=True)
    offsets = features - features[centres][:, None]  # (centre, point, axis)
    covariance = torch.einsum("cn,cni,cnj->cij", shares, offsets, offsets).mean(0)
    torch.testing.assert_close(covariance, torch.eye(2), rtol=0, atol=0.05)


@pytest.mark.parametrize("largest", [(1e8, 1.0), (1e5, 1e5, 1e4, 1e4, 1e4)])
def test_a_lattice_too_fine_is_refused(largest: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="use larger standard deviations"):
        LatticeGeometry.up_to(largest)
