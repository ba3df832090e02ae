"""Moments of a large flow under upsampled masks, taken on small grids, exactly.

Bilinear upsampling is linear: <U m, g> = <m, U' g>. With g folded onto the masks' *pixels* once, U' g, a moment of
any upsampled mask costs a sum over the small grid. All that is folded here is separable, U' g = U_y' (g) U_x, so that
monomials multiply the weights of each axis and not the image.

For a product of two upsampled masks the same holds on a grid with *midpoints*, 2h - 1 by 2w - 1 nodes. Between four
neighbouring pixels an upsampled mask is bilinear and a product of two is biquadratic, which nine values determine: at
the corners, the midpoints of the sides and the centre. With r the masks refined to that grid,

    (U m)(U m') = N_y (r * r') N_x'          N: the weights of quadratic interpolation, three per pixel of the flow
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from model.losses.motion_models import MotionModel, axis_powers

Grid = Literal["pixels", "midpoints"]
"""What is folded for: masks, or products of two masks."""


def fold_products(
    flow: Float[Tensor, "b 2 H W"], size: tuple[int, int], model: MotionModel, grid: Grid
) -> Float[Tensor, "b 2 p h w"]:
    """Fold the products of both flow components and the p monomials onto a grid over ``size`` rows and columns."""
    height, width = flow.shape[-2:]
    place = (flow.device, flow.dtype)
    num_powers = model.degree + 1
    horizontal = _folding_matrix(width, size[1], num_powers, grid, *place)
    vertical = [_folding_matrix(height, size[0], count, grid, *place) for count in range(num_powers, 0, -1)]
    num_columns = horizontal.shape[0] // num_powers
    num_rows = vertical[-1].shape[0]
    folded = flow.new_empty(len(flow) * 2, model.num_terms * num_rows, num_columns)
    for image, products in zip(flow.flatten(0, 1), folded, strict=True):
        by_power = (horizontal @ image.T.contiguous()).unflatten(0, (num_powers, num_columns))
        parts = products.split([len(matrix) for matrix in vertical])  # terms lie by powers of x, then of y
        for columns, matrix, part in zip(by_power, vertical, parts, strict=True):
            torch.mm(matrix, columns.T.contiguous(), out=part)
    return folded.view(len(flow), 2, model.num_terms, num_rows, num_columns)


@lru_cache(maxsize=32)
def folded_powers(
    full: int, small: int, degree: int, grid: Grid, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "n d"]:
    """Return the powers 0..degree of one axis of the large grid, folded onto an axis of the small one."""
    with torch.inference_mode(False):  # what is kept here must serve training too, whoever asks first
        powers = axis_powers(full, degree, device=torch.device("cpu"), dtype=torch.float64)
        return (_WEIGHTS[grid](full, small).mT @ powers).to(device, dtype)


@lru_cache(maxsize=32)
def _folding_matrix(
    full: int, small: int, num_powers: int, grid: Grid, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return one axis' weights times each power of its coordinate, transposed: a block of rows per power.

    A column has two or three entries a power. CPUs gain from leaving out the rest; GPUs multiply it faster.
    """
    with torch.inference_mode(False):
        powers = axis_powers(full, num_powers - 1, device=torch.device("cpu"), dtype=torch.float64)
        matrix = (powers.mT[:, None] * _WEIGHTS[grid](full, small).mT).flatten(0, 1).to(device, dtype)
        return matrix if matrix.is_cuda else matrix.to_sparse()


def bilinear_weights(full: int, small: int) -> Float[Tensor, "full small"]:
    """Return U of one axis, float64: bilinear interpolation without aligned corners, as the released code upsamples."""
    identity = torch.eye(small, dtype=torch.float64)[None, None]
    return F.interpolate(identity, size=(full, small), mode="bilinear", align_corners=False)[0, 0]


def nodal_weights(full: int, small: int) -> Float[Tensor, "full nodes"]:
    """Return N of one axis, float64: products of upsampled maps from products of refined ones.

    For two maps a, b of one axis, (U a)(U b) is a sum over pixels of U_j^2 a_j b_j and over neighbours of
    U_j U_j+1 (a_j b_j+1 + a_j+1 b_j). Four times the midpoint's product, (a_j + a_j+1)(b_j + b_j+1), is that bracket
    and the two pixels' own products, which are taken off again.
    """
    weights = bilinear_weights(full, small)
    neighbours = weights[:, 1:] * weights[:, :-1]
    nodal = weights.new_zeros(full, 2 * small - 1)
    nodal[:, ::2] = weights.square()
    nodal[:, 1::2] = 4 * neighbours
    nodal[:, :-1:2] -= neighbours
    nodal[:, 2::2] -= neighbours
    return nodal


_WEIGHTS = {"pixels": bilinear_weights, "midpoints": nodal_weights}


def refine(maps: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h2 w2"]:
    """Put the mean of its neighbours between every two pixels: 2h - 1 rows and 2w - 1 columns."""
    height, width = maps.shape[-2:]
    refined = maps.new_empty(*maps.shape[:2], 2 * height - 1, 2 * width - 1)
    refined[..., ::2, ::2] = maps
    refined[..., ::2, 1::2] = (maps[..., 1:] + maps[..., :-1]) / 2
    refined[..., 1::2, :] = (refined[..., 2::2, :] + refined[..., :-1:2, :]) / 2
    return refined


def refine_adjoint(refined: Float[Tensor, "b k h2 w2"]) -> Float[Tensor, "b k h w"]:
    """Apply the transpose of ``refine``."""
    between = refined[..., 1::2, :] / 2
    rows = refined[..., ::2, :].clone()
    rows[..., 1:, :] += between
    rows[..., :-1, :] += between
    between = rows[..., 1::2] / 2
    maps = rows[..., ::2].clone()
    maps[..., 1:] += between
    maps[..., :-1] += between
    return maps
