from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tasks.catalog import newest_version, open_dataset, present_videos, publish, published_frames
from tasks.delta_log import commit_info, create_commit, log_of, read_commit
from tasks.errors import DatasetError
from tasks.ledger import Ledger
from tasks.log_checkpoint import is_due, write_checkpoint
from tasks.snapshot import FRAMES_TABLE
from tasks.storage import Location, location
from tests.tasks.test_catalog import RECIPE, _shard


def _log(dataset: Path) -> Location:
    return log_of(location(dataset) / FRAMES_TABLE)


def _by_deltalake(dataset: Path) -> dict[str, int]:
    """Path and size of the files of the newest version, as the library reads them."""
    actions = DeltaTable(str(dataset / FRAMES_TABLE)).get_add_actions(flatten=True)
    return dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))


def test_a_ledger_agrees_with_the_library_over_a_history(tmp_path: Path) -> None:
    ledger, behind = Ledger(str(tmp_path)), Ledger(str(tmp_path))
    assert ledger.refresh() is None
    other = RECIPE.model_copy(update={"gaps": (3, 1)})
    history = [
        [_shard("a"), _shard("b"), _shard("b", first_frame=5, num_rows=3)],
        [_shard("c")],
        [_shard("a", recipe=other)],
        [_shard("d"), _shard("b", num_rows=2, recipe=other)],
    ]
    for version, added in enumerate(history):
        assert publish(str(tmp_path), added) == version == ledger.refresh()
        held = {entry.path: entry.num_bytes for entry in ledger.shards_of("abcd")}
        assert held == _by_deltalake(tmp_path)
        snapshot = open_dataset(str(tmp_path))
        assert (ledger.num_videos, ledger.num_clips) == (len(snapshot.videos), len(snapshot.clips))
        assert ledger.num_frames == snapshot.num_frames
        if version == 1:
            write_checkpoint(str(tmp_path / FRAMES_TABLE))
    behind.refresh()  # starts from the checkpoint
    assert behind.num_commits_since == 2
    assert {entry.path for entry in behind.shards_of("abcd")} == set(_by_deltalake(tmp_path))
    assert (behind.num_frames, behind.num_videos, behind.num_clips, behind.num_files) == (17, 4, 4, 4)
    columns = {field.name for field in DeltaTable(str(tmp_path / FRAMES_TABLE)).schema().fields}
    assert columns == {column["name"] for column in behind.columns} >= {"flow_p3", "flow_m2"}


def test_a_table_is_extended_after_a_checkpoint(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("a")])
    write_checkpoint(str(tmp_path / FRAMES_TABLE))
    ledger = Ledger(str(tmp_path))
    ledger.refresh()
    assert ledger.metadata is not None
    schema = json.dumps({"type": "struct", "fields": ledger.columns[::-1]})
    metadata = {**ledger.metadata, "schemaString": schema}
    assert create_commit(_log(tmp_path), 1, [commit_info("TEST", {}), {"metaData": metadata}])
    table = DeltaTable(str(tmp_path / FRAMES_TABLE))
    assert table.schema().fields[0].name == ledger.columns[-1]["name"]
    assert table.metadata().configuration["delta.enableExpiredLogCleanup"] == "false"
    assert str(table.metadata().id) == ledger.metadata["id"]


def test_a_look_reads_only_what_was_committed_since(tmp_path: Path) -> None:
    for name in "abc":
        publish(str(tmp_path), [_shard(name)])
    ledger = Ledger(str(tmp_path))
    assert ledger.refresh() == 2
    (tmp_path / FRAMES_TABLE / "_delta_log" / f"{1:020}.json").unlink()  # nobody may look at it again
    create_commit(_log(tmp_path), 3, [commit_info("TEST", {}), {"remove": {"path": _shard("b").path}}])
    assert ledger.refresh() == 3
    assert {entry.video_id for entry in ledger.shards_of("abc")} == {"a", "c"}


def test_a_dataset_that_was_removed_and_made_anew_is_read_anew(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("a")])
    publish(str(tmp_path), [_shard("b")])
    assert newest_version(str(tmp_path)) == 1
    shutil.rmtree(tmp_path / FRAMES_TABLE)
    assert newest_version(str(tmp_path)) is None
    assert publish(str(tmp_path), [_shard("c")]) == 0
    assert published_frames(str(tmp_path), ["a", "c"], RECIPE) == {"c": 5}
    assert [video.video_id for video in present_videos(str(tmp_path))] == ["c"]


def test_only_one_writer_makes_a_version(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("a")])
    log = _log(tmp_path)
    before = read_commit(log, 0)
    assert not create_commit(log, 0, [commit_info("LATE", {})])
    assert read_commit(log, 0) == before
    assert read_commit(log, 1) is None
    assert not [path for path in (tmp_path / FRAMES_TABLE / "_delta_log").iterdir() if path.name.startswith(".")]


def test_a_table_of_another_program_is_refused(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("a")])
    create_commit(_log(tmp_path), 1, [{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7}}])
    with pytest.raises(DatasetError, match="version 7 of the Delta writer protocol"):
        publish(str(tmp_path), [_shard("b")])


def test_a_file_that_ingest_did_not_add_is_refused_again_and_again(tmp_path: Path) -> None:
    publish(str(tmp_path), [_shard("a")])
    ledger = Ledger(str(tmp_path))
    ledger.refresh()
    create_commit(_log(tmp_path), 1, [{"add": {"path": "foreign.parquet", "size": 3, "stats": None}}])
    for _ in range(2):
        with pytest.raises(DatasetError, match="foreign\\.parquet was not added by ingest"):
            ledger.refresh()


def test_a_log_is_summed_up_when_half_of_it_is_news(tmp_path: Path) -> None:
    assert not is_due(19, 1000, 1000)
    assert not is_due(100, 499, 1000)
    assert is_due(20, 500, 1000)
    for index in range(80):
        publish(str(tmp_path), [replace(_shard(f"{index:03}"), clip=f"{index:03}")])
    made = sorted(path.name[18:20] for path in (tmp_path / FRAMES_TABLE / "_delta_log").glob("*.checkpoint.parquet"))
    assert made == ["19", "39", "79"]
    assert len(open_dataset(str(tmp_path)).videos) == 80
