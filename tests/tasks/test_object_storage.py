"""On a real S3 server: footage becomes a dataset with versions, and results of segmentation are whole or absent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.catalog import list_versions, open_dataset, publish
from tasks.errors import StorageError
from tasks.ingest import prepare_ingest
from tasks.ingest_worker import IngestJob, IngestWorker
from tasks.rendering import render_footage
from tasks.result_folder import RESULT_FILE, ResultFolder
from tasks.storage import Location, location
from tests.tasks.small_footage import RECIPE


class _PulledPlugError(BaseException):
    """Ends an upload as a power cut does: nothing of ours catches it."""


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    yield from ((str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def ingest(source: str, dataset: str) -> list[str]:
    """Ingest in this process; returns the clips that were news."""
    plan = prepare_ingest([source], dataset, RECIPE)
    for video in plan.to_ingest:
        work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video)
        publish(dataset, work.shards)
    return [video.clip for video in plan.to_ingest]


def test_footage_and_dataset_lie_on_s3(s3_root: str, tmp_path: Path) -> None:
    rendered, dataset = tmp_path / "rendered", f"{s3_root}/dataset"
    render_footage(rendered, num_clips=2, num_frames=6, size=(64, 112))
    for name, data in files_below(rendered):
        (location(s3_root) / f"raw/{Path(name).relative_to(rendered).as_posix()}").write_bytes(data)
    assert len(ingest(f"{s3_root}/raw/footage", dataset)) == 2
    assert ingest(f"{s3_root}/raw/footage", dataset) == []  # unchanged
    assert [version.num_videos for version in list_versions(dataset)] == [1, 2]
    assert (open_dataset(dataset, 0).num_frames, open_dataset(dataset).num_frames) == (6, 12)


def test_a_result_is_whole_or_absent_and_can_be_tried_again(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, place = ResultFolder(location(s3_root)), location(s3_root) / "fox"
    results.prepare()

    def publish(*names: str) -> None:
        results.require_free("fox")
        with results.scratch("fox") as folder:
            for name in names:
                (folder / name).write_text(name)
            results.publish(folder, "fox")

    publish(RESULT_FILE, "0.png", "1.png")
    with monkeypatch.context() as killed:
        killed.setattr(Location, "upload", lambda *_: (_ for _ in ()).throw(_PulledPlugError))
        with pytest.raises(_PulledPlugError):
            publish(RESULT_FILE, "0.png")
    assert not (place / RESULT_FILE).exists()  # neither the old nor the new
    publish(RESULT_FILE, "0.png")
    assert [file.name for file in place.list()] == ["0.png", RESULT_FILE]

    (location(s3_root) / "thesis/chapter.txt").write_bytes(b"precious")
    with pytest.raises(StorageError, match="in the way"):
        results.require_free("thesis")
