from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from benchmarks.million_videos import simulate
from tasks import log_checkpoint, log_follower
from tasks.catalog import list_versions


def test_a_batch_costs_the_same_however_much_is_there(tmp_path: Path) -> None:
    """Each commit is read once and a look for news ends at the first that is missing; nothing reads the table."""
    with (
        patch("tasks.log_follower.read_commit", wraps=log_follower.read_commit) as reads,
        patch("tasks.log_checkpoint.write_checkpoint", wraps=log_checkpoint.write_checkpoint) as checkpoints,
        patch("tasks.catalog.open_table", side_effect=AssertionError("the whole table was opened")),
    ):
        taken = simulate(1000, 0, tmp_path, batch_videos=10)
    assert taken["commits"] == 100
    versions_read = [call.args[1] for call in reads.call_args_list]
    found = [version for version in versions_read if version < 100]
    assert sorted(set(found)) == list(range(100))
    looks = 100 * 3 + 10 + 2  # before a batch, in its commit, after it; ten lines of progress; the end
    assert len(versions_read) <= 100 + looks
    # at 20, 40, 60 and 80 commits of 10 videos the dataset had grown by a quarter, at 100 it had not
    assert checkpoints.call_count == 4
    assert list_versions(str(tmp_path / "dataset"))[-1].num_videos == 990
