"""RAFT optical flow on torchvision's architecture, with torchvision's or the authors' weights.

Both encoders run once per frame instead of once per pair; ``model/raft_network.py`` says what else is done once. In
float32 the result is torchvision's within 1e-4 px. ``bf16=True`` is another estimator, with another name.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor
from torchvision.models.optical_flow import raft_large, raft_small

from model.errors import InputError
from model.raft_checkpoints import convert_princeton_checkpoint, is_princeton_checkpoint
from model.raft_correlation import volume_bytes
from model.raft_network import FACTOR, Context, RaftNetwork
from model.weights import fit_state_dict, load_state_dict, sha256_of

VARIANTS = {"raft-large": raft_large, "raft-small": raft_small}

DEFAULT_UPDATES = 12  # torchvision's and the authors' default in training; GWM and MG computed their flows with 20
# Four pyramid levels halve the features three times and must keep two values to interpolate between:
# 8 * 2 * 2^3 = 128 px after padding to a multiple of 8.
MIN_SIDE_PX = 121

GPU_BATCH_BYTES = 2 << 30
"""Correlation volumes that a GPU works on at once: nine pairs at 480x854, one at 1080p. Not tuned on any GPU."""


@dataclass(kw_only=True, eq=False)
class EncodedFrame:
    """A frame as the network knows it.

    features: what is correlated. context: what pairs need that start here, made of ``image`` (padded, -1..1) when the
    first of them comes. padding: (left, right, top, bottom) in pixels, added before encoding.
    """

    features: tuple[Float[Tensor, "1 c _ _"], ...]
    image: Float[Tensor, "1 3 Hp Wp"] | None
    padding: tuple[int, int, int, int]
    context: Context | None = None


class RaftEstimator:
    """Optical flow by recurrent all-pairs field transforms (Teed and Deng, ECCV 2020).

    Holds a network on ``device``. Calls of ``flow`` from several threads take turns, since the correlation pyramid is
    built in memory that is kept from call to call; threads that shall work at once need an estimator each.
    """

    def __init__(
        self,
        variant: str,
        state: Mapping[str, Tensor],
        *,
        source: str = "state dict",
        weights_sha256: str | None = None,
        num_updates: int = DEFAULT_UPDATES,
        bf16: bool = False,
        batch_bytes: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Build ``variant`` from a state dict in torchvision's or the authors' names.

        source: where the state came from, named in errors. bf16: weights and activations in bfloat16, correlation and
        positions in float32. batch_bytes: correlation volumes to work on at once; None takes GPU_BATCH_BYTES on a
        GPU and goes pair by pair on a CPU, where a batch is slower. Raises InputError for an unknown variant and
        WeightsError for a state of another network.
        """
        if variant not in VARIANTS:
            raise InputError(f"RaftEstimator(variant={variant!r}): expected one of {', '.join(VARIANTS)}")
        if num_updates < 1:
            raise InputError(f"RaftEstimator(num_updates={num_updates}): expected at least 1; the usual are 12 and 20")
        if is_princeton_checkpoint(state):
            state = convert_princeton_checkpoint(state)
        updates = "" if num_updates == DEFAULT_UPDATES else f"-{num_updates}"
        self.name = f"{variant}{updates}{'-bf16' if bf16 else ''}"
        self.weights_sha256 = weights_sha256
        self.num_updates = num_updates
        self.device = torch.device(device)
        trained = VARIANTS[variant](weights=None)
        fit_state_dict(trained, state, source)
        self._network = RaftNetwork(trained, torch.bfloat16 if bf16 else torch.float32).to(self.device)
        on_cpu = self.device.type == "cpu"
        self._batch_bytes = batch_bytes if batch_bytes is not None else (0 if on_cpu else GPU_BATCH_BYTES)
        self._turn = threading.Lock()

    @classmethod
    def from_file(
        cls,
        variant: str,
        path: Path,
        *,
        sha256: str | None = None,
        num_updates: int = DEFAULT_UPDATES,
        bf16: bool = False,
        device: str | torch.device = "cpu",
    ) -> RaftEstimator:
        """Load weights from a ``.pth`` or ``.safetensors`` file; check its ``sha256`` when one is given."""
        return cls(
            variant,
            load_state_dict(path, sha256),
            source=str(path),
            weights_sha256=sha256_of(path),
            num_updates=num_updates,
            bf16=bf16,
            device=device,
        )

    @torch.no_grad()
    def encode(self, frame: Real[Tensor, "3 H W"]) -> EncodedFrame:
        """Extract features of an RGB frame in 0..255; raise InputError for a side under 121 px."""
        _check_size(frame.shape[-2], frame.shape[-1])
        padding = padding_to_multiple(frame.shape[-2], frame.shape[-1], FACTOR)
        pixels = self._uploaded(frame[None])
        image = 2 * (pixels.float() / 255) - 1  # the order of the authors, to the last bit
        image = F.pad(image, padding, mode="replicate")
        with self._full_float32():
            return EncodedFrame(features=self._network.features(image), image=image, padding=padding)

    @torch.no_grad()
    def flow(self, pairs: Sequence[tuple[object, object]]) -> Float[Tensor, "n 2 H W"]:
        """Return displacements in pixels from the first to the second encoded frame of each pair, on the CPU."""
        checked = [_checked_pair(first, second) for first, second in pairs]
        size = max(1, self._batch_bytes // volume_bytes(checked[0][0].features))
        batches = [checked[start : start + size] for start in range(0, len(checked), size)]
        with self._turn, self._full_float32():
            return torch.cat([self._downloaded(self._flow_of_batch(batch)) for batch in batches])

    def _flow_of_batch(self, pairs: Sequence[tuple[EncodedFrame, EncodedFrame]]) -> Float[Tensor, "n 2 H W"]:
        first, second = ([frame.features for frame in frames] for frames in zip(*pairs, strict=True))
        contexts = [self._context_of(frame) for frame, _ in pairs]
        return crop_padding(self._network(first, second, contexts, self.num_updates), pairs[0][0].padding)

    def _context_of(self, frame: EncodedFrame) -> Context:
        if frame.context is None:
            assert frame.image is not None
            frame.context, frame.image = self._network.context(frame.image), None
        return frame.context

    def _uploaded(self, frame: Real[Tensor, "1 3 H W"]) -> Real[Tensor, "1 3 H W"]:
        """Move a frame to the device; from pinned memory a GPU fetches it while this thread goes on."""
        return frame.pin_memory().to(self.device, non_blocking=True) if self._on_gpu else frame.to(self.device)

    def _downloaded(self, flow: Float[Tensor, "n 2 H W"]) -> Float[Tensor, "n 2 H W"]:
        """Move optical flow to the CPU; from a GPU through pinned memory, without a copy by the driver in between."""
        if not self._on_gpu:
            return flow.cpu()
        received = torch.empty(flow.shape, pin_memory=True)
        received.copy_(flow, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return received

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def _full_float32(self) -> AbstractContextManager[None]:
        """Keep a GPU's convolutions from rounding float32 to the 10 bits of TF32, which torch does by default."""
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if self._on_gpu else nullcontext()


def _checked_pair(first: object, second: object) -> tuple[EncodedFrame, EncodedFrame]:
    if not isinstance(first, EncodedFrame) or not isinstance(second, EncodedFrame):
        raise InputError(f"got a pair of {type(first).__name__}, {type(second).__name__}: expected results of encode()")
    shapes = [tuple(frame.features[0].shape) for frame in (first, second)]
    if shapes[0] != shapes[1] or first.padding != second.padding:
        raise InputError(
            f"got a pair with features of {shapes[0]} and {shapes[1]}, padded by {first.padding} and "
            f"{second.padding} px: expected frames of one size"
        )
    return first, second


def _check_size(height: int, width: int) -> None:
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
