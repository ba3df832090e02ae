"""Sixteen writers commit to one dataset on a real S3 server at once: each version has one winner, nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from tasks import publish
from tasks.delta import commit_properties, retry_commit, table_uri
from tasks.identity import Recipe, hash_bytes
from tasks.ledger import Ledger
from tasks.schema import SCHEMA_VERSION
from tasks.snapshot import FRAMES_TABLE, WrittenShard
from tasks.storage import storage_options

WRITERS = 16
FEW_WRITERS = 4  # of deltalake's own writer, whose every lost race is a Parquet file and a read of the log


def all_at_once(num_writers: int, write: Callable[[int], object]) -> list[object]:
    start = threading.Barrier(num_writers)

    def begin(number: int) -> object:
        start.wait()
        return write(number)

    with ThreadPoolExecutor(num_writers) as pool:
        return list(pool.map(begin, range(num_writers)))


def shard_of(number: int) -> WrittenShard:
    """What a commit says of a shard; the file itself is of no matter to it."""
    return WrittenShard(
        path=f"{number}.parquet",
        num_bytes=1000,
        num_rows=2,
        first_frame=0,
        first_time_seconds=0.0,
        last_time_seconds=0.04,
        video_id=hash_bytes(b"%d" % number),
        recipe=Recipe(gaps=(1,), schema_version=SCHEMA_VERSION),
        clip=f"clip_{number}",
        source=f"memory://clip_{number}",
        width=80,
        height=48,
    )


def test_each_version_has_one_winner(s3_root: str) -> None:
    frames = table_uri(s3_root, FRAMES_TABLE)
    shards = [shard_of(number) for number in range(WRITERS)]

    def write(number: int) -> int:
        ledger = Ledger(s3_root)  # its own, as in a process of its own
        return retry_commit(lambda: publish._commit(ledger, [shards[number]], ()), frames)

    assert sorted(all_at_once(WRITERS, write)) == list(range(WRITERS))
    table = DeltaTable(frames, storage_options=storage_options(frames))  # deltalake's own reader
    assert table.version() == WRITERS - 1
    added = pa.table(table.get_add_actions(flatten=True)).column("path").to_pylist()
    assert sorted(added) == sorted(shard.path for shard in shards)
    assert [entry["gwm"]["num_videos"] for entry in reversed(table.history())] == list(range(1, WRITERS + 1))


def test_rows_of_all_writers_arrive_once(s3_root: str) -> None:
    table = table_uri(s3_root, "rejected")

    def write(number: int) -> None:
        def commit() -> None:
            write_deltalake(
                table,
                pa.table({"number": [number]}),
                mode="append",
                storage_options=storage_options(table),
                commit_properties=commit_properties({}),
            )

        retry_commit(commit, table)

    all_at_once(FEW_WRITERS, write)
    rows = DeltaTable(table, storage_options=storage_options(table)).to_pyarrow_table()
    assert sorted(rows.column("number").to_pylist()) == list(range(FEW_WRITERS))
