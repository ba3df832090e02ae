"""A dataset that the last program of schema version 1 wrote: this one reads it, trains on it and adds to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model.methods import build_method
from tasks.catalog import list_versions, open_dataset, present_videos, publish
from tasks.dataset import FrameReader
from tasks.ingest import prepare_ingest
from tasks.ingest_worker import IngestJob, IngestWorker
from tasks.loader import TrainingLoader
from tests.resources import make_dataset as made
from tests.tasks.small_footage import RECIPE, write_clip
from tests.tasks.training_data import tiny_experiment

STORED = Path(made.__file__).with_name("dataset_v1")
SEEDS = ({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
"""Which clips each version holds, by the seed of their texture."""


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    return str(shutil.copytree(STORED, tmp_path / "dataset"))


@pytest.mark.parametrize("version", [0, 1])
def test_each_version_opens_with_its_frames_and_flow(dataset: str, version: int) -> None:
    snapshot = open_dataset(dataset, version)
    assert [clip.clip for clip in snapshot.clips] == list(SEEDS[version])
    assert {(video.recipe.schema_version, video.recipe.shots, video.num_shots) for video in snapshot.videos} == {
        (1, "off", 1)
    }
    reader = FrameReader(snapshot)
    for number in range(len(reader.clips)):
        pictures = made.pictures(SEEDS[version][reader.clip_name(number)])
        for frame in range(made.NUM_FRAMES - 1):
            pair = reader.read_pair(number, frame, 1)
            assert np.abs(pair.image.permute(1, 2, 0).numpy().astype(int) - pictures[frame]).mean() < 8
            assert abs(float(pair.flow[0, 8:-8, 8:-8].median()) - made.STEP_PX) < 0.1


def test_its_versions_are_listed(dataset: str) -> None:
    listed = [(entry.num_videos, entry.num_clips, entry.num_frames) for entry in list_versions(dataset)]
    assert listed == [(2, 2, 8), (3, 3, 12)]


def test_it_can_be_trained_on(dataset: str) -> None:
    experiment = tiny_experiment(gaps=(1, -1))
    method = build_method(experiment.method)
    optimiser = torch.optim.SGD(method.parameters(), lr=1e-3)
    for _, batch in TrainingLoader(FrameReader(open_dataset(dataset)), method.prepare, experiment).iterate(0, 3):
        loss = method.training_loss(batch).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert torch.isfinite(loss)


def test_it_can_be_added_to(dataset: str, tmp_path: Path) -> None:
    footage = write_clip(tmp_path / "new", 5, 9)
    (video,) = prepare_ingest([str(footage)], dataset, RECIPE).videos
    work = IngestWorker(IngestJob(dataset_uri=dataset, recipe=RECIPE)).run(video)
    (replaced,) = (stored for stored in present_videos(dataset) if stored.clip == "b")

    publish(dataset, work.shards, replaced=[replaced])

    snapshot = open_dataset(dataset)
    assert [(clip.clip, clip.recipe.schema_version) for clip in snapshot.clips] == [("a", 1), ("c", 1), ("new", 2)]
    assert snapshot.gaps == (1, -1)  # gap 2 came with the new clip
    reader = FrameReader(snapshot)
    pairs = [reader.read_pair(number, 1, -1) for number in range(3)]
    assert [abs(float(pair.flow[0, 8:-8, 8:-8].median()) + 2) < 0.1 for pair in pairs] == [True] * 3
    assert [clip.clip for clip in open_dataset(dataset, 1).clips] == ["a", "b", "c"]
    assert list_versions(dataset)[-1].num_clips == 3
