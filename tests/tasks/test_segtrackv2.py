"""SegTrackv2 in the shapes in which it goes around: two copies, merged masks or one folder per object."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tasks.benchmarks import SEGTRACKV2_SEQUENCES, open_benchmark
from tasks.errors import DatasetError, FootageError

COUNTS = {
    "drift": 74, "birdfall": 30, "girl": 21, "cheetah": 29, "parachute": 51, "monkeydog": 71, "hummingbird": 29,
    "soldier": 32, "bmx": 36, "frog": 279, "penguin": 42, "monkey": 31,
}  # fmt: skip
HEIGHT, WIDTH = 6, 4  # portrait, so that a swap of the axes shows


def picture(values: np.ndarray | int) -> bytes:
    return bytes(cv2.imencode(".png", np.broadcast_to(np.uint8(values), (HEIGHT, WIDTH)))[1])


def write_frames(root: Path, name: str, count: int) -> None:
    folder = root / "JPEGImages" / name
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"{index:05d}.png").write_bytes(picture(90))


def write_masks(folder: Path, count: int, mask: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"{index:05d}.png").write_bytes(mask)


def square(top: int, left: int, value: int = 255) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + 2, left : left + 2] = value
    return mask


def write_sequence(root: Path, name: str, count: int, *, annotated: int | None = None) -> Path:
    write_frames(root, name, count)
    write_masks(root / "Annotations" / name, count if annotated is None else annotated, picture(square(0, 0)))
    return root


def write_all(root: Path, *, worm: int, bird_of_paradise: int) -> str:
    for name, count in {**COUNTS, "worm": worm, "bird_of_paradise": bird_of_paradise}.items():
        write_sequence(root, name, count)
    return str(root)


@pytest.mark.parametrize(("worm", "bird", "total"), [(154, 97, 976), (243, 98, 1066)])
def test_both_copies_are_told_apart_by_counting(tmp_path, worm, bird, total):
    benchmark = open_benchmark("segtrackv2", write_all(tmp_path, worm=worm, bird_of_paradise=bird))
    assert tuple(sequence.name for sequence in benchmark.sequences) == SEGTRACKV2_SEQUENCES
    assert sum(sequence.num_annotated for sequence in benchmark.sequences) == total
    assert benchmark.coverage == "14 of 14 sequences"
    assert benchmark.headline_protocol == "gwm-frames"
    assert len(benchmark.notes) == 1
    assert f"the copy of {total} frames" in benchmark.notes[0]


def test_mixed_copies_are_refused(tmp_path):
    write_sequence(tmp_path, "worm", 154)
    write_sequence(tmp_path, "bird_of_paradise", 98)
    with pytest.raises(DatasetError, match=r"worm is of one copy.*Expected the copy of 976.*or the copy of 1066"):
        open_benchmark("segtrackv2", str(tmp_path))


def test_frames_of_the_larger_copy_with_masks_of_the_smaller_count_as_the_smaller(tmp_path):
    write_sequence(tmp_path, "worm", 243, annotated=154)
    benchmark = open_benchmark("segtrackv2", str(tmp_path))
    assert "976" in benchmark.notes[0]
    assert benchmark.coverage == "1 of 14 sequences"


def test_missing_frames_and_masks_are_named(tmp_path):
    write_sequence(tmp_path, "girl", 21)
    (tmp_path / "JPEGImages/girl/00007.png").unlink()
    (tmp_path / "Annotations/girl/00007.png").unlink()
    with pytest.raises(DatasetError, match=r"girl has 20 frames, 20 of them with a mask, where 21.*missing: 7"):
        open_benchmark("segtrackv2", str(tmp_path))
    write_sequence(tmp_path, "worm", 243, annotated=200)
    with pytest.raises(DatasetError, match=r"worm has 243 frames, 200 of them with a mask, where 154 or 243"):
        open_benchmark("segtrackv2", str(tmp_path), ["worm"])


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DatasetError, match=f"no folder {tmp_path}/JPEGImages; expected"):
        open_benchmark("segtrackv2", str(tmp_path))
    write_frames(tmp_path, "girl", 21)
    with pytest.raises(DatasetError, match=f"no folder {tmp_path}/Annotations; expected"):
        open_benchmark("segtrackv2", str(tmp_path))
    write_masks(tmp_path / "Annotations/worm", 1, picture(0))
    with pytest.raises(DatasetError, match="same names"):
        open_benchmark("segtrackv2", str(tmp_path))


@pytest.mark.parametrize("folder", ["Annotations", "GroundTruth"])
def test_objects_in_folders_of_their_own_become_one_mask(tmp_path, folder):
    write_frames(tmp_path, "birdfall", 30)
    truth = tmp_path / folder / "birdfall"
    write_masks(truth / "1", 30, picture(square(0, 0)))
    write_masks(truth / "2", 29, picture(square(3, 1)))  # the second object leaves before the end
    birdfall = open_benchmark("segtrackv2", str(tmp_path)).sequences[0]
    assert np.array_equal(birdfall.annotation(0), (square(0, 0) | square(3, 1)) > 0)
    assert np.array_equal(birdfall.annotation(29), square(0, 0) > 0)
    assert next(birdfall.frames()).shape == (HEIGHT, WIDTH, 3)


def test_objects_count_where_merged_masks_lie_beside_them(tmp_path):
    write_frames(tmp_path, "birdfall", 30)
    truth = tmp_path / "Annotations/birdfall"
    write_masks(truth, 30, picture(square(0, 0)))
    write_masks(truth / "1", 30, picture(square(0, 0)))
    write_masks(truth / "2", 30, picture(square(3, 1)))
    assert open_benchmark("segtrackv2", str(tmp_path)).sequences[0].annotation(3).sum() == 8


def test_objects_that_were_added_in_eight_bits_stay_foreground(tmp_path):
    """255 + 255 is 254 in eight bits, which the preparation of Motion Grouping leaves where two objects overlap."""
    write_frames(tmp_path, "girl", 21)
    with np.errstate(over="ignore"):
        added = square(0, 0) + square(1, 1)
    assert sorted(set(added.flat)) == [0, 254, 255]
    write_masks(tmp_path / "Annotations/girl", 21, picture(added))
    mask = open_benchmark("segtrackv2", str(tmp_path)).sequences[0].annotation(0)
    assert np.array_equal(mask, (square(0, 0) | square(1, 1)) > 0)


def test_grey_edges_of_a_mask_are_cut_at_the_middle(tmp_path):
    write_frames(tmp_path, "girl", 21)
    write_masks(tmp_path / "Annotations/girl", 21, picture(np.array([255, 129, 128, 1])))
    mask = open_benchmark("segtrackv2", str(tmp_path)).sequences[0].annotation(0)
    assert mask[0].tolist() == [True, True, False, False]


def test_masks_named_like_no_frame_are_refused(tmp_path):
    write_sequence(tmp_path, "girl", 21)
    write_masks(tmp_path / "Annotations/girl", 1, picture(0))
    (tmp_path / "Annotations/girl/girl_01.png").write_bytes(picture(0))
    with pytest.raises(DatasetError, match=r"girl_01 .* are named like no frame"):
        open_benchmark("segtrackv2", str(tmp_path))


def test_objects_of_unlike_sizes_are_refused(tmp_path):
    write_frames(tmp_path, "girl", 21)
    write_masks(tmp_path / "Annotations/girl/1", 21, picture(255))
    write_masks(tmp_path / "Annotations/girl/2", 21, bytes(cv2.imencode(".png", np.zeros((2, 2), np.uint8))[1]))
    girl = open_benchmark("segtrackv2", str(tmp_path)).sequences[0]
    with pytest.raises(FootageError, match=r"\(2, 2\).*\(6, 4\).*one size"):
        girl.annotation(0)
