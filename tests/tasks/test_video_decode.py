"""Real videos of every container, turned, unevenly timed, odd in size."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from PIL import Image

from tasks.decode import iterate_frames, probe
from tasks.video_decode import apply_display_matrix
from tests.decoded import clip_of, frames_of, numbers_of
from tests.shared import DAVIS, shared_or_skip
from tests.video_files import (
    CODECS,
    frame_number,
    numbered_frames,
    red_corner,
    repeat_video,
    write_video,
)


@pytest.mark.parametrize("extension", CODECS)
def test_every_container_gives_all_frames_in_order_with_their_times(tmp_path: Path, extension: str) -> None:
    path = write_video(tmp_path / f"clip{extension}", numbered_frames(12), frame_rate=25)
    frames = frames_of(path)
    assert numbers_of(frames) == list(range(12))
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.time_seconds for frame in frames] == pytest.approx([i / 25 for i in range(12)], abs=1e-3)
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert frames[0].image.dtype == np.uint8
    assert {frame.jpeg for frame in frames} == {frame.annotation for frame in frames} == {None}
    assert frames[0].source_name == path.name
    info = probe(clip_of(path))
    assert (info.width, info.height, info.frame_rate) == (64, 48, 25)
    assert info.duration_seconds == pytest.approx(12 / 25, abs=0.002)


@pytest.mark.parametrize("extension", CODECS)
def test_odd_sizes(tmp_path: Path, extension: str) -> None:
    frames = frames_of(write_video(tmp_path / f"clip{extension}", numbered_frames(4, width=65, height=47)))
    assert {frame.image.shape for frame in frames} == {(47, 65, 3)}
    assert numbers_of(frames) == list(range(4))


def test_pixels_are_those_that_opencv_decodes(tmp_path: Path) -> None:
    """Another program over the same codec: equal up to the rounding of YUV to RGB."""
    sequence = shared_or_skip(DAVIS) / "JPEGImages/480p/dog"
    images = [np.asarray(Image.open(path)) for path in sorted(sequence.iterdir())[:3]]
    path = write_video(tmp_path / "dog.mp4", images)
    capture = cv2.VideoCapture(str(path))
    for frame, source in zip(frames_of(path), images, strict=True):
        is_read, expected = capture.read()
        assert is_read
        assert np.abs(frame.image.astype(int) - expected[..., ::-1]).mean() < 1.0
        assert np.abs(frame.image.astype(int) - source).mean() < 4.0  # and close to what was encoded
    capture.release()


@pytest.mark.parametrize(
    ("degrees", "corner", "shape"),
    [
        (0, "top left", (48, 64, 3)),
        (90, "bottom left", (64, 48, 3)),  # counterclockwise, as ffmpeg counts
        (180, "bottom right", (48, 64, 3)),
        (-90, "top right", (64, 48, 3)),  # a phone held upright
    ],
)
@pytest.mark.parametrize("extension", [".mp4", ".mov", ".mkv"])
def test_rotation_is_applied(tmp_path: Path, extension: str, degrees: int, corner: str, shape: Any) -> None:
    path = write_video(tmp_path / f"clip{extension}", rotation_degrees=degrees)
    frames = frames_of(path)
    assert {frame.image.shape for frame in frames} == {shape}
    assert {red_corner(frame.image) for frame in frames} == {corner}
    assert numbers_of(frames) == list(range(10))
    info = probe(clip_of(path))
    assert (info.height, info.width) == shape[:2]


def test_display_matrices_turn_and_mirror_as_their_definition_says() -> None:
    """All eight against the definition: column x, row y is shown at column a x + c y, row b x + d y."""
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    one = 1 << 16
    for a, b, c, d in [(s, 0, 0, t) for s in (one, -one) for t in (one, -one)] + [
        (0, s, t, 0) for s in (one, -one) for t in (one, -one)
    ]:
        shown = {
            ((b * x + d * y) // one, (a * x + c * y) // one): image[y, x].tolist() for y in range(2) for x in range(3)
        }
        top, left = min(row for row, _ in shown), min(column for _, column in shown)
        turned = apply_display_matrix(image, (a, b, 0, c, d, 0, 0, 0, 1 << 30))
        assert {(row - top, column - left): pixel for (row, column), pixel in shown.items()} == {
            (row, column): turned[row, column].tolist() for row, column in np.ndindex(*turned.shape[:2])
        }


UNEVEN_MS = [0, 33, 67, 100, 400, 433, 900, 933, 966, 1000]


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".webm"])
def test_uneven_timing_is_kept_and_resampled_by_time(tmp_path: Path, extension: str) -> None:
    path = write_video(tmp_path / f"clip{extension}", times_ms=UNEVEN_MS)
    frames = frames_of(path)
    assert [frame.time_seconds for frame in frames] == pytest.approx([ms / 1000 for ms in UNEVEN_MS], abs=2e-3)
    # Ticks of 10 fps at 0, 100, ..., 1000 ms, nearest frames by hand; none twice.
    sampled = frames_of(path, fps=10)
    assert numbers_of(sampled) == [0, 3, 4, 5, 6, 9]
    assert [frame.index for frame in sampled] == list(range(6))
    assert sampled[2].time_seconds == pytest.approx(0.4, abs=2e-3)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (30, list(range(30))),
        (15, list(range(0, 30, 2))),
        (10, list(range(0, 30, 3))),
        (1, [0]),
        (1000, list(range(30))),  # no frame is invented
        (12, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]),  # halfway: the earlier one
    ],
)
def test_frame_rates(tmp_path: Path, fps: float, expected: list[int]) -> None:
    path = write_video(tmp_path / "clip.mp4", numbered_frames(30))
    assert numbers_of(frames_of(path, fps=fps)) == expected


def test_max_side_shrinks_by_area_and_never_enlarges(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", numbered_frames(3, width=64, height=48))
    assert {frame.image.shape for frame in frames_of(path, max_side=32)} == {(24, 32, 3)}
    assert {frame.image.shape for frame in frames_of(path, max_side=640)} == {(48, 64, 3)}
    turned = write_video(tmp_path / "turned.mp4", numbered_frames(3), rotation_degrees=90)
    assert frames_of(turned, max_side=32)[0].image.shape == (32, 24, 3)
    whole, half = frames_of(path)[1].image, frames_of(path, max_side=32)[1].image
    averaged = whole.reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(averaged - half).max() <= 0.75  # rounding


def test_sound_beside_the_video_is_left_alone(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", audio_seconds=2.0)
    assert numbers_of(frames_of(path)) == list(range(10))


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """With the collector of cycles off, so that a frame that something holds on to (0.9 MB each) shows."""
    images = numbered_frames(4, width=640, height=480) * 30
    frames = iterate_frames(clip_of(write_video(tmp_path / "clip.mp4", images, codec_options={"preset": "ultrafast"})))

    def used() -> int:
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]  # with the one that decodes
        return sum(int(process.memory_info().rss) for process in processes)

    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            next(frames)
        before = used()
        for _ in range(99):
            next(frames)
        assert used() - before < 20 * 2**20
        assert len(list(frames)) == 1
    finally:
        gc.enable()


def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """Of this process and the one that decodes, together, at 1080p; an hour is in ``test_long_video.py``."""
    images = [np.roll(numbered_frames(1, 1920, 1080)[0], 8 * number, axis=1) for number in range(12)]
    short = write_video(tmp_path / "short.mp4", images, frame_rate=12, codec_options={"preset": "ultrafast"})
    long = repeat_video(short, tmp_path / "long.mp4", 20)

    def peak_bytes(path: Path) -> int:
        peak = num_frames = 0
        for _ in iterate_frames(clip_of(path)):
            num_frames += 1
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            peak = max(peak, sum(process.memory_info().rss for process in processes if process.is_running()))
        assert num_frames == (12 if path == short else 240)
        return peak

    peak_bytes(short)  # the server of children, and what this process keeps
    assert peak_bytes(long) < peak_bytes(short) + 40 * 2**20  # 6 frames; all of them would be 1.5 GB


def test_frames_stream(tmp_path: Path) -> None:
    """The first frame arrives without the rest being decoded, and leaving early closes the file."""
    path = write_video(tmp_path / "clip.mp4", numbered_frames(50))
    frames = iterate_frames(clip_of(path))
    assert frame_number(next(frames).image) == 0
    frames.close()  # type: ignore[attr-defined]
    path.unlink()
    assert next(frames, None) is None
