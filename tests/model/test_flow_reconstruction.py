"""The flow reconstruction losses against recordings, brute force, closed forms and invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.errors import InputError
from model.losses.flow_reconstruction import (
    blended_loss,
    blended_reconstruction,
    fold_flow,
    mixture_loss,
)
from model.losses.motion_models import motion_model
from tests.shared import GOLDEN, shared_or_skip

MODELS = ("constant", "affine", "quadratic")


def random_case(seed: int = 0, size: tuple[int, int] = (30, 53)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 3, 8, 14, generator=generator, dtype=torch.float64)
    flow = 2 * torch.randn(2, 2, *size, generator=generator, dtype=torch.float64)
    return logits, flow


def basis(name: str, height: int, width: int) -> Tensor:
    """The authors' grid: [0, 1) rows and columns, columns of the design matrix per pixel."""
    x = (torch.arange(height, dtype=torch.float64) / height)[:, None].expand(height, width)
    y = (torch.arange(width, dtype=torch.float64) / width)[None, :].expand(height, width)
    one = torch.ones_like(x)
    columns = {"constant": [one], "affine": [x, y, one], "quadratic": [x, y, x * x, y * y, x * y, one]}[name]
    return torch.stack([c.flatten() for c in columns], 1)


def brute_force_mixture(probabilities: Tensor, flow: Tensor, name: str) -> Tensor:
    """Paper Eq. 3 with one weighted lstsq per segment and component at full resolution."""
    height, width = flow.shape[-2:]
    masks = F.interpolate(probabilities, size=(height, width), mode="bilinear", align_corners=False)
    phi = basis(name, height, width)
    energy = flow.new_zeros(())
    for image, target in zip(masks, flow, strict=True):
        for mask in image:
            weight = mask.flatten()[:, None]
            values = target.flatten(1).T
            theta = torch.linalg.lstsq(weight.sqrt() * phi, weight.sqrt() * values).solution
            energy = energy + (weight * (values - phi @ theta).square()).sum()
    return energy / (2 * height * width * len(flow))


@pytest.mark.parametrize("case", ["small", "peaky", "k2", "native"])
def test_blended_loss_equals_the_authors_code(case: str) -> None:
    golden = np.load(shared_or_skip(GOLDEN / "gwm_blended_loss.npz"), allow_pickle=False)
    logits = torch.from_numpy(golden[f"{case}.logits"]).requires_grad_()
    flow = torch.from_numpy(golden[f"{case}.flow"])
    loss = blended_loss(logits, flow, "quadratic")
    loss.backward()
    assert loss.item() == pytest.approx(float(golden[f"{case}.loss"]), rel=1e-9)
    expected = torch.from_numpy(golden[f"{case}.grad"])
    assert (logits.grad - expected).abs().max() <= 1e-7 * expected.abs().max()
    ours = blended_reconstruction(logits.detach().softmax(1), flow, "quadratic")
    torch.testing.assert_close(ours, torch.from_numpy(golden[f"{case}.reconstruction"]), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "blended", "mixture"),
    [
        ("quadratic", 0.00909513, 0.01146837),
        ("affine", 0.18717746, 0.19478950),
        ("constant", 0.84958980, 1.00017718),
    ],
)
def test_losses_on_the_synthetic_input_of_the_fact_sheet(name: str, blended: float, mixture: float) -> None:
    i, j = torch.arange(6.0).double()[:, None], torch.arange(8.0).double()[None, :]
    logits = torch.stack([torch.sin(0.7 * i + 0.3 * j), torch.cos(0.5 * i - 0.4 * j), 0.2 * i - 0.1 * j])[None]
    flow = torch.stack([2 * torch.sin(0.4 * j) + 0.3 * i, 1.5 * torch.cos(0.6 * i) - 0.2 * j])[None]
    assert blended_loss(logits, flow, name).item() == pytest.approx(blended, abs=6e-9)
    ours = mixture_loss(logits.softmax(1), fold_flow(flow, (6, 8), name), name)
    assert ours.item() == pytest.approx(mixture, abs=6e-9)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(30, 53), (8, 14), (9, 15)])
def test_folded_mixture_equals_brute_force(name: str, size: tuple[int, int]) -> None:
    logits, flow = random_case(size=size)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    loss = mixture_loss(ours.softmax(1), fold_flow(flow, (8, 14), name), name)
    reference = brute_force_mixture(theirs.softmax(1), flow, name)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-9)
    loss.backward()
    reference.backward()
    assert (ours.grad - theirs.grad).abs().max() <= 1e-7 * theirs.grad.abs().max()


def test_single_precision_gradients_stay_within_a_thousandth() -> None:
    logits, flow = random_case(size=(60, 107))
    gradients = []
    for dtype in (torch.float64, torch.float32):
        x = logits.to(dtype).clone().requires_grad_()
        mixture_loss(x.softmax(1), fold_flow(flow.to(dtype), (8, 14), "quadratic")).backward()
        gradients.append(x.grad.double())
    assert (gradients[0] - gradients[1]).norm() <= 1e-3 * gradients[0].norm()


@pytest.mark.parametrize("name", MODELS)
def test_flow_within_the_motion_model_costs_nothing(name: str) -> None:
    logits, _ = random_case()
    phi = basis(name, 30, 53)
    theta = torch.randn(phi.shape[1], 2, dtype=torch.float64)
    flow = (phi @ theta).T.reshape(1, 2, 30, 53).expand(2, -1, -1, -1)
    assert blended_loss(logits, flow, name).item() < 1e-12
    assert mixture_loss(logits.softmax(1), fold_flow(flow, (8, 14), name), name).item() < 1e-9


def test_true_segments_cost_nothing_and_shuffled_ones_do() -> None:
    labels = torch.zeros(8, 14, dtype=torch.long)
    labels[2:6, 3:9] = 1
    logits = 200 * (F.one_hot(labels, 2).permute(2, 0, 1)[None].double() - 0.5)
    motion = torch.tensor([[0.5, -1.0], [3.0, 2.0]], dtype=torch.float64)
    flow = motion[labels].permute(2, 0, 1)[None]
    shuffled = logits.flatten(2)[..., torch.randperm(8 * 14)].unflatten(2, (8, 14))
    assert blended_loss(logits, flow).item() < 1e-9
    assert blended_loss(shuffled, flow).item() > 0.1
    assert mixture_loss(logits.softmax(1), fold_flow(flow, (8, 14), "quadratic")).item() < 1e-9
    assert mixture_loss(shuffled.softmax(1), fold_flow(flow, (8, 14), "quadratic")).item() > 0.1


def test_losses_scale_with_the_square_of_flow_and_ignore_segment_order() -> None:
    logits, flow = random_case()
    for loss in (
        lambda x, f: blended_loss(x, f),
        lambda x, f: mixture_loss(x.softmax(1), fold_flow(f, (8, 14), "quadratic")),
    ):
        value = loss(logits, flow).item()
        assert loss(logits, 3 * flow).item() == pytest.approx(9 * value)
        assert loss(logits[:, [2, 0, 1]], flow).item() == pytest.approx(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_segment_has_a_finite_loss_and_gradient(dtype: torch.dtype) -> None:
    logits = torch.zeros(1, 3, 8, 14, dtype=dtype)
    logits[:, 1] = -300  # its probability underflows to zero everywhere in float32
    flow = torch.randn(1, 2, 30, 53, dtype=dtype)
    for loss in (
        lambda x: blended_loss(x, flow),
        lambda x: mixture_loss(x.softmax(1), fold_flow(flow, (8, 14), "quadratic")),
    ):
        x = logits.clone().requires_grad_()
        value = loss(x)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(x.grad).all()


def test_an_unknown_motion_model_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"cubic.*constant, affine, quadratic"):
        motion_model("cubic")
