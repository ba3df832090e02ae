"""What blended segments leave unexplained of a flow, sum_u |F(u) - sum_k m_k(u) Phi(u) theta_k|^2, at low resolution.

m are the masks at the flow's resolution, bilinearly upsampled; theta_k fits F with weights m_k^2. Written out, ::

    sum |F|^2  -  2 sum_k theta_k' <m_k Phi, F>  +  sum_kl theta_k' <m_k m_l Phi, Phi'> theta_l

so that all it takes are moments of masks and of *products* of two masks. Between four neighbouring pixels of the
network's grid an upsampled mask is bilinear and a product of two is biquadratic, which nine values determine: at the
corners, the midpoints of the sides and the centre. With r the masks *refined* to the grid with midpoints, 2h - 1 by
2w - 1 pixels,

    m_k m_l = N_y (r_k * r_l) N_x'          N: the weights of quadratic interpolation, three per pixel of the flow

and a moment <m_k m_l, g> = <r_k * r_l, N_y' g N_x>. Nothing is approximated, and nothing of the flow's size is kept.

The flow first loses what one motion of the whole image explains. Masks sum to one, so every theta_k loses the same and
the residual nothing, but the three sums no longer cancel to a small difference, as they would under a moving camera.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from model.losses.motion_models import (
    MotionModel,
    MotionModelName,
    axis_powers,
    gram_matrices,
    motion_model,
    remove_global_motion,
    separable_moments,
    solve_motion,
)


def blended_energy(
    probabilities: Float[Tensor, "b k h w"], flow: Float[Tensor, "b 2 H W"], name: MotionModelName = "quadratic"
) -> Float[Tensor, " b"]:
    """Return the sum over pixels and components of the squared residual of the blended flow, px^2, in float64.

    probabilities: sum to one over the segments; the gradient is with respect to them alone and can be taken once.
    """
    return _BlendedEnergy.apply(probabilities, flow, motion_model(name))


class _BlendedEnergy(torch.autograd.Function):
    """The energy of each sample, differentiated as soon as it is known: what one sample needs fits into the cache."""

    @staticmethod
    def forward(
        ctx: Any, probabilities: Float[Tensor, "b k h w"], flow: Float[Tensor, "b 2 H W"], model: MotionModel
    ) -> Float[Tensor, " b"]:
        at_once = len(flow) if flow.is_cuda else 1
        parts = [
            _energy_and_gradient(masks, target, model, differentiate=ctx.needs_input_grad[0])
            for masks, target in zip(probabilities.split(at_once), flow.split(at_once), strict=True)
        ]
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(torch.cat([gradient for _, gradient in parts if gradient is not None]))
        return torch.cat([energy for energy, _ in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Float[Tensor, " b"]) -> tuple[Float[Tensor, "b k h w"], None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[:, None, None, None].to(gradient.dtype) * gradient, None, None


def _energy_and_gradient(
    probabilities: Float[Tensor, "b k h w"], flow: Float[Tensor, "b 2 H W"], model: MotionModel, *, differentiate: bool
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b k h w"] | None]:
    """Return the energies and, to ``differentiate``, their gradient.

    The maps of the refined grid, which lie transposed here, enter linearly or squared and are differentiated by hand.
    What they are summed up to is a few hundred numbers, and autograd does the rest.
    """
    size, flow_size = probabilities.shape[-2:], flow.shape[-2:]
    rows, columns = (
        _refined_powers(full, small, 2 * model.degree, flow.device, flow.dtype)
        for full, small in zip(flow_size, size, strict=True)
    )
    residual = remove_global_motion(flow, model)
    products = _fold(residual, (size[0], size[1]), model)  # (b, 2p, n)
    masks = refine(probabilities.mT)  # (b, k, nx, ny)
    moments = torch.cat(
        [separable_moments(masks[:, k:] * masks[:, k : k + 1], columns, rows) for k in range(masks.shape[1])], 1
    ).mT
    fitted, linear = (maps.flatten(2) @ products.mT for maps in (masks.square(), masks))  # (b, k, 2p)
    summed = [tensor.requires_grad_(differentiate) for tensor in (moments, fitted, linear)]
    with torch.set_grad_enabled(differentiate):
        energy = residual.square().sum(-1).double().sum((1, 2)) + _change_of_energy(moments, fitted, linear, model)
        total = energy.sum()  # autograd.grad from a vector would import sympy, seconds without bytecode
    if not differentiate:
        return energy, None
    upstream = torch.autograd.grad(total, summed)
    fields = columns @ upstream[0].mT @ rows.mT  # (b, pairs, nx, ny)
    return energy.detach(), _gradient(masks, products, fields, upstream[1], upstream[2])


def _gradient(
    masks: Float[Tensor, "b k nx ny"],
    products: Float[Tensor, "b q n"],
    fields: Float[Tensor, "b pairs nx ny"],
    by_fitted: Float[Tensor, "b k q"],
    by_linear: Float[Tensor, "b k q"],
) -> Float[Tensor, "b k h w"]:
    """Return the gradient by the probabilities, from those by all sums over the refined grid."""
    num_segments = masks.shape[1]
    mixed = torch.cat([by_linear, 2 * by_fitted], 1) @ products  # (b, 2k, n)
    gradient, by_squares = mixed.unflatten(2, masks.shape[-2:]).split(num_segments, 1)
    gradient.addcmul_(by_squares, masks)
    for (k, m), field in zip(_pairs(num_segments), fields.unbind(1), strict=True):
        gradient[:, k].addcmul_(field, masks[:, m])
        gradient[:, m].addcmul_(field, masks[:, k])
    return refine_adjoint(gradient).mT


def _change_of_energy(
    moments: Float[Tensor, "b pairs d d"],
    fitted: Float[Tensor, "b k q"],
    linear: Float[Tensor, "b k q"],
    model: MotionModel,
) -> Float[Tensor, " b"]:
    """Return what the blended flow changes of the energy.

    moments: of the products of two masks. fitted, linear: moments of the flow under squared masks and under masks.
    """
    order = [_folded_terms(model.degree).index(powers) for powers in _terms(model)]
    right, target = (sums.unflatten(2, (2, -1))[..., order].mT for sums in (fitted, linear))  # (b, k, p, 2)
    first, second = torch.tensor(_pairs(linear.shape[1]), device=linear.device).T
    grams = gram_matrices(moments, model)
    own = first == second
    theta = solve_motion(grams[:, own], right, moments[:, own, 0, 0])
    twice = torch.where(own, 1.0, 2.0).double()  # the sum over k and l meets every other pair two times
    blended = (theta[:, first] * (grams.double() @ theta[:, second])).sum((2, 3)) @ twice
    return blended - 2 * (theta * target.double()).sum((1, 2, 3))


def _fold(residual: Float[Tensor, "b 2 H W"], size: tuple[int, int], model: MotionModel) -> Float[Tensor, "b q n"]:
    """Fold the products of both flow components and all monomials onto the refined grid, transposed and flattened."""
    (height, width), num_powers = residual.shape[-2:], model.degree + 1
    options = (residual.device, residual.dtype)
    vertical = _folding_matrix(height, size[0], num_powers, *options)
    horizontal = [_folding_matrix(width, size[1], count, *options) for count in range(num_powers, 0, -1)]
    num_rows, num_columns = 2 * size[0] - 1, 2 * size[1] - 1
    folded = residual.new_empty(2 * len(residual), model.num_terms * num_columns, num_rows)
    for image, products in zip(residual.flatten(0, 1), folded, strict=True):
        by_row = (vertical @ image).unflatten(0, (num_powers, num_rows))
        parts = products.split([num_columns * count for count in range(num_powers, 0, -1)])
        for rows, matrix, part in zip(by_row, horizontal, parts, strict=True):
            torch.mm(matrix, rows.T.contiguous(), out=part)
    return folded.view(len(residual), 2 * model.num_terms, -1)


def _folded_terms(degree: int) -> list[tuple[int, int]]:
    """Powers of x and y in the order in which ``_fold`` leaves the products."""
    return [(a, b) for b in range(degree + 1) for a in range(degree + 1 - b)]


def _terms(model: MotionModel) -> list[tuple[int, int]]:
    return list(zip(model.x_powers.tolist(), model.y_powers.tolist(), strict=True))


def _pairs(num_segments: int) -> list[tuple[int, int]]:
    return [(k, m) for k in range(num_segments) for m in range(k, num_segments)]


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


def nodal_weights(full: int, small: int) -> Float[Tensor, "full nodes"]:
    """Return N of one axis, float64: products of upsampled maps from products of refined ones.

    With U the bilinear weights and a, b two maps of one axis, (U a)(U b) is a sum over pixels of U_j^2 a_j b_j and
    over neighbours of U_j U_j+1 (a_j b_j+1 + a_j+1 b_j). Four times the midpoint's product, (a_j + a_j+1)(b_j + b_j+1),
    is that bracket and the two pixels' own products, which are taken off again.
    """
    identity = torch.eye(small, dtype=torch.float64)[None, None]
    weights = F.interpolate(identity, size=(full, small), mode="bilinear", align_corners=False)[0, 0]
    neighbours = weights[:, 1:] * weights[:, :-1]
    nodal = weights.new_zeros(full, 2 * small - 1)
    nodal[:, ::2] = weights.square()
    nodal[:, 1::2] = 4 * neighbours
    nodal[:, :-1:2] -= neighbours
    nodal[:, 2::2] -= neighbours
    return nodal


@lru_cache(maxsize=16)
def _refined_powers(
    full: int, small: int, degree: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "nodes d"]:
    """Powers 0..degree of one axis of the flow's grid, folded onto the refined grid."""
    with torch.inference_mode(False):  # what is kept here must serve training too, whoever asks first
        powers = axis_powers(full, degree, device=torch.device("cpu"), dtype=torch.float64)
        return (nodal_weights(full, small).mT @ powers).to(device, dtype)


@lru_cache(maxsize=32)
def _folding_matrix(full: int, small: int, num_powers: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Transposed nodal weights times each power of the coordinate, one block of rows a power.

    Three entries of a column and power are not zero. CPUs gain from that, GPUs multiply a dense matrix faster.
    """
    with torch.inference_mode(False):
        powers = axis_powers(full, num_powers - 1, device=torch.device("cpu"), dtype=torch.float64)
        matrix = (powers.mT[:, None] * nodal_weights(full, small).mT).flatten(0, 1)
        matrix = matrix.to(device, dtype)
        return matrix if matrix.is_cuda else matrix.to_sparse()
