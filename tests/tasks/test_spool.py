from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import StorageError
from tasks.shards import write_video
from tasks.spool import Delivery, Outbox, SpooledShard
from tests.tasks.test_pool import wait_until
from tests.tasks.test_shards import LABEL, _rows, _visible


def _spooled(folder: Path, num_rows: int = 3, num_bytes: int = 1000) -> SpooledShard:
    """A finished shard that nobody delivers yet."""
    with Outbox() as outbox:
        write_video(str(folder), LABEL, _rows(num_rows, num_bytes), outbox=outbox)
        (spooled,) = outbox.hand_over()
    assert spooled.file.exists()
    return spooled


def test_a_shard_waits_for_the_next_and_the_last_for_the_end(tmp_path: Path) -> None:
    first, second = _spooled(tmp_path, 3), _spooled(tmp_path, 4)
    with Outbox() as outbox:
        outbox.put(first)
        assert _visible(tmp_path / "frames") == []
        outbox.put(second)
        wait_until(lambda: _visible(tmp_path / "frames") == [first.shard.path])
        outbox.flush()
        assert _visible(tmp_path / "frames") == sorted([first.shard.path, second.shard.path])
    assert not first.file.exists()
    assert not second.file.exists()


def test_a_full_shard_is_on_its_way_while_the_next_is_written(tmp_path: Path) -> None:
    full = _spooled(tmp_path)
    with Outbox(max_bytes=full.shard.num_bytes) as outbox:
        outbox.put(full)
        wait_until(lambda: _visible(tmp_path / "frames") == [full.shard.path])


def test_no_more_is_spooled_than_allowed(tmp_path: Path) -> None:
    first, second, third = (_spooled(tmp_path, number) for number in (3, 4, 5))
    with Outbox(max_bytes=third.shard.num_bytes + 1) as outbox:
        for spooled in (first, second, third):
            outbox.put(spooled)
        assert set(_visible(tmp_path / "frames")) >= {first.shard.path, second.shard.path}  # there was no room for them
        assert outbox.hand_over() == (third,)
        third.discard()


def test_a_delivery_may_be_repeated_but_not_of_what_vanished(tmp_path: Path) -> None:
    spooled = _spooled(tmp_path)
    deliver = Delivery((spooled,))
    deliver()
    deliver()
    assert _visible(tmp_path / "frames") == [spooled.shard.path]
    lost = _spooled(tmp_path, 5)
    lost.file.unlink()
    with pytest.raises(StorageError, match="vanished before it was"):
        lost.deliver()


def test_what_was_not_delivered_is_discarded(tmp_path: Path) -> None:
    first, second = _spooled(tmp_path, 3), _spooled(tmp_path, 4)
    first.file.write_bytes(b"spoiled")
    with Outbox() as outbox:
        outbox.put(first)
        outbox.put(second)
        with pytest.raises(StorageError, match="other bytes are there than were written"):
            outbox.flush()
    left = {path.name for path in (tmp_path / "frames").iterdir()}
    assert left <= {second.shard.path}  # which nobody refers to


def test_a_shard_at_hand_is_discarded_with_its_outbox(tmp_path: Path) -> None:
    spooled = _spooled(tmp_path)
    with Outbox() as outbox:
        outbox.put(spooled)
    assert not list((tmp_path / "frames").iterdir())
