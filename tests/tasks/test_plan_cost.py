from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.catalog import DatasetSnapshot, dataset_exists, open_dataset
from tasks.dead_letters import Refusal
from tasks.errors import FootageError
from tasks.identity import Recipe
from tasks.ingest import prepare_ingest, run_ingest
from tasks.ingest_plan import IngestPlan, PlannedVideo
from tasks.ingest_worker import IngestJob
from tasks.plan_cost import (
    FEWEST_SAMPLES,
    MOST_SAMPLES,
    SAMPLE_FRAMES,
    Part,
    Range,
    Sample,
    SampleWorker,
    add_up,
    by_rework,
    choose_samples,
    estimate_cost,
    extrapolate,
    halves,
)
from tasks.plan_footage import Footage, promised, read_headers
from tasks.plan_report import plan_lines, plan_totals
from tasks.schema import SCHEMA_VERSION
from tasks.settings import Settings
from tasks.video_info import VideoInfo
from tests.tasks.small_footage import HEIGHT, RECIPE, WIDTH, write_clip
from tests.tasks.test_ingest_plan import _stored, _wanted


def _planned(*names: str) -> list[PlannedVideo]:
    return [
        PlannedVideo(
            wanted=_wanted(f"/f/{name}.mp4", name), action="ingest", reason="new", explanation="new", clip=name
        )
        for name in names
    ]


def _info(**known: float | None) -> VideoInfo:
    values = {"num_frames": 100, "frame_rate": 25.0, "duration_seconds": 4.0, **known}
    return VideoInfo(width=640, height=480, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "recipe", "num_frames", "seconds"),
    [
        ({}, {}, 100, 4.0),
        ({"num_frames": None}, {}, 100, 4.0),
        ({"duration_seconds": None}, {}, 100, 4.0),
        ({}, {"fps": 5}, 20, 4.0),
        ({}, {"fps": 60}, 100, 4.0),  # nothing is made up
        ({"num_frames": None, "frame_rate": None}, {}, None, 4.0),
        ({"num_frames": None, "frame_rate": None}, {"fps": 5}, 20, 4.0),
        ({"num_frames": None, "duration_seconds": None}, {}, None, None),
    ],
)
def test_a_header_promises_rows(
    known: dict[str, float | None], recipe: dict[str, float], num_frames: int | None, seconds: float | None
) -> None:
    footage = promised(_info(**known), Recipe(schema_version=SCHEMA_VERSION, max_side=320, **recipe))
    assert footage == Footage(num_frames=num_frames, num_pixels=320 * 240, seconds=seconds)


@pytest.mark.parametrize(
    ("number", "expected"), [(0, 0), (1, 1), (2, 2), (50, FEWEST_SAMPLES), (500, 5), (100_000, MOST_SAMPLES)]
)
def test_about_one_percent_is_sampled(number: int, expected: int) -> None:
    videos = _planned(*(str(index) for index in range(number)))
    footage = {video.source: Footage(num_frames=10, num_pixels=100) for video in videos}
    chosen = choose_samples(videos, footage)
    assert len(set(chosen)) == len(chosen) == expected


def test_only_videos_that_promise_work_are_sampled() -> None:
    videos = _planned("a", "b", "c")
    footage = {"/f/a.mp4": Footage(problem="corrupt"), "/f/b.mp4": Footage(num_frames=9, num_pixels=9)}
    assert choose_samples(videos, {**footage, "/f/c.mp4": Footage(num_pixels=9)}) == (videos[1],)


def test_the_row_that_waits_for_the_start_is_not_counted() -> None:
    marks = [(0.0, 0, 0), (100.0, 10, 5), (101.0, 10, 6), (102.0, 10, 7), (104.0, 10, 8), (106.0, 10, 9)]
    assert halves(marks) == (
        Part(num_pixels=20, seconds=2.0, num_bytes=13),
        Part(num_pixels=20, seconds=4.0, num_bytes=17),
    )
    assert halves(marks[:3]) == (Part(num_pixels=10, seconds=1.0, num_bytes=6),)
    assert halves(marks[:2]) == ()


def test_the_range_goes_from_the_cheapest_to_the_dearest_part() -> None:
    cheap, dear = Part(num_pixels=100, seconds=1, num_bytes=50), Part(num_pixels=100, seconds=3, num_bytes=250)
    samples = [Sample(source="a", num_frames=9, parts=(cheap,)), Sample(source="b", num_frames=9, parts=(dear,))]
    assert extrapolate(1000, samples) == (
        Range(low=10, expected=20, high=30),
        Range(low=500, expected=1500, high=2500),
    )
    assert extrapolate(1000, []) is None


def test_kinds_of_work_are_counted_apart() -> None:
    new, copied = _planned("new"), _planned("copied")
    footage = {video.source: Footage(num_frames=10, num_pixels=100) for video in (*new, *copied)}
    samples = {
        "/f/new.mp4": Sample(source="", num_frames=5, parts=(Part(num_pixels=500, seconds=5, num_bytes=500),)),
        "/f/copied.mp4": Sample(source="", num_frames=4, parts=(Part(num_pixels=100, seconds=0.1, num_bytes=100),)),
    }
    cost = add_up({"all": new, "copy": copied}, footage, samples, 2)
    assert cost.worker_seconds.expected == pytest.approx(11)
    assert (cost.stored_bytes.expected, cost.num_sampled_frames, cost.num_untold) == (2000, 9, 0)
    alone = add_up({"all": new, "copy": copied}, footage, {"/f/new.mp4": samples["/f/new.mp4"]}, 2)
    assert (alone.worker_seconds.expected, alone.num_untold) == (10, 1)


def test_a_sample_is_bounded_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", SAMPLE_FRAMES + 6, 0)
    dataset = str(tmp_path / "dataset")
    (video,) = prepare_ingest([str(tmp_path / "clip")], dataset, RECIPE, read_only=True).videos
    sample = SampleWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video)
    assert sample.num_frames == SAMPLE_FRAMES
    assert sum(part.num_pixels for part in sample.parts) == (SAMPLE_FRAMES - 1) * HEIGHT * WIDTH
    assert all(part.seconds > 0 and part.num_bytes > 0 for part in sample.parts)
    assert not Path(dataset).exists()
    (tmp_path / "clip" / "00003.png").write_bytes(b"no picture")
    with pytest.raises(FootageError):
        SampleWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video)


def test_a_plan_tells_what_the_ingest_then_does(ray_cluster: None, tmp_path: Path) -> None:
    for index, length in enumerate((12, 8)):
        write_clip(tmp_path / "footage" / f"clip{index}", length, index)
    (tmp_path / "text.mp4").write_text("this is no video")
    sources, dataset = [str(tmp_path / "footage"), str(tmp_path / "text.mp4")], str(tmp_path / "dataset")
    plan = prepare_ingest(sources, dataset, RECIPE, read_only=True)
    footage = read_headers(plan.to_ingest, RECIPE)

    lines = {line.clip: line for line in plan_lines(plan, footage, ())}
    (total,) = plan_totals(tuple(lines.values()))
    cost = estimate_cost(plan, dataset, footage, Settings(ingest_actors=1))

    assert not dataset_exists(dataset)
    assert lines["text"].why.startswith("new; will be refused: not_video")
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.*"))
    assert (total.what, total.num_videos, total.num_bytes, total.num_frames) == ("new", 3, size, 20)
    assert (total.num_untold, round(total.minutes * 60 * 24)) == (1, 20)  # a folder counts as 24 frames a second
    run_ingest(plan, dataset, Settings(ingest_actors=1))
    stored = open_dataset(dataset)
    assert stored.num_frames == total.num_frames
    assert cost is not None
    assert (cost.num_samples, cost.num_sampled_frames, cost.num_untold, cost.num_workers) == (2, 20, 1, 1)
    assert cost.stored_bytes.low <= cost.stored_bytes.expected <= cost.stored_bytes.high
    # the sample is everything but the first row of each clip, and rows at the ends of a clip have less optical flow
    assert cost.stored_bytes.expected == pytest.approx(_picture_bytes(stored), rel=0.2)


def _picture_bytes(stored: DatasetSnapshot) -> int:
    """Bytes of all pictures and optical flow, without Parquet's own, which real frames hide."""
    tables = [pq.read_table((stored.frames / shard.path).uri) for video in stored.videos for shard in video.shards]
    return sum(
        len(value)
        for table in tables
        for column in table.columns
        if pa.types.is_binary(column.type)
        for value in column.to_pylist()
        if value is not None
    )


def test_what_is_gone_and_what_is_out_of_reach_have_lines() -> None:
    refusal = Refusal(source="/f/x", stage="hash", reason="not_found", detail="no")
    plan = IngestPlan(recipe=RECIPE, videos=(), gone=(_stored("/f/g.mp4", "G"),), refusals=(refusal,))
    assert [(line.what, line.why) for line in plan_lines(plan, {}, ())] == [
        ("gone", "gone from source: kept; --prune removes it"),
        ("out of reach", "not_found: no"),
    ]
    assert by_rework(plan) == {}
