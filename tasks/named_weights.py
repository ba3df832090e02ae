"""Weights that this project knows by name: where they come from, under which licence, and which bytes they must be.

A SHA-256 stands here only where someone publishes it: torchvision and timm in the names of their files (the first
eight digits), Git LFS on model hubs, or several independent records of one file. Where it is None, nobody does: the
first file that is used pins it, see ``tasks/weights.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

Labels = Literal["none", "synthetic flow", "synthetic and measured flow", "image classes"]
"""What the weights were trained with beside images: a table of scores has to tell."""


@dataclass(frozen=True, kw_only=True)
class NamedWeights:
    """One file of weights.

    network: what it fits, a backbone or an optical flow network. converter: who turns its names into ours, a key of
        ``CONVERTERS`` in model/pretrained.py or the estimator that loads it. sha256: 64 hex digits, or the first ones.
    """

    what: str
    network: str
    converter: str
    url: str
    licence: str
    labels: Labels
    sha256: str | None = None
    saved_as: str | None = None

    @property
    def file_name(self) -> str:
        """What the file is called in the cache: as at its source, unless another file is called so too."""
        return self.saved_as or PurePosixPath(urlsplit(self.url).path).name


_TORCHVISION = "https://download.pytorch.org/models"
_TORCHVISION_LICENCE = "BSD-3-Clause (torchvision); of the training data: see https://github.com/pytorch/vision#readme"
_RAFT_LICENCE = "code BSD-3-Clause; of the weights unknown: see https://github.com/princeton-vl/RAFT/issues/110"
_DINO_LICENCE = "Apache-2.0 (facebookresearch/dino)"
_PWC_LICENCE = "CC BY-NC-SA 4.0 (NVlabs/PWC-Net)"


def _raft(size: str, recipe: str, digits: str, what: str, labels: Labels = "synthetic flow") -> NamedWeights:
    return NamedWeights(
        what=f"RAFT {size}, {what}",
        network=f"raft-{size}",
        converter="raft",
        url=f"{_TORCHVISION}/raft_{size}_{recipe}-{digits}.pth",
        licence=_TORCHVISION_LICENCE,
        labels=labels,
        sha256=digits,
    )


def _dino(size: str, what: str) -> NamedWeights:
    folder = {"s": "dino_deitsmall8_pretrain", "b": "dino_vitbase8_pretrain"}[size]
    return NamedWeights(
        what=f"{what}, the authors' file",
        network=f"dino-vit-{size}8",
        converter="dino",
        url=f"https://dl.fbaipublicfiles.com/dino/{folder}/{folder}.pth",
        licence=_DINO_LICENCE,
        labels="none",
    )


def _dino_of_timm(size: str, commit: str, sha256: str, what: str) -> NamedWeights:
    model = {"s": "vit_small_patch8_224.dino", "b": "vit_base_patch8_224.dino"}[size]
    return NamedWeights(
        what=f"{what}, as timm distributes it: no pickle, published hash",
        network=f"dino-vit-{size}8",
        converter="dino",
        url=f"https://huggingface.co/timm/{model}/resolve/{commit}/model.safetensors",
        licence=_DINO_LICENCE,
        labels="none",
        sha256=sha256,
        saved_as=f"{model}.safetensors",
    )


def _arflow(dataset: str, folder: str) -> NamedWeights:
    return NamedWeights(
        what=f"ARFlow (PWC-lite) trained on {dataset} without labels",
        network="arflow",
        converter="arflow",
        url=f"https://github.com/lliuz/ARFlow/raw/master/checkpoints/{folder}/pwclite_ar.tar",
        licence="MIT (lliuz/ARFlow)",
        labels="none",
        saved_as=f"arflow_{folder.lower()}_pwclite_ar.tar",
    )


_MEASURED: Labels = "synthetic and measured flow"
_THINGS = "on FlyingChairs and FlyingThings"
_SINTEL_MIX = "further on FlyingThings, KITTI, HD1K and Sintel"

NAMED_WEIGHTS: dict[str, NamedWeights] = {
    # RAFT. Digits and recipes: torchvision.models.optical_flow, Raft_Large_Weights and Raft_Small_Weights.
    "raft-large-c-t-v1": _raft("large", "C_T_V1", "22a6c225", f"the authors' raft-things ported, {_THINGS}"),
    "raft-large-c-t-v2": _raft("large", "C_T_V2", "1bb1363a", f"torchvision's own training {_THINGS}"),
    "raft-large-c-t-skht-v1": _raft(
        "large", "C_T_SKHT_V1", "0b8c9e55", f"the authors' raft-sintel ported, {_SINTEL_MIX}", _MEASURED
    ),
    "raft-large-c-t-skht-v2": _raft(
        "large", "C_T_SKHT_V2", "ff5fadd5", f"torchvision's own training, {_SINTEL_MIX}", _MEASURED
    ),
    "raft-large-c-t-skht-k-v1": _raft(
        "large", "C_T_SKHT_K_V1", "4a6a5039", "the authors' raft-kitti ported", _MEASURED
    ),
    "raft-large-c-t-skht-k-v2": _raft(
        "large", "C_T_SKHT_K_V2", "b5c70766", "torchvision's own training, last on KITTI", _MEASURED
    ),
    "raft-small-c-t-v1": _raft("small", "C_T_V1", "ad48884c", f"the authors' raft-small ported, {_THINGS}"),
    "raft-small-c-t-v2": _raft("small", "C_T_V2", "01064c6d", f"torchvision's own training {_THINGS}"),
    # The file that GWM's flows were made with. Its authors ship it inside an archive only; this is a copy of the
    # member, whose hash several projects recorded from that archive and from this copy alike.
    "raft-things": NamedWeights(
        what=f"RAFT large, the authors' checkpoint {_THINGS}; GWM's flows",
        network="raft-large",
        converter="raft",
        url="https://github.com/sczhou/ProPainter/releases/download/v0.1.0/raft-things.pth",
        licence=_RAFT_LICENCE,
        labels="synthetic flow",
        sha256="fcfa4125d6418f4de95d84aec20a3c5f4e205101715a79f193243c186ac9a7e1",
    ),
    # DINO. Addresses: hubconf.py of facebookresearch/dino; hashes of timm's files: Git LFS, on their pages.
    "dino-vit-s8": _dino("s", "DINO ViT-S/8"),
    "dino-vit-b8": _dino("b", "DINO ViT-B/8"),
    "dino-vit-s8-timm": _dino_of_timm(
        "s",
        "06cd8ed4b3fcef6305223df082ef8c19bc775704",
        "e1b79616ce6d1b8dc3cc0d5952b6d0958356a189122882493e665d28f20654a0",
        "DINO ViT-S/8",
    ),
    "dino-vit-b8-timm": _dino_of_timm(
        "b",
        "57b4c6dac26b2cff845bfbed5bf37c9dd32ec496",
        "01be14b99784a4c0970a5703214513588daf27014e908ac7ea08967b7bd80f5f",
        "DINO ViT-B/8",
    ),
    # Swin-T, as GWM's table 1 has it: by MoBY, and by ImageNet's classes.
    "moby-swin-t": NamedWeights(
        what="Swin-T by MoBY, 300 epochs of self-supervision",
        network="swin-tiny",
        converter="swin",
        url="https://github.com/SwinTransformer/storage/releases/download/v1.0.3/moby_swin_t_300ep_pretrained.pth",
        licence="MIT (SwinTransformer/Transformer-SSL)",
        labels="none",
    ),
    "imagenet-swin-t": NamedWeights(
        what="Swin-T classifying ImageNet, the authors' file",
        network="swin-tiny",
        converter="swin",
        url="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth",
        licence="MIT (microsoft/Swin-Transformer)",
        labels="image classes",
        sha256="9f71c168d837d1b99dd1dc29e14990a7a9e8bdc5f673d46b04fe36fe15590ad3",
    ),
    "imagenet-swin-t-torchvision": NamedWeights(
        what="Swin-T classifying ImageNet, torchvision's IMAGENET1K_V1",
        network="swin-tiny",
        converter="swin",
        url=f"{_TORCHVISION}/swin_t-704ceda3.pth",
        licence=_TORCHVISION_LICENCE,
        labels="image classes",
        sha256="704ceda3",
    ),
    "imagenet-resnet50": NamedWeights(
        what="ResNet-50 classifying ImageNet, torchvision's IMAGENET1K_V1",
        network="resnet50",
        converter="resnet",
        url=f"{_TORCHVISION}/resnet50-0676ba61.pth",
        licence=_TORCHVISION_LICENCE,
        labels="image classes",
        sha256="0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
    "imagenet-resnet50-v2": NamedWeights(
        what="ResNet-50 classifying ImageNet, torchvision's IMAGENET1K_V2 (longer recipe)",
        network="resnet50",
        converter="resnet",
        url=f"{_TORCHVISION}/resnet50-11ad3fa6.pth",
        licence=_TORCHVISION_LICENCE,
        labels="image classes",
        sha256="11ad3fa6",
    ),
    "imagenet-resnet50-timm": NamedWeights(
        what="ResNet-50 classifying ImageNet, timm's a1_in1k",
        network="resnet50",
        converter="resnet",
        url="https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-rsb-weights/"
        "resnet50_a1_0-14fe96d1.pth",
        licence="Apache-2.0 (timm)",
        labels="image classes",
        sha256="14fe96d1",
    ),
    # Optical flow of GWM's ablation. Which of these checkpoints its authors used is not stated.
    "arflow-kitti": _arflow("KITTI", "KITTI15"),
    "arflow-sintel": _arflow("Sintel", "Sintel"),
    "pwc-chairs": NamedWeights(
        what="PWC-Net, the authors' checkpoint before Sintel (FlyingChairs, FlyingThings)",
        network="pwc",
        converter="pwc",
        url="https://github.com/NVlabs/PWC-Net/raw/master/PyTorch/pwc_net_chairs.pth.tar",
        licence=_PWC_LICENCE,
        labels="synthetic flow",
    ),
    "pwc-sintel": NamedWeights(
        what="PWC-Net, the authors' checkpoint trained on to Sintel",
        network="pwc",
        converter="pwc",
        url="https://github.com/NVlabs/PWC-Net/raw/master/PyTorch/pwc_net.pth.tar",
        licence=_PWC_LICENCE,
        labels="synthetic flow",
    ),
}
"""Weights by the name that commands, presets and ``fetch_weights`` take."""


def names_for(networks: tuple[str, ...]) -> list[str]:
    """Return the names of weights for one of ``networks``; all names when none is given."""
    return [name for name, weights in NAMED_WEIGHTS.items() if not networks or weights.network in networks]
