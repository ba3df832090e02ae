"""Decoding in a confined process per clip against a bare PyAV loop in this one: speed, and what a clip costs.

The loop is what a script without protection does: open, decode, convert to RGB. Both yield the same arrays, which is
checked. 480p is 300 frames of a texture that moves, H.264 at CRF 23; what a clip costs is measured on two frames of
64 x 48.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import best_seconds, print_ratios
from tasks.decode import DecodeOptions, iterate_frames
from tasks.decode_limits import DecodeLimits
from tasks.footage import FootageItem
from tests.video_files import numbered_frames, write_video


def main() -> None:
    """Print the two comparisons."""
    with tempfile.TemporaryDirectory() as folder:
        _compare_speed(write_video(Path(folder) / "480p.mp4", _moving_texture(300), codec_options={"crf": "23"}))
        _compare_overhead(write_video(Path(folder) / "two_frames.mp4", numbered_frames(2)))


def _compare_speed(video: Path) -> None:
    for ours, bare in zip(_ours(video), _bare(video), strict=True):
        assert np.array_equal(ours, bare)
    candidates = {
        "bare PyAV, this process": lambda: _exhaust(_bare(video)),
        "bare PyAV, one thread as ours": lambda: _exhaust(_bare(video, threads=1)),
        "confined": lambda: _exhaust(_ours(video)),
    }
    print_ratios("decode 300 frames of 480x854", best_seconds(candidates, rounds=3), peer="bare PyAV, this process")


def _compare_overhead(video: Path) -> None:
    def spaced(frames: Iterator[NDArray[np.uint8]]) -> float:
        time.sleep(0.05)  # flow and encoding come between clips: time in which the next process is made
        started = time.perf_counter()
        _exhaust(frames)
        return time.perf_counter() - started

    pairs = [(spaced(_ours(video)), spaced(_bare(video))) for _ in range(30)]
    ours, bare = (sorted(times) for times in zip(*pairs, strict=True))
    print("overhead per clip beside decoding")
    for name, at in (("best", 0), ("median", len(pairs) // 2)):
        print(f"  {name:<46} {(ours[at] - bare[at]) * 1e3:10.3f} ms")


def _ours(video: Path) -> Iterator[NDArray[np.uint8]]:
    item = FootageItem(uri=str(video), clip=video.stem, kind="video")
    for frame in iterate_frames(item, DecodeOptions(), DecodeLimits()):
        yield frame.image


def _bare(video: Path, threads: int | None = None) -> Iterator[NDArray[np.uint8]]:
    with av.open(str(video)) as container:
        if threads is not None:
            container.streams.video[0].codec_context.thread_count = threads
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _exhaust(frames: Iterator[NDArray[np.uint8]]) -> None:
    for _ in frames:
        pass


def _moving_texture(num_frames: int, height: int = 480, width: int = 854) -> list[NDArray[np.uint8]]:
    noise = np.random.default_rng(0).integers(0, 256, (height, width + 2 * num_frames, 3), np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return [np.ascontiguousarray(texture[:, 2 * start :][:, :width]) for start in range(num_frames)]
