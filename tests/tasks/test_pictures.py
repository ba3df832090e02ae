"""Pictures against other implementations (torchvision's Middlebury wheel) and cases one can check by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.utils import flow_to_image

from tasks.errors import InputError
from tasks.pictures import (
    FOREGROUND_COLOUR,
    colour_wheel,
    contact_sheet,
    contact_strip,
    flow_picture,
    mask_picture,
    overlay,
    resized,
    segment_colours,
    segments_picture,
    wheel_legend,
)


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_flow_colours_agree_with_torchvision():
    flow = np.random.default_rng(0).normal(0, 4, (2, 40, 60)).astype(np.float32)
    ours = flow_picture(flow).astype(int)
    theirs = flow_to_image(torch.from_numpy(flow)).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - theirs).max() <= 1  # torchvision computes in float32


def test_flow_wheel_has_the_published_corners():
    wheel = np.rint(colour_wheel() * 255).astype(int)
    assert wheel.shape == (55, 3)
    for index, expected in {
        0: (255, 0, 0),
        15: (255, 255, 0),
        21: (0, 255, 0),
        25: (0, 255, 255),
        36: (0, 0, 255),
        49: (255, 0, 255),
    }.items():
        assert tuple(wheel[index]) == expected


def test_flow_directions_and_lengths_read_as_documented():
    flow = np.zeros((2, 1, 5), dtype=np.float32)
    flow[0, 0, 1], flow[1, 0, 2], flow[0, 0, 3], flow[1, 0, 4] = 1, 1, -1, -1
    none, right, down, left, up = flow_picture(flow)[0].astype(int)
    assert none.tolist() == [255, 255, 255]
    assert right.tolist() == [255, 0, 0]
    assert down[0] > 200
    assert down[1] > 200
    assert down[2] < 20
    assert left[0] < 20
    assert left[1] > 150
    assert up[2] > 200
    assert up[1] < 60
    faint = flow_picture(flow, max_px=4)[0, 1]
    assert faint.tolist() == [255, 191, 191]
    assert flow_picture(flow, max_px=0.5)[0, 1].tolist() == [
        191,
        0,
        0,
    ]  # longer than max_px: darkened to 75 %


def test_flow_without_motion_or_with_nan_is_white():
    assert (flow_picture(np.zeros((2, 4, 5), np.float32)) == 255).all()
    assert (flow_picture(np.full((2, 4, 5), np.nan, np.float32)) == 255).all()


def test_legend_is_drawn_in_the_corner_only():
    flow = np.zeros((2, 100, 150), np.float32)
    picture = flow_picture(flow, legend=True)
    assert (picture[:60] == 255).all()
    assert (picture[80:, 130:] != 255).any()
    disc = wheel_legend(21)
    assert tuple(disc[0, 0]) == (255, 255, 255)
    assert disc[10, 20, 0] == 255  # right is red
    assert disc[10, 20, 1] < 30


def test_overlay_fills_inside_draws_outline_and_leaves_the_rest(frame):
    mask = np.zeros(frame.shape[:2], dtype=bool)
    mask[10:30, 20:50] = True
    picture = overlay(frame, mask, opacity=0.5)
    assert np.array_equal(picture[~mask], frame[~mask])
    assert (picture[10, 20:50] == FOREGROUND_COLOUR).all()
    inner = picture[20, 35].astype(int)
    assert np.abs(inner - (frame[20, 35].astype(int) + FOREGROUND_COLOUR) / 2).max() <= 1
    flat = overlay(frame, mask.astype(np.uint8) * 255, opacity=0.5, outline_px=0)
    assert np.abs(flat[10, 20].astype(int) - (frame[10, 20].astype(int) + FOREGROUND_COLOUR) / 2).max() <= 1


def test_overlay_draws_no_outline_along_the_picture_border(frame):
    picture = overlay(frame, np.ones(frame.shape[:2], dtype=bool))
    assert not (picture[0] == FOREGROUND_COLOUR).all()


def test_overlay_of_an_empty_mask_is_a_copy(frame):
    picture = overlay(frame, np.zeros(frame.shape[:2], dtype=bool))
    assert np.array_equal(picture, frame)
    assert picture is not frame


def test_overlay_refuses_a_mask_of_another_size(frame):
    with pytest.raises(InputError, match="resize the mask"):
        overlay(frame, np.zeros((10, 10), dtype=bool))
    with pytest.raises(InputError, match="uint8"):
        overlay(frame.astype(np.float32), np.zeros((48, 64), dtype=bool))


def test_segments_are_blended_by_probability():
    probabilities = np.zeros((3, 2, 2), dtype=np.float32)
    probabilities[0, 0] = probabilities[2, 1] = 1
    probabilities[:, 1, 1] = (0.5, 0.5, 0)
    colours = np.array(segment_colours(3), dtype=float)
    picture = segments_picture(probabilities)
    assert picture[0, 0].tolist() == colours[0].tolist()
    assert picture[1, 0].tolist() == colours[2].tolist()
    assert np.abs(picture[1, 1] - (colours[0] + colours[1]) / 2).max() <= 1


def test_segments_over_a_frame_have_its_size(frame):
    probabilities = np.full((4, 12, 16), 0.25, dtype=np.float32)
    assert segments_picture(probabilities, frame=frame).shape == frame.shape
    with pytest.raises(InputError, match="k, h, w"):
        segments_picture(probabilities[0])


def test_segment_colours_are_distinct_for_any_count():
    for count in (2, 7, 8, 20):
        assert len(set(segment_colours(count))) == count


def test_mask_pictures_are_black_and_white():
    assert mask_picture(np.array([[0, 7]]))[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_strips_and_sheets_keep_proportions(frame):
    strip = contact_strip([frame, frame], height=24, gap_px=2)
    assert strip.shape == (24, 32 + 2 + 32, 3)
    assert (strip[:, 32:34] == 255).all()
    assert np.array_equal(strip[:, :32], resized(frame, height=24))
    sheet = contact_sheet([[frame, frame], [frame]], height=24, gap_px=2, background=(1, 2, 3))
    assert sheet.shape == (50, 66, 3)
    assert (sheet[26:, 33:] == (1, 2, 3)).all()
    with pytest.raises(InputError):
        contact_strip([])
    with pytest.raises(InputError):
        contact_sheet([])


def test_flow_picture_refuses_other_shapes():
    with pytest.raises(InputError, match=r"\[2, H, W\]"):
        flow_picture(np.zeros((4, 5, 2), np.float32))
