"""The GWM method around its U-Net: sizes, preparation, segmentation, learning, refused configurations."""

from __future__ import annotations

import pytest
import torch

from model.errors import InputError
from model.losses.flow_reconstruction import fold_flow, unexplained_motion
from model.losses.folding import folded_powers
from model.losses.motion_models import motion_model
from model.methods import build_method
from model.methods.base import Method
from model.methods.gwm import Gwm, GwmConfig, resize_flow
from model.networks.unet import UNet
from model.types import FramePair, Segmentation

SMALL = {"base_channels": 4, "image_size": (32, 48), "flow_size": (60, 90), "num_segments": 3}


def pair(height: int = 60, width: int = 90) -> FramePair:
    """A square that moves right over a still background."""
    image = torch.randint(0, 80, (3, height, width), dtype=torch.uint8)
    flow = torch.zeros(2, height, width)
    image[:, 20:44, 30:60] += 150
    flow[0, 20:44, 30:60] = 4
    return FramePair(image=image, flow=flow, gap=1)


@pytest.mark.parametrize(("bilinear", "count"), [(False, 31_037_828), (True, 17_263_172)])
def test_unet_has_the_parameter_counts_of_the_original(bilinear: bool, count: int) -> None:
    network = UNet(num_segments=4, bilinear=bilinear)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_unet_keeps_sizes_that_sixteen_does_not_divide() -> None:
    logits, features = UNet(num_segments=4, base_channels=4)(torch.zeros(1, 3, 37, 51))
    assert logits.shape == (1, 4, 37, 51)
    assert features.shape == (1, 4, 37, 51)


@pytest.mark.parametrize("objective", ["mixture", "blended"])
def test_a_few_steps_separate_a_moving_square(objective: str) -> None:
    method = build_method(GwmConfig(objective=objective, **SMALL))
    assert isinstance(method, Method)
    batch = {name: torch.stack([value, value]) for name, value in method.prepare(pair()).items()}
    optimiser = torch.optim.AdamW(method.parameters(), lr=3e-3)
    first = last = method(batch).total.item()
    for _ in range(40):
        optimiser.zero_grad()
        terms = method(batch)
        terms.total.backward()
        optimiser.step()
        last = terms.total.item()
    assert last < 0.5 * first


def test_both_objectives_see_the_same_flow() -> None:
    prepared = {
        objective: Gwm(GwmConfig(objective=objective, **SMALL)).prepare(pair()) for objective in ("mixture", "blended")
    }
    assert prepared["mixture"]["products"].shape == (2, 6, 32, 48)
    folded = fold_flow(prepared["blended"]["flow"][None], (32, 48), "quadratic")
    torch.testing.assert_close(prepared["mixture"]["products"], folded.products[0])
    torch.testing.assert_close(prepared["mixture"]["energy"], folded.energy[0])


@pytest.mark.parametrize("objective", ["mixture", "blended"])
def test_it_can_be_trained_after_its_loss_was_measured_in_inference_mode(objective: str) -> None:
    folded_powers.cache_clear()
    motion_model.cache_clear()
    method = Gwm(GwmConfig(objective=objective, **SMALL))
    with torch.inference_mode():
        batch = {name: value[None] for name, value in method.prepare(pair()).items()}
        measured = method.training_loss(batch).total
    loss = method.training_loss({name: value.clone() for name, value in batch.items()}).total
    loss.backward()
    torch.testing.assert_close(loss.detach(), measured.clone())


def test_segments_sum_to_one_at_the_networks_size() -> None:
    segmentation = Gwm(GwmConfig(**SMALL)).eval().segment(torch.randint(0, 255, (2, 3, 61, 91)).float())
    assert segmentation.probabilities.shape == (2, 3, 32, 48)
    torch.testing.assert_close(segmentation.probabilities.sum(1), torch.ones(2, 32, 48))


def test_flow_is_scaled_with_its_grid() -> None:
    flow = torch.ones(2, 10, 20)
    doubled = resize_flow(flow, (20, 60), "nearest")
    assert doubled.shape == (2, 20, 60)
    assert (doubled[0] == 3).all()
    assert (doubled[1] == 2).all()


def test_flow_is_clipped_and_holes_are_filled() -> None:
    flow = torch.full((2, 60, 90), 35.0)
    flow[:, 0, 0] = torch.nan
    prepared = Gwm(GwmConfig(objective="blended", **SMALL)).prepare(
        FramePair(image=torch.zeros(3, 60, 90, dtype=torch.uint8), flow=flow, gap=-1)
    )
    assert prepared["flow"].max() == 20
    assert prepared["flow"][0, 0, 0] == 0


def test_residual_scaling_makes_fast_and_slow_motion_count_alike() -> None:
    method = Gwm(GwmConfig(objective="blended", flow_scaling="residual", **SMALL))
    slow = pair()
    fast = FramePair(image=slow.image, flow=3 * slow.flow + 1, gap=1)  # three times as fast, and the camera pans
    residuals = []
    for sample in (slow, fast):
        flow = method.prepare(sample)["flow"]
        residuals.append(unexplained_motion(flow[None]).item())
    assert residuals == pytest.approx([1, 1], rel=1e-4)
    noise = FramePair(image=slow.image, flow=0.01 * torch.randn(2, 60, 90), gap=1)
    assert unexplained_motion(method.prepare(noise)["flow"][None]).item() < 0.2  # not blown up to a signal


def test_the_last_phase_trains_the_mixture_and_what_is_before_the_blend() -> None:
    phased = Gwm(GwmConfig(objective="blended_then_mixture", mixture_share=0.25, **SMALL)).eval()
    phased.network.head.weight.data.mul_(30)  # soft but decided masks, for which the objectives differ
    sample = pair()
    batch = {name: value[None] for name, value in phased.prepare(sample).items()}
    expected = {}
    for objective in ("blended", "mixture"):
        single = Gwm(GwmConfig(objective=objective, **SMALL)).eval()
        single.load_state_dict(phased.state_dict())
        prepared = {name: value[None] for name, value in single.prepare(sample).items()}
        expected[objective] = single.training_loss(prepared).total.item()
    assert expected["blended"] != pytest.approx(expected["mixture"], rel=1e-3)
    assert phased.training_loss(batch, 0.74).total.item() == pytest.approx(expected["blended"])
    assert phased(batch, 0.75).total.item() == pytest.approx(expected["mixture"], rel=1e-5)
    assert phased.training_loss(batch).total.item() == pytest.approx(expected["mixture"], rel=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_segments": 1},
        {"base_channels": 0},
        {"image_size": (8, 224)},
        {"flow_size": (4, 854)},
        {"flow_clip_px": 0.0},
        {"flow_scaling_floor_px": -1.0},
        {"mixture_share": 1.0},
    ],
)
def test_unusable_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        GwmConfig(**wrong)


def test_types_refuse_what_does_not_fit() -> None:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.raises(InputError, match="gap=0"):
        FramePair(image=image, flow=torch.zeros(2, 4, 4), gap=0)
    with pytest.raises(InputError, match="k >= 2"):
        Segmentation(probabilities=torch.ones(1, 1, 4, 4))
