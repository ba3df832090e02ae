"""The MaskFormer's whole path at a small size and with random weights: train, resume, evaluate, segment."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from torch import distributed as dist
from torch import nn

from model.dis import DisEstimator
from model.methods import build_method
from model.types import FramePair
from model.weights import save_state_dict
from tasks.benchmarks import open_benchmark
from tasks.config import ExperimentConfig, OptimisationConfig, load_experiment
from tasks.errors import ConfigError, WeightsError
from tasks.evaluate import EvaluationJob, evaluate
from tasks.model_package import load_model
from tasks.optimiser import build_optimiser
from tasks.segment import segment
from tasks.settings import Settings
from tasks.train import train
from tasks.train_step import train_step
from tests.tasks.moving_square import square_clip, write_davis
from tests.tasks.test_config import PRESETS
from tests.tasks.test_train import Interrupt, curves, run_of, weights
from tests.tasks.training_data import local_settings, write_dataset

PRETRAINED = "method.maskformer.backbone_weights"
FROZEN = "method.maskformer.train_backbone=false"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return local_settings(tmp_path_factory.mktemp("home"))


def experiment(*overrides: str) -> ExperimentConfig:
    return load_experiment("debug_maskformer", PRESETS, overrides)


def vit_of(method: object) -> nn.Module:
    return method.network.backbone.extractor.vit


def test_it_trains_resumes_evaluates_and_segments(dataset: str, settings: Settings, tmp_path: Path) -> None:
    unbroken = train(experiment(), dataset, None, settings, training_id="unbroken")
    with pytest.raises(KeyboardInterrupt):
        train(experiment(), dataset, None, settings, training_id="broken", on_progress=Interrupt(3))
    resumed = train(experiment(), dataset, None, settings, training_id="broken")
    assert resumed.resumed_from_step == 2
    assert curves(settings, resumed.run_id) == curves(settings, unbroken.run_id)
    assert weights(run_of(settings, "broken")) == weights(run_of(settings, "unbroken"))

    frames, masks = square_clip(4)
    davis = write_davis(tmp_path / "davis", {"dog": (frames, masks)})
    report = evaluate(EvaluationJob(model_uri=unbroken.model_uri), open_benchmark("davis16", str(davis))).report
    assert 0 <= report.headline.value <= 1
    loaded = load_model(unbroken.model_uri)
    clip = segment([str(davis / "JPEGImages/480p/dog")], loaded, tmp_path / "out", estimator=DisEstimator("ultrafast"))
    assert clip.clips[0].num_frames == 4
    written = sorted((tmp_path / "out/dog/masks").iterdir())
    assert [cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape for path in written] == [frames[0].shape[:2]] * 4


def test_a_frozen_backbone_is_loaded_once_and_kept(dataset: str, settings: Settings, tmp_path: Path) -> None:
    torch.manual_seed(5)
    pretrained = vit_of(build_method(experiment().method)).state_dict()
    path = tmp_path / "vit.safetensors"
    save_state_dict(pretrained, path)
    frozen = experiment(f"{PRETRAINED}={path}", FROZEN)
    with pytest.raises(KeyboardInterrupt):
        train(frozen, dataset, None, settings, training_id="frozen", on_progress=Interrupt(3))
    path.unlink()  # a checkpoint needs no other weights
    result = train(frozen, dataset, None, settings, training_id="frozen")
    trained = load_model(result.model_uri).method
    for name, value in vit_of(trained).state_dict().items():
        assert torch.equal(value, pretrained[name]), name
    start = build_method(frozen.method)
    assert not torch.equal(trained.network.query_decoder.queries.weight, start.network.query_decoder.queries.weight)


@pytest.mark.parametrize("train_backbone", [True, False])
def test_workers_train_it_together(train_backbone: bool, tmp_path: Path) -> None:
    """DistributedDataParallel refuses the second step when a parameter took no part in the first."""
    config = experiment(f"method.maskformer.train_backbone={str(train_backbone).lower()}")
    torch.manual_seed(2)
    alone = build_method(config.method).train()
    shared = build_method(config.method).train()
    shared.load_state_dict(alone.state_dict())
    pair = FramePair(image=torch.randint(0, 255, (3, 32, 56), dtype=torch.uint8), flow=torch.randn(2, 32, 56), gap=1)
    batch = {name: value[None] for name, value in alone.prepare(pair).items()}
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        found = [
            losses(module, wrapped, batch, config.optimisation)
            for module, wrapped in ((alone, alone), (shared, nn.parallel.DistributedDataParallel(shared)))
        ]
    finally:
        dist.destroy_process_group()
    assert found[0] == found[1]


def losses(
    module: nn.Module, wrapped: nn.Module, batch: dict[str, torch.Tensor], config: OptimisationConfig
) -> list[float]:
    optimiser, device = build_optimiser(module, config), torch.device("cpu")
    steps = (train_step(wrapped, batch, optimiser, config, step=n, rank=0, device=device) for n in range(3))
    return [outcome.loss for outcome in steps]


def test_a_backbone_that_would_stay_random_is_refused(dataset: str, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the backbone would stay random"):
        train(experiment(FROZEN), dataset, None, settings, training_id="random")
    with pytest.raises(WeightsError, match=r"no weights .*nothing\.pth"):
        train(experiment(f"{PRETRAINED}={tmp_path / 'nothing.pth'}"), dataset, None, settings, training_id="nothing")
    save_state_dict({"stem.weight": torch.zeros(3)}, tmp_path / "unet.safetensors")
    with pytest.raises(WeightsError, match="of no backbone"):
        train(experiment(f"{PRETRAINED}={tmp_path / 'unet.safetensors'}"), dataset, None, settings, training_id="unet")
