"""Clips that are too short or too still can be left out of a training; nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.catalog import open_dataset
from tasks.clip_facts import ClipFacts
from tasks.clip_filter import keep_clips, training_clips
from tasks.clips import ClipHistory, JudgedClip
from tasks.config import DataConfig
from tasks.dataset import FrameReader
from tasks.errors import DatasetError
from tasks.snapshot import DatasetSnapshot, StoredClip
from tests.tasks.training_data import write_dataset


@pytest.fixture
def snapshot(tmp_path: Path) -> DatasetSnapshot:
    return open_dataset(write_dataset(tmp_path, num_frames=(8, 6, 3)))


def kept(snapshot: DatasetSnapshot) -> list[str]:
    return [clip.clip for clip in snapshot.clips]


def record(dataset: str, clip: StoredClip, mean_motion: float) -> None:
    facts = ClipFacts(
        video_id=clip.video_id,
        recipe_hash=clip.recipe_hash,
        shot=clip.shot,
        clip=clip.clip,
        source=clip.source,
        first_frame=0,
        num_frames=clip.num_frames,
        seconds=0.3,
        mean_motion=mean_motion,
        too_short=False,
        is_static=False,
        fingerprint=None,
    )
    ClipHistory(dataset).record([JudgedClip(facts=facts)])


def test_without_a_wish_nothing_is_left_out(snapshot: DatasetSnapshot) -> None:
    assert training_clips(snapshot, DataConfig()) is snapshot


def test_short_clips_are_left_out(snapshot: DatasetSnapshot) -> None:
    assert kept(training_clips(snapshot, DataConfig(min_frames=4))) == ["clip_0", "clip_1"]
    assert kept(training_clips(snapshot, DataConfig(min_frames=3))) == ["clip_0", "clip_1", "clip_2"]


def test_still_clips_are_left_out_and_unknown_ones_kept(snapshot: DatasetSnapshot) -> None:
    first, second, _ = snapshot.clips
    record(snapshot.uri, first, 0.5e-4)
    record(snapshot.uri, second, 3e-3)
    wanted = training_clips(snapshot, DataConfig(min_motion=1e-4))
    assert kept(wanted) == ["clip_1", "clip_2"]
    assert len(FrameReader(wanted).clips) == 2
    assert FrameReader(wanted).read_pair(0, 1, 1).gap == 1


def test_a_shot_is_left_out_without_the_others(snapshot: DatasetSnapshot) -> None:
    (video, *_) = snapshot.videos
    assert len(video.shards) == 2
    shards = (video.shards[0], replace(video.shards[1], shot=1, first_frame=0))
    shots = replace(snapshot, videos=(replace(video, shards=shards, num_shots=2),))
    assert kept(shots) == ["clip_0_shot000", "clip_0_shot001"]
    assert kept(keep_clips(shots, {}, min_frames=4, min_motion=0)) == ["clip_0_shot000"]  # of 5 and 3 frames


def test_leaving_out_everything_is_refused(snapshot: DatasetSnapshot) -> None:
    with pytest.raises(DatasetError, match=r"none of 3 clips .* lower data.min_frames"):
        training_clips(snapshot, DataConfig(min_frames=9))
