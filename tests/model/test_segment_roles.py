"""Roles of segments: a closed form, and what they change: little where motion decides, all where nothing does."""

from __future__ import annotations

import math

import pytest
import torch

from model.clip_evidence import ClipEvidence, all_groupings
from model.errors import InputError
from model.foreground import choose_grouping
from model.segment_roles import SegmentRoles, count_roles


def stripes(saliency: torch.Tensor | None = None) -> ClipEvidence:
    """Three upright stripes: 0 left, 1 in the middle, 2 right."""
    probabilities = torch.zeros(2, 3, 12, 18)
    for segment in range(3):
        probabilities[:, segment, :, 6 * segment : 6 * segment + 6] = 1
    images = torch.zeros(2, 3, 12, 18, dtype=torch.uint8)
    images[:, 0, :, :6] = 200  # the left stripe has a colour of its own, as the right one has
    images[:, 1, :, 12:] = 200
    evidence = ClipEvidence(3)
    evidence.update(probabilities, saliency, images)
    return evidence


def test_the_prior_is_laplaces_rule_of_succession() -> None:
    roles = count_roles(3, [(0,), (0, 2), (0,)])
    assert roles == SegmentRoles(num_clips=3, num_foreground=(3, 0, 1))
    by_group = dict(zip(all_groupings(3), roles.log_prior().tolist(), strict=True))
    assert by_group[(0,)] == pytest.approx(math.log(4 / 5 * (1 - 1 / 5) * (1 - 2 / 5)))
    assert by_group[(0, 2)] == pytest.approx(math.log(4 / 5 * (1 - 1 / 5) * 2 / 5))


def test_where_no_clip_was_seen_nothing_is_preferred() -> None:
    nothing = count_roles(3, [])
    assert nothing.log_prior().unique().numel() == 1
    for rule in ("motion", "appearance", "border"):
        saliency = torch.rand(2, 12, 18)
        assert (
            choose_grouping(stripes(saliency), rule, nothing).segments
            == choose_grouping(stripes(saliency), rule).segments
        )


def test_still_images_take_what_motion_taught() -> None:
    assert choose_grouping(stripes(), "appearance").segments == (1,)  # the centre, off the border
    right = SegmentRoles(num_clips=30, num_foreground=(0, 0, 30))
    assert choose_grouping(stripes(), "appearance", right).segments == (2,)
    assert choose_grouping(stripes(), "motion", right).segments == (2,)  # nothing moves: the same rule
    assert choose_grouping(stripes(), "border", right).segments == (1,)  # GWM's own rule, as published


def test_motion_that_is_clear_outweighs_what_was_taught() -> None:
    saliency = torch.zeros(2, 12, 18)
    saliency[:, :, :6] = 1
    right = SegmentRoles(num_clips=30, num_foreground=(0, 0, 30))
    assert choose_grouping(stripes(saliency), "motion", right).segments == (0,)


def test_roles_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match="roles of 2 segments for a clip of 3"):
        choose_grouping(stripes(), "motion", SegmentRoles(num_clips=1, num_foreground=(1, 0)))
    with pytest.raises(InputError, match="between 0 and the number of clips"):
        SegmentRoles(num_clips=1, num_foreground=(2, 0))
