"""Benchmarks are read in place, in the published layout; what is missing is named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tasks.benchmarks import DAVIS16_VALIDATION, open_benchmark
from tasks.benchmarks.davis16 import _NUM_FRAMES
from tasks.encode import VideoWriter
from tasks.errors import ConfigError, DatasetError, FootageError
from tests.shared import DAVIS, shared_or_skip
from tests.tasks.moving_square import square_clip, write_davis


def rendered(root: Path, num_frames: int = 4) -> Path:
    frames, masks = square_clip(num_frames)
    (root / "footage").mkdir(parents=True)
    with VideoWriter(root / "footage/fox.mp4", fps=25) as writer:
        for frame in frames:
            writer.write(frame)
    folder = root / "truth/fox/masks"
    folder.mkdir(parents=True)
    for index, mask in enumerate(masks):
        cv2.imwrite(str(folder / f"{index:05d}.png"), mask.astype(np.uint8) * 255)
    return root


def test_davis_layout(tmp_path):
    frames, masks = square_clip(3)
    root = write_davis(tmp_path, {"dog": (frames, masks), "camel": square_clip(2, seed=1)})
    benchmark = open_benchmark("davis16", str(root))
    assert [sequence.name for sequence in benchmark.sequences] == ["camel", "dog"]  # the split's order
    dog = benchmark.sequences[1]
    assert all(np.array_equal(got, frame) for got, frame in zip(dog.frames(), frames, strict=True))
    assert all(np.array_equal(dog.annotation(index), mask) for index, mask in enumerate(masks))
    assert dog.annotation(3) is None


def test_training_sequences_are_scored_only_when_named(tmp_path):
    root = str(write_davis(tmp_path, {"dog": square_clip(2), "bear": square_clip(2)}))
    assert [sequence.name for sequence in open_benchmark("davis16", root).sequences] == ["dog"]
    assert [sequence.name for sequence in open_benchmark("davis16", root, ["bear"]).sequences] == ["bear"]


def test_footage_outside_the_split_is_scored_when_there_is_nothing_else(tmp_path):
    root = str(write_davis(tmp_path, {"bear": square_clip(2), "boat": square_clip(2)}))
    assert [sequence.name for sequence in open_benchmark("davis16", root).sequences] == ["bear", "boat"]


def test_frames_without_annotation_have_none(tmp_path):
    frames, masks = square_clip(3)
    root = write_davis(tmp_path, {"dog": (frames, [None, masks[1], None])})
    dog = open_benchmark("davis16", str(root)).sequences[0]
    assert [dog.annotation(index) is None for index in range(3)] == [True, False, True]


def test_rendered_layout_pairs_masks_with_frames_in_order(tmp_path):
    benchmark = open_benchmark("rendered", str(rendered(tmp_path)))
    assert [sequence.name for sequence in benchmark.sequences] == ["fox"]
    fox = benchmark.sequences[0]
    frames, masks = square_clip(4)
    decoded = list(fox.frames())
    assert len(decoded) == 4
    assert np.abs(decoded[2].astype(int) - frames[2]).mean() < 10
    assert np.array_equal(fox.annotation(2), masks[2])


def test_real_davis():
    benchmark = open_benchmark("davis16", str(shared_or_skip(DAVIS)), ["libby", "dog", "dog"])
    assert [sequence.name for sequence in benchmark.sequences] == ["libby", "dog"]
    libby = benchmark.sequences[0]
    assert next(iter(libby.frames())).shape == (480, 854, 3)
    annotation = libby.annotation(0)
    assert annotation is not None
    assert annotation.shape == (480, 854)
    assert 0.001 < annotation.mean() < 0.5
    assert all(address is not None for address in libby.annotations)
    names = [sequence.name for sequence in open_benchmark("davis16", str(DAVIS)).sequences]
    assert names == [name for name in DAVIS16_VALIDATION if name in names]


def test_unknown_names_list_what_there_is(tmp_path):
    root = str(write_davis(tmp_path, {"dog": square_clip(2), "camel": square_clip(2)}))
    with pytest.raises(ConfigError, match=r"'davis17'.*davis16, fbms59, rendered, segtrackv2"):
        open_benchmark("davis17", root)
    with pytest.raises(ConfigError, match=r"cat, cow.*camel, dog"):
        open_benchmark("davis16", root, ["dog", "cat", "cow"])
    with pytest.raises(ConfigError, match="none"):
        open_benchmark("davis16", root, [])


@pytest.mark.parametrize(
    ("benchmark", "present", "missing"),
    [
        ("davis16", [], "JPEGImages/480p"),
        ("davis16", ["JPEGImages/480p"], "Annotations/480p"),
        ("rendered", [], "footage"),
        ("rendered", ["footage"], "truth"),
    ],
)
def test_missing_folder_is_named(tmp_path, benchmark, present, missing):
    for folder in present:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DatasetError, match=f"{tmp_path}/{missing}; expected"):
        open_benchmark(benchmark, str(tmp_path))


def test_empty_folders_are_refused(tmp_path):
    for folder in ("JPEGImages/480p/dog", "Annotations/480p", "footage", "truth"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DatasetError, match="same names"):
        open_benchmark("davis16", str(tmp_path))
    with pytest.raises(DatasetError, match="expected videos"):
        open_benchmark("rendered", str(tmp_path))


def test_damaged_mask_is_told(tmp_path):
    root = write_davis(tmp_path, {"dog": square_clip(2)})
    (root / "Annotations/480p/dog/00001.png").write_bytes(b"no picture")
    dog = open_benchmark("davis16", str(root)).sequences[0]
    with pytest.raises(FootageError, match="corrupt"):
        dog.annotation(1)


def test_part_of_the_split_says_so(tmp_path):
    root = str(write_davis(tmp_path, {"dog": square_clip(3), "camel": square_clip(2), "bear": square_clip(2)}))
    found = open_benchmark("davis16", root)
    assert found.coverage == "2 of 20 sequences"
    assert found.notes == ("camel has 2 frames where 90 are published", "dog has 3 frames where 60 are published")
    named = open_benchmark("davis16", root, ["dog", "bear"])
    assert named.coverage == "1 of 20 sequences, 1 others"
    assert named.headline_protocol == "gwm"
    assert open_benchmark("rendered", str(rendered(tmp_path / "rendered"))).coverage == "1 sequence"


def test_full_split_that_lacks_frames_is_refused(tmp_path):
    frame = cv2.imencode(".png", np.zeros((2, 3), np.uint8))[1].tobytes()
    for name, count in _NUM_FRAMES.items():
        for kind in ("JPEGImages", "Annotations"):
            folder = tmp_path / kind / "480p" / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index:05d}.png").write_bytes(frame)
    full = open_benchmark("davis16", str(tmp_path))
    assert full.coverage == "20 of 20 sequences"
    assert full.notes == ()
    assert sum(len(sequence.annotations) for sequence in full.sequences) == 1376  # Perazzi et al., CVPR 2016
    (tmp_path / "JPEGImages/480p/dog/00012.png").unlink()
    (tmp_path / "Annotations/480p/cows/00103.png").unlink()
    with pytest.raises(DatasetError, match=r"cows has masks for 103 of its 104.*dog has 59 frames.*missing: 12"):
        open_benchmark("davis16", str(tmp_path))
    (note,) = open_benchmark("davis16", str(tmp_path), ["dog"]).notes
    assert note == "dog has 59 frames where 60 are published (missing: 12)"
