from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from model.dis import DisEstimator
from model.errors import WeightsError
from tasks.catalog import dataset_exists, list_versions, open_dataset, present_videos
from tasks.dead_letters import read_rejected
from tasks.decode import Frame
from tasks.errors import DatasetError, InputError, StorageError
from tasks.flow_codec import decode_flow
from tasks.identity import Recipe
from tasks.ingest import (
    GONE_AND_KEPT,
    IngestPlan,
    IngestPolicy,
    finish_ingest,
    ingest_batch,
    make_recipe,
    prepare_ingest,
    prune_planned,
    rename_planned,
    run_ingest,
)
from tasks.ingest_batch import IngestProgress, _Batch, silent
from tasks.ingest_worker import IngestJob, IngestWorker, frame_rows
from tasks.pool import PoolResult
from tasks.schema import SCHEMA_VERSION
from tasks.settings import Settings
from tests.tasks.small_footage import HEIGHT, RECIPE, WIDTH, pictures, shard_files, write_clip


def test_rows_hold_the_flow_of_their_gaps() -> None:
    images = pictures(6, 0)

    def frames() -> Iterator[Frame]:
        for index, picture in enumerate(images):
            yield Frame(index=index, time_seconds=index / 24, image=picture, source_name=str(index))

    rows = list(frame_rows(DisEstimator("medium"), frames(), RECIPE))

    assert [row.time_seconds for row in rows] == [index / 24 for index in range(6)]
    for index, row in enumerate(rows):
        for gap in RECIPE.gaps:
            data = row.flows[gap]
            assert (data is None) == (not 0 <= index + gap < 6)
            if data is not None:
                middle = decode_flow(data)[:, 8:-8, 16:-16]
                assert np.abs(np.median(middle, axis=(1, 2)) - [2 * gap, 0]).max() < 0.1
    decoded = cv2.imdecode(np.frombuffer(rows[3].jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - images[3]).mean() < 4


def test_a_worker_stores_jpeg_files_as_they_are_and_masks_exactly(tmp_path: Path) -> None:
    footage = write_clip(tmp_path / "JPEGImages" / "clip", 3, 1, ".jpg")
    masks = tmp_path / "Annotations" / "clip"
    masks.mkdir(parents=True)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:20, 5:30] = 255
    cv2.imwrite(str(masks / "00001.png"), mask)
    dataset = str(tmp_path / "dataset")
    (video,) = prepare_ingest([str(tmp_path)], dataset, RECIPE).videos

    work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video)

    assert work.refusal is None
    table = pq.read_table(tmp_path / "dataset" / "frames" / work.shards[0].path)
    assert table["jpeg"].to_pylist() == [path.read_bytes() for path in sorted(footage.iterdir())]
    first, second, third = table["annotation"].to_pylist()
    assert (first, third) == (None, None)
    assert np.array_equal(cv2.imdecode(np.frombuffer(second, np.uint8), cv2.IMREAD_GRAYSCALE), mask)


def test_ingest_does_what_is_needed_and_says_why(ray_cluster: None, tmp_path: Path) -> None:
    footage, dataset = tmp_path / "footage", tmp_path / "dataset"
    write_clip(footage / "a", 5, 1)
    write_clip(footage / "b", 4, 2)
    (footage / "text.mp4").write_text("this is no video")
    sources = [str(footage / name) for name in ("a", "b", "text.mp4", "gone.mp4")]
    settings = Settings(ingest_actors=1)
    told: list[IngestProgress] = []

    plan = prepare_ingest(sources, str(dataset), RECIPE)
    summary = run_ingest(plan, str(dataset), settings, batch_videos=2, on_progress=told.append)

    assert (summary.num_ingested, summary.num_skipped, summary.num_rejected) == (2, 0, 2)
    assert (summary.num_frames, [progress.num_done for progress in told]) == (9, [1, 2, 3])
    assert {progress.num_total for progress in told} == {3}
    snapshot = open_dataset(str(dataset))
    assert [(video.clip, video.num_frames) for video in snapshot.videos] == [("a", 5), ("b", 4)]
    assert {letter.reason for letter in read_rejected(str(dataset))} == {"not_video", "not_found"}
    assert {shard.path for video in snapshot.videos for shard in video.shards} == shard_files(dataset)

    again = run_ingest(prepare_ingest(sources, str(dataset), RECIPE), str(dataset), settings)
    assert (again.num_ingested, again.version) == (0, summary.version)
    explained = {Path(video.source).name: video.explanation for video in again.videos}
    assert explained["a"] == explained["b"] == "unchanged"
    assert explained["text.mp4"] == "rejected before: not_video, 1 attempt"

    (footage / "b").rename(footage / "renamed")
    changed = cv2.imread(str(footage / "a" / "00002.png"))
    cv2.imwrite(str(footage / "a" / "00002.png"), 255 - changed)
    plan = prepare_ingest([str(footage)], str(dataset), RECIPE)
    third = run_ingest(plan, str(dataset), settings)
    explained = {video.clip: video.explanation for video in third.videos}
    assert explained["a"] == "bytes changed"
    assert explained["renamed"].startswith("renamed: was ")
    assert [video.clip for video in open_dataset(str(dataset)).videos] == ["a", "renamed"]
    assert open_dataset(str(dataset), 0).videos[0].video_id != open_dataset(str(dataset)).videos[0].video_id
    assert list_versions(str(dataset))[-1].num_frames == 9


def test_a_dataset_of_nothing_but_refusals_is_an_error(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no video")
    dataset = str(tmp_path / "dataset")
    sources = [str(tmp_path / "text.mp4")]
    for expected in ("not_video", "rejected before: not_video, 1 attempt"):
        plan = prepare_ingest(sources, dataset, RECIPE)
        with pytest.raises(DatasetError, match=f"nothing was ingested.*{expected}"):
            run_ingest(plan, dataset, Settings(ingest_actors=1))
        assert not dataset_exists(dataset)
    with pytest.raises(InputError, match="no footage found"):
        prepare_ingest([str(tmp_path / "gone.mp4")], dataset, RECIPE)


def test_a_repeated_batch_does_nothing_twice(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", 3, 0)
    dataset = str(tmp_path / "dataset")
    plan = prepare_ingest([str(tmp_path / "clip")], dataset, RECIPE)
    batch = _Batch(dataset, RECIPE, 1, 300, silent)
    (video,) = plan.videos
    work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video)
    batch.take(PoolResult(item=video, status="done", attempts=1, value=work))
    assert not dataset_exists(dataset)
    batch.publish()
    assert batch.version == 0

    repeated = ingest_batch(plan.videos, RECIPE, dataset, Settings())  # starts no Ray: nothing is to do

    assert repeated.version is None
    assert [(outcome.status, outcome.num_frames) for outcome in repeated.outcomes] == [("ingested", 3)]
    assert open_dataset(dataset).version == 0


def test_shards_that_vanished_before_they_were_published_are_told(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", 3, 0)
    dataset = str(tmp_path / "dataset")
    (video,) = prepare_ingest([str(tmp_path / "clip")], dataset, RECIPE).videos
    batch = _Batch(dataset, RECIPE, 1, 300, silent)
    work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video)
    batch.take(PoolResult(item=video, status="done", attempts=1, value=work))
    (shard,) = shard_files(tmp_path / "dataset")
    (tmp_path / "dataset" / "frames" / shard).unlink()
    with pytest.raises(StorageError, match="has None bytes"):
        batch.publish()
    assert not dataset_exists(dataset)


def test_failures_of_processes_become_dead_letters_until_they_succeed(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", 3, 0)
    dataset = str(tmp_path / "dataset")
    (video,) = prepare_ingest([str(tmp_path / "clip")], dataset, RECIPE).videos
    batch = _Batch(dataset, RECIPE, 3, 0, silent)  # publishes after every video
    batch.take(PoolResult(item=video, status="died", attempts=2, error=RuntimeError("gone")))
    batch.take(PoolResult(item=video, status="raised", attempts=1, error=MemoryError("20 GB")))
    (letter,) = read_rejected(dataset)
    assert (letter.reason, letter.attempts, letter.detail) == ("internal", 2, "MemoryError: 20 GB")
    assert [outcome.reason for outcome in batch.outcomes] == ["crashed", "internal"]

    (again,) = prepare_ingest([str(tmp_path / "clip")], dataset, RECIPE).videos
    assert again.explanation == "tried again after internal, 2 attempts"
    work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(again)
    batch.take(PoolResult(item=again, status="done", attempts=1, value=work))
    assert read_rejected(dataset) == ()
    assert len(present_videos(dataset)) == 1


@pytest.mark.parametrize("error", [StorageError("disk full"), WeightsError("altered")])
def test_what_would_meet_every_video_is_raised(tmp_path: Path, error: Exception) -> None:
    write_clip(tmp_path / "clip", 3, 0)
    (video,) = prepare_ingest([str(tmp_path / "clip")], str(tmp_path / "d"), RECIPE).videos
    batch = _Batch(str(tmp_path / "d"), RECIPE, 1, 300, silent)
    with pytest.raises(type(error), match=str(error)):
        batch.take(PoolResult(item=video, status="raised", attempts=1, error=error))


def test_a_recipe_is_made_of_what_decides_the_rows() -> None:
    recipe = make_recipe(gaps=(2, 1), fps=12, max_side=320)
    assert json.loads(recipe.model_dump_json()) == {
        "fps": 12.0,
        "max_side": 320,
        "jpeg_quality": 95,
        "shots": "auto",
        "gaps": [1, 2],
        "flow_estimator": "dis",
        "flow_weights_sha256": None,
        "schema_version": SCHEMA_VERSION,
    }
    with pytest.raises(InputError, match="no optical flow estimator 'disk'"):
        make_recipe(flow_estimator="disk")


def test_other_weights_than_the_recipes_are_refused(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"flow_estimator": "raft-small", "flow_weights_sha256": "0" * 64})
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"not weights")
    job = IngestJob(dataset_uri=str(tmp_path), recipe=recipe, weights=str(weights))
    with pytest.raises(WeightsError):
        IngestWorker(job)


def test_frames_too_small_for_the_estimator_are_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", 3, 0)
    recipe = replace_recipe(max_side=32)
    dataset = str(tmp_path / "dataset")
    (video,) = prepare_ingest([str(tmp_path / "clip")], dataset, recipe).videos
    work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=recipe)).run(video)
    assert work.refusal is not None
    assert (work.refusal.reason, work.refusal.stage, work.shards) == ("too_small", "ingest", ())
    assert "24x32" in work.refusal.detail


def test_a_changed_recipe_rebuilds(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", 5, 0)
    dataset = str(tmp_path / "dataset")
    first = _ingest_here(prepare_ingest([str(tmp_path / "clip")], dataset, RECIPE), dataset)
    plan = prepare_ingest([str(tmp_path / "clip")], dataset, replace_recipe(max_side=48, gaps=(1, 3)))
    assert plan.videos[0].explanation == "recipe changed: max_side, gaps"
    second = _ingest_here(plan, dataset)
    (video,) = open_dataset(dataset, second).videos
    assert (video.width, video.height, video.recipe.gaps) == (48, 36, (1, 3))
    (before,) = open_dataset(dataset, first).videos
    assert (before.width, before.recipe) == (WIDTH, RECIPE)


def test_renames_are_recorded_without_decoding_and_removals_only_on_request(tmp_path: Path) -> None:
    footage, dataset = tmp_path / "footage", str(tmp_path / "dataset")
    for index, name in enumerate(("kept", "moved", "gone")):
        write_clip(footage / name, 3, index)
    _ingest_here(prepare_ingest([str(footage)], dataset, RECIPE), dataset)
    shards = shard_files(tmp_path / "dataset")
    (footage / "moved").rename(footage / "renamed")
    (footage / "gone").rename(tmp_path / "elsewhere")

    plan = prepare_ingest([str(footage)], dataset, RECIPE)
    assert [(video.clip, video.reason) for video in plan.videos] == [("kept", "unchanged"), ("renamed", "renamed")]
    assert ([video.clip for video in plan.gone], plan.to_ingest, plan.to_remove) == (["gone"], (), ())
    rename_planned(plan, dataset)
    assert prune_planned(plan, dataset) is None
    summary = finish_ingest(plan, [], dataset, 0.0)
    assert (summary.num_renamed, summary.num_removed, summary.num_skipped) == (1, 0, 2)
    assert [line.explanation for line in summary.videos if line.reason == "gone"] == [GONE_AND_KEPT]
    names = {video.clip: video.source for video in present_videos(dataset)}
    assert names == {name: str(footage / name) for name in ("gone", "kept", "renamed")}
    assert shard_files(tmp_path / "dataset") == shards

    plan = prepare_ingest([str(footage)], dataset, RECIPE, policy=IngestPolicy(prune=True))
    assert prune_planned(plan, dataset) == summary.version + 1
    assert [video.clip for video in present_videos(dataset)] == ["kept", "renamed"]
    assert finish_ingest(plan, [], dataset, 0.0).num_removed == 1


def test_an_empty_mount_point_removes_nothing(tmp_path: Path) -> None:
    dataset = str(tmp_path / "dataset")
    write_clip(tmp_path / "disk" / "clip", 3, 0)
    write_clip(tmp_path / "other" / "clip2", 3, 1)
    sources = [str(tmp_path / "disk"), str(tmp_path / "other")]
    _ingest_here(prepare_ingest(sources, dataset, RECIPE), dataset)
    shutil.rmtree(tmp_path / "disk" / "clip")
    plan = prepare_ingest(sources, dataset, RECIPE, policy=IngestPolicy(prune=True))
    assert (plan.gone, [refusal.reason for refusal in plan.refusals]) == ((), ["not_found"])


def _ingest_here(plan: IngestPlan, dataset: str) -> int | None:
    """What ``ingest_batch`` does, without processes."""
    worker = IngestWorker(IngestJob(dataset_uri=dataset, recipe=plan.recipe))
    batch = _Batch(dataset, plan.recipe, len(plan.to_ingest), 300, silent)
    for video in plan.to_ingest:
        batch.take(PoolResult(item=video, status="done", attempts=1, value=worker.run(video)))
    batch.publish()
    return batch.version


def replace_recipe(**changes: object) -> Recipe:
    return Recipe.model_validate({**RECIPE.model_dump(), **changes})
