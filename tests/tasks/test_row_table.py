"""Tables of rows stay few files, lose no row and repeat none, whoever else writes."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from tasks import clips
from tasks.clips import ClipHistory, JudgedClip, read_clips
from tasks.dead_letters import ROWS_A_FILE, Refusal, forget_rejected, read_rejected, record_rejected
from tasks.row_table import MERGE_AT, files_to_merge
from tests.tasks.test_clips import facts

NUM_BATCHES, CLIPS_A_BATCH = 3 * MERGE_AT, 5


@given(st.lists(st.integers(1, 1000), max_size=60), st.integers(1, 1000))
def test_only_small_files_are_merged_and_only_when_there_are_many(sizes: list[int], rows_a_file: int) -> None:
    num_rows = {f"{number}.parquet": size for number, size in enumerate(sizes)}
    merged = files_to_merge(num_rows, rows_a_file)
    assert all(num_rows[path] <= rows_a_file / 2 for path in merged)
    left = [size for path, size in num_rows.items() if path not in merged and size <= rows_a_file / 2]
    assert len(left) < MERGE_AT
    assert not merged or len(merged) >= MERGE_AT


def batch(number: int) -> list[JudgedClip]:
    fingerprint = number.to_bytes(32, "big")
    return [JudgedClip(facts=facts(f"{number}", fingerprint, shot=shot)) for shot in range(CLIPS_A_BATCH)]


def sizes_of_files(table: Path) -> list[int]:
    return sorted(pq.read_metadata(file).num_rows for file in DeltaTable(table).file_uris())


@pytest.mark.parametrize("num_writers", [1, 3])
def test_many_batches_are_few_files_and_each_row_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_writers: int
) -> None:
    monkeypatch.setattr(clips, "ROWS_A_FILE", 100)
    writers = [ClipHistory(str(tmp_path)) for _ in range(num_writers)]
    follower = ClipHistory(str(tmp_path))

    def write(which: int) -> None:
        for number in range(which, NUM_BATCHES, num_writers):
            writers[which].record(batch(number))

    with ThreadPoolExecutor(num_writers) as pool:
        list(pool.map(write, range(num_writers)))
    rows = read_clips(str(tmp_path)).to_pylist()
    assert Counter((row["video_id"], row["shot"]) for row in rows) == Counter(
        (str(number), shot) for number in range(NUM_BATCHES) for shot in range(CLIPS_A_BATCH)
    )
    sizes = sizes_of_files(tmp_path / "clips")
    assert sum(size <= 50 for size in sizes) < MERGE_AT + num_writers  # each writer decides by what was there
    assert max(sizes) <= 100
    assert DeltaTable(tmp_path / "clips").version() == NUM_BATCHES - 1  # merged in the commits of the batches
    follower.refresh()
    follower.record([clip for number in range(NUM_BATCHES) for clip in batch(number)])
    assert len(read_clips(str(tmp_path))) == NUM_BATCHES * CLIPS_A_BATCH
    writers[0].rename({("7", facts("7", None).recipe_hash): ("new name", "new/source")})
    named = [row["video_id"] for row in read_clips(str(tmp_path)).to_pylist() if row["clip"] == "new name"]
    assert named == ["7"] * CLIPS_A_BATCH


def test_letters_are_counted_and_forgotten_whichever_file_they_are_in_by_now(tmp_path: Path) -> None:
    def refusal(number: int) -> Refusal:
        return Refusal(source=f"{number}", stage="ingest", reason="corrupt", detail="", video_id="v")

    num_letters = 3 * MERGE_AT
    for number in range(num_letters):
        record_rejected(str(tmp_path), [refusal(number)])
    assert len(sizes_of_files(tmp_path / "rejected")) <= MERGE_AT
    assert max(sizes_of_files(tmp_path / "rejected")) <= ROWS_A_FILE
    record_rejected(str(tmp_path), [refusal(0), refusal(num_letters - 1)])
    forget_rejected(str(tmp_path), ["1"])
    attempts = {letter.source: letter.attempts for letter in read_rejected(str(tmp_path))}
    again = ("0", str(num_letters - 1))
    assert attempts == {str(number): 2 if str(number) in again else 1 for number in range(num_letters) if number != 1}
