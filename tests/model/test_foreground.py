"""Motion saliency and the label-free choice of the foreground, on scenes whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.clip_evidence import ClipEvidence, all_groupings, centre_weights
from model.errors import InputError
from model.foreground import choose_grouping, colour_contrast, group_mask
from model.saliency import global_motion, motion_saliency

HEIGHT, WIDTH = 36, 64


def quadratic_camera() -> Tensor:
    """A camera whose motion is quadratic in the pixel's position, up to 4 px."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
    return torch.stack([2 + x - 0.5 * x * y, -1 + 0.7 * y + 0.4 * x * x])


def object_mask() -> Tensor:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[10:26, 20:44] = True
    return mask


def scene(num_frames: int = 3) -> tuple[Tensor, Tensor]:
    """Object split over segments 1 and 2, background over 0 and 3; object moves 3 px against the camera."""
    labels = torch.zeros(HEIGHT, WIDTH, dtype=torch.long)
    labels[:, WIDTH // 2 :] = 3
    labels[object_mask()] = 1
    labels[18:26, 20:44] = 2
    probabilities = torch.nn.functional.one_hot(labels, 4).permute(2, 0, 1).float() * 0.9 + 0.025
    flow = quadratic_camera()
    flow[0][object_mask()] += 3
    return probabilities.expand(num_frames, -1, -1, -1), flow.expand(num_frames, -1, -1, -1)


def test_global_motion_ignores_the_object() -> None:
    _, flow = scene(1)
    torch.testing.assert_close(global_motion(flow)[0], quadratic_camera(), rtol=0, atol=0.02)


def test_saliency_is_one_on_the_object_and_zero_around_it() -> None:
    _, flow = scene(1)
    saliency = motion_saliency(flow)[0]
    assert saliency[object_mask()].min() > 0.95
    assert saliency[~object_mask()].max() < 0.05


def test_still_flow_is_finite() -> None:
    assert torch.isfinite(motion_saliency(torch.zeros(1, 2, HEIGHT, WIDTH))).all()


def test_motion_rule_joins_the_segments_of_the_object() -> None:
    probabilities, flow = scene()
    evidence = ClipEvidence(4)
    for frame in range(3):  # streaming: one frame at a time
        evidence.update(probabilities[frame : frame + 1], motion_saliency(flow[frame : frame + 1]))
    grouping = choose_grouping(evidence, "motion")
    assert grouping.segments == (1, 2)
    assert ((group_mask(probabilities, grouping.segments) > 0.5) == object_mask()).all()


def test_order_of_segments_does_not_matter() -> None:
    probabilities, flow = scene()
    evidence = ClipEvidence(4)
    evidence.update(probabilities[:, [2, 0, 1, 3]], motion_saliency(flow))
    assert choose_grouping(evidence, "motion").segments == (0, 2)


def test_border_rule_needs_no_flow() -> None:
    probabilities, _ = scene(1)
    evidence = ClipEvidence(4)
    evidence.update(probabilities, None)
    assert choose_grouping(evidence, "border").segments == (1, 2)
    assert choose_grouping(evidence, "motion").rule == "border"  # nor an image


def test_appearance_rule_needs_an_image_only() -> None:
    probabilities, _ = scene(1)
    picture = torch.where(object_mask(), 200, 60).expand(1, 3, -1, -1).to(torch.uint8)
    evidence = ClipEvidence(4)
    evidence.update(probabilities, None, picture)
    grouping = choose_grouping(evidence, "motion")
    assert (grouping.rule, grouping.segments) == ("appearance", (1, 2))


def test_appearance_keeps_an_object_that_touches_the_border() -> None:
    """The border rule drops whatever touches the border; a subject cut off by the frame does."""
    labels = torch.zeros(HEIGHT, WIDTH, dtype=torch.long)
    labels[8:, 16:48] = 1  # stands on the lower border
    labels[:6, :10] = 2  # something small in a corner
    probabilities = torch.nn.functional.one_hot(labels, 3).permute(2, 0, 1).float()[None]
    picture = torch.where(labels == 1, 220, 40).expand(1, 3, -1, -1).to(torch.uint8)
    evidence = ClipEvidence(3)
    evidence.update(probabilities, None, picture)
    assert choose_grouping(evidence, "appearance").segments == (1,)


def test_colour_contrast_is_one_where_no_colour_is_shared_and_zero_where_all_are() -> None:
    probabilities, _ = scene(1)
    hard = torch.nn.functional.one_hot(probabilities.argmax(1), 4).permute(0, 3, 1, 2).float()
    picture = torch.where(object_mask(), 200, 60).expand(1, 3, -1, -1).to(torch.uint8)
    apart, alike = ClipEvidence(4), ClipEvidence(4)
    apart.update(hard, None, picture)
    alike.update(hard, None, torch.full_like(picture, 90))
    of_object = all_groupings(4).index((1, 2))
    assert colour_contrast(apart)[of_object] == 1
    torch.testing.assert_close(colour_contrast(alike), torch.zeros(14, dtype=torch.float64))


def test_centre_weights_are_a_gaussian_of_a_quarter_of_each_side() -> None:
    weights = centre_weights(81, 161)
    assert weights[40, 80] == weights.max()
    torch.testing.assert_close(weights[40, 80] * torch.exp(torch.tensor(-0.5)), weights[40, 80 + 40], rtol=0.02, atol=0)
    torch.testing.assert_close(weights, weights.flip(0, 1))


def test_a_grouping_without_a_pixel_is_never_the_foreground() -> None:
    probabilities = torch.zeros(1, 3, 8, 8)
    probabilities[:, 1, :, :4] = 1
    probabilities[:, 2, :, 4:] = 1
    evidence = ClipEvidence(3)
    evidence.update(probabilities, None)
    assert choose_grouping(evidence, "border").segments != (0,)


def test_groupings_leave_out_nothing_and_everything() -> None:
    assert len(all_groupings(4)) == 14
    assert () not in all_groupings(3)


def test_guards() -> None:
    with pytest.raises(InputError, match="2 to 8"):
        ClipEvidence(9)
    with pytest.raises(InputError, match="no frames"):
        choose_grouping(ClipEvidence(4))
    evidence = ClipEvidence(4)
    with pytest.raises(InputError, match="got 3 segments"):
        evidence.update(torch.full((1, 3, 8, 8), 1 / 3), None)
