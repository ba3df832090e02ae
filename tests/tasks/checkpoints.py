"""Checkpoints as others publish them, in their names and wrappers, with small random networks inside."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from model.networks.dino_vit import DinoKeys

State = dict[str, Tensor]


def dino_state(num_blocks: int = 2) -> State:
    """A DINO ViT under its plain names; one head of 64 channels, the smallest that the project takes."""
    vit = DinoKeys(channels=64, num_blocks=num_blocks, num_heads=1).vit
    return {name: torch.randn_like(tensor) for name, tensor in vit.state_dict().items()}


def dino_full(plain: State) -> State:
    """The same as DINO's training stores a network: the backbone beside its projection head."""
    head = {"head.mlp.0.weight": torch.randn(4, 64), "head.last_layer.weight_g": torch.randn(4, 1)}
    return {f"backbone.{name}": tensor for name, tensor in plain.items()} | head


def small_swin() -> SwinTransformer:
    return SwinTransformer(
        img_size=32, patch_size=4, window_size=4, embed_dim=8, depths=(2, 2), num_heads=(2, 4), num_classes=3
    )


def microsoft_swin(network: SwinTransformer) -> State:
    """The state of timm's network in the names of Swin's authors, with the buffers that they store."""
    names = {
        name: re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample", name)
        for name in network.state_dict()
    }
    state = {names[name].replace("head.fc.", "head."): tensor for name, tensor in network.state_dict().items()}
    positions = network.layers[0].blocks[0].attn.relative_position_index
    return state | {
        "layers.0.blocks.0.attn.relative_position_index": positions,
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16),
    }


def moby(swin: State) -> State:
    """What MoBY trains around a Swin: the momentum encoder, projectors, and queues of negatives."""
    encoder = {name: tensor for name, tensor in swin.items() if not name.startswith("head.")}
    return {
        **{f"encoder.{name}": tensor for name, tensor in encoder.items()},
        **{f"encoder_k.{name}": tensor + 1 for name, tensor in encoder.items()},
        "projector.linear_out.weight": torch.zeros(2, 2),
        "queue1": torch.zeros(2, 4),
        "queue_ptr": torch.zeros(1, dtype=torch.long),
    }


def released_head(golden: Path) -> State:
    """The recorded released head, its inputs widened from 48 channels to the 64 of the smallest DINO.

    The added input channels repeat the first ones, so that maps that are zero there give what was recorded.
    """
    with np.load(golden) as recorded:
        names = [name for name in recorded.files if name.startswith("state.")]
        state = {name.removeprefix("state."): torch.from_numpy(recorded[name]) for name in names}
    return {
        name: torch.cat([tensor, tensor[:, :16]], dim=1) if tensor.ndim == 4 and tensor.shape[1] == 48 else tensor
        for name, tensor in state.items()
    }
