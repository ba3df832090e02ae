"""Optical flow of PWC-Net and of ARFlow, with the weights of their authors.

A frame's pyramid is computed once, however many pairs the frame is part of. Both networks want sides that are multiples
of 64: frames are resized to such a size, and flow comes back to the frame's own size and pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from model.errors import InputError
from model.networks.pwc_blocks import PYRAMID_STRIDE, enlarge_flow
from model.networks.pwc_checkpoints import convert_arflow_checkpoint, convert_pwc_checkpoint
from model.networks.pwc_lite import OUTPUT_STRIDE, PwcLite
from model.networks.pwc_net import PwcNet
from model.weights import fit_state_dict, load_state_dict, sha256_of

ARFLOW_SIZE = (384, 640)
"""Rows and columns that ARFlow's authors recommend for their KITTI models; for their Sintel models it is 448x1024."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedFrame:
    """What both networks know of one frame.

    levels: feature pyramid, coarse to fine, each (1, c, h, w). size: rows and columns of the frame.
    """

    levels: tuple[Tensor, ...]
    size: tuple[int, int]


class PwcNetEstimator:
    """Optical flow by PWC-Net (Sun et al., CVPR 2018), trained on synthetic scenes with known flow."""

    name = "pwc"

    def __init__(
        self,
        state: Mapping[str, Tensor],
        *,
        source: str = "state dict",
        weights_sha256: str | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Build the network from a state dict in the names of NVlabs/PWC-Net, sniklaus/pytorch-pwc or ours.

        source: where the state came from, named in errors. Raises WeightsError for a state of another network.
        """
        self.weights_sha256 = weights_sha256
        self.device = torch.device(device)
        self._network = PwcNet()
        fit_state_dict(self._network, convert_pwc_checkpoint(state), source)
        self._network.eval().requires_grad_(False).to(self.device)

    @classmethod
    def from_file(cls, path: Path, *, sha256: str | None = None, device: str | torch.device = "cpu") -> PwcNetEstimator:
        """Load weights written by ``torch.save`` or as ``.safetensors``; check their ``sha256`` when one is given."""
        return cls(load_state_dict(path, sha256), source=str(path), weights_sha256=sha256_of(path), device=device)

    @torch.no_grad()
    def encode(self, frame: UInt8[Tensor, "3 H W"]) -> EncodedFrame:
        """Run the pyramid on an RGB frame in 0..255, enlarged to the next multiples of 64 (both ports)."""
        height, width = frame.shape[-2:]
        image = frame[None].flip(1).to(self.device, torch.float32) / 255  # BGR, as Caffe had it (both ports)
        enlarged = [side + -side % PYRAMID_STRIDE for side in (height, width)]
        image = F.interpolate(image, enlarged, mode="bilinear", align_corners=False)
        return EncodedFrame(levels=tuple(self._network.encode(image)), size=(height, width))

    @torch.no_grad()
    def flow(self, pairs: Sequence[tuple[object, object]]) -> Float[Tensor, "n 2 H W"]:
        """Return displacements in pixels from the first to the second encoded frame of each pair, on the CPU."""
        return torch.cat([self._flow_of_pair(*_checked_pair(first, second)).cpu() for first, second in pairs])

    def _flow_of_pair(self, first: EncodedFrame, second: EncodedFrame) -> Float[Tensor, "1 2 H W"]:
        return _resized_to_frame(self._network(first.levels, second.levels), first, align_corners=False)


class ArflowEstimator:
    """Optical flow by ARFlow's network for two frames (Liu et al., CVPR 2020), trained without labels."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        *,
        size: tuple[int, int] = ARFLOW_SIZE,
        source: str = "state dict",
        weights_sha256: str | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Build the network from a state dict in the names of lliuz/ARFlow or ours.

        size: rows and columns that the network sees. source: where the state came from, named in errors. Raises
        InputError unless both sides are multiples of 64, and WeightsError for a state of another network.
        """
        if min(size) < PYRAMID_STRIDE or any(side % PYRAMID_STRIDE for side in size):
            raise InputError(
                f"ArflowEstimator(size={size}): expected rows and columns in multiples of {PYRAMID_STRIDE}, "
                f"such as {ARFLOW_SIZE}"
            )
        self.name = "arflow" if size == ARFLOW_SIZE else f"arflow-{size[0]}x{size[1]}"
        self.weights_sha256 = weights_sha256
        self.size = size
        self.device = torch.device(device)
        self._network = PwcLite()
        fit_state_dict(self._network, convert_arflow_checkpoint(state), source)
        self._network.eval().requires_grad_(False).to(self.device)

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        size: tuple[int, int] = ARFLOW_SIZE,
        sha256: str | None = None,
        device: str | torch.device = "cpu",
    ) -> ArflowEstimator:
        """Load weights written by ``torch.save`` or as ``.safetensors``; check their ``sha256`` when one is given."""
        state = load_state_dict(path, sha256)
        return cls(state, size=size, source=str(path), weights_sha256=sha256_of(path), device=device)

    @torch.no_grad()
    def encode(self, frame: UInt8[Tensor, "3 H W"]) -> EncodedFrame:
        """Run the pyramid on an RGB frame in 0..255, resized to ``size`` whatever its proportions (released code)."""
        image = frame[None].to(self.device, torch.float32) / 255
        # averages what it shrinks, as the authors' scikit-image does, though with another kernel
        image = F.interpolate(image, self.size, mode="bilinear", align_corners=False, antialias=True)
        return EncodedFrame(levels=tuple(self._network.encode(image)), size=(frame.shape[-2], frame.shape[-1]))

    @torch.no_grad()
    def flow(self, pairs: Sequence[tuple[object, object]]) -> Float[Tensor, "n 2 H W"]:
        """Return displacements in pixels from the first to the second encoded frame of each pair, on the CPU."""
        return torch.cat([self._flow_of_pair(*_checked_pair(first, second)).cpu() for first, second in pairs])

    def _flow_of_pair(self, first: EncodedFrame, second: EncodedFrame) -> Float[Tensor, "1 2 H W"]:
        finest = self._network(first.levels, second.levels)[-1]
        return _resized_to_frame(enlarge_flow(finest, OUTPUT_STRIDE), first, align_corners=True)


def _checked_pair(first: object, second: object) -> tuple[EncodedFrame, EncodedFrame]:
    if not isinstance(first, EncodedFrame) or not isinstance(second, EncodedFrame):
        raise InputError(f"got a pair of {type(first).__name__}, {type(second).__name__}: expected results of encode()")
    if first.size != second.size:
        raise InputError(f"got a pair of frames of {first.size} and {second.size}: expected frames of one size")
    return first, second


def _resized_to_frame(
    flow: Float[Tensor, "1 2 h w"], frame: EncodedFrame, *, align_corners: bool
) -> Float[Tensor, "1 2 H W"]:
    """Bring a flow in pixels of the network's input, on any grid, to the frame's grid and pixels."""
    height, width = frame.size
    network_height, network_width = (PYRAMID_STRIDE * side for side in frame.levels[0].shape[-2:])
    resized = F.interpolate(flow, frame.size, mode="bilinear", align_corners=align_corners)
    per_axis = resized.new_tensor([width / network_width, height / network_height])
    return resized * per_axis[:, None, None]
