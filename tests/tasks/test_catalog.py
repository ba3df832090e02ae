from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from tasks.catalog import (
    WrittenShard,
    dataset_exists,
    list_versions,
    open_dataset,
    plan_commit,
    present_videos,
    publish,
)
from tasks.dead_letters import Refusal, forget_rejected, read_rejected, record_rejected
from tasks.errors import DatasetError, InputError, StorageError
from tasks.identity import Recipe
from tasks.ledger import LedgerEntry
from tasks.schema import SCHEMA_VERSION

RECIPE = Recipe(schema_version=SCHEMA_VERSION)


def _shard(video: str, *, first_frame: int = 0, num_rows: int = 5, recipe: Recipe = RECIPE) -> WrittenShard:
    return WrittenShard(
        path=f"{video}-{recipe.hash()[:8]}-{first_frame}.parquet",
        num_bytes=100,
        num_rows=num_rows,
        first_frame=first_frame,
        first_time_seconds=first_frame / 25,
        last_time_seconds=(first_frame + num_rows - 1) / 25,
        video_id=video,
        recipe=recipe,
        clip=f"clip_{video}",
        source=f"/footage/{video} 'é\".mp4",
        width=854,
        height=480,
    )


def test_a_version_tells_all_about_its_videos_without_opening_a_shard(tmp_path: Path) -> None:
    dataset = str(tmp_path / "dataset")
    assert not dataset_exists(dataset)
    assert present_videos(dataset) == ()
    second, first = _shard("b", first_frame=5, num_rows=3), _shard("b", first_frame=0)

    version = publish(dataset, [second, _shard("a", num_rows=2), first])  # no such file exists

    snapshot = open_dataset(dataset)
    assert snapshot.version == version
    assert [video.clip for video in snapshot.videos] == ["clip_a", "clip_b"]
    video = snapshot.videos[1]
    assert [shard.path for shard in video.shards] == [first.path, second.path]
    assert [shard.first_frame for shard in video.shards] == [0, 5]
    assert (video.num_frames, video.num_bytes, video.width, video.height) == (8, 200, 854, 480)
    assert (video.recipe, video.source, video.recipe_hash) == (RECIPE, first.source, RECIPE.hash())
    assert snapshot.gaps == (1, -1, 2, -2)
    assert (snapshot.num_frames, snapshot.num_bytes) == (10, 300)
    assert (snapshot.frames / first.path).uri == str(tmp_path / "dataset" / "frames" / first.path)


def test_versions_are_listed_and_stay_open(tmp_path: Path) -> None:
    dataset = str(tmp_path)
    versions = [publish(dataset, [_shard(name)]) for name in "abc"]
    assert versions == [0, 1, 2]
    assert [(entry.version, entry.num_videos, entry.num_frames) for entry in list_versions(dataset)] == [
        (0, 1, 5),
        (1, 2, 10),
        (2, 3, 15),
    ]
    assert [video.video_id for video in open_dataset(dataset, 1).videos] == ["a", "b"]
    with pytest.raises(DatasetError, match="no version 7: expected 0 to 2"):
        open_dataset(dataset, 7)


def test_a_version_survives_checkpoints_of_the_log(tmp_path: Path) -> None:
    long_recipe = RECIPE.model_copy(update={"gaps": tuple(range(1, 150))})  # no column statistic is cut short
    publish(str(tmp_path), [_shard("long", recipe=long_recipe)])
    for index in range(45):
        publish(str(tmp_path), [_shard(f"{index:02}")])
    assert list((tmp_path / "frames" / "_delta_log").glob("*.checkpoint.parquet"))
    snapshot = open_dataset(str(tmp_path))
    assert len(snapshot.videos) == 46
    assert snapshot.videos[-1].recipe == long_recipe
    assert len(open_dataset(str(tmp_path), 3).videos) == 4


def test_a_changed_recipe_replaces_the_video_in_the_same_version(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("a"), _shard("b")])
    other = RECIPE.model_copy(update={"gaps": (3, -3, 1)})

    version = publish(str(tmp_path), [_shard("a", num_rows=7, recipe=other)])

    snapshot = open_dataset(str(tmp_path), version)
    assert [(video.video_id, video.num_frames) for video in snapshot.videos] == [("a", 7), ("b", 5)]
    assert snapshot.gaps == (1,)  # what every video has
    columns = {field.name for field in DeltaTable(str(tmp_path / "frames")).schema().fields}
    assert {"flow_p3", "flow_m3", "flow_p2"} <= columns
    assert [entry.num_videos for entry in list_versions(str(tmp_path))] == [2, 2]
    assert open_dataset(str(tmp_path), 0).gaps == (1, -1, 2, -2)


def test_changed_bytes_replace_the_old_video(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("old"), _shard("other")])
    old = next(video for video in present_videos(str(tmp_path)) if video.video_id == "old")
    publish(str(tmp_path), [_shard("new")], replaced=[old])
    assert [video.video_id for video in present_videos(str(tmp_path))] == ["new", "other"]
    assert not [video for video in present_videos(str(tmp_path)) if video.video_id == "old"]


def test_what_another_writer_rebuilt_meanwhile_is_not_removed(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("old")])
    planned_away = present_videos(str(tmp_path))
    rebuilt = Recipe(schema_version=SCHEMA_VERSION, fps=12)
    publish(str(tmp_path), [_shard("old", recipe=rebuilt)])
    publish(str(tmp_path), [_shard("new")], replaced=planned_away)
    held = [(video.video_id, video.recipe) for video in present_videos(str(tmp_path))]
    assert held == [("new", RECIPE), ("old", rebuilt)]


def test_publishing_again_changes_nothing(tmp_path: Path) -> None:
    first = publish(str(tmp_path), [_shard("a")])
    again = publish(str(tmp_path), [replace(_shard("a"), path="the_same_from_another_writer.parquet")])
    assert again == first
    assert len(present_videos(str(tmp_path))) == 1


def test_concurrent_writers_lose_nothing_and_add_nothing_twice(tmp_path: Path) -> None:
    def write(worker: int) -> None:
        for index in range(6):
            publish(str(tmp_path), [_shard(f"own_{worker}_{index}"), _shard(f"shared_{index}")])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))

    videos = present_videos(str(tmp_path))
    assert sorted(video.video_id for video in videos) == sorted(
        [f"own_{worker}_{index}" for worker in range(2) for index in range(6)]
        + [f"shared_{index}" for index in range(6)]
    )
    assert all(len(video.shards) == 1 for video in videos)
    history = list_versions(str(tmp_path))
    assert history[-1].num_videos == 18
    assert [entry.version for entry in history] == list(range(len(history)))


def test_what_a_commit_does_is_decided_without_a_table() -> None:
    old = LedgerEntry(path="a-0", video_id="a", recipe_hash="old", num_bytes=1, num_rows=5, first_frame=0)
    same = replace(old, path="b-0", video_id="b", recipe_hash=RECIPE.hash())
    plan = plan_commit([_shard("a"), _shard("b")], [], [old, same])
    assert ([shard.video_id for shard in plan.added], plan.removed) == (["a"], (old,))


@pytest.mark.parametrize("missing", ["nothing_here", "a_file"])
def test_no_dataset_is_told(tmp_path: Path, missing: str) -> None:
    (tmp_path / "a_file").write_text("not a folder")
    with pytest.raises((DatasetError, StorageError), match=missing):
        open_dataset(str(tmp_path / missing))


def test_nothing_to_publish_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to publish"):
        publish(str(tmp_path), [])


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "frames"), pa.table({"x": [1]}))
    with pytest.raises(DatasetError, match="not a dataset"):
        open_dataset(str(tmp_path))


def test_a_hole_between_shards_is_refused(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("a", first_frame=0), _shard("a", first_frame=6)])
    with pytest.raises(DatasetError, match="lacks frames from 5 to 6"):
        open_dataset(str(tmp_path))


def test_an_unknown_recipe_is_refused(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("a")])
    log = tmp_path / "frames" / "_delta_log" / "00000000000000000000.json"
    log.write_text(log.read_text().replace("jpeg_quality", "webp_quality"))
    with pytest.raises(DatasetError, match="recipe that this version of the project does not know"):
        open_dataset(str(tmp_path))


def test_dead_letters_count_repetitions(tmp_path: Path) -> None:
    dataset = str(tmp_path)
    assert read_rejected(dataset) == ()
    refusal = Refusal(source="it's.mp4", stage="decode", reason="corrupt", detail="at frame 3", video_id="v")
    record_rejected(dataset, [])
    record_rejected(dataset, [refusal, refusal, Refusal(source="b", stage="discover", reason="not_found", detail="")])
    record_rejected(dataset, [replace(refusal, reason="crashed", detail="x" * 5000)])

    letters = {letter.source: letter for letter in read_rejected(dataset)}

    assert set(letters) == {"it's.mp4", "b"}
    letter = letters["it's.mp4"]
    assert (letter.attempts, letter.reason, len(letter.detail)) == (2, "crashed", 2000)
    assert letter.first_seen < letter.last_seen
    assert letters["b"].attempts == 1
    forget_rejected(dataset, ["it's.mp4"])
    assert [letter.source for letter in read_rejected(dataset)] == ["b"]


def test_dead_letters_of_concurrent_writers_are_all_counted(tmp_path: Path) -> None:
    refusal = Refusal(source="a", stage="decode", reason="corrupt", detail="")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: record_rejected(str(tmp_path), [refusal]), range(6)))
    assert [letter.attempts for letter in read_rejected(str(tmp_path))] == [6]


def test_the_log_is_plain_json_for_other_readers(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("a")])
    log = tmp_path / "frames" / "_delta_log" / "00000000000000000000.json"
    adds = [json.loads(line)["add"] for line in log.read_text().splitlines() if '"add"' in line]
    stats = json.loads(adds[0]["stats"])
    assert stats["numRecords"] == 5
    assert stats["maxValues"]["frame_index"] == 4
