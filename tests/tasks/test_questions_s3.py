"""What is asked of a dataset, asked of one on a real S3 server, with answers written there too."""

from __future__ import annotations

from pathlib import Path

from tasks.catalog import open_dataset
from tasks.describe import describe_dataset
from tasks.export import export_dataset
from tasks.preview import write_preview
from tasks.storage import location
from tasks.trace_target import trace
from tasks.verify import verify_shards
from tasks.verify_video import VerifyJob, VerifyWorker, VideoToVerify
from tests.tasks.small_dataset import ingest_here
from tests.tasks.small_footage import write_clip
from tests.tasks.training_data import local_settings


def test_a_dataset_on_s3_answers_as_one_on_disk(s3_root: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "fox", 4, 0, ".jpg")
    local, remote = (ingest_here(tmp_path / "fox", f"{root}/dataset") for root in (tmp_path, s3_root))
    snapshot = open_dataset(remote)

    here, there = describe_dataset(local), describe_dataset(remote)
    assert (there.clips, there.columns, there.recipes) == (here.clips, here.columns, here.recipes)

    chain = {link.kind: link for link in trace(f"{remote}/fox/2", local_settings(tmp_path / "home")).links}
    assert chain["shard"].name.startswith(f"{remote}/frames/")
    assert not [link for link in chain.values() if link.problem]

    assert verify_shards(snapshot, lambda done, total, note: None) == ()
    check = VerifyWorker(VerifyJob(dataset_uri=remote)).run(VideoToVerify(video=snapshot.videos[0]))
    assert (check.problems, check.num_frames, check.num_equal) == ((), 4, 4)
    (location(remote) / "frames" / snapshot.videos[0].shards[0].path).write_bytes(b"other bytes")
    (problem,) = verify_shards(snapshot, lambda done, total, note: None)
    assert problem.kind == "shard_bytes"


def test_exports_and_pages_are_written_to_s3(s3_root: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "fox", 4, 0, ".jpg")
    snapshot = open_dataset(ingest_here(tmp_path / "fox", str(tmp_path / "dataset")))
    for output in ("webdataset", "frames"):
        for root in (str(tmp_path), s3_root):
            export_dataset(snapshot, location(f"{root}/{output}"), output=output)
        assert contents(f"{s3_root}/{output}") == contents(str(tmp_path / output))
        assert export_dataset(snapshot, location(f"{s3_root}/{output}"), output=output).num_written == 0
    assert len(contents(f"{s3_root}/frames")) == 4 + 3 + 3 + 2 + 2  # pictures; flow over 1, -1 and 2; what it is

    pages = [write_preview(snapshot, location(f"{root}/page"), max_clips=1) for root in (tmp_path, s3_root)]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert contents(f"{s3_root}/page") == contents(str(tmp_path / "page"))


def contents(root: str) -> dict[str, bytes]:
    """What lies below ``root``, by relative name."""
    return {file.uri.removeprefix(root): file.read_bytes() for file in location(root).list(recursive=True)}
