"""The table of clips: a row per clip, once, whoever writes and is killed; and copies are found in all of history."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from model.dis import DisEstimator
from tasks.clip_facts import STATIC_MOTION, ClipFacts, ClipObserver, frames_of_all_gaps
from tasks.clips import ClipHistory, JudgedClip, read_clips
from tasks.decode import Frame
from tasks.fingerprint import NUM_BYTES, distance
from tasks.identity import Recipe
from tasks.ingest_worker import frame_rows
from tasks.schema import SCHEMA_VERSION
from tasks.shards import VideoLabel
from tests.tasks.small_footage import HEIGHT, WIDTH, pictures

RECIPE = Recipe(gaps=(1, -1, 2, -2), schema_version=SCHEMA_VERSION)


def observed(images: list[np.ndarray], recipe: Recipe = RECIPE) -> ClipFacts:
    frames = (
        Frame(index=at, time_seconds=at / 24, image=image, source_name=str(at)) for at, image in enumerate(images)
    )
    observer = ClipObserver(VideoLabel(video_id="v", recipe=recipe, clip="c", source="/c.mp4", shot=2), 40)
    rows = list(observer.watch(frame_rows(DisEstimator("medium"), frames, recipe)))
    assert len(rows) == len(images)
    return observer.facts()


def facts(video_id: str, fingerprint: bytes | None, *, shot: int = 0) -> ClipFacts:
    return ClipFacts(
        video_id=video_id,
        recipe_hash=RECIPE.hash(),
        shot=shot,
        clip=video_id,
        source=f"/footage/{video_id}.mp4",
        first_frame=0,
        num_frames=9,
        seconds=1 / 3,
        mean_motion=0.01,
        too_short=False,
        is_static=False,
        fingerprint=fingerprint,
    )


def present(video_id: str) -> bool:
    return True


def absent(video_id: str) -> bool:
    return False


def test_facts_of_a_known_clip() -> None:
    known = observed(list(pictures(9, 1)))
    assert (known.shot, known.first_frame, known.num_frames) == (2, 40, 9)
    assert known.seconds == pytest.approx(8 / 24)
    assert known.mean_motion == pytest.approx(2 / np.hypot(HEIGHT, WIDTH), rel=0.2)  # 2 px a frame; borders are guessed
    assert (known.too_short, known.is_static) == (False, False)
    assert known.fingerprint is not None


def test_motion_means_the_same_at_any_size_and_gap() -> None:
    images = list(pictures(9, 1))
    large = [cv2.resize(image, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC) for image in images]
    motion = observed(images).mean_motion
    assert observed(large).mean_motion == pytest.approx(motion, rel=0.1)
    over_two = RECIPE.model_copy(update={"gaps": (2, -2)})
    assert observed(images, over_two).mean_motion == pytest.approx(motion, rel=0.2)


def test_still_and_short_clips_are_marked() -> None:
    random = np.random.default_rng(0)
    texture = cv2.GaussianBlur(random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 1.5)
    still = observed([texture] * 6)
    assert still.mean_motion is not None
    assert still.mean_motion < STATIC_MOTION
    assert (still.is_static, still.too_short) == (True, False)
    assert frames_of_all_gaps(RECIPE.gaps) == 5
    assert [observed(list(pictures(count, 1))).too_short for count in (4, 5)] == [True, False]
    single = observed([texture])
    assert (single.mean_motion, single.is_static, single.too_short) == (None, False, True)


def test_rows_are_written_once(tmp_path: Path) -> None:
    dataset, random = str(tmp_path), np.random.default_rng(0)
    assert read_clips(dataset).num_rows == 0
    history = ClipHistory(dataset)
    first = [JudgedClip(facts=facts(name, random.bytes(NUM_BYTES))) for name in "ab"]
    history.record(first)
    history.record([*first, JudgedClip(facts=facts("c", None))])
    ClipHistory(dataset).record(first)  # as a process that goes on after a kill
    assert sorted(read_clips(dataset, ["video_id"])["video_id"].to_pylist()) == ["a", "b", "c"]


def test_concurrent_writers_lose_nothing_and_write_nothing_twice(tmp_path: Path) -> None:
    def write(worker: int) -> None:
        history = ClipHistory(str(tmp_path))
        for index in range(5):
            names = (f"own_{worker}_{index}", f"shared_{index}")
            history.record([JudgedClip(facts=facts(name, None)) for name in names])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))

    expected = [f"own_{worker}_{index}" for worker in range(2) for index in range(5)]
    expected += [f"shared_{index}" for index in range(5)]
    assert sorted(read_clips(str(tmp_path))["video_id"].to_pylist()) == sorted(expected)


def test_copies_are_found_among_all_that_was_ever_recorded(tmp_path: Path) -> None:
    dataset, original = str(tmp_path), np.random.default_rng(0).bytes(NUM_BYTES)
    copy = bytes([original[0] ^ 3, *original[1:]])
    history = ClipHistory(dataset)
    history.record([history.judge(facts("old", original), present)])

    later = ClipHistory(dataset)
    later.refresh()
    judged = later.judge(facts("new", copy), present)

    assert judged.like is not None
    assert (judged.like.video_id, judged.like.source, judged.like.distance) == ("old", "/footage/old.mp4", 2)
    assert judged.kept  # told, not left out, unless asked
    later.record([judged])
    rows = {row["video_id"]: row for row in read_clips(dataset).to_pylist()}
    assert (rows["new"]["like_video_id"], rows["new"]["like_distance"], rows["old"]["like_video_id"]) == (
        "old",
        2,
        None,
    )
    assert distance(rows["new"]["fingerprint"], original) == 2
    history.refresh()  # sees what the other wrote
    third = history.judge(facts("third", copy), lambda video_id: video_id == "new")
    assert third.like is not None
    assert (third.like.video_id, third.like.distance) == ("new", 0)


def test_what_is_skipped_has_a_stand_in(tmp_path: Path) -> None:
    history, looks = ClipHistory(str(tmp_path)), bytes(range(NUM_BYTES))
    assert history.judge(facts("first", looks), present, skip=True).kept
    second = history.judge(facts("second", looks), present, skip=True)
    assert not second.kept
    gone = history.judge(facts("third", looks), absent, skip=True)  # like clips that are in no version now
    assert gone.like is not None
    assert gone.kept
    like_a_skipped_one = history.judge(facts("fourth", looks), lambda video_id: video_id == "second", skip=True)
    assert like_a_skipped_one.kept


def test_shots_of_one_video_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    history, looks = ClipHistory(str(tmp_path)), bytes(range(NUM_BYTES))
    judged = [history.judge(facts("interview", looks, shot=shot), present, skip=True) for shot in range(3)]
    assert [(clip.like, clip.kept) for clip in judged] == [(None, True)] * 3


def test_clips_without_a_fingerprint_are_like_nothing(tmp_path: Path) -> None:
    history = ClipHistory(str(tmp_path))
    assert [history.judge(facts(name, None), present).like for name in "ab"] == [None, None]


def test_a_table_made_anew_is_read_anew(tmp_path: Path) -> None:
    history, looks = ClipHistory(str(tmp_path)), bytes(range(NUM_BYTES))
    history.record([history.judge(facts("old", looks), present)])
    history.refresh()
    shutil.rmtree(tmp_path / "clips")
    ClipHistory(str(tmp_path)).record([JudgedClip(facts=facts("other", None))])
    history.refresh()
    assert history.judge(facts("new", looks), present).like is None


def _place(row: dict[str, Any]) -> tuple[str, int]:
    return row["video_id"], row["shot"]


def test_a_renamed_video_is_renamed_here_too(tmp_path: Path) -> None:
    dataset, looks = str(tmp_path), bytes(range(NUM_BYTES))
    ClipHistory(dataset).record([JudgedClip(facts=facts("a", looks, shot=shot)) for shot in range(2)])
    ClipHistory(dataset).record([JudgedClip(facts=facts("b", None))])
    before = read_clips(dataset).to_pylist()
    history = ClipHistory(dataset)
    for _ in range(2):  # as after a kill: what is renamed already is left alone
        history.rename({("a", RECIPE.hash()): ("new", "/new.mp4"), ("unknown", RECIPE.hash()): ("x", "/x.mp4")})
        assert history.version == 2
    new = {"clip": "new", "source": "/new.mp4"}
    expected = [row | new if row["video_id"] == "a" else row for row in before]
    found = read_clips(dataset).to_pylist()
    assert sorted(found, key=_place) == sorted(expected, key=_place)
    for reader in (history, ClipHistory(dataset)):
        reader.refresh()
        like = reader.judge(facts("copy", looks), present).like
        assert like is not None
        assert like.source == "/new.mp4"
