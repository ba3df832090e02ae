"""FBMS59 as distributed and as Motion Grouping prepares it, with the traps of its masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.dis import DisEstimator
from tasks.benchmarks import FBMS59_TEST, open_benchmark
from tasks.benchmarks.fbms59 import _NUM_ANNOTATED, decode_fbms_mask
from tasks.errors import DatasetError, FootageError
from tasks.evaluate_sequence import evaluate_sequence
from tasks.scores import LABEL_FREE
from tasks.segment_clip import ClipOptions, ClipSegmenter
from tests.tasks.moving_square import ColourMethod, square_clip

HEIGHT, WIDTH = 7, 5  # portrait
WHITE, BLACK, BLUE, RED, DIM = (255, 255, 255), (0, 0, 0), (0, 0, 255), (200, 0, 0), (20, 20, 20)


def ppm(rows: Sequence[Sequence[tuple[int, int, int]]]) -> bytes:
    pixels = np.array(rows, np.uint8)
    return f"P6\n{pixels.shape[1]} {pixels.shape[0]}\n255\n".encode() + pixels.tobytes()


def pgm(pixels: np.ndarray) -> bytes:
    return f"P5\n{pixels.shape[1]} {pixels.shape[0]}\n255\n".encode() + pixels.astype(np.uint8).tobytes()


def grey(value: int) -> bytes:
    return pgm(np.full((HEIGHT, WIDTH), value))


def frame(index: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((HEIGHT, WIDTH), 10 * index % 250, np.uint8))[1])


def write_video(
    root: Path,
    name: str,
    *,
    annotated: Sequence[int],
    num_frames: int = 60,
    first: int = 1,
    mask: bytes | None = None,
    mask_name: Callable[[int], str] | None = None,
    part: str = "Testset",
) -> Path:
    """A video as distributed; frames are numbered from ``first``, ``annotated`` are numbers in the masks' names."""
    truth = root / part / name / "GroundTruth"
    truth.mkdir(parents=True)
    for index in range(num_frames):
        (truth.parent / f"{name}_{first + index:04d}.jpg").write_bytes(frame(index))
    for number in annotated:
        file = mask_name(number) if mask_name else f"{name}_{number:03d}.pgm"
        (truth / file).write_bytes(mask or grey(200))
    (truth.parent / f"{name}.bmf").write_text("1 1\n")
    return root


def annotated_places(root: Path, name: str) -> list[int]:
    sequence = open_benchmark("fbms59", str(root), [name]).sequences[0]
    return [index for index, files in enumerate(sequence.annotations) if files is not None]


def test_only_annotated_frames_have_a_mask(tmp_path):
    benchmark = open_benchmark("fbms59", str(write_video(tmp_path, "cars1", annotated=(1, 10, 19))))
    (cars,) = benchmark.sequences
    assert annotated_places(tmp_path, "cars1") == [0, 9, 18]
    assert len(cars.annotations) == 60
    assert cars.annotation(9).shape == (HEIGHT, WIDTH)
    assert cars.annotation(10) is None
    assert next(cars.frames()).shape == (HEIGHT, WIDTH, 3)
    assert benchmark.coverage == "1 of 30 sequences"
    assert benchmark.headline_protocol == "gwm-frames"
    assert benchmark.saliency_gaps == (3, -3, 6, -6)


@pytest.mark.parametrize(
    ("name", "annotated", "level", "is_foreground"),
    [
        ("cars1", (1, 2, 3), 25, False),  # 25 / 255 = 0.098
        ("cars1", (1, 2, 3), 26, True),
        ("marple7", range(1, 17), 12, False),  # 0.047
        ("marple7", range(1, 17), 13, True),
        ("marple2", range(1, 12), 102, False),  # exactly 0.4
        ("marple2", range(1, 12), 103, True),
    ],
)
def test_thresholds_by_video(tmp_path, name, annotated, level, is_foreground):
    write_video(tmp_path, name, annotated=annotated, mask=grey(level))
    mask = open_benchmark("fbms59", str(tmp_path)).sequences[0].annotation(0)
    assert mask.all() == mask.any() == is_foreground


def test_white_is_foreground_in_pgm_and_background_in_ppm(tmp_path):
    write_video(tmp_path, "cars1", annotated=(1, 2, 3), mask=grey(255))
    assert open_benchmark("fbms59", str(tmp_path)).sequences[0].annotation(0).all()
    rows = [[WHITE, BLACK, BLUE, RED, DIM]] * HEIGHT
    write_video(
        tmp_path, "cars10", annotated=(1, 20, 40, 60), mask=ppm(rows), mask_name=lambda n: f"cars10_{n:04d}_gt.ppm"
    )
    mask = open_benchmark("fbms59", str(tmp_path), ["cars10"]).sequences[0].annotation(0)
    # objects of several colours become one; pure blue is 0.114 grey, just above the threshold
    assert mask[0].tolist() == [False, False, True, True, False]
    assert annotated_places(tmp_path, "cars10") == [0, 19, 39, 59]


def test_where_there_are_ppm_only_those_without_prob_count(tmp_path):
    object_mask, probability = ppm([[RED] * WIDTH] * HEIGHT), ppm([[BLACK] * WIDTH] * HEIGHT)
    write_video(
        tmp_path, "people2", annotated=(1, 2, 3, 4), mask=object_mask, mask_name=lambda n: f"people2_{n:04d}_gt.ppm"
    )
    truth = tmp_path / "Testset/people2/GroundTruth"
    for number in (1, 2, 3, 4, 5):
        (truth / f"people2_{number:04d}_gt_PROB.ppm").write_bytes(probability)
        (truth / f"people2_{number:03d}.pgm").write_bytes(grey(0))
        (truth / f"people2_{number:03d}.jpg").write_bytes(frame(number))  # CIS leaves its own masks here
    assert annotated_places(tmp_path, "people2") == [0, 1, 2, 3]
    assert open_benchmark("fbms59", str(tmp_path)).sequences[0].annotation(0).all()


def test_numbers_in_names_decide_and_else_count_from_one(tmp_path):
    write_video(tmp_path, "cars1", annotated=(454, 464, 474), first=454)
    assert annotated_places(tmp_path, "cars1") == [0, 10, 20]
    write_video(tmp_path, "people2", annotated=(1, 20, 40, 60), first=454)
    assert annotated_places(tmp_path, "people2") == [0, 19, 39, 59]  # no such numbers among the frames
    write_video(tmp_path, "tennis", annotated=range(1, 17), mask_name=lambda n: f"tennis{n:03d}.pgm")
    assert annotated_places(tmp_path, "tennis") == list(range(16))


def test_only_annotated_frames_are_scored_and_the_last_of_the_video_not_at_all(tmp_path):
    frames, masks = square_clip(19)
    write_video(tmp_path, "cars1", annotated=(1, 10, 19), num_frames=19)
    for index, image in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"Testset/cars1/cars1_{index + 1:04d}.jpg"), image[..., ::-1])
    for number in (1, 10, 19):
        grey_mask = pgm(masks[number - 1] * 60)  # a grey of 60 is above the threshold
        (tmp_path / f"Testset/cars1/GroundTruth/cars1_{number:03d}.pgm").write_bytes(grey_mask)
    benchmark = open_benchmark("fbms59", str(tmp_path))
    options = ClipOptions(gaps=benchmark.saliency_gaps or ())
    segmenter = ClipSegmenter(ColourMethod(), DisEstimator("ultrafast"), options)
    scores = evaluate_sequence(segmenter, benchmark.sequences[0], num_pictured=1).scores
    assert scores.frames == (0, 9, 18)
    assert (scores.num_frames, scores.rule, scores.foreground) == (19, "motion", (1,))
    j = scores.choices[LABEL_FREE].j
    assert min(j) > 0.9
    assert scores.mean("J", benchmark.headline_protocol, LABEL_FREE) == pytest.approx((j[0] + j[1]) / 2)
    assert scores.mean("J", "rcf", LABEL_FREE) == pytest.approx(np.mean(j))


def test_annotated_frames_that_are_missing_are_named(tmp_path):
    write_video(tmp_path, "cars1", annotated=(1, 10, 19))
    (tmp_path / "Testset/cars1/cars1_0010.jpg").unlink()
    with pytest.raises(DatasetError, match=r"cars1: frames 10 are annotated but missing; there are 59 frames"):
        open_benchmark("fbms59", str(tmp_path))


def test_masks_that_are_missing_are_counted(tmp_path):
    write_video(tmp_path, "cars1", annotated=(1, 19))
    with pytest.raises(DatasetError, match=r"cars1 has 2 annotated frames \(1, 19\) where 3 are published"):
        open_benchmark("fbms59", str(tmp_path))


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DatasetError, match=f"no folder {tmp_path}/JPEGImages; expected Testset"):
        open_benchmark("fbms59", str(tmp_path))
    (tmp_path / "Testset").mkdir()
    with pytest.raises(DatasetError, match="Testset is empty"):
        open_benchmark("fbms59", str(tmp_path))
    (tmp_path / "Testset/cars1").mkdir()
    with pytest.raises(DatasetError, match=r"no folder .*cars1/GroundTruth"):
        open_benchmark("fbms59", str(tmp_path))


def test_training_videos_are_scored_only_when_named(tmp_path):
    write_video(tmp_path, "cars1", annotated=(1, 10, 19))
    write_video(tmp_path, "bear01", annotated=(1, 20), part="Trainingset")
    assert [sequence.name for sequence in open_benchmark("fbms59", str(tmp_path)).sequences] == ["cars1"]
    named = open_benchmark("fbms59", str(tmp_path), ["bear01"])
    assert named.coverage == "0 of 30 sequences, 1 others"


def write_prepared(root: Path, names: Sequence[str], *, num_frames: int, folder: str = "FBMS_clean") -> None:
    """Frames from 00001.jpg on; all videos share their files, which keeps 30 of them cheap."""
    for name in names:
        images, masks = root / folder / "JPEGImages" / name, root / folder / "Annotations" / name
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for index in range(num_frames):
            (images / f"{index + 1:05d}.jpg").write_bytes(frame(index))
        for index in range(_NUM_ANNOTATED[name]):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[1:3] = 255
            (masks / f"{index + 1:05d}.png").write_bytes(bytes(cv2.imencode(".png", mask)[1]))


def test_prepared_layout_with_the_whole_test_set(tmp_path):
    write_prepared(tmp_path, FBMS59_TEST, num_frames=42)
    benchmark = open_benchmark("fbms59", str(tmp_path))
    assert benchmark.coverage == "30 of 30 sequences"
    assert sum(sequence.num_annotated for sequence in benchmark.sequences) == 367
    assert benchmark.notes == ("1260 frames, annotated or not, where 7306 are published",)
    assert benchmark.sequences[0].annotation(0).sum() == 2 * WIDTH
    inside = open_benchmark("fbms59", str(tmp_path / "FBMS_clean"), ["cars1"])  # the folder itself is taken as well
    assert [sequence.name for sequence in inside.sequences] == ["cars1"]


def test_annotated_frames_alone_are_refused(tmp_path):
    write_prepared(tmp_path, ["cars1"], num_frames=3, folder="FBMS_val")
    with pytest.raises(DatasetError, match=r"FBMS_val holds the annotated frames only.*FBMS_clean"):
        open_benchmark("fbms59", str(tmp_path))
    with pytest.raises(DatasetError, match="cars1 has no frames but the annotated ones"):
        open_benchmark("fbms59", str(tmp_path / "FBMS_val"))


def test_masks_without_a_number_or_of_another_format_are_refused(tmp_path):
    write_video(tmp_path, "cars1", annotated=(1,), mask_name=lambda n: "mask.pgm")
    with pytest.raises(DatasetError, match=r"mask.pgm: no frame number"):
        open_benchmark("fbms59", str(tmp_path))
    options = {"threshold": 0.1, "white_is_background": False}
    with pytest.raises(FootageError, match="corrupt"):
        decode_fbms_mask(frame(0), "a.pgm", **options)
    with pytest.raises(FootageError, match="8-bit grey or RGB"):
        decode_fbms_mask(b"P5\n1 1\n65535\n\x01\x00", "a.pgm", **options)
