"""Backbones of others: recognised by their names, renamed to timm's, held against the network that they describe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from timm.models.vision_transformer import VisionTransformer
from torchvision.models import resnet50
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

from model.errors import WeightsError
from model.networks.dino_vit import DinoKeys
from model.pretrained import convert_backbone, recognise_backbone
from tests.shared import GOLDEN, shared_or_skip
from tests.tasks.checkpoints import State, dino_full, dino_state, microsoft_swin, moby, small_swin


def test_dino_is_taken_out_of_its_training_wrappers() -> None:
    plain = dino_state()
    for state in (plain, dino_full(plain), {f"module.{name}": tensor for name, tensor in dino_full(plain).items()}):
        found = convert_backbone(state, "dino.pth")
        assert (found.kind, found.missing, found.misshapen, found.unexpected) == ("dino", (), (), ())
        assert found.state.keys() == plain.keys()
        assert all(torch.equal(found.state[name], tensor) for name, tensor in plain.items())
    assert all("head." in name for name in convert_backbone(dino_full(plain), "dino.pth").unused)


def test_the_recorded_dino_is_understood() -> None:
    with np.load(shared_or_skip(GOLDEN / "dino_vit_keys.npz")) as golden:
        state = {n.removeprefix("state."): torch.from_numpy(golden[n]) for n in golden.files if n.startswith("state.")}
        found = convert_backbone(state, "golden")
        image, expected = torch.from_numpy(golden["image"]), golden["keys.block12"]
    assert (found.missing, found.misshapen, found.unexpected) == ((), (), ())
    keys = DinoKeys.from_state(found.state, num_heads=3)
    with torch.no_grad():
        (ours,) = keys(image).values()
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_moby_becomes_timms_swin_as_timm_would_have_it() -> None:
    network = small_swin()
    state = moby(microsoft_swin(network))
    found = convert_backbone(state, "moby.pth")
    assert (found.kind, found.missing, found.misshapen, found.unexpected) == ("swin", (), (), ())
    filtered = checkpoint_filter_fn(dict(microsoft_swin(network)), network)
    expected = {name: tensor for name, tensor in filtered.items() if not name.startswith("head.")}
    assert found.state.keys() == expected.keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in expected.items())
    assert {"queue1", "encoder_k.norm.weight", "projector.linear_out.weight"} <= set(found.unused)


def test_timms_own_swin_passes_unchanged() -> None:
    state = small_swin().state_dict()
    found = convert_backbone(state, "timm.safetensors")
    assert found.state.keys() == {name for name in state if not name.startswith("head.")}
    assert found.unused == tuple(name for name in state if name.startswith("head."))


def test_torchvisions_swin_computes_the_same_under_timms_names() -> None:
    sizes = {"depths": [2, 2], "num_heads": [2, 4], "embed_dim": 8}
    theirs = TorchvisionSwin(patch_size=[4, 4], window_size=[4, 4], num_classes=5, **sizes).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # its own start leaves biases and tables at zero
    found = convert_backbone(theirs.state_dict(), "swin_t.pth")
    assert (found.missing, found.misshapen, found.unexpected) == ((), (), ())
    ours = SwinTransformer(img_size=32, patch_size=4, window_size=4, num_classes=0, **sizes).eval()
    ours.load_state_dict(found.state)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_features(image), theirs.norm(theirs.features(image)))


def test_torchvisions_resnet_is_timms() -> None:
    with torch.device("meta"):
        state = resnet50().state_dict()
        expected = ResNet(Bottleneck, (3, 4, 6, 3), num_classes=0).state_dict()
    found = convert_backbone(state, "resnet50.pth")
    assert (found.network, found.missing, found.misshapen, found.unexpected) == ("resnet50", (), (), ())
    assert found.state.keys() == expected.keys()
    assert found.unused == ("fc.weight", "fc.bias")


def test_batch_counters_that_old_files_lack_are_added() -> None:
    with torch.device("meta"):
        state = ResNet(Bottleneck, (1, 1, 1, 1), num_classes=7).state_dict()
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    found = convert_backbone(old, "resnet.pth")
    assert (found.network, found.missing) == (None, ())
    assert found.state["bn1.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    ("channels", "depth", "network"), [(384, 12, "dino-vit-s8"), (768, 12, "dino-vit-b8"), (384, 11, None)]
)
def test_published_sizes_have_names(channels: int, depth: int, network: str | None) -> None:
    with torch.device("meta"):
        state = VisionTransformer(patch_size=8, embed_dim=channels, depth=depth, num_classes=0).state_dict()
    assert convert_backbone(state, "dino.pth").network == network


def test_swin_tiny_has_its_name() -> None:
    with torch.device("meta"):
        state = SwinTransformer().state_dict()  # timm's defaults are Swin-T's sizes
    assert convert_backbone(state, "swin.pth").network == "swin-tiny"


def test_what_is_missing_misshapen_or_unexpected_is_told() -> None:
    state: State = microsoft_swin(small_swin())
    del state["layers.1.blocks.0.attn.qkv.bias"]
    state["layers.0.blocks.0.mlp.fc1.weight"] = torch.zeros(3, 3)
    state["surprise"] = torch.zeros(1)
    found = convert_backbone(state, "swin.pth")
    assert found.missing == ("layers.1.blocks.0.attn.qkv.bias",)
    (misshapen,) = found.misshapen
    assert misshapen.startswith("layers.0.blocks.0.mlp.fc1.weight is (3, 3), expected (")
    assert found.unexpected == ("surprise",)


def test_other_networks_are_refused() -> None:
    assert recognise_backbone({"inc.weight": torch.ones(1)}) is None
    with pytest.raises(WeightsError, match=r"u\.pth is of no backbone.*begin with inc\.weight: expected a DINO ViT"):
        convert_backbone({"inc.weight": torch.ones(1)}, "u.pth")
    broken = dino_state() | {"patch_embed.proj.weight": torch.zeros(2, 3)}
    with pytest.raises(WeightsError, match=r"d\.pth describes no dino network"):
        convert_backbone(broken, "d.pth")
