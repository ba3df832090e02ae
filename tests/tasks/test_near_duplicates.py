"""Copies of footage in an ingest: told of, or left out, whichever was asked."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.catalog import open_dataset, present_videos
from tasks.clips import read_clips
from tasks.dead_letters import read_rejected
from tasks.identity import Recipe
from tasks.ingest import prepare_ingest
from tasks.ingest_batch import NearDuplicates, VideoOutcome, _Batch, silent
from tasks.ingest_worker import IngestJob, IngestWorker
from tasks.pool import PoolResult
from tasks.schema import SCHEMA_VERSION
from tests.video_files import write_video

RECIPE = Recipe(gaps=(1, -1), shots="auto", schema_version=SCHEMA_VERSION)
WIDTH, HEIGHT = 128, 96


def scene(seed: int, count: int) -> list[NDArray[np.uint8]]:
    """Large soft shapes of one tint that drift to the right."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (7, 13, 3), np.uint8) // (1 + random.permutation(3).astype(np.uint8))
    wide = cv2.resize(coarse, (WIDTH + 2 * count, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(wide[:, 2 * at : 2 * at + WIDTH]) for at in range(count)]


def half(images: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return [cv2.resize(image, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA) for image in images]


def ingest(footage: Path, dataset: Path, near_duplicates: NearDuplicates = "report") -> VideoOutcome:
    (video,) = prepare_ingest([str(footage)], str(dataset), RECIPE).videos
    batch = _Batch(str(dataset), RECIPE, 1, 0, silent, near_duplicates)
    assert batch.leave_out_published([video]) == [video]
    work = IngestWorker(IngestJob(dataset_uri=str(dataset), recipe=RECIPE)).run(video)
    batch.take(PoolResult(item=video, status="done", attempts=1, value=work))
    batch.publish()
    return batch.outcomes[0]


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    first, second, third = scene(1, 8), scene(2, 7), scene(3, 8)
    write_video(folder / "original.mp4", [*first, *second])
    write_video(folder / "copy.mp4", half([*first, *second]), codec_options={"crf": "28"})
    write_video(folder / "partly.mp4", [*half(third), *half(second)])
    return folder


def test_copies_are_told(footage: Path, tmp_path: Path) -> None:
    original = ingest(footage / "original.mp4", tmp_path)
    assert (original.num_clips, original.num_near_duplicates, original.explanation) == (2, 0, "new: 2 shots")
    copy = ingest(footage / "copy.mp4", tmp_path)
    assert (copy.status, copy.num_near_duplicates) == ("ingested", 2)
    assert copy.explanation == f"new: 2 shots, 2 like {footage / 'original.mp4'}"
    assert len(present_videos(str(tmp_path))) == 2
    rows = read_clips(str(tmp_path)).to_pylist()
    assert len(rows) == 4
    assert [row["like_shot"] for row in rows if row["clip"] == "copy"] == [0, 1]


def test_copies_are_left_out_when_asked_and_never_silently(footage: Path, tmp_path: Path) -> None:
    ingest(footage / "original.mp4", tmp_path, "skip")
    copy = ingest(footage / "copy.mp4", tmp_path, "skip")
    assert (copy.status, copy.reason) == ("rejected", "near_duplicate")
    (letter,) = read_rejected(str(tmp_path))
    assert (letter.reason, letter.source) == ("near_duplicate", str(footage / "copy.mp4"))
    assert str(footage / "original.mp4") in letter.detail
    assert len(present_videos(str(tmp_path))) == 1


def test_a_shot_is_left_out_and_the_others_stay(footage: Path, tmp_path: Path) -> None:
    ingest(footage / "original.mp4", tmp_path, "skip")
    partly = ingest(footage / "partly.mp4", tmp_path, "skip")
    assert (partly.status, partly.num_clips, partly.num_frames) == ("ingested", 2, 8)
    assert partly.explanation == f"new: 2 shots, 1 like {footage / 'original.mp4'}, 1 left out"
    stored = [(clip.clip, clip.num_frames) for clip in open_dataset(str(tmp_path)).clips]
    assert stored == [("original_shot000", 8), ("original_shot001", 7), ("partly", 8)]
    assert [row["kept"] for row in read_clips(str(tmp_path)).to_pylist() if row["clip"] == "partly"] == [True, False]
