"""Stored rows against rows made again: where the tolerances lie, and that each difference is found."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tasks.decode import Frame
from tasks.flow_codec import decode_flow, encode_flow
from tasks.row_comparison import MAX_FLOW_DIFFERENCE_PX, RowComparison
from tasks.shards import FrameRow
from tests.tasks.small_footage import HEIGHT, WIDTH


def row(**changes: object) -> FrameRow:
    flow = np.zeros((2, HEIGHT, WIDTH), np.float32)
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    values = {
        "time_seconds": 0.5,
        "width": WIDTH,
        "height": HEIGHT,
        "jpeg": cv2.imencode(".jpg", picture)[1].tobytes(),
        "annotation": cv2.imencode(".png", picture[..., 0])[1].tobytes(),
        "flows": {1: encode_flow(flow), -1: None},
    }
    return FrameRow(**{**values, **changes})  # type: ignore[arg-type]


def compared(made: FrameRow, *, is_file: bool = False) -> RowComparison:
    stored = row()
    comparison = RowComparison()
    comparison._is_file.append(is_file)
    comparison.take({**vars(stored), "flow_p1": stored.flows[1], "flow_m1": stored.flows[-1]}, made)
    return comparison


def flow_off_by(pixels: float) -> bytes:
    flow = np.zeros((2, HEIGHT, WIDTH), np.float32)
    flow[1, 3, 4] = pixels
    return encode_flow(flow)


def test_tolerances_are_where_they_are_said_to_be() -> None:
    assert compared(row()).differences == {}
    one_step = compared(row(flows={1: flow_off_by(MAX_FLOW_DIFFERENCE_PX), -1: None}))
    assert (one_step.differences, one_step.max_flow_px) == ({}, MAX_FLOW_DIFFERENCE_PX)
    two_steps = compared(row(flows={1: flow_off_by(2 * MAX_FLOW_DIFFERENCE_PX), -1: None}))
    assert two_steps.differences["flow"].worst == decode_flow(flow_off_by(2 / 64)).max()
    shade = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 91, np.uint8))[1].tobytes()
    assert compared(row(jpeg=shade)).differences == {}
    assert compared(row(jpeg=shade)).num_equal == 0
    assert compared(row(jpeg=shade), is_file=True).differences.keys() == {"pictures"}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"time_seconds": 0.51}, "frames"),
        ({"width": 3}, "frames"),
        ({"jpeg": b"no picture"}, "pictures"),
        ({"annotation": None}, "annotations"),
        ({"annotation": cv2.imencode(".png", np.zeros((HEIGHT, WIDTH), np.uint8))[1].tobytes()}, "annotations"),
        ({"flows": {1: None, -1: None}}, "flow"),
        ({"flows": {1: encode_flow(np.zeros((2, 4, 4), np.float32)), -1: None}}, "flow"),
        ({"flows": {1: flow_off_by(0), -1: flow_off_by(0)}}, "flow"),
    ],
)
def test_each_difference_is_found(changes: dict[str, object], kind: str) -> None:
    assert compared(row(**changes)).differences.keys() == {kind}


def test_frames_that_only_one_side_has_are_counted() -> None:
    comparison = RowComparison()
    comparison._is_file.append(False)
    comparison.take(None, row())
    comparison.take(vars(row()), None)
    assert (comparison.num_frames, comparison.differences["frames"].num_frames) == (2, 2)


def test_frames_that_are_passed_over_are_forgotten() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frames = [Frame(index=index, time_seconds=0.0, image=image, source_name="a.jpg") for index in range(2)]
    comparison = RowComparison()
    comparison.skip(comparison.watched(iter(frames)))
    assert (comparison.num_frames, len(comparison._is_file)) == (0, 0)
