"""After a change of recipe only what depends on it is done again, and the rows are those of an ingest from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from torch import Tensor

import tasks.ingest_worker
from model.dis import DisEstimator
from tasks.catalog import open_dataset, publish
from tasks.decode import Frame, iterate_frames
from tasks.identity import Recipe
from tasks.ingest import prepare_ingest
from tasks.ingest_worker import IngestJob, IngestWorker
from tasks.plan_cost import SampleWorker, by_rework
from tasks.snapshot import WrittenShard
from tests.tasks.small_footage import HEIGHT, RECIPE, WIDTH, pictures

NUM_FRAMES = 6
FLOWS = ["flow_p1", "flow_m1", "flow_p2"]


class Counted:
    """An estimator that counts what it is asked for, and a decoder likewise."""

    weights_sha256 = None

    def __init__(self, estimator: DisEstimator) -> None:
        self._estimator, self.name = estimator, estimator.name
        self.num_frames = self.num_pairs = self.num_decoded = 0

    def encode(self, frame: Tensor) -> object:
        self.num_frames += 1
        return self._estimator.encode(frame)

    def flow(self, pairs: Sequence[tuple[object, object]]) -> Tensor:
        self.num_pairs += len(pairs)
        return self._estimator.flow(pairs)  # type: ignore[arg-type]

    def decode(self, *arguments: Any) -> Iterator[Frame]:
        for frame in iterate_frames(*arguments):
            self.num_decoded += 1
            yield frame


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """Two shots of a folder of frames, with a mask of one of them."""
    folder, masks = tmp_path / "JPEGImages" / "clip", tmp_path / "Annotations" / "clip"
    folder.mkdir(parents=True)
    masks.mkdir(parents=True)
    dark, bright = pictures(NUM_FRAMES, 1) // 3, 255 - pictures(NUM_FRAMES, 2) // 3
    for index, picture in enumerate([*dark, *bright]):
        assert cv2.imwrite(str(folder / f"{index:05}.png"), picture[..., ::-1])
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:20, 5:30] = 255
    assert cv2.imwrite(str(masks / "00001.png"), mask)
    return folder


@pytest.fixture
def stored(footage: Path, tmp_path: Path) -> str:
    dataset = str(tmp_path / "dataset")
    shards, _ = _work(footage, dataset, RECIPE)
    publish(dataset, shards)
    return dataset


def _recipe(**changes: object) -> Recipe:
    return Recipe.model_validate({**RECIPE.model_dump(), **changes})


def _work(footage: Path, dataset: str, recipe: Recipe) -> tuple[tuple[WrittenShard, ...], Counted]:
    """Do what an actor does with the one clip, and count."""
    (video,) = prepare_ingest([str(footage)], dataset, recipe).to_ingest
    worker = IngestWorker(IngestJob(dataset_uri=dataset, recipe=recipe))
    counted = worker._estimator = Counted(worker._estimator)  # type: ignore[arg-type, assignment]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.ingest_worker, "iterate_frames", counted.decode)
        work = worker.run(video)
    assert work.refusal is None
    return work.shards, counted


def _from_scratch(footage: Path, recipe: Recipe) -> list[str]:
    """Names of the shards, which hold the hash of their bytes."""
    shards, _ = _work(footage, str(footage.parents[1] / "scratch"), recipe)
    return [shard.path for shard in shards]


def _columns(dataset: str, shards: Sequence[Any], names: Sequence[str]) -> list[list[Any]]:
    folder = Path(dataset) / "frames"
    return [pq.read_table(folder / shard.path, columns=[name])[name].to_pylist() for name in names for shard in shards]


@pytest.mark.parametrize(
    ("changes", "num_decoded", "gaps_estimated", "copied"),
    [
        ({"jpeg_quality": 60}, 12, (), ["annotation", *FLOWS]),
        ({"gaps": (1, -1)}, 0, (), ["jpeg", "annotation", "flow_p1", "flow_m1"]),
        ({"gaps": (1, -1, 2, 3)}, 12, (3,), ["jpeg", "annotation", *FLOWS]),
        ({"gaps": (1, -2)}, 12, (-2,), ["jpeg", "annotation", "flow_p1"]),
        ({"flow_estimator": "dis-fast"}, 12, (1, -1, 2), ["jpeg", "annotation"]),
        ({"jpeg_quality": 60, "gaps": (2, 3)}, 12, (3,), ["annotation", "flow_p2"]),
        ({"max_side": 48}, 12, (1, -1, 2), []),
    ],
)
def test_what_does_not_depend_on_the_change_is_copied(
    stored: str,
    footage: Path,
    changes: dict[str, Any],
    num_decoded: int,
    gaps_estimated: Sequence[int],
    copied: list[str],
) -> None:
    recipe = _recipe(**changes)
    before = open_dataset(stored).videos[0].shards

    shards, counted = _work(footage, stored, recipe)

    assert counted.num_decoded == num_decoded
    assert counted.num_pairs == sum(2 * NUM_FRAMES - abs(gap) for gap in gaps_estimated)
    assert counted.num_frames == (num_decoded if gaps_estimated else 0)
    assert _columns(stored, shards, copied) == _columns(stored, before, copied)
    assert [shard.path for shard in shards] == _from_scratch(footage, recipe)
    version = publish(stored, shards)
    assert [video.recipe for video in open_dataset(stored, version).videos] == [recipe]


@pytest.mark.parametrize("changes", [{"gaps": (1,)}, {"jpeg_quality": 60}, {"gaps": (1, -1, 2, 3)}])
def test_shots_are_merged_with_their_own_rows(footage: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    dataset, recipe = str(tmp_path / "shots"), _recipe(shots="on")
    shards, _ = _work(footage, dataset, recipe)
    assert [(shard.shot, shard.num_rows) for shard in shards] == [(0, NUM_FRAMES), (1, NUM_FRAMES)]
    publish(dataset, shards)
    recipe = _recipe(shots="on", **changes)
    shards, counted = _work(footage, dataset, recipe)
    assert [shard.path for shard in shards] == _from_scratch(footage, recipe)
    assert counted.num_pairs == (2 * (NUM_FRAMES - 3) if 3 in recipe.gaps else 0)


def test_damaged_or_missing_shards_are_not_copied(stored: str, footage: Path) -> None:
    (shard,) = open_dataset(stored).videos[0].shards
    file = Path(stored) / "frames" / shard.path
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    for recipe, spoil in ((_recipe(gaps=(1,)), lambda: file.write_bytes(data)), (_recipe(gaps=(2,)), file.unlink)):
        spoil()
        shards, counted = _work(footage, stored, recipe)
        assert [shard.path for shard in shards] == _from_scratch(footage, recipe)
        assert counted.num_pairs == 2 * NUM_FRAMES - recipe.gaps[0]


@pytest.mark.parametrize("frames", [range(1, 12), range(11)])
def test_footage_that_decodes_to_other_frames_than_before_is_made_anew(
    stored: str, footage: Path, frames: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Counted.decode

    def other(self: Counted, *arguments: Any) -> Iterator[Frame]:
        return (frame for frame in decode(self, *arguments) if frame.index in frames)

    monkeypatch.setattr(Counted, "decode", other)
    shards, counted = _work(footage, stored, _recipe(jpeg_quality=60))
    assert sum(shard.num_rows for shard in shards) == 11
    assert counted.num_pairs == 11 - 1 + 11 - 1 + 11 - 2  # all optical flow, since none could be copied


def test_a_sample_for_the_plan_copies_as_well(stored: str, footage: Path) -> None:
    recipe = _recipe(gaps=(1,))
    plan = prepare_ingest([str(footage)], stored, recipe)
    assert list(by_rework(plan)) == ["stored rows copied, nothing decoded"]
    worker = SampleWorker(IngestJob(dataset_uri=stored, recipe=recipe))
    counted = worker._worker._estimator = Counted(worker._worker._estimator)  # type: ignore[arg-type, assignment]
    assert worker.run(plan.to_ingest[0]).num_frames == 12
    assert counted.num_pairs == 0
