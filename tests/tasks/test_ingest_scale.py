from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from unittest.mock import patch

from deltalake import DeltaTable

from benchmarks.million_videos import simulate
from tasks import log_checkpoint, log_follower, row_table
from tasks.catalog import list_versions
from tasks.row_table import MERGE_AT

NUM_BATCHES, BATCH = 100, 10
LOOKS = 5 * NUM_BATCHES
"""At news that is not there, of one table: before a batch, in its commits, after them; lines of progress; the end."""


def test_a_batch_costs_the_same_however_much_is_there(tmp_path: Path) -> None:
    """Each commit is read once, each file of rows too, and once more to be merged; no table is opened for a batch."""
    with (
        patch("tasks.log_follower.read_commit", wraps=log_follower.read_commit) as reads,
        patch("tasks.row_table.pq.read_table", wraps=row_table.pq.read_table) as files,
        patch("tasks.log_checkpoint.write_checkpoint", wraps=log_checkpoint.write_checkpoint) as checkpoints,
        patch("tasks.delta.DeltaTable", wraps=DeltaTable) as opened,
    ):
        taken = simulate(NUM_BATCHES * BATCH, 0, tmp_path, batch_videos=BATCH)
    assert taken["commits"] == NUM_BATCHES
    versions_read = defaultdict(list)
    for call in reads.call_args_list:
        log, version = call.args
        versions_read[log.parent.name].append(version)
    assert versions_read.keys() == {"frames", "clips", "rejected"}
    for table, versions in versions_read.items():
        num_commits = DeltaTable(str(tmp_path / "dataset" / table)).version() + 1
        assert sorted({version for version in versions if version < num_commits}) == list(range(num_commits))
        assert len(versions) <= num_commits + LOOKS
    num_merged = NUM_BATCHES - len(DeltaTable(f"{tmp_path}/dataset/clips").file_uris())
    assert num_merged >= NUM_BATCHES - MERGE_AT
    assert files.call_count == NUM_BATCHES + 10 + num_merged  # clips, and the batches in which a video was refused
    assert opened.call_count == 1  # the refusals, in the end
    made = [Path(call.args[0]).name for call in checkpoints.call_args_list]
    assert made.count("frames") == 3  # at 20, 40 and 80 commits
    assert made.count("clips") == 5  # every 20: merging keeps the table at so few files that half of them are news
    assert made.count("rejected") == 0
    dataset = str(tmp_path / "dataset")
    assert list_versions(dataset)[-1].num_videos == 990
    assert DeltaTable(f"{dataset}/clips").to_pyarrow_table().num_rows == 990
    assert DeltaTable(f"{dataset}/rejected").to_pyarrow_table().num_rows == 10
