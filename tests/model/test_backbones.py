"""Backbones against torchvision's networks with the same weights, and what they take for their own weights."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.swin_transformer import SwinTransformer

from model.errors import WeightsError
from model.methods.gwm import Gwm, GwmConfig
from model.networks.backbones import DinoBackbone, ResNetBackbone, SwinBackbone
from model.networks.maskformer import Backbone, MaskFormerConfig

SWIN_NAMES = (  # torchvision's, and timm's in their place
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"^features\.([1357])\.", lambda match: f"layers.{int(match[1]) // 2}.blocks."),
    (r"^features\.([246])\.", lambda match: f"layers.{int(match[1]) // 2}.downsample."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)


def timm_name(name: str) -> str:
    for pattern, replacement in SWIN_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


@pytest.mark.parametrize(
    ("size", "num_levels"),
    [
        ((256, 288), 4),  # no stage is a multiple of the window
        ((128, 224), 3),  # stage 4 has 4x7 cells, one window, which torchvision does not shift
    ],
)
def test_swin_equals_torchvisions_at_any_size(size: tuple[int, int], num_levels: int) -> None:
    depths, heads = (2, 2, 2, 2), (1, 2, 4, 8)
    reference = SwinTransformer([4, 4], 32, list(depths), list(heads), [7, 7], stochastic_depth_prob=0).eval()
    state = {timm_name(name): value for name, value in reference.state_dict().items()}
    for name, table in state.items():
        if name.endswith("bias_table"):
            table.normal_()  # torchvision's start near 0, which would hide a wrong window
    state = {name: value for name, value in state.items() if not name.endswith("relative_position_index")}
    backbone = SwinBackbone(channels=32, num_heads=heads, depths=depths).eval()
    backbone.load_pretrained(state, "torchvision")
    backbone.output_norms = nn.ModuleList([nn.Identity()] * 4)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        levels = backbone(images)
        x = images
        for number, stage in enumerate(reference.features):
            x = stage(x)
            if number % 2 and number // 2 < num_levels:
                torch.testing.assert_close(levels[number // 2], x.permute(0, 3, 1, 2), atol=2e-5, rtol=1e-4)
    assert [level.shape[-2:] for level in levels] == [(size[0] // s, size[1] // s) for s in (4, 8, 16, 32)]


def test_resnet_equals_torchvisions() -> None:
    reference = resnet50().eval()
    with torch.no_grad():
        for part in reference.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(std=0.1)
                part.running_var.uniform_(0.5, 1.5)
                part.weight.uniform_(0.2, 0.6)
    backbone = ResNetBackbone().train()
    backbone.load_pretrained(reference.state_dict(), "torchvision")
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
        for level, stage in zip(backbone(images), (f"layer{i}" for i in range(1, 5)), strict=True):
            x = getattr(reference, stage)(x)
            torch.testing.assert_close(level, x, atol=1e-4, rtol=1e-4)


def test_batch_norms_are_trained_when_asked() -> None:
    channels = (4, 8, 16, 32)
    free = ResNetBackbone(channels=channels, freeze_batch_norm=False).train()
    assert free.resnet.bn1.training
    assert free.resnet.bn1.weight.requires_grad
    frozen = ResNetBackbone(channels=channels).train()
    assert frozen.resnet.conv1.training
    assert not frozen.resnet.bn1.training
    assert not frozen.resnet.bn1.weight.requires_grad


def test_keys_come_in_the_order_of_the_blocks() -> None:
    backbone = DinoBackbone(num_heads=1, head_channels=16).eval()
    images = torch.randn(1, 3, 128, 224)
    with torch.no_grad():
        levels = backbone(images)
        keys = backbone.extractor(images, (6, 8, 10, 12))
    assert all(torch.equal(level, keys[block]) for level, block in zip(levels, (6, 8, 10, 12), strict=True))
    assert levels[0].shape == (1, 16, 31, 55)


def timms(backbone: Backbone) -> nn.Module:
    """Return the network inside, whose names published weights have."""
    if isinstance(backbone, DinoBackbone):
        return backbone.extractor.vit
    return backbone.swin if isinstance(backbone, SwinBackbone) else backbone.resnet


@pytest.mark.parametrize(
    ("name", "divisor", "head"), [("dino-vit-s8", 6, "head"), ("swin-tiny", 3, "head.fc"), ("resnet50", 16, "fc")]
)
def test_published_weights_are_loaded_without_their_classifier(name: str, divisor: int, head: str) -> None:
    sizes = MaskFormerConfig(backbone=name, width_divisor=divisor, channels=32, num_decoder_layers=1)
    first, second = (Gwm(GwmConfig(network="maskformer", maskformer=sizes)) for _ in range(2))
    state: dict[str, Tensor] = dict(timms(first.network.backbone).state_dict())
    second.load_backbone({**state, f"{head}.weight": torch.zeros(10, 4)}, "weights.pth")
    for key, value in timms(second.network.backbone).state_dict().items():
        assert torch.equal(value, state[key]), key
    missing = next(iter(state))
    with pytest.raises(WeightsError, match=f"weights.pth does not fit .*: {missing} is missing"):
        second.load_backbone({key: value for key, value in state.items() if key != missing}, "weights.pth")
    with pytest.raises(WeightsError, match=r"is \(1,\), expected"):
        second.load_backbone({**state, missing: torch.zeros(1)}, "weights.pth")
    with pytest.raises(WeightsError, match="is not part of the network"):
        second.load_backbone({**state, "decoder.weight": torch.zeros(1)}, "weights.pth")
