from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.catalog import open_dataset, publish
from tasks.dead_letters import Refusal, read_rejected, record_rejected
from tasks.delta_log import log_of
from tasks.errors import DatasetError, InputError
from tasks.log_checkpoint import write_checkpoint
from tasks.storage import location
from tasks.vacuum import StoredFile, choose_orphans, vacuum
from tests.tasks.test_catalog import RECIPE, _shard


def _touch(path: Path, *, hours: float = 30, size: int = 10) -> Path:
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - 3600 * hours,) * 2)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Version 0 has a and b; version 1 has b and a under another recipe; all files are old."""
    other = RECIPE.model_copy(update={"fps": 5.0})
    shards = [_shard("a"), _shard("b"), _shard("a", recipe=other)]
    publish(str(tmp_path), shards[:2])
    publish(str(tmp_path), shards[2:])
    for shard in shards:
        _touch(tmp_path / "frames" / shard.path)
    return tmp_path


def test_only_old_files_without_a_reference_go(dataset: Path) -> None:
    frames = dataset / "frames"
    kept = set(frames.iterdir()) | {_touch(frames / "young.parquet", hours=23)}
    orphans = [
        _touch(frames / "orphan.parquet"),
        _touch(frames / ".half.parquet.partial"),
        _touch(frames / "_delta_log" / ".half.json.partial"),
        _touch(frames / "_delta_log" / "_commit_abc.json.tmp"),
    ]
    log = {path.name for path in (frames / "_delta_log").glob("0*")}

    report = vacuum(str(dataset), dry_run=True)
    assert (report.num_removed, report.num_bytes, report.num_spared, report.num_referenced) == (4, 40, 1, 3)
    assert all(path.exists() for path in orphans)

    assert vacuum(str(dataset)) == report
    assert set(report.paths) == {str(path.relative_to(dataset)) for path in orphans}
    assert set(frames.iterdir()) == kept
    assert {path.name for path in (frames / "_delta_log").iterdir()} == log
    assert vacuum(str(dataset)).num_removed == 0


def test_files_of_an_old_version_stay_also_when_only_a_checkpoint_tells_of_it(dataset: Path) -> None:
    write_checkpoint(str(dataset / "frames"))
    old = _shard("a").path
    assert old not in {shard.path for video in open_dataset(str(dataset)).videos for shard in video.shards}
    assert vacuum(str(dataset)).num_removed == 0
    (dataset / "frames" / "_delta_log" / f"{0:020}.json").unlink()  # as a cleaning of the log does
    assert vacuum(str(dataset)).paths == (f"frames/{old}",)
    assert len(open_dataset(str(dataset)).videos) == 2


def test_the_other_tables_are_cleaned_too(dataset: Path) -> None:
    for _ in range(2):
        record_rejected(str(dataset), [Refusal(source="a", stage="hash", reason="corrupt", detail="")])
    for path in (dataset / "rejected").glob("*.parquet"):
        os.utime(path, (0, 0))
    orphan = _touch(dataset / "rejected" / "part-00000.parquet")
    assert vacuum(str(dataset)).paths == ("rejected/part-00000.parquet",)
    assert not orphan.exists()
    assert read_rejected(str(dataset))[0].attempts == 2


def test_a_file_that_was_written_anew_since_the_listing_stays(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = _touch(dataset / "frames" / "orphan.parquet")

    def choose(files: list[StoredFile], referenced: set[str], grace: float) -> tuple[list[StoredFile], int]:
        chosen = choose_orphans(files, referenced, grace)
        os.utime(orphan)  # a writer renames equal content over it
        return chosen

    monkeypatch.setattr("tasks.vacuum.choose_orphans", choose)
    assert vacuum(str(dataset)).num_removed == 0
    assert orphan.exists()


def test_files_are_chosen_by_age_and_reference() -> None:
    old = StoredFile(path="frames/old", num_bytes=1, age_seconds=10.0)
    young = replace(old, path="frames/young", age_seconds=9.0)
    assert choose_orphans([old, young], {"frames/other"}, 10.0) == ([old], 1)
    assert choose_orphans([old, young], {"frames/old"}, 0.0) == ([young], 0)


def test_a_place_without_a_dataset_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset at"):
        vacuum(str(tmp_path))
    with pytest.raises(InputError, match="expected 0 or more"):
        vacuum(str(tmp_path), older_than_hours=-1)


def test_orphans_on_an_object_store_go(s3_root: str) -> None:
    dataset = f"{s3_root}/dataset"
    publish(dataset, [_shard("a")])
    frames = location(dataset) / "frames"
    (frames / _shard("a").path).write_bytes(b"x")
    (frames / "orphan.parquet").write_bytes(b"xyz")
    assert vacuum(dataset, older_than_hours=1).num_spared == 1
    time.sleep(1.1)  # S3 tells times in whole seconds
    report = vacuum(dataset, older_than_hours=0)
    assert (report.paths, report.num_bytes) == (("frames/orphan.parquet",), 3)
    assert [place.name for place in frames.list()] == [_shard("a").path]
    assert len(log_of(frames).list()) == 1
