"""The folded blended energy against the same sums at full resolution, and its hand-written gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.losses import blended_energy as folded
from model.losses.blended_energy import blended_energy
from model.losses.flow_reconstruction import blended_loss, blended_reconstruction, fold_flow, mixture_loss
from model.losses.folding import fold_products, nodal_weights, refine, refine_adjoint
from model.losses.motion_models import axis_powers, motion_model, remove_global_motion

MASK_SIZE = (8, 14)


def random_case(num_segments: int, size: tuple[int, int], batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_segments)
    logits = 3 * torch.randn(batch, num_segments, *MASK_SIZE, generator=generator, dtype=torch.float64)
    return logits, 2 * torch.randn(batch, 2, *size, generator=generator, dtype=torch.float64)


def direct_loss(logits: Tensor, flow: Tensor, name: str = "quadratic") -> Tensor:
    return F.mse_loss(blended_reconstruction(logits.softmax(1), flow, name), flow)


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [(30, 53), (8, 14), (9, 15), (5, 9), (16, 28)])
def test_products_of_upsampled_masks_follow_from_products_of_refined_ones(size: tuple[int, int]) -> None:
    one, other = torch.rand(2, 1, 3, *MASK_SIZE, dtype=torch.float64)
    rows, columns = (nodal_weights(*lengths) for lengths in zip(size, MASK_SIZE, strict=True))
    product = rows @ (refine(one) * refine(other)) @ columns.mT
    torch.testing.assert_close(product, upsample(one, size) * upsample(other, size), rtol=0, atol=1e-14)


def test_refining_is_interpolation_with_aligned_corners_and_has_its_transpose() -> None:
    maps = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    expected = F.interpolate(maps, size=(9, 13), mode="bilinear", align_corners=True)
    torch.testing.assert_close(refine(maps), expected, rtol=0, atol=1e-15)
    large = torch.rand(2, 3, 9, 13, dtype=torch.float64)
    assert (refine(maps) * large).sum().item() == pytest.approx((maps * refine_adjoint(large)).sum().item(), rel=1e-13)


@pytest.mark.parametrize("name", ["constant", "affine", "quadratic"])
def test_folded_products_give_the_moments_of_upsampled_masks(name: str) -> None:
    """And of products of two, on the grid with midpoints; brute force at full resolution."""
    _, flow = random_case(3, (30, 53))
    one, other = torch.rand(2, 2, 3, *MASK_SIZE, dtype=torch.float64)
    model = motion_model(name)
    rows, columns = (axis_powers(n, model.degree, device=flow.device, dtype=flow.dtype) for n in (30, 53))
    basis = rows[:, model.y_powers].T[:, :, None] * columns[:, model.x_powers].T[:, None]
    weights = {"pixels": upsample(one, (30, 53)), "midpoints": upsample(one, (30, 53)) * upsample(other, (30, 53))}
    small = {"pixels": one, "midpoints": refine(one) * refine(other)}
    for grid in ("pixels", "midpoints"):
        ours = torch.einsum("bkhw,bcphw->bkcp", small[grid], fold_products(flow, MASK_SIZE, model, grid))
        expected = torch.einsum("bkhw,bchw,phw->bkcp", weights[grid], flow, basis)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["constant", "affine", "quadratic"])
@pytest.mark.parametrize("num_segments", [2, 5])
@pytest.mark.parametrize("size", [(30, 53), (8, 14), (5, 11)])
def test_energy_and_gradient_equal_those_at_full_resolution(
    size: tuple[int, int], num_segments: int, name: str
) -> None:
    logits, flow = random_case(num_segments, size)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    loss, reference = blended_loss(ours, flow, name), direct_loss(theirs, flow, name)
    loss.backward()
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), rel=1e-9)
    assert (ours.grad - theirs.grad).abs().max() <= 1e-7 * theirs.grad.abs().max()


def test_gradient_passes_gradcheck() -> None:
    probabilities = torch.rand(1, 3, 3, 4, dtype=torch.float64).softmax(1).requires_grad_()
    flow = torch.randn(1, 2, 9, 11, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: blended_energy(p, flow), probabilities, rtol=1e-5)


def test_samples_at_once_equal_samples_one_by_one() -> None:
    """GPUs take the whole batch at once, CPUs one sample after the other."""
    logits, flow = random_case(3, (30, 53), batch=3)
    probabilities = logits.softmax(1).requires_grad_()
    energy = blended_energy(probabilities, flow)
    (gradient,) = torch.autograd.grad(energy.sum(), probabilities)
    model = motion_model("quadratic")
    at_once, its_gradient = folded._energy_and_gradient(probabilities.detach(), flow, model, differentiate=True)
    torch.testing.assert_close(at_once, energy.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(its_gradient, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", ["blended", "mixture"])
def test_a_moving_camera_costs_no_precision(objective: str) -> None:
    """A pan of 15 px with 0.1 px of motion on top, in float32: one 10 000th of the energy is not explained by the pan.

    With the pan left in, the blended sums would cancel to a gradient that is wrong by 7 %.
    """
    logits, flow = random_case(4, (60, 107))
    flow = 0.05 * flow + torch.tensor([15.0, -4.0], dtype=torch.float64)[:, None, None]
    results = []
    for dtype in (torch.float64, torch.float32):
        x, target = logits.to(dtype).clone().requires_grad_(), flow.to(dtype)
        if objective == "blended":
            loss = blended_loss(x, target)
        else:
            loss = mixture_loss(x.softmax(1), fold_flow(target, MASK_SIZE, "quadratic"))
        loss.backward()
        results.append((loss.item(), x.grad.double()))
    (exact, gradient), (single, single_gradient) = results
    assert single == pytest.approx(exact, rel=1e-6)
    assert (gradient - single_gradient).norm() <= 1e-4 * gradient.norm()


def test_removing_the_global_motion_leaves_the_residual_of_least_squares() -> None:
    _, flow = random_case(2, (9, 15))
    model = motion_model("quadratic")
    y, x = torch.meshgrid(torch.linspace(0, 3, 9), torch.linspace(-2, 5, 15), indexing="ij")
    phi = torch.stack([x * 0 + 1, x, y, x * x, x * y, y * y], -1).flatten(0, 1).double()
    theta = torch.linalg.pinv(phi) @ flow.flatten(2).mT
    expected = (flow.flatten(2).mT - phi @ theta).mT.unflatten(2, (9, 15))
    torch.testing.assert_close(remove_global_motion(flow, model), expected, rtol=0, atol=1e-9)


def test_broken_flow_gives_a_loss_that_is_not_finite_in_its_sample_only() -> None:
    logits, flow = random_case(3, (30, 53))
    flow[1, 0, 3, 4] = torch.nan
    probabilities = logits.softmax(1).requires_grad_()
    energy = blended_energy(probabilities, flow)
    energy.sum().backward()
    assert torch.isfinite(energy).tolist() == [True, False]
    assert torch.isfinite(probabilities.grad[0]).all()
    assert not torch.isfinite(probabilities.grad[1]).any()


def test_nothing_is_differentiated_without_need() -> None:
    logits, flow = random_case(3, (30, 53))
    with torch.no_grad():
        assert not blended_loss(logits, flow).requires_grad
    assert not blended_loss(logits, flow).requires_grad
