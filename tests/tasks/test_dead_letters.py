"""Names as hostile as file systems allow: they are found, stored and forgotten like any other."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from tasks.dead_letters import (
    ROWS_A_FILE,
    SCHEMA,
    Refusal,
    forget_rejected,
    parse_reasons,
    read_rejected,
    record_rejected,
)
from tasks.errors import REJECTION_REASONS, InputError
from tasks.footage import discover
from tasks.ingest import prepare_ingest
from tests.tasks.small_footage import RECIPE, write_clip

NAMES = [
    "line\nbreak.mp4",
    "tab\tand\rreturn.mp4",
    "colour\x1b[31m.mp4",
    'quote\'s "both".mp4',
    "back\\slash\\n.mp4",
    "turned\u202egpj.mp4",
    "'; delete from t where '1'='1.mp4",
    "\U0001f98e ä.mp4",
]


def _refusal(source: str, detail: str = "") -> Refusal:
    return Refusal(source=source, stage="ingest", reason="corrupt", detail=detail, video_id="v")


def test_any_name_is_stored_counted_and_forgotten(tmp_path: Path) -> None:
    dataset = str(tmp_path)
    for _ in range(2):
        record_rejected(dataset, [_refusal(name, f"can not read {name}") for name in NAMES])
    letters = {letter.source: letter for letter in read_rejected(dataset)}
    assert set(letters) == set(NAMES)
    assert {(letter.attempts, letter.detail == f"can not read {name}") for name, letter in letters.items()} == {
        (2, True)
    }
    forget_rejected(dataset, NAMES[:3])
    assert {letter.source for letter in read_rejected(dataset)} == set(NAMES[3:])


def test_a_change_rewrites_the_files_that_it_is_about_and_no_file_grows_without_end(tmp_path: Path) -> None:
    dataset, table = str(tmp_path), tmp_path / "rejected"
    for batch in range(3):
        record_rejected(dataset, [_refusal(f"{batch}-{number}") for number in range(300)])
    before = set(DeltaTable(table).file_uris())
    record_rejected(dataset, [_refusal("0-7"), _refusal("1-7"), _refusal("new")])
    after = set(DeltaTable(table).file_uris())
    assert len(before - after) == 2
    sizes = sorted(pq.read_metadata(file).num_rows for file in after)
    assert sizes == [101, 300, ROWS_A_FILE]
    attempts = {letter.source: letter.attempts for letter in read_rejected(dataset)}
    assert len(attempts) == 901
    assert {source for source, count in attempts.items() if count == 2} == {"0-7", "1-7"}
    forget_rejected(dataset, ["2-9", "unknown"])
    assert attempts.keys() - {letter.source for letter in read_rejected(dataset)} == {"2-9"}
    version = DeltaTable(table).version()
    forget_rejected(dataset, ["unknown"])
    assert DeltaTable(table).version() == version


def test_a_table_that_deltalake_wrote_is_continued(tmp_path: Path) -> None:
    """As versions before did: its files, its checkpoints and its rows without a video."""
    now = datetime.now(UTC)
    row = {"source": "a", "stage": "hash", "reason": "corrupt", "detail": "", "attempts": 4, "first_seen": now}
    letters = pa.Table.from_pylist([{**row, "last_seen": now, "video_id": None, "recipe_hash": None}], schema=SCHEMA)
    write_deltalake(tmp_path / "rejected", letters)
    write_deltalake(tmp_path / "rejected", letters.slice(0, 0), mode="append")
    DeltaTable(tmp_path / "rejected").create_checkpoint()
    record_rejected(str(tmp_path), [replace(_refusal("a"), video_id=None), _refusal("a")])
    found = {letter.video_id: letter for letter in read_rejected(str(tmp_path))}
    assert (found[None].attempts, found[None].first_seen, found["v"].attempts) == (5, now, 1)


def test_bytes_that_are_no_text_are_stored_as_escapes(tmp_path: Path) -> None:
    record_rejected(str(tmp_path), [_refusal(os.fsdecode(b"\xff.mp4"), os.fsdecode(b"can not read \xff"))])
    (letter,) = read_rejected(str(tmp_path))
    assert (letter.source, letter.detail) == ("\\udcff.mp4", "can not read \\udcff")


def test_footage_with_hostile_names_is_planned_by_its_bytes(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(b"video" + bytes([number]))
    plan = prepare_ingest([str(tmp_path)], str(tmp_path / "dataset"), RECIPE, read_only=True)
    assert {Path(video.source).name for video in plan.to_ingest} == set(NAMES)
    assert all(video.clip.isprintable() for video in plan.videos)


def test_a_name_that_is_no_text_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_clip(tmp_path / "fine", 3, 0)
    write_clip(tmp_path / "bad", 3, 1).rename(tmp_path / os.fsdecode(b"bad\xff"))  # which OpenCV could not write to
    found = discover([str(tmp_path)])
    assert [item.clip for item in found.items] == ["fine"]
    (rejection,) = found.rejections
    assert (rejection.reason, Path(rejection.source).name) == ("forbidden", "bad\\udcff")
    assert "rename it" in rejection.detail
    record_rejected(str(tmp_path / "dataset"), [replace(_refusal(rejection.source), detail=rejection.detail)])
    assert [letter.source for letter in read_rejected(str(tmp_path / "dataset"))] == [rejection.source]


def test_reasons_are_of_the_closed_list() -> None:
    assert parse_reasons(["corrupt", "timeout", "corrupt"]) == {"corrupt", "timeout"}
    assert parse_reasons(["all"]) == set(REJECTION_REASONS)
    assert parse_reasons([]) == frozenset()
    with pytest.raises(InputError, match=r"no reason 'ugly', 'Corrupt' for a refusal: expected all, not_found, "):
        parse_reasons(["ugly", "corrupt", "Corrupt"])
