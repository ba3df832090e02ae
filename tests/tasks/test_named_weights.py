"""The registry of weights against what the packages that publish them say of themselves."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from timm import get_pretrained_cfg
from torchvision.models import ResNet50_Weights, Swin_T_Weights
from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights

from tasks.named_weights import NAMED_WEIGHTS, names_for


def test_torchvisions_files_are_those_that_torchvision_names() -> None:
    enums = {
        "raft-large-": Raft_Large_Weights,
        "raft-small-": Raft_Small_Weights,
    }
    for prefix, enum in enums.items():
        for member in enum:
            entry = NAMED_WEIGHTS[prefix + member.name.lower().replace("_", "-")]
            assert entry.url == member.url
            assert entry.network == prefix.rstrip("-")
            assert entry.sha256 == Path(urlsplit(member.url).path).stem.rpartition("-")[2]
    for name, member in {
        "imagenet-resnet50": ResNet50_Weights.IMAGENET1K_V1,
        "imagenet-resnet50-v2": ResNet50_Weights.IMAGENET1K_V2,
        "imagenet-swin-t-torchvision": Swin_T_Weights.IMAGENET1K_V1,
    }.items():
        assert NAMED_WEIGHTS[name].url == member.url
        assert NAMED_WEIGHTS[name].sha256.startswith(Path(urlsplit(member.url).path).stem.rpartition("-")[2])


def test_addresses_agree_with_timms() -> None:
    for name, model in {
        "dino-vit-s8": "vit_small_patch8_224.dino",
        "dino-vit-b8": "vit_base_patch8_224.dino",
        "imagenet-swin-t": "swin_tiny_patch4_window7_224.ms_in1k",
        "imagenet-resnet50-timm": "resnet50.a1_in1k",
    }.items():
        assert NAMED_WEIGHTS[name].url == get_pretrained_cfg(model).url
        assert NAMED_WEIGHTS[name].licence.lower().startswith(get_pretrained_cfg(model).license)
    assert get_pretrained_cfg("vit_base_patch8_224.dino").hf_hub_id in NAMED_WEIGHTS["dino-vit-b8-timm"].url


def test_every_entry_is_complete_and_no_two_share_a_file() -> None:
    for entry in NAMED_WEIGHTS.values():
        assert entry.url.startswith("https://")
        assert entry.sha256 is None or re.fullmatch("[0-9a-f]{8}([0-9a-f]{56})?", entry.sha256)
        assert entry.licence
        assert entry.what
    files = [entry.file_name for entry in NAMED_WEIGHTS.values()]
    assert len(set(files)) == len(files)
    assert {"raft-things", "raft-large-c-t-v1"} <= set(names_for(("raft-large",)))
    assert names_for(()) == list(NAMED_WEIGHTS)
