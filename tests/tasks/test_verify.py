"""Datasets that the real ingest wrote, each damaged in one way: verify must say which."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.catalog import open_dataset
from tasks.errors import FootageError, InputError
from tasks.identity import hash_bytes
from tasks.settings import Settings
from tasks.snapshot import StoredVideo
from tasks.verify import VerifyReport, choose_sample, sample_size, verify_dataset, verify_shards
from tasks.verify_shards import Problem
from tasks.verify_video import VerifyJob, VerifyWorker, VideoToVerify
from tests.tasks.small_dataset import ingest_here
from tests.tasks.small_footage import HEIGHT, WIDTH, write_clip
from tests.video_files import write_video

NUM_FRAMES = 5


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotated JPEG frames, PNG frames and a video, and a dataset of them."""
    root = tmp_path_factory.mktemp("sound")
    write_clip(root / "footage/JPEGImages/files", NUM_FRAMES, 1, ".jpg")
    masks = root / "footage/Annotations/files"
    masks.mkdir(parents=True)
    cv2.imwrite(str(masks / "00001.png"), np.eye(HEIGHT, WIDTH, dtype=np.uint8) * 255)
    write_clip(root / "more/encoded", NUM_FRAMES, 2)
    (root / "more/video").mkdir()
    write_video(root / "more/video/numbers.mp4")
    for source in ("footage", "more/encoded", "more/video"):
        ingest_here(root / source, str(root / "dataset"))
    return root


@pytest.fixture
def place(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage; the footage is where it was."""
    shutil.copytree(sound / "dataset", tmp_path / "dataset")
    return tmp_path / "dataset"


def shards_of(place: Path) -> list[Problem]:
    return list(verify_shards(open_dataset(str(place)), lambda done, total, note: None))


def shard_file(place: Path, clip: str) -> Path:
    (video,) = (video for video in open_dataset(str(place)).videos if video.clip == clip)
    return place / "frames" / video.shards[0].path


def video_of(place: Path, clip: str) -> StoredVideo:
    return next(video for video in open_dataset(str(place)).videos if video.clip == clip)


def check(place: Path, clip: str, **changes: object) -> tuple[Problem, ...]:
    video = replace(video_of(place, clip), **changes)  # type: ignore[arg-type]
    return VerifyWorker(VerifyJob(dataset_uri=str(place))).run(VideoToVerify(video=video)).problems


def test_a_sound_dataset_is_made_again_bit_for_bit(ray_cluster: None, sound: Path) -> None:
    told: list[tuple[int, int, str]] = []
    report = verify_dataset(
        open_dataset(str(sound / "dataset")),
        Settings(ingest_actors=1),
        sample="100%",
        on_progress=lambda *now: told.append(now),
    )
    assert report.is_sound
    assert (report.problems, report.not_compared) == ((), ())
    assert (report.num_shards, report.num_sampled, report.num_compared) == (3, 3, 3)
    assert (report.num_frames, report.num_equal, report.max_flow_px) == (20, 20, 0.0)
    assert [now[:2] for now in told] == [(1, 3), (2, 3), (3, 3)] * 2


def test_a_missing_shard(place: Path) -> None:
    file = shard_file(place, "files")
    file.unlink()
    (problem,) = shards_of(place)
    assert (problem.kind, problem.clip, problem.place) == ("shard_missing", "files", str(file))


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_damaged_bytes(place: Path, damage: str) -> None:
    file = shard_file(place, "encoded")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data) if damage == "flipped" else bytes(data[:-9]))
    (problem,) = shards_of(place)
    assert (problem.kind, problem.clip) == ("shard_bytes", "encoded")
    assert ("SHA-256" if damage == "flipped" else "the log says") in problem.detail


def test_rows_of_another_video_under_a_name_that_fits(place: Path) -> None:
    file = shard_file(place, "files")
    table = pq.read_table(file)
    other = table.set_column(
        table.schema.get_field_index("frame_index"), "frame_index", pa.array([0, 1, 2, 2, 4], "int32")
    )
    with_bytes_of(place, file, other)
    (problem,) = shards_of(place)
    assert problem.kind == "shard_rows"
    assert "row 3 is frame 2" in problem.detail


def test_bytes_that_are_no_parquet_under_a_name_that_fits(place: Path) -> None:
    file = shard_file(place, "files")
    data = file.read_bytes()[:-4] + b"RAP1"
    rename_in_log(place, file, f"{file.name[:-33]}-{hash_bytes(data)[:24]}.parquet", len(data)).write_bytes(data)
    (problem,) = shards_of(place)
    assert problem.kind == "shard_unreadable"


def with_bytes_of(place: Path, file: Path, table: pa.Table) -> None:
    pq.write_table(table, file, row_group_size=1)
    data = file.read_bytes()
    rename_in_log(place, file, f"{file.name[:-33]}-{hash_bytes(data)[:24]}.parquet", len(data)).write_bytes(data)


def rename_in_log(place: Path, file: Path, name: str, num_bytes: int) -> Path:
    for entry in (place / "frames" / "_delta_log").glob("*.json"):
        text = entry.read_text()
        if file.name in text:
            found = next(line for line in text.splitlines() if file.name in line)
            before = found[found.index('"size":') :].split(",")[0]
            entry.write_text(text.replace(found, found.replace(file.name, name).replace(before, f'"size":{num_bytes}')))
    return file.with_name(name)


def test_a_changed_source(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "numbers.mp4"
    copy.write_bytes(Path(video_of(place, "numbers").source).read_bytes())
    assert check(place, "numbers", source=str(copy)) == ()
    write_video(copy, frame_rate=25)
    (problem,) = check(place, "numbers", source=str(copy))
    assert (problem.kind, problem.place) == ("source_changed", str(copy))


def test_a_source_that_is_gone_is_told_but_no_difference(place: Path) -> None:
    (problem,) = check(place, "numbers", source="nowhere.mp4")
    assert problem.kind == "source_gone"


def test_rows_that_differ_from_what_the_recipe_makes(place: Path) -> None:
    video = video_of(place, "encoded")
    less = video.recipe.model_copy(update={"jpeg_quality": 5})
    assert {problem.kind for problem in check(place, "encoded", recipe=less)} == {"pictures"}
    smaller = video.recipe.model_copy(update={"max_side": 48})
    found = {problem.kind: problem.detail for problem in check(place, "encoded", recipe=smaller)}
    assert found.keys() == {"frames", "pictures", "flow"}
    assert found["frames"] == "5 of 5 frames differ, first frame 0: stored as 64x48, now 48x36"
    faster = video.recipe.model_copy(update={"flow_estimator": "dis-ultrafast"})
    (problem,) = check(place, "encoded", recipe=faster)
    assert problem.kind == "flow"
    fewer = video.recipe.model_copy(update={"fps": 12.0})
    assert "at 0.0416" in {problem.kind: problem.detail for problem in check(place, "encoded", recipe=fewer)}["frames"]


def test_footage_that_is_refused_now(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise FootageError("timeout", "too slow")

    monkeypatch.setattr("tasks.verify_video.iterate_frames", refuse)
    (problem,) = check(place, "encoded")
    assert problem.kind == "source_refused"


@pytest.mark.parametrize(
    ("sample", "size"), [("1%", 1), ("50%", 5), ("51 %", 6), ("100%", 10), ("3", 3), ("0", 0), ("99", 10)]
)
def test_samples_are_shares_or_numbers(sample: str, size: int) -> None:
    assert sample_size(sample, 10) == size


@pytest.mark.parametrize("sample", ["", "half", "-1", "101%", "1.5"])
def test_other_samples_are_refused(sample: str) -> None:
    with pytest.raises(InputError, match="expected a share"):
        sample_size(sample, 10)


def test_a_sample_is_the_same_for_the_same_seed_and_grows(sound: Path) -> None:
    (video, *_) = open_dataset(str(sound / "dataset")).videos
    videos = [replace(video, video_id=f"{number:064x}") for number in range(50)]
    chosen = choose_sample(videos, 10, seed=1)
    assert chosen == choose_sample(videos[::-1], 10, seed=1)
    assert choose_sample(videos, 5, seed=1) == chosen[:5]
    assert chosen != choose_sample(videos, 10, seed=2)


def test_a_report_is_sound_only_when_something_was_compared() -> None:
    report = VerifyReport(
        uri="d",
        version=0,
        num_shards=1,
        num_bytes=1,
        num_sampled=2,
        num_compared=1,
        num_frames=3,
        num_equal=3,
        max_flow_px=0.0,
        problems=(),
        not_compared=(),
        seconds=0.0,
    )
    assert report.is_sound
    assert not replace(report, num_compared=0).is_sound
    assert replace(report, num_compared=0, num_sampled=0).is_sound
    problem = Problem(kind="flow", clip="a", place="a.mp4", detail="")
    assert not replace(report, problems=(problem,)).is_sound
