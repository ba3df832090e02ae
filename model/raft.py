"""RAFT optical flow on torchvision's architecture, with torchvision's or the authors' weights.

The encoders run once per frame instead of once per pair, and only the last update is upsampled: the same
numbers as the authors' code for a fraction of its work when a frame is part of several pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor
from torchvision.models.optical_flow import RAFT, raft_large, raft_small
from torchvision.models.optical_flow._utils import make_coords_grid, upsample_flow

from model.errors import InputError
from model.weights import fit_state_dict, load_state_dict, sha256_of

VARIANTS = {"raft-large": raft_large, "raft-small": raft_small}

DEFAULT_UPDATES = 12  # torchvision's and the authors' default in training; GWM and MG computed their flows with 20
DOWNSAMPLING = 8  # of both encoders
# Four pyramid levels halve the features three times and must keep two values to interpolate between:
# 8 * 2 * 2^3 = 128 px after padding to a multiple of 8.
MIN_SIDE_PX = 121


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedFrame:
    """What RAFT knows of one frame: image features to correlate, and the context that steers the updates.

    padding: (left, right, top, bottom) in pixels, added around the frame before encoding.
    """

    features: Float[Tensor, "1 c h w"]
    context: Float[Tensor, "1 d h w"]
    padding: tuple[int, int, int, int]


class RaftEstimator:
    """Optical flow by recurrent all-pairs field transforms (Teed and Deng, ECCV 2020).

    Holds a network on ``device`` in eval mode. One estimator serves one thread at a time: torchvision's
    correlation block keeps its pyramid between calls.
    """

    def __init__(
        self,
        variant: str,
        state: Mapping[str, Tensor],
        *,
        source: str = "state dict",
        weights_sha256: str | None = None,
        num_updates: int = DEFAULT_UPDATES,
        device: str | torch.device = "cpu",
    ) -> None:
        """Build ``variant`` from a state dict in torchvision's or the authors' names.

        source: where the state came from, named in errors. Raises InputError for an unknown variant and
        WeightsError for a state of another network.
        """
        if variant not in VARIANTS:
            raise InputError(f"RaftEstimator(variant={variant!r}): expected one of {', '.join(VARIANTS)}")
        if num_updates < 1:
            raise InputError(f"RaftEstimator(num_updates={num_updates}): expected at least 1; the usual are 12 and 20")
        if is_princeton_checkpoint(state):
            state = convert_princeton_checkpoint(state)
        self.name = variant if num_updates == DEFAULT_UPDATES else f"{variant}-{num_updates}"
        self.weights_sha256 = weights_sha256
        self.num_updates = num_updates
        self.device = torch.device(device)
        self._network: RAFT = VARIANTS[variant](weights=None)
        fit_state_dict(self._network, state, source)
        self._network.eval().requires_grad_(False).to(self.device)

    @classmethod
    def from_file(
        cls,
        variant: str,
        path: Path,
        *,
        sha256: str | None = None,
        num_updates: int = DEFAULT_UPDATES,
        device: str | torch.device = "cpu",
    ) -> RaftEstimator:
        """Load weights from a ``.pth`` or ``.safetensors`` file; check its ``sha256`` when one is given."""
        state = load_state_dict(path, sha256)
        return cls(
            variant,
            state,
            source=str(path),
            weights_sha256=sha256_of(path),
            num_updates=num_updates,
            device=device,
        )

    @torch.no_grad()
    def encode(self, frame: Real[Tensor, "3 H W"]) -> EncodedFrame:
        """Run both encoders on an RGB frame in 0..255; raise InputError for a side under 121 px."""
        padding = padding_to_multiple(frame.shape[-2], frame.shape[-1], DOWNSAMPLING)
        self._check_size(frame.shape[-2], frame.shape[-1])
        image = 2 * (frame[None].to(self.device, torch.float32) / 255) - 1  # the order of the authors, to the last bit
        image = F.pad(image, padding, mode="replicate")
        return EncodedFrame(
            features=self._network.feature_encoder(image),
            context=self._network.context_encoder(image),
            padding=padding,
        )

    @torch.no_grad()
    def flow(self, pairs: Sequence[tuple[object, object]]) -> Float[Tensor, "n 2 H W"]:
        """Return displacements in pixels from the first to the second encoded frame of each pair, on the CPU.

        Pairs run one by one: a batch of correlation volumes (220 MB a pair at 480x854) is slower on a CPU.
        """
        return torch.cat([self._flow_of_pair(first, second).cpu() for first, second in pairs])

    def _flow_of_pair(self, first: object, second: object) -> Float[Tensor, "1 2 H W"]:
        if not isinstance(first, EncodedFrame) or not isinstance(second, EncodedFrame):
            raise InputError(
                f"got a pair of {type(first).__name__}, {type(second).__name__}: expected results of encode()"
            )
        if first.features.shape != second.features.shape or first.padding != second.padding:
            raise InputError(
                f"got a pair with features of {tuple(first.features.shape)} and "
                f"{tuple(second.features.shape)}: expected frames of one size"
            )
        coarse, hidden = self._update(first, second)
        predictor = self._network.mask_predictor  # None in raft-small, which upsamples bilinearly
        padded = upsample_flow(coarse, up_mask=None if predictor is None else predictor(hidden))
        return crop_padding(padded, first.padding)

    def _update(
        self, first: EncodedFrame, second: EncodedFrame
    ) -> tuple[Float[Tensor, "1 2 h w"], Float[Tensor, "1 d h w"]]:
        """Return the coarse flow, in units of 8 px, and the hidden state after the last update."""
        network, width = self._network, self._network.update_block.hidden_state_size
        # One output of the context encoder starts the recurrent unit and feeds it (paper, section 3.3).
        hidden, context = first.context[:, :width].tanh(), first.context[:, width:].relu()
        network.corr_block.build_pyramid(first.features, second.features)
        start = make_coords_grid(1, *first.features.shape[-2:], device=str(self.device))
        position = start
        for _ in range(self.num_updates):
            correlation = network.corr_block.index_pyramid(centroids_coords=position)
            hidden, step = network.update_block(hidden, context, correlation, position - start)
            position = position + step
        return position - start, hidden

    def _check_size(self, height: int, width: int) -> None:
        if min(height, width) < MIN_SIDE_PX:
            raise InputError(
                f"frame of {height}x{width} (rows x columns) is too small for RAFT: features are 8 times "
                f"smaller and halved three more times, so each side needs at least {MIN_SIDE_PX} px; enlarge "
                "the footage or use the estimator 'dis'"
            )


def padding_to_multiple(height: int, width: int, multiple: int) -> tuple[int, int, int, int]:
    """Return centred padding (left, right, top, bottom) to the next multiple, odd pixels right and below."""
    rows, columns = -height % multiple, -width % multiple
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def crop_padding(padded: Float[Tensor, "n c Hp Wp"], padding: tuple[int, int, int, int]) -> Float[Tensor, "n c H W"]:
    """Cut off what ``padding`` (left, right, top, bottom) added."""
    left, right, top, bottom = padding
    return padded[..., top : padded.shape[-2] - bottom, left : padded.shape[-1] - right]


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
