"""Backbones pretrained by others: which one a state dict is of, and the same weights under timm's names.

DINO calls its parameters as timm does, inside wrappers. Swin comes in the names of its authors (also from MoBY) and of
torchvision, ResNet in one spelling everywhere. What only served the pretraining is left out: projection heads, momentum
encoders, queues, classifiers, and buffers that the network computes itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Size, Tensor, nn

from model.errors import WeightsError
from model.networks.backbones import RESNET50_BLOCKS, SWIN_CHANNELS, SWIN_DEPTHS, SWIN_HEADS, SWIN_WINDOW

State = Mapping[str, Tensor]

_MAX_FAULTS_NAMED = 5
"""Faults listed in an error; the first few tell which network the file is of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PretrainedBackbone:
    """A backbone's weights under timm's names, without a classifier.

    kind: a key of ``CONVERTERS``. network: the published network whose size it has, or None. unused: names of the
    file that are not part of the backbone. missing: names that the network has and the file has not. misshapen:
    what has another shape than its network, as "name is (…), expected (…)". unexpected: names that the network
    does not know.
    """

    kind: str
    network: str | None
    state: dict[str, Tensor]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    unexpected: tuple[str, ...]

    def require_whole(self, source: str) -> None:
        """Raise WeightsError unless these are all of the network's weights and nothing else.

        What is unexpected counts too: without DINOv2's layer scales, say, the network computes something else.
        """
        faults = [f"{name} is missing" for name in self.missing]
        faults += [*self.misshapen, *(f"{name} is not part of the network" for name in self.unexpected)]
        if faults:
            raise WeightsError(
                f"{source} is no whole {self.kind} network: {'; '.join(faults[:_MAX_FAULTS_NAMED])}"
                f"{f'; and {len(faults) - _MAX_FAULTS_NAMED} more' if len(faults) > _MAX_FAULTS_NAMED else ''}. "
                "Give the whole checkpoint of a DINO ViT, a Swin transformer or a ResNet-50"
            )


def recognise_backbone(state: State) -> str | None:
    """Return which of ``CONVERTERS`` understands a state dict, None for that of another network."""
    names = _unwrapped(state)
    tables = any(name.endswith("relative_position_bias_table") for name in names)
    if tables and ("patch_embed.proj.weight" in names or "features.0.0.weight" in names):
        return "swin"
    if {"cls_token", "pos_embed", "patch_embed.proj.weight"} <= set(names):
        return "dino"
    if {"conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv3.weight"} <= set(names):
        return "resnet"
    return None


def convert_backbone(state: State, source: str, kind: str | None = None) -> PretrainedBackbone:
    """Rename a backbone's weights to timm's names and compare them with the network that their sizes describe.

    source: where the state came from, for the message. kind: which of ``CONVERTERS`` it is for, recognised when None.
    Raises WeightsError when it is none of a DINO ViT, a Swin transformer or a ResNet; what is missing or does not fit
    is told in the result.
    """
    kind = kind or recognise_backbone(state)
    if kind not in CONVERTERS:
        raise WeightsError(
            f"{source} is of no backbone that is known here, its names begin with {', '.join(list(state)[:3])}: "
            "expected a DINO ViT, a Swin transformer (Microsoft, MoBY, timm, torchvision) or a ResNet-50"
        )
    wrapped = _unwrapped(state)
    converted = CONVERTERS[kind](wrapped)
    network, expected = _described_network(kind, converted, source)
    used = {id(tensor) for tensor in converted.values()}
    return PretrainedBackbone(
        kind=kind,
        network=network,
        state={name: converted[name] for name in expected if name in converted},
        unused=tuple(name for name, tensor in state.items() if id(tensor) not in used),
        missing=tuple(name for name in expected if name not in converted),
        misshapen=tuple(
            f"{name} is {tuple(converted[name].shape)}, expected {tuple(shape)}"
            for name, shape in expected.items()
            if name in converted and converted[name].shape != shape
        ),
        unexpected=tuple(name for name in converted if name not in expected),
    )


def _unwrapped(state: State) -> dict[str, Tensor]:
    """Take the backbone out of what pretraining wraps around it: DINO's ``backbone.``, MoBY's ``encoder.``."""
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    for prefix in ("backbone.", "encoder."):
        inner = {name.removeprefix(prefix): tensor for name, tensor in plain.items() if name.startswith(prefix)}
        if inner:
            return inner
    return plain


def _convert_dino(state: State) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def _convert_swin(state: State) -> dict[str, Tensor]:
    rename: Callable[[str], str] = str
    if "features.0.0.weight" in state:
        rename = _from_torchvision_swin
    elif "layers.0.downsample.reduction.weight" in state:  # its authors end a stage with what timm begins the next with
        rename = _from_microsoft_swin
    return {
        rename(name): tensor
        for name, tensor in state.items()
        if not name.startswith("head.") and not name.endswith(("relative_position_index", "attn_mask"))
    }


def _from_microsoft_swin(name: str) -> str:
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample.", name)


def _from_torchvision_swin(name: str) -> str:
    """torchvision numbers its parts in a row: embedding, stage, merging, stage, ..."""
    match = re.match(r"^features\.(\d+)\.(.+)$", name)
    if match is None:
        return name
    part, rest = int(match[1]), match[2]
    if part == 0:
        return "patch_embed." + re.sub(r"^[02]\.", lambda index: {"0.": "proj.", "2.": "norm."}[index[0]], rest)
    if part % 2 == 0:
        return f"layers.{part // 2}.downsample.{rest}"
    rest = rest.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
    return f"layers.{part // 2}.blocks.{rest}"


def _convert_resnet(state: State) -> dict[str, Tensor]:
    converted = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    for name in state:  # files from before torch counted batches lack the counter, which nothing reads at inference
        if name.endswith(".running_mean"):
            converted.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return converted


CONVERTERS: dict[str, Callable[[State], dict[str, Tensor]]] = {
    "dino": _convert_dino,
    "swin": _convert_swin,
    "resnet": _convert_resnet,
}
"""From unwrapped names to timm's, by kind of network."""


def _described_network(kind: str, state: State, source: str) -> tuple[str | None, dict[str, Size]]:
    """Return the published network of these sizes, if it is one, and the names and shapes of all its parts."""
    try:
        with torch.device("meta"):  # shapes only
            network, module = {"dino": _vit, "swin": _swin, "resnet": _resnet}[kind](state)
        return network, {name: tensor.shape for name, tensor in module.state_dict().items()}
    except (AssertionError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{source} describes no {kind} network ({type(error).__name__}: {error})") from error


def _vit(state: State) -> tuple[str | None, nn.Module]:
    channels, _, patch_size, _ = state["patch_embed.proj.weight"].shape
    depth = _count(state, r"^blocks\.(\d+)\.")
    side = math.isqrt(state["pos_embed"].shape[1] - 1)  # one position is the class token's
    module = VisionTransformer(
        img_size=side * patch_size, patch_size=patch_size, embed_dim=channels, depth=depth, num_heads=1, num_classes=0
    )
    names = {(384, 12, 8): "dino-vit-s8", (768, 12, 8): "dino-vit-b8"}  # DINO, table 1
    return names.get((channels, depth, patch_size)), module


def _swin(state: State) -> tuple[str | None, nn.Module]:
    channels, _, patch_size, _ = state["patch_embed.proj.weight"].shape
    positions, num_heads = state["layers.0.blocks.0.attn.relative_position_bias_table"].shape
    window = (math.isqrt(positions) + 1) // 2  # (2 * window - 1)^2 relative positions
    stages = range(_count(state, r"^layers\.(\d+)\."))
    depths = tuple(_count(state, rf"^layers\.{stage}\.blocks\.(\d+)\.") for stage in stages)
    module = SwinTransformer(
        img_size=window * patch_size * 2 ** stages[-1],  # one whole window in the last stage
        patch_size=patch_size,
        window_size=window,
        embed_dim=channels,
        depths=depths,
        num_heads=tuple(num_heads * 2**stage for stage in stages),  # heads double with the channels (paper, 3.3)
        num_classes=0,
    )
    is_tiny = (channels, depths, num_heads, window) == (SWIN_CHANNELS, SWIN_DEPTHS, SWIN_HEADS[0], SWIN_WINDOW)
    return "swin-tiny" if is_tiny else None, module


def _resnet(state: State) -> tuple[str | None, nn.Module]:
    layers = tuple(_count(state, rf"^layer{stage}\.(\d+)\.") for stage in range(1, 5))
    return "resnet50" if layers == RESNET50_BLOCKS else None, ResNet(Bottleneck, layers, num_classes=0)


def _count(state: State, pattern: str) -> int:
    return 1 + max(int(match[1]) for name in state if (match := re.match(pattern, name)))
