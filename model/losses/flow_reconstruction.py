"""GWM's loss: how well the segments explain optical flow when each may move by a simple parametric motion.

Two objectives, which differ for soft masks:

* ``mixture`` is the paper's energy (Eq. 3): the expectation, under the soft masks p, of the residual of each
  segment's own fit, E = sum_u sum_k p_k(u) |F(u) - theta_k phi(u)|^2, fitted with weights p.
* ``blended`` is what the authors' code trains: fitted with weights p^2, then the mean squared difference between F
  and the flow blended from all segments, sum_k p_k theta_k phi.

Both use probabilities upsampled bilinearly to the flow's resolution (the code; the paper upsamples logits) and both
return a mean over both components and all pixels of the flow, in px^2.

Neither leaves the network's resolution (``folding``): the part that depends on the flow is folded onto the small grid,
and a step costs O(h w) however large the flow is. For the mixture the loader does that once per sample, ``fold_flow``;
the blended objective takes products of masks, on a finer grid, and folds the flow in the step (``blended_energy``).
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from model.losses.blended_energy import blended_energy
from model.losses.folding import fold_products, folded_powers
from model.losses.motion_models import (
    MotionModelName,
    fit_motion,
    gram_matrices,
    motion_fields,
    motion_model,
    remove_global_motion,
    separable_moments,
    solve_motion,
    sum_of_squares,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldedFlow:
    """Everything the mixture objective needs to know about a batch of flows, at the network's resolution.

    products: for both components and the p monomials, F_c * x^a y^b folded onto the small grid.
    energy: sum of |F|^2 over the full-resolution flow, px^2; a constant of the sample, since masks sum to one.
    Of the flow, both hold what one motion of the whole image leaves.
    flow_size: rows and columns of the flow that was folded.
    """

    products: Float[Tensor, "b 2 p h w"]
    energy: Float[Tensor, " b"]
    flow_size: tuple[int, int]


def fold_flow(flow: Float[Tensor, "b 2 H W"], size: tuple[int, int], name: MotionModelName) -> FoldedFlow:
    """Fold full-resolution flow onto a grid of ``size`` rows and columns, for ``mixture_loss``.

    What one motion of the whole image explains is left out: no segment's residual changes, and float32 keeps what
    remains of the flow under a moving camera far better.
    """
    model = motion_model(name)
    residual = remove_global_motion(flow, model)
    return FoldedFlow(
        products=fold_products(residual, size, model, "pixels"),
        energy=sum_of_squares(residual),
        flow_size=(flow.shape[-2], flow.shape[-1]),
    )


def mixture_loss(
    probabilities: Float[Tensor, "b k h w"], folded: FoldedFlow, name: MotionModelName = "quadratic"
) -> Float[Tensor, ""]:
    """Return the mixture energy (GWM, Eq. 3) per flow component and pixel, in px^2, averaged over the batch.

    By least squares the residual of segment k is sum p_k |F|^2 - c_k' N_k^-1 c_k, and the first terms add up to a
    constant. Differentiating this closed form is exact.
    """
    model = motion_model(name)
    height, width = folded.flow_size
    rows, columns = (
        folded_powers(full, small, 2 * model.degree, "pixels", probabilities.device, probabilities.dtype)
        for full, small in zip(folded.flow_size, probabilities.shape[-2:], strict=True)
    )
    moments = separable_moments(probabilities, rows, columns)  # (b, k, d, d)
    gram = gram_matrices(moments, model)
    products = folded.products.flatten(3).flatten(1, 2)  # (b, 2p, n)
    right = (probabilities.flatten(2) @ products.mT).unflatten(2, (2, model.num_terms)).mT  # (b, k, p, 2)
    theta = solve_motion(gram, right, moments[..., 0, 0])  # (b, k, p, 2)
    explained = (right.double() * theta).sum((1, 2, 3))
    return ((folded.energy - explained) / (2 * height * width)).mean()


def blended_reconstruction(
    probabilities: Float[Tensor, "b k h w"],
    flow: Float[Tensor, "b 2 H W"],
    name: MotionModelName = "quadratic",
) -> Float[Tensor, "b 2 H W"]:
    """Return the flow that the segments explain together, sum_k m_k Phi theta_k, each fitted with weights m_k^2."""
    model = motion_model(name)
    height, width = flow.shape[-2:]
    masks = _upsample(probabilities, (height, width))
    theta = fit_motion(masks.square(), flow, model)
    return (masks[:, :, None] * motion_fields(theta, (height, width), model)).sum(1)


def unexplained_motion(flow: Float[Tensor, "b 2 H W"], name: MotionModelName = "quadratic") -> Float[Tensor, " b"]:
    """Return the rms per pixel of what a single motion of the whole image leaves of its flow, px."""
    residual = remove_global_motion(flow, motion_model(name))
    return residual.square().sum(1).mean((1, 2)).sqrt()


def blended_loss(
    logits: Float[Tensor, "b k h w"],
    flow: Float[Tensor, "b 2 H W"],
    motion_model: MotionModelName = "quadratic",
) -> Float[Tensor, ""]:
    """Return the mean squared error of the blended reconstruction, in px^2 (the authors' code, without its 0.03)."""
    return blended_energy(logits.softmax(1), flow, motion_model).sum().to(logits.dtype) / flow.numel()


def _upsample(masks: Float[Tensor, "b k h w"], size: tuple[int, int]) -> Float[Tensor, "b k H W"]:
    if masks.shape[-2:] == size:
        return masks
    return F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
