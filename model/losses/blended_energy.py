"""What blended segments leave unexplained of a flow, sum_u |F(u) - sum_k m_k(u) Phi(u) theta_k|^2, at low resolution.

m are the masks at the flow's resolution, bilinearly upsampled; theta_k fits F with weights m_k^2. Written out, ::

    sum |F|^2  -  2 sum_k theta_k' <m_k Phi, F>  +  sum_kl theta_k' <m_k m_l Phi, Phi'> theta_l

so that all it takes are moments of masks and of products of two masks, which ``folding`` takes on the small grid with
midpoints. Nothing is approximated.

The flow first loses what one motion of the whole image explains. Masks sum to one, so every theta_k loses the same and
the residual nothing, but the three sums no longer cancel to a small difference, as they would under a moving camera.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.losses.folding import fold_products, folded_powers, refine, refine_adjoint
from model.losses.motion_models import (
    MotionModel,
    MotionModelName,
    gram_matrices,
    motion_model,
    remove_global_motion,
    separable_moments,
    solve_motion,
    sum_of_squares,
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

    The maps of the refined grid enter linearly or squared and are differentiated by hand. What they are summed up to
    is a few hundred numbers, and autograd does the rest.
    """
    size, flow_size = probabilities.shape[-2:], flow.shape[-2:]
    rows, columns = (
        folded_powers(full, small, 2 * model.degree, "midpoints", flow.device, flow.dtype)
        for full, small in zip(flow_size, size, strict=True)
    )
    residual = remove_global_motion(flow, model)
    products = fold_products(residual, (size[0], size[1]), model, "midpoints").flatten(3).flatten(1, 2)  # (b, 2p, n)
    masks = refine(probabilities)
    moments = torch.cat(
        [separable_moments(masks[:, k:] * masks[:, k : k + 1], rows, columns) for k in range(masks.shape[1])], 1
    )
    fitted, linear = (maps.flatten(2) @ products.mT for maps in (masks.square(), masks))  # (b, k, 2p)
    summed = [tensor.requires_grad_(differentiate) for tensor in (moments, fitted, linear)]
    with torch.set_grad_enabled(differentiate):
        energy = sum_of_squares(residual) + _change_of_energy(moments, fitted, linear, model)
        total = energy.sum()  # autograd.grad from a vector would import sympy, seconds without bytecode
    if not differentiate:
        return energy, None
    upstream = torch.autograd.grad(total, summed)
    fields = rows @ upstream[0] @ columns.mT  # (b, pairs, h2, w2)
    return energy.detach(), _gradient(masks, products, fields, upstream[1], upstream[2])


def _gradient(
    masks: Float[Tensor, "b k h2 w2"],
    products: Float[Tensor, "b q n"],
    fields: Float[Tensor, "b pairs h2 w2"],
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
    return refine_adjoint(gradient)


def _change_of_energy(
    moments: Float[Tensor, "b pairs d d"],
    fitted: Float[Tensor, "b k q"],
    linear: Float[Tensor, "b k q"],
    model: MotionModel,
) -> Float[Tensor, " b"]:
    """Return what the blended flow changes of the energy.

    moments: of the products of two masks. fitted, linear: moments of the flow under squared masks and under masks.
    """
    right, target = (sums.unflatten(2, (2, -1)).mT for sums in (fitted, linear))  # (b, k, p, 2)
    first, second = torch.tensor(_pairs(linear.shape[1]), device=linear.device).T
    grams = gram_matrices(moments, model)
    own = first == second
    theta = solve_motion(grams[:, own], right, moments[:, own, 0, 0])
    twice = torch.where(own, 1.0, 2.0).double()  # the sum over k and l meets every other pair two times
    blended = (theta[:, first] * (grams.double() @ theta[:, second])).sum((2, 3)) @ twice
    return blended - 2 * (theta * target.double()).sum((1, 2, 3))


def _pairs(num_segments: int) -> list[tuple[int, int]]:
    return [(k, m) for k in range(num_segments) for m in range(k, num_segments)]
