"""What a dataset holds, told from the log and the footers, against what was written."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.catalog import open_dataset
from tasks.dead_letters import Refusal, record_rejected
from tasks.describe import describe_dataset, spread
from tasks.errors import DatasetError
from tasks.snapshot import StoredShard
from tasks.storage import location
from tasks.stored_rows import read_footer, read_rows, shard_of_frame
from tests.tasks.small_dataset import ingest_here
from tests.tasks.small_footage import write_clip
from tests.tasks.training_data import GAPS, HEIGHT, WIDTH, write_dataset


def shards(count: int) -> list[StoredShard]:
    return [StoredShard(path=str(number), num_bytes=1, num_rows=1, first_frame=number) for number in range(count)]


def test_a_description_says_what_was_written(tmp_path: Path) -> None:
    uri = write_dataset(tmp_path / "dataset", num_frames=(8, 6))
    corrupt = Refusal(source="a.mp4", stage="ingest", reason="corrupt", detail="", video_id="1")
    record_rejected(uri, [corrupt, Refusal(source="b.mp4", stage="hash", reason="not_found", detail="")])
    record_rejected(uri, [corrupt])

    found = describe_dataset(uri)

    files = sorted((tmp_path / "dataset" / "frames").glob("*.parquet"))
    assert (found.num_videos, found.num_frames, found.num_shards, found.gaps) == (2, 14, len(files), GAPS)
    assert found.num_bytes == sum(file.stat().st_size for file in files)
    assert (found.version.version, found.newest_version, len(found.history)) == (0, 0, 1)
    assert [(clip.clip, clip.num_frames, clip.width, clip.height) for clip in found.clips] == [
        ("clip_0", 8, WIDTH, HEIGHT),
        ("clip_1", 6, WIDTH, HEIGHT),
    ]
    assert [(line.num_clips, line.num_frames) for line in found.recipes] == [(2, 14)]
    assert [(line.reason, line.num_sources, line.attempts) for line in found.rejected] == [
        ("corrupt", 1, 2),
        ("not_found", 1, 1),
    ]
    by_column = {line.column: line.num_bytes for line in found.columns}
    assert sum(by_column.values()) == pytest.approx(found.num_bytes, abs=len(by_column))
    assert sum(line.share for line in found.columns) == pytest.approx(1)


def test_bytes_by_column_are_those_of_the_values(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", 4, 0)
    found = describe_dataset(ingest_here(tmp_path / "clip", str(tmp_path / "dataset")))
    (file,) = (tmp_path / "dataset" / "frames").glob("*.parquet")
    assert found.clips[0].motion_px == pytest.approx(2, abs=0.5)
    table = pq.read_table(file)
    by_column = {line.column: line.num_bytes for line in found.columns}
    for column in ("jpeg", "flow_p1"):
        payload = sum(len(value or b"") for value in table[column].to_pylist())
        assert payload < by_column[column] < payload + 4 * 100  # page headers


def test_an_old_version_is_described_as_it_was(tmp_path: Path) -> None:
    uri = write_dataset(tmp_path / "dataset", num_frames=(4,))
    with pytest.raises(DatasetError, match="has no version 7"):
        describe_dataset(uri, 7)
    with pytest.raises(DatasetError, match="no dataset at"):
        describe_dataset(str(tmp_path / "none"))


def test_shards_to_measure_are_spread_over_all() -> None:
    assert spread(shards(3), 4) == shards(3)
    assert [shard.first_frame for shard in spread(shards(101), 5)] == [0, 25, 50, 75, 100]


def test_rows_come_in_order_and_as_asked(tmp_path: Path) -> None:
    snapshot = open_dataset(write_dataset(tmp_path / "dataset", num_frames=(8,), shard_rows=3))
    (clip,) = snapshot.clips
    assert [row["frame_index"] for row in read_rows(snapshot.frames, clip, ["frame_index"])] == list(range(8))
    some = list(read_rows(snapshot.frames, clip, ["frame_index", "jpeg", "flow_p7"], frames=(7, 1)))
    assert [(row["frame_index"], row["flow_p7"]) for row in some] == [(1, None), (7, None)]
    assert all(row["jpeg"].startswith(b"\xff\xd8") for row in some)
    assert [shard_of_frame(clip, frame).first_frame for frame in (0, 2, 3, 7)] == [0, 0, 3, 6]
    with pytest.raises(DatasetError, match="has frames 0 to 7, got 8"):
        shard_of_frame(clip, 8)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_shard_that_can_not_be_read_is_named(tmp_path: Path, damage: str) -> None:
    snapshot = open_dataset(write_dataset(tmp_path / "dataset", num_frames=(4,)))
    (clip,) = snapshot.clips
    file = tmp_path / "dataset" / "frames" / clip.shards[0].path
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    else:
        file.unlink()
    with pytest.raises(DatasetError, match=f"{file.name} can not be read"):
        list(read_rows(snapshot.frames, clip, ["jpeg"]))
    with pytest.raises(DatasetError, match="gwm verify"):
        read_footer(location(file))
