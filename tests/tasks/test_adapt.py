"""Adaptation to one clip: what it changes, what it leaves alone, and clips that nothing can be learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.dis import DisEstimator
from model.methods import build_method
from model.methods.base import Method
from model.types import FramePair
from tasks.adapt import AdaptationOptions, ClipAdapter, adapt_method, adaptation_rate, adaptation_settings, mean_loss
from tasks.clip_samples import choose_pairs, clip_samples
from tasks.config import ExperimentConfig
from tasks.errors import DatasetError, InputError
from tasks.footage import FootageItem
from tasks.optimiser import learning_rate_at
from tests.tasks.moving_square import square_clip
from tests.tasks.training_data import tiny_experiment

OPTIONS = AdaptationOptions(num_steps=20, max_pairs=12, max_side=96)


def experiment() -> ExperimentConfig:
    """A rate at which a few thousand weights learn something in 20 steps."""
    tiny = tiny_experiment()
    rate = {"learning_rate": 1e-2, "decay_power": 0.0}
    return tiny.model_copy(update={"optimisation": tiny.optimisation.model_copy(update=rate)})


def untrained(config: ExperimentConfig) -> Method:
    torch.manual_seed(0)
    return cast(Method, build_method(config.method).eval())


def write_frames(folder: Path, frames: list[NDArray[np.uint8]]) -> FootageItem:
    folder.mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{index:05d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return FootageItem(uri=str(folder), clip=folder.name, kind="frames")


def state(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in cast(nn.Module, method).state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def adapter(config: ExperimentConfig, method: Method) -> ClipAdapter:
    return ClipAdapter(method, config, DisEstimator("ultrafast"), OPTIONS)


def test_the_loss_on_the_clip_falls_and_the_model_itself_stays(tmp_path: Path) -> None:
    config = experiment()
    method = untrained(config)
    before = state(method)
    item = write_frames(tmp_path / "square", square_clip(8)[0])
    adapted, record = adapter(config, method).adapt(item)
    assert record.skipped is None
    assert record.num_steps == 20
    assert 0 < record.num_pairs <= OPTIONS.max_pairs
    assert record.loss_after is not None
    assert record.loss_before is not None
    assert record.loss_after < 0.8 * record.loss_before
    assert "adapted in 20 steps at rate 1.0e-02" in record.sentence
    assert same(state(method), before)
    assert not same(state(adapted), before)
    assert not cast(nn.Module, adapted).training


def test_the_order_of_clips_does_not_matter(tmp_path: Path) -> None:
    config = experiment()
    items = [write_frames(tmp_path / f"clip{seed}", square_clip(6, seed=seed)[0]) for seed in range(2)]
    torch.rand(17)  # nor does what was drawn before
    forwards = [state(adapter_.adapt(item)[0]) for adapter_ in [adapter(config, untrained(config))] for item in items]
    one = adapter(config, untrained(config))
    backwards = [state(one.adapt(item)[0]) for item in reversed(items)]
    assert same(forwards[0], backwards[1])
    assert same(forwards[1], backwards[0])
    assert not same(forwards[0], forwards[1])


def test_steps_are_those_that_would_follow_the_training() -> None:
    config = tiny_experiment().optimisation  # 12 steps at a rate that ends near zero
    settings = adaptation_settings(config)
    rates = [learning_rate_at(settings.num_steps + step, settings) for step in (0, 19, 500)]
    assert rates == [learning_rate_at(11, config)] * 3
    assert 0.1 < rates[0] / config.learning_rate < 0.11
    assert (settings.global_batch_size, settings.gradient_clip_norm) == (4, 1.0)
    assert adaptation_rate(config.model_copy(update={"num_steps": 5000})) == pytest.approx(3e-4)
    released = config.model_copy(update={"num_steps": 20_000, "decay_horizon_steps": 160_000, "warmup_steps": 1500})
    assert adaptation_rate(released) == pytest.approx(0.887 * config.learning_rate, rel=1e-3)
    assert adaptation_settings(config, 0.5).learning_rate == 0.5


def test_the_full_rate_is_a_setting() -> None:
    config = tiny_experiment().optimisation
    assert adaptation_rate(config, "full") == config.learning_rate > adaptation_rate(config)


def test_statistics_of_batch_normalisation_are_those_of_the_training() -> None:
    config = experiment()
    method = untrained(config)
    pair = FramePair(image=torch.full((3, 32, 56), 9, dtype=torch.uint8), flow=torch.rand(2, 32, 56), gap=1)
    adapted = adapt_method(method, [method.prepare(pair)], config.optimisation, 2)
    before, after = state(method), state(adapted)
    buffers = {name for name, _ in cast(nn.Module, method).named_buffers() if "running" in name}
    assert buffers
    assert same({name: before[name] for name in buffers}, after)
    assert not same({name: before[name] for name in before.keys() - buffers}, after)


def test_the_last_phase_of_the_objective_is_trained() -> None:
    """blended_then_mixture ends with the mixture, so its adaptation is that of the mixture on folded flow."""
    config = tiny_experiment()
    flow = torch.zeros(2, 32, 56)
    flow[0, 8:20, 10:30] = 3
    pair = FramePair(image=torch.randint(0, 256, (3, 32, 56), dtype=torch.uint8), flow=flow, gap=1)
    adapted = []
    for objective in ("mixture", "blended_then_mixture", "blended"):
        method = type(config.method)(**{**vars(config.method), "objective": objective})
        chosen = config.model_copy(update={"method": method})
        start = untrained(chosen)
        samples = [start.prepare(pair)]
        adapted.append(state(adapt_method(start, samples, chosen.optimisation, 2)))
    assert same(adapted[0], adapted[1])
    assert not same(adapted[0], adapted[2])


def test_what_is_frozen_is_shared_and_stays() -> None:
    config = tiny_experiment()
    method = untrained(config)
    first = next(iter(cast(nn.Module, method).parameters())).requires_grad_(False)
    pair = FramePair(image=torch.zeros(3, 32, 56, dtype=torch.uint8), flow=torch.rand(2, 32, 56), gap=1)
    adapted = adapt_method(method, [method.prepare(pair)], config.optimisation, 1)
    assert next(iter(cast(nn.Module, adapted).parameters())) is first
    with pytest.raises(InputError, match="no samples"):
        adapt_method(method, [], config.optimisation, 1)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (square_clip(1)[0], "1 frame make no pair at the gaps of the training"),
        ([np.zeros((64, 96, 3), np.uint8)] * 4, "of one flat colour"),
        (square_clip(4, step_px=0)[0], "nothing moves in"),
        (
            [np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3)] * 3,
            "frame of 20x24 (rows x columns) is too small",
        ),
    ],
    ids=["one-frame", "black", "still", "tiny"],
)
def test_a_clip_without_anything_to_learn_keeps_the_model(tmp_path: Path, frames: list[Any], reason: str) -> None:
    config = experiment()
    method = untrained(config)
    adapted, record = adapter(config, method).adapt(write_frames(tmp_path / "clip", frames))
    assert adapted is method
    assert record.skipped is not None
    assert reason in record.skipped
    assert record.sentence.startswith("not adapted: ")
    assert (record.loss_before, record.loss_after, record.num_steps) == (None, None, 0)


def test_flow_that_is_not_finite_breaks_nothing() -> None:
    config = tiny_experiment()
    method = untrained(config)
    flow = torch.full((2, 32, 56), torch.nan)
    flow[:, :10] = 1.0
    pair = FramePair(image=torch.zeros(3, 32, 56, dtype=torch.uint8), flow=flow, gap=1)
    adapted = adapt_method(method, [method.prepare(pair)], config.optimisation, 3)
    assert all(bool(torch.isfinite(value).all()) for value in state(adapted).values())


def test_pairs_are_drawn_as_for_training_and_few() -> None:
    config = experiment()
    pairs = choose_pairs(6, config, 100)
    assert {pair.gap for pair in pairs} == {1, -1, 2, -2}
    assert len(set(pairs)) == len(pairs) == 5 + 5 + 4 + 4  # all that six frames have
    assert len(choose_pairs(1000, config, 12)) == 12
    with pytest.raises(DatasetError):
        choose_pairs(1, config, 12)


class CountingEstimator:
    """Flow that names its pair; counts what is encoded."""

    name, weights_sha256 = "counting", None

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode(self, frame: Tensor) -> object:
        self.encoded.append(int(frame[0, 0, 0]))
        return int(frame[0, 0, 0])

    def flow(self, pairs: Any) -> Tensor:
        return torch.stack([torch.full((2, 4, 4), float(second - first)) for first, second in pairs])


def test_only_frames_of_pairs_are_looked_at_and_each_pair_gets_its_flow() -> None:
    config = experiment()
    pairs = choose_pairs(200, config, 5)
    frames = (np.full((4, 4, 3), index, np.uint8) for index in range(200))
    estimator = CountingEstimator()
    found: list[FramePair] = []

    def keep(pair: FramePair) -> bool:
        found.append(pair)
        return pair.gap > 0

    samples = clip_samples(
        frames, pairs, lambda pair: {"gap": torch.tensor(pair.gap)}, estimator, max_side=854, is_usable=keep
    )
    assert sorted((int(pair.image[0, 0, 0]), pair.gap) for pair in found) == sorted((p.frame, p.gap) for p in pairs)
    assert all(float(pair.flow[0, 0, 0]) == pair.gap for pair in found)
    assert len(samples) == sum(pair.gap > 0 for pair in pairs)
    assert estimator.encoded == sorted({end for pair in pairs for end in (pair.frame, pair.frame + pair.gap)})
    assert len(list(frames)) == 199 - max(estimator.encoded)  # the rest was not even decoded


def test_the_mean_loss_is_that_of_the_samples() -> None:
    config = tiny_experiment()
    method = untrained(config)
    images = torch.randint(0, 256, (7, 3, 32, 56), dtype=torch.uint8)
    samples = [method.prepare(FramePair(image=image, flow=torch.rand(2, 32, 56), gap=1)) for image in images]
    alone = [{name: value[None] for name, value in sample.items()} for sample in samples]
    each = [float(method.training_loss(batch).total.detach()) for batch in alone]
    assert mean_loss(method, samples, batch_size=4) == pytest.approx(sum(each) / 7, rel=1e-5)


@pytest.mark.parametrize("options", [{"num_steps": 0}, {"max_pairs": 0}, {"max_side": 16}, {"learning_rate": 0.0}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"expected (at least 1 step|a rate above 0)"):
        AdaptationOptions(**options)
