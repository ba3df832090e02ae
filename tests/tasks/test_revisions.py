from __future__ import annotations

from pathlib import Path

import pytest

from tasks.catalog import list_versions, open_dataset, present_videos, publish
from tasks.clips import read_clips
from tasks.errors import DatasetError
from tasks.revisions import Rename, remove_videos, rename_videos
from tasks.snapshot import StoredVideo
from tests.tasks.small_dataset import ingest_here
from tests.tasks.small_footage import write_clip
from tests.tasks.test_catalog import _shard


def _names(dataset: str, version: int | None = None) -> list[tuple[str, str]]:
    return [(video.source, video.clip) for video in open_dataset(dataset, version).videos]


def _video(dataset: str, video_id: str) -> StoredVideo:
    (video,) = [video for video in present_videos(dataset) if video.video_id == video_id]
    return video


def test_a_renamed_video_keeps_its_shards_and_its_past(tmp_path: Path) -> None:
    dataset = str(tmp_path)
    publish(dataset, [_shard("a"), _shard("a", first_frame=5), _shard("b")])
    before = _video(dataset, "a")

    version = rename_videos(dataset, [Rename(video=before, source="/new/ä\n'.mp4", clip="new")])

    after = _video(dataset, "a")
    assert (after.source, after.clip, after.shards) == ("/new/ä\n'.mp4", "new", before.shards)
    assert (after.recipe, after.width, after.num_frames) == (before.recipe, before.width, 10)
    assert _names(dataset, version - 1)[0] == (before.source, "clip_a")
    assert (list_versions(dataset)[-1].operation, list_versions(dataset)[-1].num_frames) == ("RENAME", 15)


def test_the_table_of_clips_follows_a_rename(tmp_path: Path) -> None:
    dataset = ingest_here(write_clip(tmp_path / "old", 3, 0), str(tmp_path / "dataset"))
    rename_videos(dataset, [Rename(video=present_videos(dataset)[0], source="/new.mp4", clip="new")])
    (row,) = read_clips(dataset).to_pylist()
    assert (row["clip"], row["source"]) == ("new", "/new.mp4")


def test_names_survive_checkpoints_of_the_log(tmp_path: Path) -> None:
    dataset = str(tmp_path)
    publish(dataset, [_shard("a"), _shard("b")])
    for number in range(25):  # a checkpoint is due after MIN_COMMITS
        rename_videos(dataset, [Rename(video=_video(dataset, "a"), source=f"/{number}", clip=f"clip{number}")])
    assert len(list((tmp_path / "frames" / "_delta_log").glob("*.checkpoint.parquet"))) == 1
    assert (_video(dataset, "a").source, len(present_videos(dataset))) == ("/24", 2)
    assert _names(dataset, 3)[0] == ("/2", "clip2")


def test_a_removed_video_stays_in_earlier_versions(tmp_path: Path) -> None:
    dataset = str(tmp_path)
    publish(dataset, [_shard("a"), _shard("b"), _shard("b", first_frame=5)])
    version = remove_videos(dataset, [_video(dataset, "b")])
    assert [clip for _, clip in _names(dataset, version)] == ["clip_a"]
    assert [clip for _, clip in _names(dataset, version - 1)] == ["clip_a", "clip_b"]
    latest = list_versions(dataset)[-1]
    assert (latest.operation, latest.num_videos, latest.num_frames) == ("REMOVE", 1, 5)


def test_the_last_video_is_not_removed(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("a")])
    with pytest.raises(DatasetError, match="would leave nothing"):
        remove_videos(str(tmp_path), [_video(str(tmp_path), "a")])


def test_what_another_writer_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    dataset = str(tmp_path)
    publish(dataset, [_shard("a"), _shard("b"), _shard("c")])
    stale = _video(dataset, "a")
    version = rename_videos(dataset, [Rename(video=stale, source="/theirs", clip="theirs")])
    assert rename_videos(dataset, [Rename(video=stale, source="/ours", clip="ours")]) == version
    assert remove_videos(dataset, [stale]) == version
    assert _video(dataset, "a").source == "/theirs"
