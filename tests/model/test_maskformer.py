"""The MaskFormer around any backbone: published sizes, initialisation, geometry, and what is trained."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from model.errors import InputError, WeightsError
from model.methods import build_method
from model.methods.gwm import Gwm, GwmConfig
from model.networks.maskformer import MaskFormer, MaskFormerConfig, cut_to_image, fit_to_image
from model.networks.pixel_decoder import PixelDecoder
from model.networks.query_decoder import QueryDecoder, sine_positions
from model.networks.released import convert_released_head
from model.types import FramePair
from tests.architecture import imports_of, project_modules

TINY_HEAD = {"channels": 32, "num_heads": 4, "feedforward_channels": 64, "num_decoder_layers": 2}
TINY_BACKBONES = {"dino-vit-s8": 6, "swin-tiny": 3, "resnet50": 16}


def tiny(backbone: str = "dino-vit-s8", **options: object) -> MaskFormer:
    """A network of a few hundred thousand weights in evaluation mode."""
    return gwm(backbone, **options).eval().network


def gwm(backbone: str = "dino-vit-s8", **options: object) -> Gwm:
    sizes = {"width_divisor": TINY_BACKBONES[backbone], **TINY_HEAD, **options}
    config = MaskFormerConfig(backbone=backbone, **sizes)
    return build_method(
        GwmConfig(network="maskformer", num_segments=3, image_size=(64, 112), flow_size=(64, 112), maskformer=config)
    )


def count(module: nn.Module, *, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


@pytest.mark.parametrize(
    ("backbone", "branch", "pixel_decoder", "query_decoder", "backbone_size"),
    [
        ("dino-vit-b8", "released", 6_033_152, 9_868_288, 85_807_872),
        ("dino-vit-b8", "clean", 6_033_152, 9_868_288, 85_807_872),
        ("dino-vit-s8", "released", 4_853_504, 9_769_984, 21_670_272),
        ("swin-tiny", "none", 4_304_640, 9_868_288, 27_520_698),  # 4.30 M, 9.87 M
        ("swin-tiny", "released", 5_615_360, 9_868_288, 27_520_698),  # 5.62 M
        ("resnet50", "none", 7_540_480, 10_195_968, 23_508_032),  # 7.54 M, 10.20 M
        ("resnet50", "released", 8_851_200, 10_195_968, 23_508_032),  # 8.85 M
    ],
)
def test_parameter_counts_are_those_of_the_released_code(
    backbone: str, branch: str, pixel_decoder: int, query_decoder: int, backbone_size: int
) -> None:
    with torch.device("meta"):
        method = Gwm(
            GwmConfig(network="maskformer", maskformer=MaskFormerConfig(backbone=backbone, mask_branch=branch))
        )
    network = method.network
    assert count(network.pixel_decoder) == pixel_decoder
    assert count(network.query_decoder) == query_decoder
    assert count(network.backbone) == backbone_size
    assert count(method, trainable=True) == pixel_decoder + query_decoder
    assert backbone != "dino-vit-b8" or count(method, trainable=True) == 15_901_440


def test_weights_are_drawn_as_in_the_released_code() -> None:
    torch.manual_seed(0)
    decoder = PixelDecoder(in_channels=(64, 64), channels=64)
    caffe2 = {"laterals.0.convolution": 64, "outputs.0.convolution": 576, "deepest": 576}
    torchs = {"before.0": 576, "after.1": 64, "mask_features": 576}
    weights = dict(decoder.named_parameters())
    for name, fan_in in caffe2.items():
        assert weights[f"{name}.weight"].abs().max().item() == pytest.approx(math.sqrt(3 / fan_in), rel=0.01)
    for name, fan_in in torchs.items():
        assert weights[f"{name}.weight"].abs().max().item() == pytest.approx(math.sqrt(1 / fan_in), rel=0.01)
    queries = QueryDecoder(
        in_channels=64, num_segments=2, channels=64, num_layers=1, num_heads=8, feedforward_channels=128, dropout=0.1
    )
    weights = dict(queries.named_parameters())
    xavier = {"self_attention.in_proj_weight": 64 + 192, "feedforward.0.weight": 64 + 128}
    for name, fans in xavier.items():
        assert weights[f"layers.0.{name}"].abs().max().item() == pytest.approx(math.sqrt(6 / fans), rel=0.01)
    assert weights["input_projection.weight"].abs().max().item() == pytest.approx(math.sqrt(3 / 64), rel=0.01)
    assert not weights["input_projection.bias"].any()


def test_positions_are_sines_of_rows_then_columns() -> None:
    encoded = sine_positions(3, 5, 8)[0]  # 4 channels an axis, so wavelengths of 1 and of sqrt(10 000)
    row, column = 2 / 3 * 2 * math.pi, 4 / 5 * 2 * math.pi
    expected = [f(at / wave) for at in (row, column) for wave in (1, 100) for f in (math.sin, math.cos)]
    torch.testing.assert_close(encoded[:, 1, 3], torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("branch", ["released", "clean"])
@pytest.mark.parametrize(
    ("levels", "offset"),
    [
        ([(15, 27)] * 4, 3.5),  # keys: patch i covers 4i .. 4i + 7
        ([(16, 28), (8, 14), (4, 7), (2, 4)], 1.5),  # stages: cell i covers 4i .. 4i + 3
    ],
)
def test_masks_lie_above_what_they_were_computed_from(
    branch: str, levels: list[tuple[int, int]], offset: float
) -> None:
    torch.manual_seed(0)
    decoder = PixelDecoder(in_channels=(32,) * 4, channels=32, mask_branch=branch)
    with torch.no_grad():
        for part in decoder.modules():
            if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3):
                centre = part.weight[..., 1, 1].clone()
                part.weight.zero_()[..., 1, 1] = centre  # nothing but the upsampling spreads
        maps = [torch.zeros(1, 32, *size) for size in levels]
        without = fit_to_image(decoder(maps), (64, 112))
        maps[0][:, :, 6, 10] = 5 * torch.randn(32)
        response = (fit_to_image(decoder(maps), (64, 112)) - without).square().sum(1)[0]
    rows, columns = torch.nonzero(response > 0.5 * response.max(), as_tuple=True)
    assert rows.float().mean().item() == 4 * 6 + offset
    assert columns.float().mean().item() == 4 * 10 + offset


def test_logits_are_cropped_repeated_or_resized() -> None:
    logits = torch.arange(66 * 114.0).view(1, 1, 66, 114)
    assert torch.equal(fit_to_image(logits, (64, 112)), logits[..., 1:65, 1:113])
    assert torch.equal(fit_to_image(logits, (66, 114)), logits)
    lacking = fit_to_image(logits, (70, 118))
    assert torch.equal(lacking[..., 2:68, 2:116], logits)
    assert torch.equal(lacking[..., :2, 2:116], logits[..., :1, :].expand(1, 1, 2, 114))
    for size in ((60, 60), (60, 120), (264, 456)):  # 1.1 times 60 is 66, which is no longer cropped
        torch.testing.assert_close(
            fit_to_image(logits, size), nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        )


@pytest.mark.parametrize("backbone", TINY_BACKBONES)
def test_padding_is_undone(backbone: str) -> None:
    network = tiny(backbone)
    divisor = network.backbone.size_divisor
    images = torch.randn(2, 3, 2 * divisor + 43, 3 * divisor + 30)
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, [0, -width % divisor, 0, -height % divisor])
    with torch.no_grad():
        logits, features = network(images)
        expected, whole = network(padded)
    assert logits.shape == (2, 3, height, width)
    assert torch.equal(logits, expected[..., :height, :width])
    assert features.shape == whole.shape


def test_features_of_a_padded_image_are_cut_to_the_image() -> None:
    rows = (torch.arange(8) + 0.5) / 8 * 64  # centres of the cells of a padded image of 64x32, in its pixels
    features = rows.view(1, 1, 8, 1).expand(1, 1, 8, 4).contiguous()
    cut = cut_to_image(features, (64, 32), (48, 32))
    expected = ((torch.arange(8) + 0.5) / 8 * 48).clamp_min(4)  # no cell has its centre above row 4
    torch.testing.assert_close(cut[0, 0, :, 2], expected)
    assert cut_to_image(features, (64, 32), (64, 32)) is features


def batch_for(method: Gwm) -> dict[str, Tensor]:
    image = torch.randint(0, 255, (3, 64, 112), dtype=torch.uint8)
    prepared = method.prepare(FramePair(image=image, flow=torch.randn(2, 64, 112), gap=1))
    return {name: torch.stack([value, value]) for name, value in prepared.items()}


@pytest.mark.parametrize("backbone", TINY_BACKBONES)
def test_a_trained_backbone_gets_gradients_for_all_that_is_trainable(backbone: str) -> None:
    """What distributed training needs: no trainable parameter is left out of the loss."""
    method = gwm(backbone, train_backbone=True).train()
    method(batch_for(method)).total.backward()
    trainable = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None] == []
    assert any(name.startswith("network.backbone.") for name in trainable)
    assert all(p.grad is None for p in method.parameters() if not p.requires_grad)


@pytest.mark.parametrize("backbone", TINY_BACKBONES)
def test_bf16_agrees_at_a_size_that_needs_padding(backbone: str) -> None:
    network = tiny(backbone, train_backbone=True)
    images = torch.randn(2, 3, 50, 70)
    with torch.no_grad():
        exact, _ = network(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, _ = network(images)
    error = (logits.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error.item() < 0.1  # bf16 keeps 8 bits, and rounds them once a layer
    logits.float().square().mean().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("backbone", TINY_BACKBONES)
def test_a_frozen_backbone_stays_as_it_is(backbone: str) -> None:
    method = gwm(backbone).train()
    before = {name: value.clone() for name, value in method.network.backbone.state_dict().items()}
    method(batch_for(method)).total.backward()
    assert method.network.query_decoder.training
    assert not any(part.training for part in method.network.backbone.modules())
    assert all(p.grad is None for p in method.network.backbone.parameters())
    assert all(p.grad is not None for p in method.network.pixel_decoder.parameters())
    for name, value in method.network.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_dropout_acts_in_training_only() -> None:
    method = gwm()
    images = torch.rand(1, 3, 64, 112) * 255
    method.train()
    assert not torch.equal(method.segment(images).probabilities, method.segment(images).probabilities)
    method.eval()
    segmentation = method.segment(images)
    assert torch.equal(segmentation.probabilities, method.segment(images).probabilities)
    assert segmentation.probabilities.shape == (1, 3, 64, 112)
    assert segmentation.features is not None
    assert segmentation.features.shape == (1, 64, 15, 27)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": 48}, "channels=48: expected a multiple of the 32 groups"),
        ({"num_heads": 5}, "channels=256.*num_heads=5"),
        ({"num_heads": 0}, "num_heads=0: expected 1 or more"),
        ({"num_decoder_layers": 0}, "num_decoder_layers=0"),
        ({"width_divisor": 5}, "width_divisor=5: expected a divisor of 12"),
        ({"dropout": 1.0}, "dropout=1.0: expected a probability"),
        ({"backbone_sha256": "0" * 64}, "backbone_sha256 without backbone_weights"),
    ],
)
def test_unusable_configurations_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MaskFormerConfig(**wrong)


def test_a_maskformers_sizes_are_no_use_to_a_unet() -> None:
    with pytest.raises(InputError, match="has no effect on network='unet'"):
        GwmConfig(maskformer=MaskFormerConfig(channels=32))
    with pytest.raises(WeightsError, match="dino: a U-Net has no backbone"):
        Gwm(GwmConfig(base_channels=2)).load_backbone({}, "dino")


def test_checkpoints_of_other_networks_are_no_released_heads() -> None:
    norms = {f"sem_seg_head.pixel_decoder.{name}.norm.weight": torch.ones(4) for name in ("layer_4", "mask_features.0")}
    assert list(convert_released_head(norms)) == ["pixel_decoder.shared_norm.weight"]
    with pytest.raises(WeightsError, match="expected one norm under five names"):
        convert_released_head({**norms, "sem_seg_head.pixel_decoder.mask_features.3.norm.weight": torch.zeros(4)})
    with pytest.raises(WeightsError, match=r"predictor\.class_embed\.weight is no part of the released head"):
        convert_released_head({"sem_seg_head.predictor.class_embed.weight": torch.ones(4)})
    with pytest.raises(WeightsError, match=r"such as 'stem\.weight': expected a released GWM checkpoint"):
        convert_released_head({"stem.weight": torch.ones(4)})


def test_a_unet_does_without_timm() -> None:
    """timm takes seconds to import: nothing that ``model.methods`` imports when it is loaded may import it."""
    modules = project_modules()
    reached, pending = set[str](), ["model.methods"]
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending += [found.name for found in imports_of(modules.get(name, ""), modules) if found.module_level]
    assert "model.networks.maskformer" in reached
    assert not any(name.split(".")[0] == "timm" for name in reached)
