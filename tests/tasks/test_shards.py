from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.catalog import open_dataset, publish
from tasks.errors import FootageError, StorageError
from tasks.identity import Recipe
from tasks.schema import SCHEMA_VERSION
from tasks.shards import FrameRow, VideoLabel, _HashingFile, remove_abandoned, write_video
from tasks.snapshot import WrittenShard
from tasks.storage import location

RECIPE = Recipe(gaps=(1, -1), schema_version=SCHEMA_VERSION)
LABEL = VideoLabel(video_id="5" * 64, recipe=RECIPE, clip="clip", source="/footage/clip.mp4")


def _row(index: int, num_bytes: int = 1000) -> FrameRow:
    return FrameRow(
        time_seconds=index / 24,
        width=32,
        height=16,
        jpeg=bytes([index]) * num_bytes,
        annotation=b"png" if index % 2 else None,
        flows={1: None if index == 4 else b"next", -1: None if index == 0 else b"previous"},
    )


def _rows(count: int, num_bytes: int = 1000) -> Iterator[FrameRow]:
    return (_row(index, num_bytes) for index in range(count))


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith((".", "_")))


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    (shard,) = write_video(str(tmp_path), LABEL, _rows(5))
    path = tmp_path / "frames" / shard.path
    assert (shard.num_rows, shard.first_frame, shard.num_bytes) == (5, 0, path.stat().st_size)
    assert (shard.first_time_seconds, shard.last_time_seconds) == (0, 4 / 24)
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 5
    row = file.read_row_group(3).to_pylist()[0]
    assert row == {
        "video_id": LABEL.video_id,
        "recipe_hash": RECIPE.hash(),
        "recipe": RECIPE.model_dump_json(),
        "clip": "clip",
        "source": LABEL.source,
        "shot": 0,
        "frame_index": 3,
        "time_seconds": 3 / 24,
        "width": 32,
        "height": 16,
        "jpeg": bytes([3]) * 1000,
        "annotation": b"png",
        "flow_p1": b"next",
        "flow_m1": b"previous",
    }
    assert file.read_row_group(4, columns=["flow_p1"]).to_pylist() == [{"flow_p1": None}]
    assert Recipe.model_validate_json(file.schema_arrow.metadata[b"gwm.recipe"]) == RECIPE
    column = file.metadata.row_group(0).column(10)
    assert (column.path_in_schema, column.compression, column.is_stats_set) == ("jpeg", "UNCOMPRESSED", False)


def test_long_videos_are_split_and_read_as_one(tmp_path: Path) -> None:
    shards = write_video(str(tmp_path), LABEL, _rows(20, 10_000), max_shard_bytes=60_000)
    assert len(shards) > 2
    assert [shard.first_frame for shard in shards] == [0, *(_ends(shards)[:-1])]
    assert _ends(shards)[-1] == 20
    publish(str(tmp_path), shards)
    (video,) = open_dataset(str(tmp_path)).videos
    assert video.num_frames == 20
    tables = [pq.read_table(tmp_path / "frames" / shard.path) for shard in video.shards]
    assert [index for table in tables for index in table["frame_index"].to_pylist()] == list(range(20))


def _ends(shards: tuple[WrittenShard, ...]) -> list[int]:
    return [shard.first_frame + shard.num_rows for shard in shards]


def test_equal_content_has_an_equal_name_and_other_content_another(tmp_path: Path) -> None:
    (first,) = write_video(str(tmp_path), LABEL, _rows(5))
    (again,) = write_video(str(tmp_path), LABEL, _rows(5))
    (other,) = write_video(str(tmp_path), LABEL, _rows(6))
    assert first == again
    assert other.path != first.path
    assert _visible(tmp_path / "frames") == sorted([first.path, other.path])


def test_a_failure_part_of_the_way_leaves_nothing(tmp_path: Path) -> None:
    def breaking() -> Iterator[FrameRow]:
        yield from _rows(3)
        raise FootageError("corrupt", "at frame 3")

    with pytest.raises(FootageError, match="corrupt"):
        write_video(str(tmp_path), LABEL, breaking())
    assert not list((tmp_path / "frames").iterdir())


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_frame_is_no_video(tmp_path: Path, count: int) -> None:
    with pytest.raises(FootageError, match=f"too_short: {count} frames; expected at least 2"):
        write_video(str(tmp_path), LABEL, _rows(count))
    assert not list((tmp_path / "frames").iterdir())


def test_temporary_files_of_killed_writers_are_removed_later(tmp_path: Path) -> None:
    assert remove_abandoned(str(tmp_path)) == 0
    (shard,) = write_video(str(tmp_path), LABEL, _rows(2))
    for name, age in {".old.parquet.partial": 90_000, ".new.parquet.partial": 10}.items():
        path = tmp_path / "frames" / name
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    assert remove_abandoned(str(tmp_path)) == 1
    assert {path.name for path in (tmp_path / "frames").iterdir()} == {".new.parquet.partial", shard.path}


def test_what_was_on_its_way_to_an_object_store_is_removed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    write_video("memory://bucket/spooled", LABEL, _rows(2))
    (spool,) = tmp_path.iterdir()
    assert not list(spool.iterdir())
    (spool / ".old.parquet.partial").touch()
    os.utime(spool / ".old.parquet.partial", (0, 0))
    assert remove_abandoned("memory://bucket/spooled") == 1
    assert not list(spool.iterdir())


def test_bytes_that_changed_on_the_disk_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = _HashingFile.close

    def close_and_spoil(self: _HashingFile) -> None:
        usual(self)
        for path in (tmp_path / "frames").iterdir():
            path.write_bytes(path.read_bytes().replace(b"png", b"gnp"))

    monkeypatch.setattr(_HashingFile, "close", close_and_spoil)
    with pytest.raises(StorageError, match="other bytes are there than were written"):
        write_video(str(tmp_path), LABEL, _rows(2))
    assert not list((tmp_path / "frames").iterdir())


def test_a_temporary_file_that_goes_while_tidying_up_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    gone = tmp_path / "frames/.gone.parquet.partial"
    gone.symlink_to(tmp_path / "nowhere")  # listed, and not there when it is looked at
    assert remove_abandoned(str(tmp_path)) == 0


def test_a_place_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        write_video(str(tmp_path), LABEL, _rows(2))


def test_shards_reach_places_that_are_not_local() -> None:
    (shard,) = write_video("memory://dataset", LABEL, _rows(4))
    place = location("memory://dataset") / "frames" / shard.path
    assert place.size() == shard.num_bytes
    with place.open_input() as stream:
        assert pq.ParquetFile(stream).metadata.num_rows == 4
