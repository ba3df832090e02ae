"""Exports read by programs that are not ours, and by our own ingest."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import webdataset as wds
from webdataset import tariterators

from tasks.catalog import open_dataset
from tasks.errors import DatasetError, InputError, StorageError
from tasks.export import export_dataset
from tasks.export_files import flo_bytes
from tasks.export_plan import ClipSpan, tar_parts
from tasks.flow_codec import decode_flow
from tasks.snapshot import DatasetSnapshot
from tasks.storage import location
from tasks.stored_rows import read_rows
from tests.tasks.small_dataset import ingest_here
from tests.tasks.small_footage import HEIGHT, RECIPE, WIDTH, write_clip

NUM_FRAMES = 5


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> DatasetSnapshot:
    """Two clips of five frames, the first with a dot in its name and one mask."""
    root = tmp_path_factory.mktemp("footage")
    write_clip(root / "JPEGImages/fox.v2", NUM_FRAMES, 1, ".jpg")
    write_clip(root / "JPEGImages/hare", NUM_FRAMES, 2)
    masks = root / "Annotations/fox.v2"
    masks.mkdir(parents=True)
    cv2.imwrite(str(masks / "00001.png"), np.eye(HEIGHT, WIDTH, dtype=np.uint8) * 255)
    return open_dataset(ingest_here(root, str(root / "dataset")))


def stored(snapshot: DatasetSnapshot, columns: tuple[str, ...]) -> list[dict[str, object]]:
    return [row for clip in snapshot.clips for row in read_rows(snapshot.frames, clip, columns)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read_flo(path: Path) -> np.ndarray:
    """OpenCV's own reader: float32 [H, W, 2]."""
    flow: np.ndarray = cv2.readOpticalFlow(str(path))
    return flow


def read_with_webdataset(tars: list[str]) -> list[dict[str, Any]]:
    """The samples of tars as the webdataset package groups and decodes them; opened here, since it closes nothing."""
    with ExitStack() as stack:
        opened = [{"url": tar, "stream": stack.enter_context(Path(tar).open("rb"))} for tar in tars]
        stages = (tariterators.tar_file_expander, tariterators.group_by_keys, wds.decode("rgb8"))
        return list(wds.DataPipeline(lambda: iter(opened), *stages))


def test_webdataset_reads_the_tars(snapshot: DatasetSnapshot, tmp_path: Path) -> None:
    summary = export_dataset(snapshot, location(tmp_path), output="webdataset", max_tar_bytes=300_000)
    tars = sorted(map(str, tmp_path.glob("*.tar")))
    assert [Path(name).name for name in tars] == [f"gwm-{number:06d}.tar" for number in range(summary.num_parts)]
    assert (summary.num_parts, summary.num_written, summary.num_frames) == (len(tars), len(tars), 2 * NUM_FRAMES)
    assert len(tars) > 1
    samples = read_with_webdataset(tars)
    rows = stored(snapshot, ("frame_index", "jpeg", "annotation", "flow_p1", "flow_m1", "flow_p2"))
    assert [sample["__key__"] for sample in samples] == [
        f"{clip}/{frame:05d}" for clip in ("fox.v2", "hare") for frame in range(NUM_FRAMES)
    ]
    for sample, row in zip(samples, rows, strict=True):
        assert sample["jpg"].shape == (HEIGHT, WIDTH, 3)
        assert ("png" in sample) == (row["annotation"] is not None)
        for name in ("flow_p1", "flow_m1", "flow_p2"):
            assert (f"{name}.npy" in sample) == (row[name] is not None)
            if row[name] is not None:
                assert np.array_equal(sample[f"{name}.npy"], decode_flow(row[name]).transpose(1, 2, 0))  # type: ignore[arg-type]
        assert sample["json"]["frame"] == row["frame_index"]
    assert samples[0]["json"]["video_id"] == snapshot.clips[0].video_id


def test_tars_are_the_same_bytes_each_time_and_hold_the_stored_pictures(
    snapshot: DatasetSnapshot, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        export_dataset(snapshot, location(tmp_path / name), output="webdataset", gaps=(1,))
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    with tarfile.open(tmp_path / "a" / "gwm-000000.tar") as tar:
        assert {(entry.mtime, entry.uid, entry.uname) for entry in tar} == {(0, 0, "")}
        jpegs = [tar.extractfile(entry).read() for entry in tar if entry.name.endswith(".jpg")]  # type: ignore[union-attr]
    assert jpegs == [row["jpeg"] for row in stored(snapshot, ("jpeg",))]


def test_frames_are_read_by_opencv_and_ingested_as_they_were(snapshot: DatasetSnapshot, tmp_path: Path) -> None:
    export_dataset(snapshot, location(tmp_path / "out"), output="frames")
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        *("JPEGImages", "Annotations", "Flows_gap1", "Flows_gap-1", "Flows_gap2"),
        *("gwm_export.json", "gwm_export_plan.json"),
    }
    columns = ("frame_index", "jpeg", "annotation", "flow_p1", "flow_m1", "flow_p2")
    for clip in snapshot.clips:
        for row in read_rows(snapshot.frames, clip, columns):
            stem = f"{row['frame_index']:05d}"
            for gap, name in ((1, "flow_p1"), (-1, "flow_m1"), (2, "flow_p2")):
                file = out / f"Flows_gap{gap}" / clip.clip / f"{stem}.flo"
                assert file.exists() == (row[name] is not None)
                if row[name] is not None:
                    assert np.array_equal(read_flo(file), decode_flow(row[name]).transpose(1, 2, 0))
    again = open_dataset(ingest_here(out, str(tmp_path / "again")))
    assert [clip.clip for clip in again.clips] == [clip.clip for clip in snapshot.clips]
    assert stored(again, columns[:3]) == stored(snapshot, columns[:3])
    before, after = stored(snapshot, ("flow_p1",)), stored(again, ("flow_p1",))
    assert before[:NUM_FRAMES] == after[:NUM_FRAMES]  # JPEG files; flow of the PNGs was made before they were JPEG


def test_flo_files_are_middleburys(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    (tmp_path / "a.flo").write_bytes(flo_bytes(flow))
    assert np.array_equal(read_flo(tmp_path / "a.flo"), flow.transpose(1, 2, 0))
    cv2.writeOpticalFlow(str(tmp_path / "b.flo"), np.ascontiguousarray(flow.transpose(1, 2, 0)))
    assert (tmp_path / "a.flo").read_bytes() == (tmp_path / "b.flo").read_bytes()


@pytest.mark.parametrize("output", ["webdataset", "frames"])
def test_an_export_that_was_cut_short_goes_on(snapshot: DatasetSnapshot, tmp_path: Path, output: str) -> None:
    def cut(done: int, total: int, note: str) -> None:
        raise KeyboardInterrupt

    arguments = {"output": output, "gaps": (1,), "max_tar_bytes": 60_000}
    export_dataset(snapshot, location(tmp_path / "whole"), **arguments)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        export_dataset(snapshot, location(tmp_path / "cut"), **arguments, on_progress=cut)  # type: ignore[arg-type]
    assert not (tmp_path / "cut" / "gwm_export.json").exists()
    if output == "frames":
        (tmp_path / "cut/.gwm_export.partial/hare/JPEGImages").mkdir(parents=True)  # as a killed process leaves it
        (tmp_path / "cut/.gwm_export.partial/hare/JPEGImages/00000.jpg").write_bytes(b"half")
        for folder in ("JPEGImages", "Flows_gap1"):
            for file in (tmp_path / "cut" / folder / "hare").iterdir():
                file.unlink()
        (tmp_path / "cut/JPEGImages/hare").rmdir()
    summary = export_dataset(snapshot, location(tmp_path / "cut"), **arguments)  # type: ignore[arg-type]
    assert 0 < summary.num_parts - summary.num_written < summary.num_parts
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
    assert export_dataset(snapshot, location(tmp_path / "cut"), **arguments).num_written == 0  # type: ignore[arg-type]


def test_a_shard_that_can_not_be_read_leaves_no_part(snapshot: DatasetSnapshot, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", 3, 0)
    mine = open_dataset(ingest_here(tmp_path / "clip", str(tmp_path / "dataset")))
    for file in (tmp_path / "dataset/frames").glob("*.parquet"):
        file.unlink()
    for output in ("webdataset", "frames"):
        with pytest.raises(DatasetError, match="can not be read"):
            export_dataset(mine, location(tmp_path / output), output=output)
        assert set(files_of(tmp_path / output)) == {"gwm_export_plan.json"}


def test_places_and_wishes_that_do_not_fit(snapshot: DatasetSnapshot, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="format 'tfrecord': expected one of webdataset, frames"):
        export_dataset(snapshot, location(tmp_path / "a"), output="tfrecord")
    with pytest.raises(DatasetError, match=r"asked for \[7\] too"):
        export_dataset(snapshot, location(tmp_path / "a"), output="frames", gaps=(1, 7))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file.txt").write_text("mine")
    with pytest.raises(StorageError, match="is not empty"):
        export_dataset(snapshot, location(tmp_path / "b"), output="frames")
    export_dataset(snapshot, location(tmp_path / "c"), output="frames", gaps=())
    assert not list((tmp_path / "c").glob("Flows*"))
    with pytest.raises(StorageError, match="another export, with another gaps"):
        export_dataset(snapshot, location(tmp_path / "c"), output="frames", gaps=(1,))


def test_tars_are_planned_by_size(snapshot: DatasetSnapshot) -> None:
    per_frame = 2 * 4 * HEIGHT * WIDTH  # flow alone, of one gap
    whole = tar_parts(snapshot.clips, RECIPE.gaps, 1 << 40)
    assert [part.name for part in whole] == ["gwm-000000.tar"]
    assert [span.clip.clip for span in whole[0].spans] == ["fox.v2", "hare"]
    tiny = tar_parts(snapshot.clips, RECIPE.gaps, per_frame)
    assert [part.num_frames for part in tiny] == [1] * (2 * NUM_FRAMES)
    for max_bytes in (100_000, 250_000, 400_000):
        spans = [span for part in tar_parts(snapshot.clips, RECIPE.gaps, max_bytes) for span in part.spans]
        assert _frames(spans) == [(clip.clip, frame) for clip in snapshot.clips for frame in range(NUM_FRAMES)]


def _frames(spans: list[ClipSpan]) -> list[tuple[str, int]]:
    return [(span.clip.clip, frame) for span in spans for frame in range(span.start, span.stop)]


def test_json_is_for_other_programs(snapshot: DatasetSnapshot, tmp_path: Path) -> None:
    export_dataset(snapshot, location(tmp_path), output="webdataset", gaps=())
    with tarfile.open(tmp_path / "gwm-000000.tar") as tar:
        facts = json.load(io.TextIOWrapper(tar.extractfile("hare/00002.json")))  # type: ignore[arg-type]
    assert (facts["clip"], facts["frame"], facts["time_seconds"]) == ("hare", 2, pytest.approx(2 / 24))
    assert json.loads((tmp_path / "gwm_export.json").read_text())["num_frames"] == 2 * NUM_FRAMES
