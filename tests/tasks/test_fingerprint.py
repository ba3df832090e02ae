"""Copies of real clips look alike, however they were made; different clips do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.fingerprint import NUM_BYTES, FingerprintBuilder, distance
from tasks.fingerprint_index import MAX_DISTANCE
from tasks.footage_files import list_images
from tests.shared import DAVIS, shared_or_skip
from tests.video_files import write_video

Pictures = Sequence[NDArray[np.uint8]]


def fingerprint(images: Iterable[NDArray[np.uint8]]) -> bytes | None:
    builder = FingerprintBuilder()
    for image in images:
        builder.add(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    return builder.finish()


def encoded(images: Pictures, path: Path, *, crf: int, frame_rate: int = 24) -> list[NDArray[np.uint8]]:
    """What is left of the frames after H.264."""
    even = [np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]) for image in images]
    options = {"crf": str(crf), "preset": "ultrafast"}
    with av.open(str(write_video(path, even, frame_rate=frame_rate, codec_options=options))) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def scaled(images: Pictures, width: int, height: int) -> list[NDArray[np.uint8]]:
    return [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]


def cropped(images: Pictures, share: float) -> list[NDArray[np.uint8]]:
    """Without ``share`` of the width and height at each side."""
    height, width = images[0].shape[:2]
    rows, columns = round(share * height), round(share * width)
    return [image[rows : height - rows, columns : width - columns] for image in images]


COPIES: dict[str, Callable[[Pictures, Path], Pictures]] = {
    "a low bitrate": lambda images, path: encoded(images, path, crf=40),
    "another size": lambda images, path: encoded(scaled(images, 160, 90), path, crf=28),
    "half the frame rate": lambda images, path: encoded(images[::2], path, crf=28, frame_rate=12),
    "two frames of three": lambda images, path: [image for at, image in enumerate(images) if at % 3 != 2],
    "a border cut off": lambda images, path: encoded(cropped(images, 0.02), path, crf=28),
    "brighter": lambda images, path: [cv2.convertScaleAbs(image, alpha=1.15, beta=10) for image in images],
    "a start that is missing": lambda images, path: images[len(images) // 20 :],
}


@pytest.fixture(scope="module")
def sequences() -> dict[str, list[NDArray[np.uint8]]]:
    """The ten real sequences at half their size, RGB."""
    root = shared_or_skip(DAVIS / "JPEGImages" / "480p")
    return {
        folder.name: [cv2.imread(uri, cv2.IMREAD_REDUCED_COLOR_2)[..., ::-1] for uri in list_images(str(folder))]
        for folder in sorted(root.iterdir())
    }


@pytest.fixture(scope="module")
def originals(sequences: dict[str, list[NDArray[np.uint8]]]) -> dict[str, bytes]:
    found = {name: fingerprint(images) for name, images in sequences.items()}
    return {name: one for name, one in found.items() if one is not None}


@pytest.mark.shared
@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_near(
    sequences: dict[str, list[NDArray[np.uint8]]], originals: dict[str, bytes], tmp_path: Path, kind: str
) -> None:
    for name in ("breakdance", "drift-straight", "libby"):  # the three whose copies came out furthest
        copy = fingerprint(COPIES[kind](sequences[name], tmp_path / "copy.mp4"))
        assert copy is not None
        assert distance(copy, originals[name]) <= MAX_DISTANCE


@pytest.mark.shared
def test_different_clips_are_far(sequences: dict[str, list[NDArray[np.uint8]]], originals: dict[str, bytes]) -> None:
    assert len(originals) == 10
    pairs = [distance(first, second) for first, second in combinations(originals.values(), 2)]
    assert min(pairs) > 2 * MAX_DISTANCE
    for images in sequences.values():  # nor is one half of a clip a copy of the other
        halves = fingerprint(images[: len(images) // 2]), fingerprint(images[len(images) // 2 :])
        assert halves[0] is not None
        assert halves[1] is not None
        assert distance(*halves) > MAX_DISTANCE


@pytest.mark.parametrize("num_frames", [1, 2, 3, 63, 64, 65, 300])
def test_clips_of_any_length_have_one(num_frames: int) -> None:
    texture = np.random.default_rng(1).integers(0, 128, (40, 60 + num_frames, 3), np.uint8)
    shade = np.linspace(0, 127, 40).astype(np.uint8)[:, None, None]  # of what moves fast the average shows nothing
    moving = cv2.GaussianBlur(texture, (0, 0), 3) + shade
    found = fingerprint(moving[:, at : at + 60] for at in range(num_frames))
    assert found is not None
    assert len(found) == NUM_BYTES


def test_memory_does_not_grow_with_the_clip() -> None:
    builder = FingerprintBuilder()
    for _ in range(5000):
        builder.add(np.zeros((8, 8), np.uint8))
    assert len(builder._bins) <= 64
    assert sum(count for _, count in builder._bins) == 5000


@pytest.mark.parametrize("images", [[], [np.full((40, 60, 3), 7, np.uint8)] * 5])
def test_where_there_is_nothing_to_see_there_is_none(images: Pictures) -> None:
    assert fingerprint(images) is None
