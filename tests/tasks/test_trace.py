"""Chains from masks, models and frames back to footage, and what is said where a link is missing."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from model.dis import DisEstimator
from tasks.catalog import open_dataset
from tasks.errors import DatasetError, InputError, ModelNotFoundError
from tasks.identity import hash_bytes
from tasks.mask_provenance import read_chunk, with_chunk
from tasks.model_package import Provenance
from tasks.segment import SegmentOptions, segment
from tasks.settings import Settings
from tasks.trace import Link, Trace
from tasks.trace_target import trace
from tests.tasks.moving_square import ColourMethod, loaded
from tests.tasks.small_dataset import ingest_here
from tests.tasks.small_footage import write_clip
from tests.tasks.test_segment import write_video
from tests.tasks.tiny_models import saved_model
from tests.tasks.training_data import local_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return local_settings(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, a dataset of it, and masks of it by a model that says it was trained on that dataset."""
    root = tmp_path_factory.mktemp("place")
    video = write_video(root / "footage/fox.mp4", 4)
    dataset = ingest_here(root / "footage", str(root / "dataset"))
    segment_with(root, video, Provenance(training_id="t", step=7, dataset_uri=dataset, dataset_version=0))
    return root


def segment_with(root: Path, video: Path, provenance: Provenance) -> None:
    model = replace(loaded(ColourMethod()), provenance=provenance)
    options = SegmentOptions(model_reference="models:/fox/3")
    segment([str(video)], model, root / "masks", estimator=DisEstimator("ultrafast"), options=options)


def links(found: Trace) -> dict[str, Link]:
    return {link.kind: link for link in found.links}


def test_a_mask_leads_to_its_footage_model_and_shards(place: Path, settings: Settings) -> None:
    found = trace(str(place / "masks/fox/masks/00002.png"), settings)
    chain = links(found)
    assert list(chain) == ["mask", "footage", "model", "run", "dataset"]
    sha256 = hash_bytes((place / "footage/fox.mp4").read_bytes())
    assert chain["mask"].facts["frame"] == 2
    assert chain["footage"].facts == {"sha256": sha256, "state": "same"}
    assert (chain["model"].name, chain["model"].facts["weights sha256"]) == ("models:/fox/3", "0" * 64)
    assert chain["dataset"].name == f"{place}/dataset version 0"
    assert chain["dataset"].facts["this footage itself"] == f"{place}/dataset/fox"
    assert chain["run"].problem == "the model names no MLflow run: it was not trained by gwm train"
    (clip,) = found.clips
    assert (clip.video_id, clip.source, clip.num_frames) == (sha256, str(place / "footage/fox.mp4"), 4)
    assert all((place / "dataset/frames" / shard).is_file() for shard in clip.shards)


def test_masks_are_traced_wherever_they_are_named(place: Path, settings: Settings, tmp_path: Path) -> None:
    mask = place / "masks/fox/masks/00001.png"
    moved = tmp_path / "elsewhere.png"
    moved.write_bytes(mask.read_bytes())
    whole = trace(str(mask), settings)
    assert trace(str(moved), settings).links[1:] == whole.links[1:]
    for folder in (place / "masks/fox", place / "masks/fox/masks"):
        found = trace(str(folder), settings)
        assert found.links[1:] == whole.links[1:]
        assert "frame" not in found.links[0].facts


def test_a_mask_that_lost_its_text_is_traced_by_its_folder(place: Path, settings: Settings, tmp_path: Path) -> None:
    plain = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    beside = place / "masks/fox/masks/rewritten.png"
    beside.write_bytes(plain)
    assert links(trace(str(beside), settings))["model"].name == "models:/fox/3"
    (tmp_path / "alone.png").write_bytes(plain)
    with pytest.raises(InputError, match=r"does not say where it comes from.*segment the footage again"):
        trace(str(tmp_path / "alone.png"), settings)


def test_masks_bear_the_same_text_each_time_and_look_as_before(place: Path, tmp_path: Path) -> None:
    mask = place / "masks/fox/masks/00000.png"
    png = mask.read_bytes()
    provenance = read_chunk(png, mask.name)
    assert provenance is not None
    beside = json.loads((place / "masks/fox/provenance.json").read_text())
    assert json.loads(provenance.of_frame(0)) == {**beside, "frame": 0}
    pixels = Image.open(mask)
    assert np.array_equal(np.asarray(pixels), cv2.imread(str(mask), cv2.IMREAD_UNCHANGED))
    assert pixels.text["gwm"] == provenance.of_frame(0)
    segment_with(tmp_path, place / "footage/fox.mp4", provenance.model.provenance)
    assert (tmp_path / "masks/fox/masks/00000.png").read_bytes() == png


def test_text_of_others_is_told_apart() -> None:
    stream = io.BytesIO()
    ImageOps.invert(Image.new("L", (5, 3))).save(stream, "PNG")
    assert read_chunk(stream.getvalue(), "plain.png") is None
    with pytest.raises(InputError, match=r"odd\.png: its provenance can not be understood"):
        read_chunk(with_chunk(stream.getvalue(), '{"format": 1}'), "odd.png")
    with pytest.raises(InputError, match="can not be understood"):
        read_chunk(with_chunk(stream.getvalue(), "not JSON"), "odd.png")


def test_changed_and_lost_footage_and_datasets_are_said_plainly(settings: Settings, tmp_path: Path) -> None:
    video = write_video(tmp_path / "footage/fox.mp4", 3)
    gone = str(tmp_path / "none")
    segment_with(tmp_path, video, Provenance(dataset_uri=gone, dataset_version=2))
    mask = str(tmp_path / "masks/fox/masks/00000.png")
    write_video(video, 5)
    chain = links(trace(mask, settings))
    assert chain["footage"].facts["state"] == "changed"
    assert "its SHA-256 is" in (chain["footage"].problem or "")
    assert (chain["dataset"].name, chain["dataset"].facts) == (f"{gone} version 2", {})
    assert "no dataset at" in (chain["dataset"].problem or "")
    video.unlink()
    assert links(trace(mask, settings))["footage"].facts["state"] == "gone"


def test_a_model_that_says_nothing_of_its_training(settings: Settings, tmp_path: Path) -> None:
    found = trace(saved_model(tmp_path / "model"), settings)
    assert [link.kind for link in found.links] == ["model", "run", "dataset"]
    assert found.links[2].problem == "the model does not say what it was trained on"
    assert found.links[0].facts["step"] == 30
    with pytest.raises(ModelNotFoundError, match="none yet"):
        trace("models:/none@champion", settings)


def test_a_run_that_mlflow_does_not_know_or_that_can_not_be_asked(settings: Settings, tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model", run_id="0" * 32)
    here = trace(model, settings)
    assert links(here)["run"].facts["registered as"] == "not registered in this MLflow"
    nowhere = settings.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    assert "no MLflow server at 127.0.0.1:9" in (links(trace(model, nowhere))["run"].problem or "")


def test_a_frame_leads_to_its_row_and_source(place: Path, settings: Settings) -> None:
    dataset = str(place / "dataset")
    (video,) = open_dataset(dataset).videos
    found = trace(f"{dataset}/fox/3", settings)
    chain = links(found)
    assert list(chain) == ["frame", "dataset", "shard", "video", "source"]
    assert chain["frame"].facts["time_seconds"] == pytest.approx(3 / 25)
    assert chain["shard"].name == f"{dataset}/frames/{video.shards[0].path}"
    assert chain["shard"].facts["row"] == 3
    assert chain["video"].name == video.video_id
    assert chain["video"].facts["flow_estimator"] == "dis"
    assert (chain["source"].name, chain["source"].problem) == (str(place / "footage/fox.mp4"), None)
    assert trace(f"{dataset}/{video.video_id[:8]}/3", settings).links == found.links


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{dataset}/fox/4", "has frames 0 to 3, got 4"),
        ("{dataset}/hare/0", "has no clip 'hare'; it has 1, such as fox"),
        ("{dataset}/fox/1", "version 9"),
    ],
)
def test_frames_that_are_not_there(place: Path, settings: Settings, target: str, message: str) -> None:
    version = 9 if message == "version 9" else None
    with pytest.raises(DatasetError, match=message):
        trace(target.format(dataset=place / "dataset"), settings, version=version)


def test_a_lost_shard_is_a_missing_link(settings: Settings, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", 3, 0)
    dataset = ingest_here(tmp_path / "clip", str(tmp_path / "dataset"))
    for file in (tmp_path / "dataset" / "frames").glob("*.parquet"):
        file.unlink()
    shard = links(trace(f"{dataset}/clip/0", settings))["shard"]
    assert "can not be read" in (shard.problem or "")
