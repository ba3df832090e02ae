"""Switches that make training faster: what they may change of its numbers, and what they may not."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.methods.gwm import Gwm, GwmConfig
from tasks.compilation import compile_networks, running_eagerly
from tasks.config import OptimisationConfig
from tasks.errors import ConfigError
from tasks.optimiser import build_optimiser
from tasks.train_step import StepOutcome, train_step

CPU = torch.device("cpu")
METHOD = GwmConfig(num_segments=3, base_channels=4, image_size=(32, 48), flow_size=(48, 80), objective="blended")


class ShallowUNet(nn.Module):
    """The U-Net's layers, two levels instead of five since every kernel costs seconds of compiling.

    Not of the U-Net's own classes: in tests their arguments' shapes are checked, which can not be compiled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.down = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.stem(images)
        features = torch.cat([skip, self.up(self.down(F.max_pool2d(skip, 2)))], dim=1)
        return self.head(features), features


def batch_of(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (2, 3, 32, 48), generator=generator, dtype=torch.uint8)
    flow = F.interpolate(torch.randn(2, 2, 4, 6, generator=generator), size=(48, 80), mode="bilinear")
    return {"image": images, "flow": 3 * flow}


def trained(config: OptimisationConfig, *, shallow: bool) -> tuple[Gwm, list[StepOutcome]]:
    torch.manual_seed(config.seed)
    method = Gwm(METHOD)
    if shallow:
        method.network = ShallowUNet()
    if config.channels_last:
        method = method.to(memory_format=torch.channels_last)
    if config.compile:
        compile_networks(method, CPU)
    optimiser = build_optimiser(method, config)
    steps = range(config.num_steps)
    outcomes = [train_step(method, batch_of(step), optimiser, config, step=step, rank=0, device=CPU) for step in steps]
    return method, outcomes


def configured(**switches: object) -> OptimisationConfig:
    schedule = {"num_steps": 6, "global_batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0}
    return OptimisationConfig.model_validate({**schedule, "channels_last": False, **switches})


def change_of_losses(ours: list[StepOutcome], theirs: list[StepOutcome]) -> float:
    """Largest relative change of any step's loss."""
    return max(abs(a.loss / b.loss - 1) for a, b in zip(ours, theirs, strict=True))


def change_of_gradients(ours: list[StepOutcome], theirs: list[StepOutcome]) -> float:
    """Largest relative change of any step's gradient norm."""
    return max(abs(a.gradient_norm / b.gradient_norm - 1) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiling_leaves_losses_and_names_alone() -> None:
    """Six steps: the same losses and gradients to 1e-4, weights that an uncompiled method loads, and eager pictures."""
    plain, expected = trained(configured(), shallow=True)
    compiled, outcomes = trained(configured(compile=True), shallow=True)
    assert change_of_losses(outcomes, expected) < 1e-4
    assert change_of_gradients(outcomes, expected) < 1e-4
    assert list(compiled.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(compiled.state_dict())
    images = 255 * torch.rand(1, 3, 40, 60)
    with running_eagerly(compiled=True):
        segmentation = compiled.eval().segment(images)
    torch.testing.assert_close(segmentation.probabilities, plain.eval().segment(images).probabilities)


def test_bf16_changes_losses_by_less_than_a_thousandth_and_gradient_norms_by_less_than_a_fifth() -> None:
    """Norms of a network of four channels and no structure to see; wider ones average the rounding out."""
    _, expected = trained(configured(), shallow=False)
    _, outcomes = trained(configured(precision="bf16"), shallow=False)
    assert 0 < change_of_losses(outcomes, expected) < 1e-3
    assert 1e-3 < change_of_gradients(outcomes, expected) < 0.2


def test_the_memory_format_changes_rounding_only() -> None:
    _, expected = trained(configured(), shallow=False)
    _, outcomes = trained(configured(channels_last=True), shallow=False)
    assert change_of_losses(outcomes, expected) < 1e-5
    assert change_of_gradients(outcomes, expected) < 1e-4


@pytest.mark.parametrize(("device", "variable", "usual"), [("cpu", "CXX", "g\\+\\+"), ("cuda", "CC", "gcc or clang")])
def test_a_missing_compiler_is_named_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, device: str, variable: str, usual: str
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=rf"compile=true.*{usual}.*{variable}.*compile=false"):
        compile_networks(nn.Sequential(nn.Linear(1, 1)), torch.device(device))
    monkeypatch.setenv(variable, "no-such-compiler")
    with pytest.raises(ConfigError, match="no-such-compiler"):
        compile_networks(nn.Sequential(nn.Linear(1, 1)), torch.device(device))
