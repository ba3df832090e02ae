from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from model.methods import build_method
from model.methods.base import Method
from model.types import FramePair
from tasks.catalog import open_dataset
from tasks.config import ExperimentConfig
from tasks.dataset import FrameReader
from tasks.errors import ConfigError, DatasetError
from tasks.loader import SampleCache, TrainingLoader, mirrored
from tasks.sampling import SampleKey
from tests.tasks.training_data import flow_of, frame_of, tiny_experiment, write_dataset


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> FrameReader:
    return FrameReader(open_dataset(write_dataset(tmp_path_factory.mktemp("dataset"))))


def raw(pair: FramePair) -> dict[str, Tensor]:
    return {"image": pair.image, "flow": pair.flow, "gap": torch.tensor(pair.gap)}


def loader_of(
    reader: FrameReader,
    experiment: ExperimentConfig | None = None,
    prepare: Callable[[FramePair], dict[str, Tensor]] = raw,
    **place: int,
) -> TrainingLoader:
    return TrainingLoader(reader, prepare, experiment or tiny_experiment(), **place)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_batches_are_the_samples_of_the_plan(reader: FrameReader) -> None:
    loader = loader_of(reader)
    batch = loader.batch(3)
    assert batch["image"].shape == (4, 3, 48, 80)
    for index, key in enumerate(loader.keys(3)):
        assert equal(
            {name: value[index] for name, value in batch.items()}, raw(reader.read_pair(key.clip, key.frame, key.gap))
        )


def test_batches_for_a_gpu_are_pinned(reader: FrameReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinning itself needs a driver; here it is that every tensor is, after stacking, and that none is without need."""
    pinned: list[tuple[int, ...]] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    loader_of(reader).batch(0)
    assert pinned == []
    batch = TrainingLoader(reader, raw, tiny_experiment(), pin_memory=True).batch(0)
    assert pinned == [tuple(value.shape) for value in batch.values()]


def test_it_starts_anywhere_with_the_same_batches(reader: FrameReader) -> None:
    whole = dict(loader_of(reader).iterate(0, 9))
    assert sorted(whole) == list(range(9))
    resumed = list(loader_of(reader, num_threads=3).iterate(5, 9))
    assert [step for step, _ in resumed] == [5, 6, 7, 8]
    assert all(equal(batch, whole[step]) for step, batch in resumed)
    assert list(loader_of(reader).iterate(9, 9)) == []


def test_two_workers_see_the_batch_of_one(reader: FrameReader) -> None:
    alone = loader_of(reader).batch(6)
    shares = [loader_of(reader, rank=rank, world_size=2).batch(6) for rank in range(2)]
    for name, value in alone.items():
        assert torch.equal(value[0::2], shares[0][name])
        assert torch.equal(value[1::2], shares[1][name])


def test_unequal_shares_are_refused(reader: FrameReader) -> None:
    with pytest.raises(ConfigError, match="global_batch_size=4 can not be shared by 3 workers"):
        loader_of(reader, world_size=3)


def test_missing_gaps_are_refused_before_training(tmp_path: Path) -> None:
    reader = FrameReader(open_dataset(write_dataset(tmp_path, num_frames=(4,), gaps=(1, -1))))
    with pytest.raises(DatasetError, match="training wants"):
        loader_of(reader)


def test_mirroring_moves_pixels_and_turns_motion_round() -> None:
    pair = FramePair(
        image=torch.from_numpy(frame_of(0, 2)).permute(2, 0, 1).contiguous(),
        flow=torch.from_numpy(flow_of(2, 1)),
        gap=1,
    )
    turned = mirrored(pair)
    assert torch.equal(turned.image, torch.from_numpy(frame_of(0, 2)[:, ::-1].copy()).permute(2, 0, 1))
    # The object sat in columns 12 to 31 of 80 and moved right by 2; mirrored it sits in 48 to 67 and moves left by 2.
    expected = np.zeros((2, 48, 80), np.float32)
    expected[0, 14:34, 48:68] = -2
    assert np.array_equal(turned.flow.numpy(), expected)
    again = mirrored(turned)
    assert torch.equal(again.image, pair.image)
    assert torch.equal(again.flow, pair.flow)


def test_mirrored_samples_are_kept_apart_from_others(reader: FrameReader) -> None:
    experiment = tiny_experiment(horizontal_flip=True, gaps=(1,))
    loader = loader_of(reader, experiment)
    seen: dict[SampleKey, Tensor] = {}
    for step in range(40):
        for index, key in enumerate(loader.keys(step)):
            seen[key] = loader.batch(step)["flow"][index]
    both = [
        key for key in seen if key.flip and SampleKey(clip=key.clip, frame=key.frame, gap=key.gap, flip=False) in seen
    ]
    assert both
    for key in both:
        straight = seen[SampleKey(clip=key.clip, frame=key.frame, gap=key.gap, flip=False)]
        assert straight.max() == 2
        assert seen[key].min() == -2
        assert torch.equal(seen[key][1], straight[1].flip(-1))


def test_cache_keeps_its_bound_and_changes_nothing(reader: FrameReader) -> None:
    key, other = (SampleKey(clip=0, frame=frame, gap=1, flip=False) for frame in range(2))
    cache = SampleCache(100)
    cache.offer(key, {"image": torch.zeros(80, dtype=torch.uint8)})
    cache.offer(other, {"image": torch.zeros(6, dtype=torch.float32)})
    assert cache.num_bytes == 80
    assert cache.get(key) is not None
    assert cache.get(other) is None
    prepared: list[FramePair] = []

    def counting(pair: FramePair) -> dict[str, Tensor]:
        prepared.append(pair)
        return raw(pair)

    cached, uncached = loader_of(reader, prepare=counting), loader_of(reader, tiny_experiment(cache_mb=0))
    assert all(equal(cached.batch(step % 3), uncached.batch(step % 3)) for step in range(6))
    assert len(prepared) == len({key for step in range(3) for key in cached.keys(step)})


def test_a_failing_read_reaches_the_training_loop(tmp_path: Path) -> None:
    snapshot = open_dataset(write_dataset(tmp_path, num_frames=(4,)))
    loader = loader_of(FrameReader(snapshot))
    (tmp_path / "frames" / snapshot.videos[0].shards[0].path).unlink()
    with pytest.raises(DatasetError, match="can not be read"):
        next(iter(loader.iterate(0, 5)))


def test_stopping_early_leaves_no_thread(reader: FrameReader) -> None:
    batches = loader_of(reader).iterate(0, 1000)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_a_real_method_can_be_fed(reader: FrameReader) -> None:
    experiment = tiny_experiment()
    method = build_method(experiment.method)
    batch = loader_of(reader, experiment, cast(Method, method).prepare).batch(0)
    terms = cast(Method, method).training_loss(batch)
    assert torch.isfinite(terms.total)
