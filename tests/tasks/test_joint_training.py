"""Several datasets trained on together, each over the gaps it was ingested with, and all of them on record."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.types import FramePair
from tasks.catalog import open_dataset, publish
from tasks.config import resolve_experiment
from tasks.dataset import FrameReader
from tasks.errors import ConfigError, DatasetError
from tasks.evaluation_run import describe_model
from tasks.identity import Recipe
from tasks.loader import TrainingLoader
from tasks.model_package import load_model
from tasks.schema import SCHEMA_VERSION
from tasks.settings import Settings
from tasks.snapshot import DatasetPin
from tasks.tracking import mlflow_client
from tasks.train import TrainingResult, default_training_id, train
from tests.tasks.training_data import flow_of, local_settings, row_of, tiny_experiment, write_dataset, write_shard

NEAR, FAR = (1, -1, 2, -2), (3, -3, 6, -6)  # GWM, section 4.1: DAVIS2016 and SegTrackv2, and FBMS59
JOINT = tiny_experiment(num_steps=4, batch=4, checkpoint_every=4, gaps_from="recipe")


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("near"), num_frames=(8, 6), gaps=NEAR)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("far"), num_frames=(9, 7, 8), gaps=FAR)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return local_settings(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def trained(near: str, far: str, settings: Settings) -> TrainingResult:
    return train(JOINT, near, None, settings, joint=[(far, None)], training_id="joint")


def raw(pair: FramePair) -> dict[str, Tensor]:
    return {"flow": pair.flow, "gap": torch.tensor(pair.gap)}


def test_one_reader_over_several_datasets(near: str, far: str) -> None:
    reader = FrameReader(open_dataset(near), open_dataset(far))
    assert [clip.dataset for clip in reader.clips] == [0, 0, 1, 1, 1]
    assert [clip.gaps for clip in reader.clips] == [NEAR] * 2 + [FAR] * 3
    alone = FrameReader(open_dataset(far))
    assert [clip.num_frames for clip in reader.clips[2:]] == [clip.num_frames for clip in alone.clips]
    assert reader.clip_name(3) == alone.clip_name(1)
    assert torch.equal(reader.read_pair(3, 1, 3).image, alone.read_pair(1, 1, 3).image)
    np.testing.assert_allclose(reader.read_pair(3, 1, 3).flow.numpy(), flow_of(1, 3), atol=0.01)


def test_batches_keep_every_clip_to_its_gaps(near: str, far: str) -> None:
    reader = FrameReader(open_dataset(near), open_dataset(far))
    loader = TrainingLoader(reader, raw, JOINT)
    keys = [key for step in range(100) for key in loader.keys(step)]
    gaps = {number: Counter(key.gap for key in keys if reader.clips[key.clip].dataset == number) for number in (0, 1)}
    assert set(gaps[0]) == set(NEAR)
    assert set(gaps[1]) == set(FAR)
    assert gaps[1].total() / len(keys) == pytest.approx(24 / 38, abs=0.1)  # frames of the second over all
    batch = loader.batch(0)
    assert batch["gap"].tolist() == [key.gap for key in loader.keys(0)]


def test_one_dataset_may_hold_clips_of_unlike_gaps(tmp_path: Path) -> None:
    """Ingesting FBMS59 with its gaps into a dataset that has DAVIS2016 leaves the columns of the others empty."""
    for clip, gaps in enumerate((NEAR, FAR)):
        recipe = Recipe(gaps=gaps, schema_version=SCHEMA_VERSION)
        rows = [row_of(clip, index, 8, recipe) for index in range(8)]
        publish(str(tmp_path), [write_shard(tmp_path, clip, rows, recipe)])
    snapshot = open_dataset(str(tmp_path))
    assert snapshot.gaps == ()
    mixed = FrameReader(snapshot)
    by_clip = {mixed.clip_name(index): clip.gaps for index, clip in enumerate(mixed.clips)}
    assert by_clip == {"clip_0": NEAR, "clip_1": FAR}
    loader = TrainingLoader(mixed, raw, JOINT)
    for step in range(20):
        gaps_drawn = [(mixed.clips[key.clip].gaps, key.gap) for key in loader.keys(step)]
        assert all(gap in gaps for gaps, gap in gaps_drawn)
        loader.batch(step)


def test_common_gaps_are_asked_of_every_dataset(near: str, far: str) -> None:
    reader = FrameReader(open_dataset(near), open_dataset(far))
    with pytest.raises(DatasetError, match=rf"{far} has optical flow over gaps .*data.gaps_from=recipe"):
        TrainingLoader(reader, raw, tiny_experiment())


def test_the_record_names_all_datasets(trained: TrainingResult, near: str, far: str, settings: Settings) -> None:
    provenance = load_model(trained.model_uri).provenance
    assert (provenance.dataset_uri, provenance.dataset_version) == (near, 0)
    assert provenance.joint_datasets == (DatasetPin(uri=far, version=0),)
    assert trained.joint_datasets == [f"{far} version 0"]
    run = mlflow_client(settings).get_run(trained.run_id)
    assert run.data.tags["gwm.joint_datasets"] == f"{far} version 0"
    assert f"{near} version 0 and {far} version 0" in run.data.tags["mlflow.note.content"]
    assert run.data.params["data.gaps_from"] == "recipe"
    assert describe_model(trained.model_uri, None).joint_datasets == (f"{far} version 0",)


def test_the_same_call_continues_and_another_is_told(
    trained: TrainingResult, near: str, far: str, settings: Settings
) -> None:
    again = train(JOINT, near, 0, settings, joint=[(far, 0)], training_id="joint")
    assert again.already_finished
    assert again.joint_datasets == trained.joint_datasets
    with pytest.raises(ConfigError, match="joint_datasets"):
        train(JOINT, near, 0, settings, training_id="joint")
    with pytest.raises(ConfigError, match="is named twice"):
        train(JOINT, near, 0, settings, joint=[(far, 0), (near, 0)])
    with pytest.raises(DatasetError, match="no dataset"):
        train(JOINT, near, 0, settings, joint=[(f"{far}/none", None)])


def test_ids_tell_joint_trainings_apart() -> None:
    pin = DatasetPin(uri="b", version=3)
    alone, joint = default_training_id(JOINT, "a", 0), default_training_id(JOINT, "a", 0, None, [pin])
    assert alone != joint
    assert joint != default_training_id(JOINT, "a", 0, None, [DatasetPin(uri="b", version=4)])
    assert alone == default_training_id(JOINT, "a", 0, None, [])


def test_gaps_from_is_a_closed_choice() -> None:
    assert resolve_experiment({"name": "x"}, ["data.gaps_from=recipe"]).data.gaps_from == "recipe"
    with pytest.raises(ConfigError, match=r"data.gaps_from.*'clip'"):
        resolve_experiment({"name": "x"}, ["data.gaps_from=clip"])
