"""Parametric motion of a segment: a polynomial in the pixel's coordinates, the same for both flow components.

GWM, section 3.2: the flow of a segment is constant, affine or quadratic in (x, y). Coordinates here are centred,
[-1, 1] across the image. That spans the same polynomials as the [0, 1) rows and columns of the authors' code, so fits
and losses are equal, and the Gram matrices are far better conditioned.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.errors import InputError

MotionModelName = Literal["constant", "affine", "quadratic"]

_MAX_DEGREE: dict[str, int] = {"constant": 0, "affine": 1, "quadratic": 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionModel:
    """Monomials x^a y^b with a + b <= degree, by powers of x and then of y.

    degree: 0 constant, 1 affine, 2 quadratic.
    x_powers, y_powers: exponents of each of the p basis functions; x runs along columns, y along rows.
    """

    degree: int
    x_powers: Int[Tensor, " p"]
    y_powers: Int[Tensor, " p"]

    @property
    def num_terms(self) -> int:
        """Number of basis functions p: 1, 3 or 6."""
        return len(self.x_powers)


@lru_cache(maxsize=8)
def motion_model(name: str) -> MotionModel:
    """Return the motion model called ``name``; raises InputError for an unknown name."""
    if name not in _MAX_DEGREE:
        raise InputError(f"motion_model={name!r}: expected one of {', '.join(get_args(MotionModelName))}")
    degree = _MAX_DEGREE[name]
    powers = [(a, b) for a in range(degree + 1) for b in range(degree + 1 - a)]
    with torch.inference_mode(False):  # what is kept here must serve training too, whoever asks first
        return MotionModel(
            degree=degree,
            x_powers=torch.tensor([a for a, _ in powers]),
            y_powers=torch.tensor([b for _, b in powers]),
        )


def centred_coordinates(size: int, *, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " n"]:
    """Return the positions of ``size`` pixel centres on an axis that runs from -1 to 1."""
    return (2 * torch.arange(size, device=device, dtype=dtype) + 1) / size - 1


def axis_powers(size: int, degree: int, *, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "n d"]:
    """Return the powers 0..degree of the centred coordinates of one axis, one column a power."""
    exponents = torch.arange(degree + 1, device=device, dtype=dtype)
    return centred_coordinates(size, device=device, dtype=dtype)[:, None] ** exponents


def separable_moments(
    weights: Float[Tensor, "*n h w"], rows: Float[Tensor, "h d"], columns: Float[Tensor, "w d"]
) -> Float[Tensor, "*n d d"]:
    """Return M[b, a] = sum over pixels of weights * y^b * x^a: two thin matrix products instead of d*d image sums.

    Rows come first: as d long combinations of rows that product runs four times as fast as with d columns.
    """
    return (rows.mT @ weights) @ columns


def gram_matrices(moments: Float[Tensor, "*n d d"], model: MotionModel) -> Float[Tensor, "*n p p"]:
    """Gather the p x p Gram matrix of the basis from the table of moments up to twice the degree.

    The 21 products of six basis functions are only 15 distinct monomials.
    """
    x = model.x_powers[:, None] + model.x_powers[None, :]
    y = model.y_powers[:, None] + model.y_powers[None, :]
    return moments[..., y, x]


def basis_moments(moments: Float[Tensor, "*n d d"], model: MotionModel) -> Float[Tensor, "*n p"]:
    """Pick the moments of the p basis functions from a table of moments."""
    return moments[..., model.y_powers, model.x_powers]


def coefficient_table(theta: Float[Tensor, "*n p"], model: MotionModel) -> Float[Tensor, "*n d d"]:
    """Lay the p coefficients out as a table [y power, x power], the inverse of ``basis_moments``."""
    size = model.degree + 1
    table = theta.new_zeros(*theta.shape[:-1], size, size)
    table[..., model.y_powers, model.x_powers] = theta
    return table


def solve_motion(
    gram: Float[Tensor, "*n p p"], right: Float[Tensor, "*n p c"], mass: Float[Tensor, "*n"]
) -> Float[Tensor, "*n p c"]:
    """Solve the normal equations of weighted least squares, also for segments that own (almost) nothing.

    The Gram matrix is divided by the segment's mass, clamped at 1e-8, so that a ridge means the same for large and
    small segments. The ridge is 1e-6 for moments that were summed in float32, 1e-12 in float64: a ridge of 1e-3 would
    already cost a quarter of the gradient, and none at all makes an empty segment singular. Solved in float64.
    Moments that are not finite give NaN, not an error: training skips such a step, on all workers alike.
    """
    ridge = 1e-12 if gram.dtype == torch.float64 else 1e-6
    scale = mass.double().clamp_min(1e-8)[..., None, None]
    identity = torch.eye(gram.shape[-1], device=gram.device, dtype=torch.float64)
    factor, failures = torch.linalg.cholesky_ex(gram.double() / scale + ridge * identity)
    factor = factor.masked_fill((failures > 0)[..., None, None], torch.nan)
    return torch.cholesky_solve(right.double() / scale, factor)


def fit_motion(
    weights: Float[Tensor, "b k h w"], flow: Float[Tensor, "b 2 h w"], model: MotionModel
) -> Float[Tensor, "b k p 2"]:
    """Fit the flow by weighted least squares, once per weight map; both components share the Gram matrix."""
    rows, columns = (
        axis_powers(size, 2 * model.degree, device=flow.device, dtype=flow.dtype) for size in flow.shape[-2:]
    )
    moments = separable_moments(weights, rows, columns)  # (b, k, d, d)
    low = slice(model.degree + 1)
    weighted = weights[:, :, None] * flow[:, None]  # (b, k, 2, h, w)
    right = basis_moments(separable_moments(weighted, rows[:, low], columns[:, low]), model).mT
    return solve_motion(gram_matrices(moments, model), right, moments[..., 0, 0]).to(flow.dtype)


def remove_global_motion(flow: Float[Tensor, "b 2 h w"], model: MotionModel) -> Float[Tensor, "b 2 h w"]:
    """Return what a single motion of the whole image leaves of its flow, px: the residual of plain least squares."""
    rows, columns = (
        axis_powers(size, 2 * model.degree, device=flow.device, dtype=flow.dtype) for size in flow.shape[-2:]
    )
    moments = (rows.sum(0)[:, None] * columns.sum(0)).expand(len(flow), -1, -1)
    rows, columns = rows[:, : model.degree + 1], columns[:, : model.degree + 1]
    right = basis_moments(separable_moments(flow, rows, columns), model).mT
    theta = solve_motion(gram_matrices(moments, model), right, moments[:, 0, 0]).to(flow.dtype)
    return flow - rows @ coefficient_table(theta.mT, model) @ columns.mT


def sum_of_squares(flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, " b"]:
    """Return the sum of |F|^2 of each sample, px^2, in float64.

    Rows are added in float64: plain sums of 410 000 float32 terms were off by up to 1.7 %.
    """
    return flow.square().sum(-1).double().sum((1, 2))


def motion_fields(
    theta: Float[Tensor, "b k p 2"], size: tuple[int, int], model: MotionModel
) -> Float[Tensor, "b k 2 h w"]:
    """Return the flow that each set of coefficients describes on a grid of ``size`` rows and columns, px."""
    rows, columns = (axis_powers(n, model.degree, device=theta.device, dtype=theta.dtype) for n in size)
    return rows @ coefficient_table(theta.mT, model) @ columns.mT
