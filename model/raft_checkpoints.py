"""Checkpoints of the authors of RAFT (princeton-vl/RAFT) as state dicts of torchvision's networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# The authors' names, as regular expressions, to torchvision's. The names describe one architecture: both
# repositories apply the layers in the same order, with the same channel order wherever tensors are joined.
_PRINCETON_TO_TORCHVISION = [
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"\.(layer\d\.\d)\.conv(\d)\.", r".\1.convnormrelu\2.0."),
    (r"\.(layer\d\.\d)\.norm(\d)\.", r".\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.conv([cf])(\d)\.", r"update_block.motion_encoder.conv\1\2.0."),
    (r"\.motion_encoder\.convc(\d)", r".motion_encoder.convcorr\1"),
    (r"\.motion_encoder\.convf(\d)", r".motion_encoder.convflow\1"),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.gru\.conv([zrq])\.", r"update_block.recurrent_block.convgru1.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
]

_NORM_OF_BLOCK = re.compile(r"^(.*layer\d\.\d)\.norm(\d)\.")


def is_princeton_checkpoint(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict bears the names of princeton-vl/RAFT: ``fnet...``, often after ``module.``."""
    return any(name.removeprefix("module.").startswith("fnet.") for name in state)


def convert_princeton_checkpoint(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a checkpoint of princeton-vl/RAFT, large or small, to torchvision's state dict."""
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {_torchvision_name(name): tensor for name, tensor in plain.items() if not _is_alias(name, plain)}


def _is_alias(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a norm is ``downsample.1`` again: the one numbered past its block's last convolution."""
    match = _NORM_OF_BLOCK.match(name)
    return match is not None and f"{match[1]}.conv{match[2]}.weight" not in state


def _torchvision_name(name: str) -> str:
    for pattern, replacement in _PRINCETON_TO_TORCHVISION:
        name = re.sub(pattern, replacement, name)
    return name
