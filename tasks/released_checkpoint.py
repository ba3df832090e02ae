"""A released GWM checkpoint as one of our models: its sizes, its names, and the backbone that it does not hold.

The authors' file (detectron2's layout) holds the pixel decoder and the query decoder; DINO is frozen and stays outside.
K and all widths are read from the shapes. The number of attention heads leaves no trace in them: it is the released 8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from model.methods import build_method
from model.methods.gwm import Gwm
from model.networks.backbones import DINO_HEADS
from model.networks.dino_vit import HEAD_CHANNELS
from model.networks.maskformer import MaskFormer
from model.networks.released import HEAD_PREFIX, convert_released_head
from model.weights import fit_state_dict
from tasks.backbones import Backbone
from tasks.checkpoint_report import CheckpointReport
from tasks.config import ExperimentConfig, resolve_experiment
from tasks.errors import ConfigError, WeightsError

EXPERIMENT_NAME = "gwm_released"

# A buffer of the matching loss, which the released code builds and never uses; and what its networks never run.
_LEFT_BEHIND = re.compile(r"criterion\.|sem_seg_head\.predictor\.mask_querie_comb\.")


def is_released_checkpoint(state: Mapping[str, Tensor]) -> bool:
    """Whether names are those of a released GWM checkpoint, perhaps inside a data-parallel wrapper."""
    return any(name.removeprefix("module.").startswith(HEAD_PREFIX) for name in state)


def released_experiment(state: Mapping[str, Tensor], source: str) -> ExperimentConfig:
    """Return the experiment whose network a released checkpoint fits, as far as shapes and the released code tell.

    Raises WeightsError when sizes can not be read, or are those of no DINO backbone that is known here.
    """
    plain = _unwrapped(state)
    decoder = "predictor.transformer.decoder.layers."
    num_segments, channels = _shape(plain, "predictor.query_embed.weight", source)
    in_channels = _shape(plain, "pixel_decoder.adapter_1.weight", source)[1]
    feedforward_channels = _shape(plain, f"{decoder}0.linear1.weight", source)[0]
    layers = [re.match(rf"{re.escape(HEAD_PREFIX + decoder)}(\d+)\.", name) for name in plain]
    backbone, width_divisor = _backbone_of(in_channels, source)
    maskformer = {
        "backbone": backbone,
        "width_divisor": width_divisor,
        "channels": channels,
        "feedforward_channels": feedforward_channels,
        "num_decoder_layers": 1 + max(int(layer[1]) for layer in layers if layer),
    }
    try:
        return resolve_experiment(
            {
                "name": EXPERIMENT_NAME,
                "method": {
                    "network": "maskformer",
                    "num_segments": num_segments,
                    "objective": "blended",  # what the released code trains
                    "maskformer": maskformer,
                },
                "data": {"gap_sampling": "released"},
                # Released configuration: TOTAL_ITER 20 000, rate falling to zero at step 160 000.
                "optimisation": {"num_steps": 20_000, "decay_horizon_steps": 160_000},
            }
        )
    except ConfigError as error:
        raise WeightsError(f"{source} has sizes that no MaskFormer here has: {error}") from error


def report_released(
    state: Mapping[str, Tensor], experiment: ExperimentConfig, *, source: str, sha256: str
) -> CheckpointReport:
    """Compare a released checkpoint with the head of ``experiment``'s network.

    Raises WeightsError for a name in the head that the released code does not use.
    """
    plain = _unwrapped(state)
    converted = convert_released_head(plain)
    with torch.device("meta"):  # shapes only
        network = cast(Gwm, build_method(experiment.method)).network
    expected = {name: tensor.shape for name, tensor in network.state_dict().items() if not name.startswith("backbone.")}
    return CheckpointReport(
        source=source,
        kind=f"released GWM head for {experiment.method.maskformer.backbone}, K={experiment.method.num_segments}",
        sha256=sha256,
        matched=tuple(name for name in plain if name.startswith(HEAD_PREFIX) and not _LEFT_BEHIND.match(name)),
        unmatched=tuple(name for name in plain if _LEFT_BEHIND.match(name)),
        unexpected=tuple(name for name in plain if not name.startswith(HEAD_PREFIX) and not _LEFT_BEHIND.match(name)),
        missing=tuple(name for name in expected if name not in converted),
        misshapen=tuple(
            f"{name} is {tuple(converted[name].shape)}, expected {tuple(shape)}"
            for name, shape in expected.items()
            if name in converted and converted[name].shape != shape
        ),
    )


def build_released(state: Mapping[str, Tensor], experiment: ExperimentConfig, backbone: Backbone, source: str) -> Gwm:
    """Build the model of a released checkpoint on a backbone; raises WeightsError when either does not fit."""
    method = cast(Gwm, build_method(experiment.method))
    network = cast(MaskFormer, method.network)
    head = convert_released_head(_unwrapped(state))
    for part in ("pixel_decoder", "query_decoder"):
        inside = {name.removeprefix(f"{part}."): tensor for name, tensor in head.items() if name.startswith(f"{part}.")}
        fit_state_dict(network.get_submodule(part), inside, source)
    method.load_backbone(backbone.state, source=backbone.source)
    return method.eval()


def _backbone_of(in_channels: int, source: str) -> tuple[str, int]:
    """Return the DINO ViT whose keys have ``in_channels``, and what its width is divided by in tiny networks."""
    for divisor in range(1, max(DINO_HEADS.values()) + 1):
        for name, num_heads in DINO_HEADS.items():
            if num_heads % divisor == 0 and HEAD_CHANNELS * num_heads // divisor == in_channels:
                return name, divisor
    widths = ", ".join(f"{HEAD_CHANNELS * num_heads} ({name})" for name, num_heads in DINO_HEADS.items())
    raise WeightsError(f"{source} takes feature maps of {in_channels} channels: expected a DINO ViT's, {widths}")


def _shape(state: Mapping[str, Tensor], name: str, source: str) -> tuple[int, ...]:
    tensor = state.get(HEAD_PREFIX + name)
    if tensor is None or tensor.ndim < 2:
        found = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
        raise WeightsError(f"{source}: {HEAD_PREFIX + name} {found}; the head's sizes are read from it")
    return tuple(tensor.shape)


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
