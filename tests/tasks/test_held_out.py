"""Footage kept aside: chosen by content, never trained on, and the same for every model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.methods import build_method
from tasks.catalog import open_dataset
from tasks.dataset import FrameReader
from tasks.errors import DatasetError
from tasks.held_out import NUM_BATCHES, held_out_losses, held_out_part, is_held_out, training_part
from tasks.identity import hash_bytes
from tasks.loader import TrainingLoader
from tasks.model_package import Provenance, save_model
from tasks.storage import location
from tests.tasks.training_data import tiny_experiment, write_dataset


def test_the_share_is_about_right_and_grows_without_swaps() -> None:
    names = [hash_bytes(str(number).encode()) for number in range(4000)]
    tenth = {name for name in names if is_held_out(name, 10)}
    assert 0.08 < len(tenth) / len(names) < 0.12
    assert tenth < {name for name in names if is_held_out(name, 20)}
    assert not any(is_held_out(name, 0) for name in names)


def test_parts_share_nothing_and_lose_nothing(tmp_path: Path) -> None:
    snapshot = open_dataset(write_dataset(tmp_path, num_frames=(4,) * 6))
    percent = sorted(int(video.video_id[:8], 16) % 100 for video in snapshot.videos)[2]
    train, aside = training_part(snapshot, percent), held_out_part(snapshot, percent)
    assert len(aside.videos) == 2
    assert sorted([*train.videos, *aside.videos], key=lambda video: video.clip) == list(snapshot.videos)


def test_keeping_everything_aside_is_refused(tmp_path: Path) -> None:
    snapshot = open_dataset(write_dataset(tmp_path, num_frames=(4,)))
    with pytest.raises(DatasetError, match=r"all 1 videos .* are held out"):
        training_part(snapshot, 100)


def test_losses_are_the_means_over_the_same_samples(tmp_path: Path) -> None:
    uri = write_dataset(tmp_path / "data", num_frames=(6, 6))
    experiment = tiny_experiment()
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        folder = location(tmp_path / f"model-{seed}")
        method = build_method(experiment.method)
        save_model(folder, method, experiment=experiment, provenance=Provenance())
        folders.append((folder.uri, method))
    found = held_out_losses([folder for folder, _ in folders], uri, 0, percent=100)
    assert found is not None
    for loss, (_, method) in zip(found, folders, strict=True):
        loader = TrainingLoader(FrameReader(open_dataset(uri)), method.prepare, experiment)
        with torch.no_grad():
            losses = [method.eval().training_loss(loader.batch(step)).total for step in range(NUM_BATCHES)]
        assert loss == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_nothing_to_compare_is_none(tmp_path: Path) -> None:
    uri = write_dataset(tmp_path / "data", num_frames=(6,))
    experiment = tiny_experiment()
    folder = location(tmp_path / "model")
    save_model(folder, build_method(experiment.method), experiment=experiment, provenance=Provenance())
    assert held_out_losses([folder.uri], uri, 0, percent=0) is None
    still = write_dataset(tmp_path / "still", num_frames=(1,))
    assert held_out_losses([folder.uri], still, 0, percent=100) is None
