"""Footage that changes between its hash and its decoding gets no row under the old identity, wherever it lies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.catalog import present_videos
from tasks.dead_letters import Refusal, read_rejected
from tasks.errors import FootageError
from tasks.footage import FootageItem
from tasks.footage_stamp import require_unchanged, stamp_of
from tasks.identity import video_id
from tasks.ingest import prepare_ingest
from tasks.ingest_batch import _Batch, silent
from tasks.ingest_plan import PlannedVideo
from tasks.ingest_worker import IngestJob, IngestWorker
from tasks.pool import PoolResult
from tasks.storage import location
from tests.tasks.small_footage import RECIPE, write_clip
from tests.video_files import write_video


def planned(source: Path, dataset: str) -> PlannedVideo:
    (video,) = prepare_ingest([str(source)], dataset, RECIPE).to_ingest
    return video


def refusal_of(video: PlannedVideo, dataset: str) -> Refusal | None:
    return IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video).refusal


def overwrite(clip: Path) -> None:
    (clip / "00001.png").write_bytes((clip / "00000.png").read_bytes())


def add_a_frame(clip: Path) -> None:
    shutil.copy(clip / "00002.png", clip / "00003.png")


def cut_off(clip: Path) -> None:
    os.truncate(clip / "00001.png", 100)


@pytest.mark.parametrize("change", [overwrite, add_a_frame, cut_off])
def test_what_changed_is_refused_and_ingested_as_what_it_is(tmp_path: Path, change: Callable[[Path], None]) -> None:
    clip, dataset = write_clip(tmp_path / "clip", 3, 0), str(tmp_path / "dataset")
    video = planned(clip, dataset)
    change(clip)
    batch = _Batch(dataset, RECIPE, 1, 300, silent)
    work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video)
    batch.take(PoolResult(item=video, status="done", attempts=1, value=work))
    batch.publish()
    (letter,) = read_rejected(dataset)
    assert (letter.reason, letter.video_id) == ("changed", video.wanted.video_id)
    assert work.shards == ()
    assert work.clips == ()
    assert present_videos(dataset) == ()
    again = planned(clip, dataset)
    assert again.wanted.video_id == video_id(again.wanted.item) != video.wanted.video_id


def test_what_changed_back_is_tried_again(tmp_path: Path) -> None:
    clip, dataset = write_clip(tmp_path / "clip", 3, 0), str(tmp_path / "dataset")
    video, before = planned(clip, dataset), (clip / "00001.png").read_bytes()
    overwrite(clip)
    batch = _Batch(dataset, RECIPE, 1, 300, silent)
    work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video)
    batch.take(PoolResult(item=video, status="done", attempts=1, value=work))
    batch.publish()
    (clip / "00001.png").write_bytes(before)
    assert planned(clip, dataset).explanation == "tried again after changed, 1 attempt"


def test_a_video_that_another_takes_the_place_of(tmp_path: Path) -> None:
    path, dataset = write_video(tmp_path / "clip.mp4"), str(tmp_path / "dataset")
    video = planned(path, dataset)
    os.replace(write_video(tmp_path / "other.mp4", frame_rate=5), path)  # noqa: PTH105
    refusal = refusal_of(video, dataset)
    assert refusal is not None
    assert refusal.reason == "changed"


def test_new_times_and_links_alone_refuse_nothing(tmp_path: Path) -> None:
    clip, dataset = write_clip(tmp_path / "clip", 3, 0), str(tmp_path / "dataset")
    video = planned(clip, dataset)
    (clip / "00001.png").touch()
    os.link(clip / "00002.png", tmp_path / "link")
    assert video.wanted.stamp not in (None, stamp_of(video.wanted.item))
    assert refusal_of(video, dataset) is None


def test_footage_damaged_from_the_start_is_called_that(tmp_path: Path) -> None:
    clip, dataset = write_clip(tmp_path / "clip", 3, 0), str(tmp_path / "dataset")
    cut_off(clip)
    refusal = refusal_of(planned(clip, dataset), dataset)
    assert refusal is not None
    assert refusal.reason == "corrupt"


@pytest.mark.parametrize("has_marks", [True, False])
def test_remote_files(has_marks: bool, s3_root: str) -> None:
    """S3 has ETags; of files in memory nothing is known, so they are hashed again."""
    place = f"{s3_root}/clip.mp4" if has_marks else "memory://stamps/clip.mp4"
    filesystem, path = location(place).fsspec()
    filesystem.pipe_file(path, b"first")
    item = FootageItem(uri=place, clip="clip", kind="video")
    stamp, identity = stamp_of(item), video_id(item)
    assert (stamp is not None) == has_marks
    require_unchanged(item, identity, stamp)
    filesystem.pipe_file(path, b"other")  # of the same length
    with pytest.raises(FootageError, match=rf"changed: {place} changed since this ingest hashed it"):
        require_unchanged(item, identity, stamp)
    filesystem.rm(path)
    with pytest.raises(FootageError, match="not_found"):
        require_unchanged(item, identity, stamp)
